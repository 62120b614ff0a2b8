//! What a successful unsafe request makes invalid (RFC 9111 §4.4).

use crate::ask::{Kind, kind};
use http::{HeaderMap, Method, StatusCode, header};
use url::Url;

/// Whether a request with this method and status makes anything invalid: then its target is, with all variants.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    kind(method) == Kind::Unsafe && (status.is_success() || status.is_redirection())
}

/// What else becomes invalid then, as path and query: where `Location` and `Content-Location` point to on the
/// same origin. `target` is the request's address, absolute.
pub fn others(target: &Url, headers: &HeaderMap) -> Vec<String> {
    let mut found = Vec::new();
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        for line in headers.get_all(name) {
            let Some(there) = line.to_str().ok().and_then(|text| target.join(text).ok()) else { continue };
            let path = path_and_query(&there);
            if there.origin() == target.origin() && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found
}

fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_successful_unsafe_request_makes_its_target_invalid() {
        let check = |method: &str, status, expected| {
            let found = invalidates(&method.parse().unwrap(), StatusCode::from_u16(status).unwrap());
            assert_eq!(found, expected, "{method} {status}");
        };
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "ANYTHING"] {
            for (status, expected) in [
                (200, true),
                (201, true),
                (204, true),
                (301, true),
                (304, true),
                (400, false),
                (404, false),
                (500, false),
                (503, false),
            ] {
                check(method, status, expected);
            }
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"] {
            check(method, 200, false);
        }
    }

    #[test]
    fn location_and_content_location_count_on_the_same_origin_only() {
        let check = |location: &str, content: &str, expected: &[&str]| {
            let target = Url::parse("https://a.example:8443/shop/list?x=1").unwrap();
            let fields = [(header::LOCATION, location), (header::CONTENT_LOCATION, content)];
            let headers = fields.map(|(name, value)| (name, HeaderValue::from_str(value).unwrap()));
            assert_eq!(others(&target, &headers.into_iter().collect()), expected, "{location} {content}");
        };
        check("item?y=2", "/shop/other", &["/shop/item?y=2", "/shop/other"]);
        check("https://a.example:8443/z#f", "../up/./here", &["/z", "/up/here"]);
        check("/same", "/same", &["/same"]);
        for foreign in [
            "https://b.example:8443/x",
            "http://a.example:8443/x",
            "https://a.example/x",
            "//b.example/x",
            "https://a.example:8443x/",
            "javascript:x",
        ] {
            check(foreign, "/own", &["/own"]);
        }
    }
}
