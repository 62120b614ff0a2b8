//! `Cache-Status` (RFC 9211).

use crate::why::Because;
use std::fmt::Write;

/// Why a request went forward; the most specific word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The cache was told to keep out.
    Bypass,
    /// The method.
    Method,
    /// Nothing is stored under this address.
    UriMiss,
    /// Nothing that is stored under this address is for such requests.
    VaryMiss,
    /// The request asks for it.
    Request,
    /// What is stored may not be used without asking.
    Stale,
    /// Not all bytes are stored.
    Partial,
}

impl Forward {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// What the cache did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// Why it went forward; a hit did not.
    pub forward: Option<Forward>,
    /// Status that the next hop answered with, where it is not the one that the client sees.
    pub forward_status: Option<u16>,
    /// Seconds for which the answer is fresh; negative since when it is stale.
    pub ttl_s: Option<i64>,
    /// The answer was stored.
    pub stored: bool,
    /// The request was answered together with another one that went forward.
    pub collapsed: bool,
    /// The ground of the decision, for those who may see it.
    pub because: Option<Because>,
}

impl Status {
    /// A hit.
    pub fn hit(ttl_s: i64) -> Self {
        Self { ttl_s: Some(ttl_s), ..Self::default() }
    }

    /// A request that goes forward.
    pub fn forward(forward: Forward) -> Self {
        Self { forward: Some(forward), ..Self::default() }
    }

    /// Whether the request was answered from the store.
    pub fn is_hit(self) -> bool {
        self.forward.is_none()
    }

    /// Our member of the field.
    pub fn value(self) -> String {
        let mut text = String::with_capacity(48);
        text.push_str("Bastide");
        match self.forward {
            None => text.push_str("; hit"),
            Some(forward) => {
                text.push_str("; fwd=");
                text.push_str(forward.word());
            }
        }
        // Writing to a String cannot fail.
        if let Some(status) = self.forward_status {
            let _ = write!(text, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl_s {
            let _ = write!(text, "; ttl={ttl}");
        }
        for (is, word) in [(self.stored, "; stored"), (self.collapsed, "; collapsed")] {
            if is {
                text.push_str(word);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_member_with_parameters() {
        let check = |status: Status, expected| assert_eq!(status.value(), expected);
        check(Status::hit(376), "Bastide; hit; ttl=376");
        check(Status::hit(-4), "Bastide; hit; ttl=-4");
        check(
            Status { forward_status: Some(304), stored: true, ..Status::forward(Forward::Stale) },
            "Bastide; fwd=stale; fwd-status=304; stored",
        );
        check(
            Status { collapsed: true, ..Status::forward(Forward::UriMiss) },
            "Bastide; fwd=uri-miss; collapsed",
        );
    }
}
