//! A request as the cache sees it.

use crate::{
    condition,
    control::{CacheControl, Named},
    range::Ranges,
    site::Site,
};
use http::{HeaderMap, Method, header};

/// A request, read once.
#[derive(Debug, Clone)]
pub struct Ask<'r> {
    /// Method.
    pub method: &'r Method,
    /// Fields.
    pub headers: &'r HeaderMap,
    /// Its directives; none count on a site that does not heed clients.
    pub control: CacheControl,
    /// Nothing of the exchange may be stored (§5.2.1.5); this counts on every site.
    pub no_store: bool,
    /// Ranges that it asks for; only a GET has any.
    pub ranges: Option<Ranges>,
}

/// What may be done with a request at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It may be answered from the store, and a GET may fill it.
    Lookup,
    /// A safe method that is always passed on.
    Safe,
    /// A method that changes something, or one that nobody knows: written through (§4, §4.4).
    Unsafe,
}

impl<'r> Ask<'r> {
    /// Reads a request.
    pub fn new(method: &'r Method, headers: &'r HeaderMap, site: &Site) -> Self {
        let mut control = CacheControl::read(headers);
        let no_store = control.no_store;
        // §5.4: `Pragma` counts only without `Cache-Control`.
        if !headers.contains_key(header::CACHE_CONTROL) && asks_no_cache(headers) {
            control.no_cache = Named::All;
        }
        if !site.heed_clients {
            control = CacheControl::default();
        }
        let ranges = if *method == Method::GET { Ranges::read(headers) } else { None };
        Self { method, headers, control, no_store, ranges }
    }

    /// Whether it may be looked up.
    pub fn kind(&self) -> Kind {
        kind(self.method)
    }

    /// Whether the origin alone can answer it: it protects against a lost update (§4.3.2).
    pub fn is_origins(&self) -> bool {
        condition::is_origins(self.headers)
    }

    /// Whether it shows who is asking.
    pub fn is_authorized(&self) -> bool {
        self.headers.contains_key(header::AUTHORIZATION)
    }

    /// Whether the client insists on an answer that is not stored, or on a fresher one than any (§5.2.1.4).
    pub fn is_reload(&self) -> bool {
        self.control.no_cache != Named::No
    }
}

/// What may be done with a method.
pub fn kind(method: &Method) -> Kind {
    match method.as_str() {
        "GET" | "HEAD" => Kind::Lookup,
        "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY" => Kind::Safe,
        _ => Kind::Unsafe,
    }
}

fn asks_no_cache(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::PRAGMA).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-cache"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn unknown_methods_are_unsafe() {
        let check = |name: &str, expected| assert_eq!(kind(&name.parse().unwrap()), expected, "{name}");
        check("GET", Kind::Lookup);
        check("HEAD", Kind::Lookup);
        check("OPTIONS", Kind::Safe);
        for name in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "get", "FOO"] {
            check(name, Kind::Unsafe);
        }
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let mut headers = HeaderMap::new();
        headers.insert(header::PRAGMA, HeaderValue::from_static("x, No-Cache"));
        assert!(Ask::new(&Method::GET, &headers, &Site::alone()).is_reload());
        let deaf = Site { heed_clients: false, ..Site::alone() };
        assert!(!Ask::new(&Method::GET, &headers, &deaf).is_reload());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
        assert!(!Ask::new(&Method::GET, &headers, &Site::alone()).is_reload());
        headers.remove(header::CACHE_CONTROL);
        headers.insert(header::PRAGMA, HeaderValue::from_static("unrecognised"));
        assert!(!Ask::new(&Method::GET, &headers, &Site::alone()).is_reload());
    }

    #[test]
    fn only_a_get_asks_for_ranges() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-1"));
        assert!(Ask::new(&Method::GET, &headers, &Site::alone()).ranges.is_some());
        assert!(Ask::new(&Method::HEAD, &headers, &Site::alone()).ranges.is_none());
    }
}
