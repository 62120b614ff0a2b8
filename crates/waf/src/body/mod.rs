//! Request bodies, read as what they say they are, within limits. What is found goes straight to where
//! rules look for it.

pub(crate) mod coding;
mod json;
mod multipart;
pub(crate) mod urlencoded;
mod xml;

use crate::{
    evaluate::State,
    variable::{Collection, Flag},
};

/// How much of a body is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// What stands between arguments.
    pub(crate) separator: u8,
    /// Arguments, parts, attributes; a body with more is not read to its end, and cannot pass.
    pub(crate) arguments_max: usize,
    /// Nesting of JSON.
    pub(crate) json_depth_max: usize,
    /// Whether the content of files is kept.
    pub(crate) keep_files: bool,
}

/// Who is told what a body holds.
pub(crate) trait Sink {
    fn add(&mut self, collection: Collection, name: &[u8], value: &[u8]);
    fn raise(&mut self, flag: Flag);
    /// The body cannot be read, or not in one way only.
    fn fail(&mut self, why: &str);
}

impl Sink for State {
    fn add(&mut self, collection: Collection, name: &[u8], value: &[u8]) {
        Self::add(self, collection, name, value);
    }
    fn raise(&mut self, flag: Flag) {
        self.data.raise(flag);
    }
    fn fail(&mut self, why: &str) {
        self.fail_body(why);
    }
}

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
        let kind = content_type.split(|b| matches!(b, b';' | b',')).next().unwrap_or_default();
        let kind = kind.trim_ascii().to_ascii_lowercase();
        match kind.as_slice() {
            b"application/x-www-form-urlencoded" => Some(Self::UrlEncoded),
            b"multipart/form-data" => Some(Self::Multipart),
            b"application/json" | b"application/csp-report" | b"application/reports+json" => Some(Self::Json),
            b"application/xml" | b"text/xml" => Some(Self::Xml),
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

/// Reads a body. Of one that is not complete, the end is not missed.
pub(crate) fn parse(
    kind: Kind,
    content_type: &[u8],
    bytes: &[u8],
    complete: bool,
    limits: &Limits,
    sink: &mut dyn Sink,
) {
    match kind {
        Kind::UrlEncoded => {
            let most = limits.arguments_max;
            let outcome = urlencoded::parse(bytes, limits.separator, most, &mut |name, value| {
                sink.add(Collection::ArgsPost, name, value);
            });
            if outcome.is_cut {
                sink.fail("too many arguments");
            }
            if outcome.is_invalid {
                sink.raise(Flag::UrlEncoded);
            }
        }
        Kind::Multipart => multipart::parse(content_type, bytes, complete, limits, sink),
        Kind::Json => json::parse(bytes, complete, limits, sink),
        Kind::Xml => xml::parse(bytes, complete, limits, sink),
    }
}

/// Keeps what is found, for tests of the readers.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) found: Vec<(Collection, String, String)>,
    pub(crate) flags: Vec<Flag>,
    pub(crate) fault: Option<String>,
}

#[cfg(test)]
impl Sink for Kept {
    fn add(&mut self, collection: Collection, name: &[u8], value: &[u8]) {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.found.push((collection, shown(name), shown(value)));
    }
    fn raise(&mut self, flag: Flag) {
        if !self.flags.contains(&flag) {
            self.flags.push(flag);
        }
    }
    fn fail(&mut self, why: &str) {
        self.fault.get_or_insert(why.to_owned());
    }
}

#[cfg(test)]
pub(crate) const TEST_LIMITS: Limits =
    Limits { separator: b'&', arguments_max: 50, json_depth_max: 8, keep_files: true };
