//! `Cache-Status` (RFC 9211).

/// What the cache did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Answered from the store; fresh for so many seconds more.
    Hit {
        /// Seconds.
        ttl_s: u64,
    },
    /// Nothing was stored.
    Miss {
        /// Whether the answer was stored.
        stored: bool,
    },
    /// What was stored is not fresh any more.
    Stale {
        /// Whether the answer was stored.
        stored: bool,
    },
    /// The request asked not to be answered from the store.
    Request,
    /// This method is never answered from the store.
    Method,
    /// The site or route is not cached.
    Bypass,
}

impl Status {
    /// The field's value.
    pub fn value(self) -> String {
        let stored = |stored| if stored { "; stored" } else { "" };
        match self {
            Self::Hit { ttl_s } => format!("Bastide; hit; ttl={ttl_s}"),
            Self::Miss { stored: was } => format!("Bastide; fwd=uri-miss{}", stored(was)),
            Self::Stale { stored: was } => format!("Bastide; fwd=stale{}", stored(was)),
            Self::Request => "Bastide; fwd=request".into(),
            Self::Method => "Bastide; fwd=method".into(),
            Self::Bypass => "Bastide; fwd=bypass".into(),
        }
    }
}
