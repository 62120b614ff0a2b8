//! Request bodies, read as what they say they are, within limits.

mod json;
mod multipart;
pub(crate) mod urlencoded;
mod xml;

use crate::data::Flags;

/// A name and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// Arguments of one body that are kept.
pub(crate) const ARGUMENTS_MAX: usize = 10_000;

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    UrlEncoded,
    Multipart,
    Json,
    Xml,
}

impl Kind {
    /// By the request's content type, as the common base configuration does.
    pub(crate) fn of(content_type: &[u8]) -> Option<Self> {
        let kind =
            content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        match kind.as_slice() {
            b"application/x-www-form-urlencoded" => Some(Self::UrlEncoded),
            b"multipart/form-data" => Some(Self::Multipart),
            b"application/json" | b"application/problem+json" | b"application/csp-report" => Some(Self::Json),
            b"application/xml" | b"text/xml" | b"application/soap+xml" => Some(Self::Xml),
            other if other.ends_with(b"+json") => Some(Self::Json),
            other if other.ends_with(b"+xml") => Some(Self::Xml),
            _ => None,
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "URLENCODED" => Some(Self::UrlEncoded),
            "MULTIPART" => Some(Self::Multipart),
            "JSON" => Some(Self::Json),
            "XML" => Some(Self::Xml),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UrlEncoded => "URLENCODED",
            Self::Multipart => "MULTIPART",
            Self::Json => "JSON",
            Self::Xml => "XML",
        }
    }
}

/// What a body holds.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) arguments: Vec<Pair>,
    pub(crate) files: Vec<Pair>,
    pub(crate) sizes: Vec<Pair>,
    pub(crate) part_headers: Vec<Pair>,
    pub(crate) xml_text: Vec<Pair>,
    pub(crate) xml_attributes: Vec<Pair>,
    pub(crate) flags: Flags,
}

impl Parsed {
    fn fail(&mut self, why: impl Into<String>) {
        self.flags.body_error = true;
        self.flags.body_error_message = why.into();
    }
}

/// Reads a body. Of one that is not complete, the end is not missed.
pub(crate) fn parse(
    kind: Kind,
    content_type: &[u8],
    bytes: &[u8],
    complete: bool,
    json_depth_max: usize,
) -> Parsed {
    match kind {
        Kind::UrlEncoded => {
            let (arguments, cut) = urlencoded::parse(bytes, ARGUMENTS_MAX);
            let mut parsed = Parsed { arguments, ..Parsed::default() };
            if cut {
                parsed.fail("too many arguments");
            }
            parsed
        }
        Kind::Multipart => multipart::parse(content_type, bytes, complete),
        Kind::Json => json::parse(bytes, complete, json_depth_max),
        Kind::Xml => xml::parse(bytes, complete),
    }
}
