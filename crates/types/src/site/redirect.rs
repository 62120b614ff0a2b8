//! One redirect, written by a customer: from where, to where.
//!
//! A target is fixed when it is written. Of a request only the rest of its path and its query are carried over, and
//! neither can change the host: nobody outside can choose where a redirect leads.

use super::SiteFault;
use crate::canonical::canonical;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use url::Url;

/// Longest path to redirect from, in bytes.
const FROM_BYTES_MAX: usize = 1024;
/// Longest target, in bytes.
const TO_BYTES_MAX: usize = 2048;
/// Paths that belong to Bastide on every host.
const OURS: [&str; 2] = ["/.bastide", "/.well-known/acme-challenge"];

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Redirect {
    /// On this host only; on all hosts of the stage without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// From where.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub from: FromPath,
    /// To where.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub to: Target,
    /// With which status.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(value_type = u16))]
    pub status: RedirectStatus,
    /// What becomes of the query.
    #[serde(default, skip_serializing_if = "Query::is_keep")]
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub query: Query,
}

/// One path (`/old`), or one and everything below it (`/old/*`), in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum FromPath {
    /// This path.
    Exact(String),
    /// This path, without a slash at its end, and all below; all paths when it is empty.
    Below(String),
}

/// A path of the same host (`/new`), or an address (`https://example.com/new`); with `/*` at its end the rest of the
/// path follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    /// `https://host:port` without the port when it is 443; the host that was asked without.
    pub(super) origin: Option<String>,
    pub(super) base: String,
    pub(super) below: bool,
    pub(super) query: Option<String>,
}

/// Status of a redirect (RFC 9110 §15.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct RedirectStatus(u16);

/// What becomes of the query of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Query {
    /// It goes along.
    #[default]
    Keep,
    /// It does not.
    Drop,
}

/// Why a text is no path or target of a redirect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// Too long.
    #[error("it is longer than {0} bytes")]
    Length(usize),
    /// Not a path.
    #[error("a path begins with one slash, such as /old or /old/*")]
    Path,
    /// A path that can be read in two ways.
    #[error("the path has no one meaning ({0})")]
    Ambiguous(#[from] crate::canonical::PathFault),
    /// A star elsewhere.
    #[error("`*` stands only at the end of a path, after a slash")]
    Star,
    /// Query or fragment where there is none.
    #[error("{0}")]
    Extra(&'static str),
    /// An address that nobody is sent to.
    #[error(
        "a target is a path such as /new, or an address such as https://example.com/new, without user name"
    )]
    Address,
    /// Ours.
    #[error("paths below `{0}` belong to Bastide")]
    Ours(&'static str),
    /// Another status.
    #[error("a redirect is 301, 302, 307 or 308")]
    Status,
}

/// Whether a canonical path belongs to Bastide on every host.
pub(super) fn is_ours(path: &str) -> Option<&'static str> {
    OURS.into_iter()
        .find(|ours| path.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Path without its star, and whether it had one.
fn pattern(path: &str) -> Result<(String, bool), RedirectError> {
    if !path.starts_with('/') || path.starts_with("//") {
        return Err(RedirectError::Path);
    }
    let (base, below) = path.strip_suffix("/*").map_or((path, false), |base| (base, true));
    if base.contains('*') {
        return Err(RedirectError::Star);
    }
    if base.is_empty() {
        return Ok((String::new(), below));
    }
    let base = canonical(base)?;
    Ok((if below { base.trim_end_matches('/').to_owned() } else { base }, below))
}

impl FromStr for FromPath {
    type Err = RedirectError;

    fn from_str(text: &str) -> Result<Self, RedirectError> {
        if text.len() > FROM_BYTES_MAX {
            return Err(RedirectError::Length(FROM_BYTES_MAX));
        }
        if text.contains(['?', '#']) {
            return Err(RedirectError::Extra("a redirect is from a path, whatever its query is"));
        }
        let (base, below) = pattern(text)?;
        if let Some(ours) = is_ours(&base) {
            return Err(RedirectError::Ours(ours));
        }
        short(if below { Self::Below(base) } else { Self::Exact(base) }, FROM_BYTES_MAX)
    }
}

impl fmt::Display for FromPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Below(base) => write!(f, "{base}/*"),
        }
    }
}

impl FromStr for Target {
    type Err = RedirectError;

    fn from_str(text: &str) -> Result<Self, RedirectError> {
        if text.len() > TO_BYTES_MAX {
            return Err(RedirectError::Length(TO_BYTES_MAX));
        }
        if text.contains('#') {
            return Err(RedirectError::Extra("a target has no `#`: clients keep the one they have"));
        }
        // What browsers take for other signs, or leave out, means nothing here.
        if text.contains('\\') || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(RedirectError::Address);
        }
        let (origin, rest) = if text.starts_with('/') {
            (None, text.to_owned())
        } else {
            let (origin, rest) = address(text)?;
            (Some(origin), rest)
        };
        let (path, query) = rest.split_once('?').map_or((&*rest, None), |(path, query)| (path, Some(query)));
        if query.is_some_and(|query| !is_query(query)) {
            return Err(RedirectError::Extra("a query is written in ASCII, other characters as %XX"));
        }
        let (base, below) = pattern(path)?;
        short(Self { origin, base, below, query: query.map(str::to_owned) }, TO_BYTES_MAX)
    }
}

/// What is kept is no longer than what may be said: it is read again, and encoding makes it longer.
fn short<T: fmt::Display>(read: T, most: usize) -> Result<T, RedirectError> {
    if read.to_string().len() > most { Err(RedirectError::Length(most)) } else { Ok(read) }
}

/// Origin, and path with query, of an address.
fn address(text: &str) -> Result<(String, String), RedirectError> {
    if !text.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        return Err(RedirectError::Address);
    }
    let url = Url::parse(text).map_err(|_| RedirectError::Address)?;
    let named = url.host_str().is_some_and(|host| !host.contains('*'));
    if !named || !url.username().is_empty() || url.password().is_some() {
        return Err(RedirectError::Address);
    }
    let path = url.path();
    let rest = url.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    Ok((url.origin().ascii_serialization(), rest))
}

/// RFC 3986 §3.4.
fn is_query(query: &str) -> bool {
    let mut bytes = query.bytes();
    while let Some(byte) = bytes.next() {
        let is_hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        let fine = match byte {
            b'%' => is_hex(bytes.next()) && is_hex(bytes.next()),
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte),
        };
        if !fine {
            return false;
        }
    }
    true
}

impl Target {
    /// The path that a request with this rest of a path is sent to.
    pub(super) fn path(&self, rest: &str) -> String {
        // A slash at the beginning of the rest would make a host of what follows.
        let rest = rest.trim_start_matches('/');
        if self.below { format!("{}/{rest}", self.base) } else { self.base.clone() }
    }

    /// Whether it has a query of its own.
    pub fn has_query(&self) -> bool {
        self.query.is_some()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.below { "/*" } else { "" };
        write!(f, "{}{}{star}", self.origin.as_deref().unwrap_or_default(), self.base)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = RedirectError;
            fn try_from(text: String) -> Result<Self, RedirectError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}
as_text!(FromPath);
as_text!(Target);

impl Default for RedirectStatus {
    fn default() -> Self {
        Self(301)
    }
}
impl TryFrom<u16> for RedirectStatus {
    type Error = RedirectError;
    fn try_from(status: u16) -> Result<Self, RedirectError> {
        if matches!(status, 301 | 302 | 307 | 308) { Ok(Self(status)) } else { Err(RedirectError::Status) }
    }
}
impl From<RedirectStatus> for u16 {
    fn from(status: RedirectStatus) -> Self {
        status.0
    }
}
impl FromStr for RedirectStatus {
    type Err = RedirectError;
    fn from_str(text: &str) -> Result<Self, RedirectError> {
        text.parse::<u16>().map_err(|_| RedirectError::Status)?.try_into()
    }
}
impl RedirectStatus {
    /// As a number.
    pub fn code(self) -> u16 {
        self.0
    }
}

impl Query {
    /// Whether it goes along.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde asks so
    pub fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

impl Redirect {
    pub(super) fn check(&self) -> Result<(), SiteFault> {
        let fault = |why: &str| Err(SiteFault::new(self.from.to_string(), why));
        let is_host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if self.host.as_ref().is_some_and(|host| host.len() > 253 || !host.bytes().all(is_host)) {
            return fault("a host is written in lower case, without a port");
        }
        if self.to.below && !matches!(self.from, FromPath::Below(_)) {
            return fault("a target ends with `/*` only when the path does");
        }
        if self.to.query.is_some() && self.query == Query::Keep {
            return fault("the target has a query of its own: drop the one of the request");
        }
        if let (FromPath::Exact(from), None, false) = (&self.from, &self.to.origin, self.to.below)
            && *from == format!("{}/", self.to.base)
            && !self.to.base[1..].contains('/')
        {
            return fault("the address of an app gets its last slash by itself");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_becomes_too_long_by_encoding_is_refused_and_what_is_kept_reads_again() {
        let encoded = |count: usize| format!("/{}", "<".repeat(count));
        assert_eq!(encoded(1000).parse::<FromPath>(), Err(RedirectError::Length(FROM_BYTES_MAX)));
        assert_eq!(encoded(TO_BYTES_MAX - 1).parse::<Target>(), Err(RedirectError::Length(TO_BYTES_MAX)));
        let kept: FromPath = encoded(FROM_BYTES_MAX / 3).parse().unwrap();
        assert_eq!(kept.to_string().parse(), Ok(kept));
    }

    #[test]
    fn a_path_to_redirect_from_has_one_spelling() {
        let check = |text: &str, expected: &str| {
            let read = text.parse::<FromPath>().map(|path| path.to_string());
            assert_eq!(read.as_deref(), Ok(expected), "{text}");
        };
        check("/", "/");
        check("/*", "/*");
        check("/old", "/old");
        check("/old/", "/old/");
        check("/old/*", "/old/*");
        check("/%6fld/./x/*", "/old/x/*");
        check("/caf\u{e9}", "/caf%C3%A9");
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "", "old", "//old", "/o*d", "/*/x", "/old*", "/a?b", "/a#b", "/%zz", "/..", "/a%5Cb", "/a%00",
            "*",
        ] {
            assert!(text.parse::<FromPath>().is_err(), "{text}");
        }
        for ours in [
            "/.bastide/callback",
            "/.bastide",
            "/.bastide/*",
            "/.well-known/acme-challenge/x",
            "/.well-known/%61cme-challenge/*",
        ] {
            assert!(matches!(ours.parse::<FromPath>(), Err(RedirectError::Ours(_))), "{ours}");
        }
        assert!("/.well-known/security.txt".parse::<FromPath>().is_ok());
        assert!(format!("/{}", "a".repeat(FROM_BYTES_MAX)).parse::<FromPath>().is_err());
    }

    #[test]
    fn a_target_is_a_path_or_an_address_over_https() {
        let check = |text: &str, expected: &str| {
            let read = text.parse::<Target>().map(|target| target.to_string());
            assert_eq!(read.as_deref(), Ok(expected), "{text}");
        };
        check("/new", "/new");
        check("/*", "/*");
        check("/new?a=b%20c", "/new?a=b%20c");
        check("HTTPS://Example.COM:443/x/../y/*", "https://example.com/y/*");
        check("https://example.com", "https://example.com/");
        check("https://example.com/@ann", "https://example.com/@ann");
        check("https://b\u{fc}cher.example/", "https://xn--bcher-kva.example/");
        check("https://example.com:8443/?q=1", "https://example.com:8443/?q=1");
        for text in [
            "",
            "new",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "http://example.com/",
            "https:/example.com",
            "https:example.com",
            "https://",
            "https://user@example.com/",
            "https://user:pass@example.com/",
            "https://*.example.com/",
            "https://*/x",
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://example.com/",
            "/a#b",
            "/a b",
            "/a\r\nset-cookie: x=y",
            "/a\tb",
            "/x*",
            "/*/x",
            "/a?b=\u{e9}",
            "/a?b=%z1",
            "/a?<",
            "/a/../..",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }

    fn redirect(json: &str) -> Result<Redirect, String> {
        let redirect: Redirect = serde_json::from_str(json).map_err(|error| error.to_string())?;
        redirect.check().map_err(|fault| fault.to_string())?;
        Ok(redirect)
    }

    #[test]
    fn a_redirect_is_whole_or_refused() {
        assert!(
            redirect(r#"{"from":"/a","to":"/b","status":302,"query":"drop","host":"a.example"}"#).is_ok()
        );
        for wrong in [
            r#"{"from":"/a"}"#,
            r#"{"from":"/a","to":"/b","status":303}"#,
            r#"{"from":"/a","to":"/b/*"}"#,
            r#"{"from":"/a","to":"/b?c=d"}"#,
            r#"{"from":"/a","to":"/b","host":"A.example"}"#,
            r#"{"from":"/a","to":"/b","host":"a.example:8443"}"#,
            r#"{"from":"/shop/","to":"/shop"}"#,
            r#"{"from":"/a","to":"/b","then":"x"}"#,
        ] {
            assert!(redirect(wrong).is_err(), "{wrong}");
        }
        assert!(redirect(r#"{"from":"/a/b/","to":"/a/b"}"#).is_ok());
    }

    proptest! {
        #[test]
        fn paths_and_targets_read_back_as_written(text in "(https://)?([a-z.]{0,8})(/|\\*|%2[fF]|%41|\u{e9}|\\.\\.|[a-z?=&\\\\#@:]){0,12}") {
            if let Ok(path) = text.parse::<FromPath>() {
                prop_assert_eq!(path.to_string().parse(), Ok(path.clone()));
            }
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse(), Ok(target.clone()));
            }
        }
        #[test]
        fn no_rest_of_a_path_changes_the_host(rest in "[/\\\\a-z.@:%]{0,20}", to in "(https://example\\.com)?(/[a-z]{1,3}){0,2}/\\*") {
            let target: Target = to.parse().unwrap();
            let path = target.path(&rest);
            prop_assert!(path.starts_with('/') && !path.starts_with("//"), "{}", path);
        }
    }
}
