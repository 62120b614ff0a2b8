//! Header hygiene: what belongs to one connection stays there, and nobody outside speaks for us.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::net::IpAddr;

/// Fields that belong to one connection (RFC 9110 §7.6.1).
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
];

/// Fields that only we may set; compared with `_` read as `-`, since some servers read them alike.
const OURS: &[&str] = &[
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "remote-user",
    "client-cert",
    "client-cert-chain",
    "true-client-ip",
    "cf-connecting-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "proxy",
    "traceparent",
    "tracestate",
];
const OURS_BEGIN: &[&str] = &["x-bastide-", "x-forwarded-", "x-auth-request-", "x-os", "x-envoy-"];

/// Removes what belongs to one connection: the known fields and those that `Connection` nominates.
///
/// Fields that must stay end-to-end may not be nominated away (`Host`, `Content-Length`, `Authorization`
/// and the like): such a nomination is ignored.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| !END_TO_END.contains(&name.as_str()) && !is_ours(name.as_str()))
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
}

const END_TO_END: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "authorization",
    "cookie",
    "cache-control",
    "date",
    "set-cookie",
];

/// Removes the fields that only we may set, in every spelling.
pub fn strip_spoofable(headers: &mut HeaderMap) {
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name.as_str())).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
}

fn is_ours(name: &str) -> bool {
    if name.contains('_') {
        let name = name.replace('_', "-");
        return is_ours_spelled(&name);
    }
    is_ours_spelled(name)
}

fn is_ours_spelled(name: &str) -> bool {
    OURS.contains(&name) || OURS_BEGIN.iter().any(|begin| name.starts_with(begin))
}

/// Whether `CDN-Loop` already names us (RFC 8586).
pub fn loops(headers: &HeaderMap, own: &str) -> bool {
    headers
        .get_all("cdn-loop")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|entry| entry.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(own))
}

/// Says who the client is and how it came here.
pub fn set_forwarded(headers: &mut HeaderMap, client: IpAddr, proto: &str, host: &str) {
    let node = match client {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    let set = |headers: &mut HeaderMap, name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(headers, "forwarded", &format!("for={node};proto={proto};host=\"{host}\""));
    set(headers, "x-forwarded-for", &client.to_string());
    set(headers, "x-forwarded-proto", proto);
    set(headers, "x-forwarded-host", host);
}

/// Adds our entry to a list field such as `Via` or `CDN-Loop`.
pub fn append(headers: &mut HeaderMap, name: &'static str, entry: &'static str) {
    headers.append(HeaderName::from_static(name), HeaderValue::from_static(entry));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn nominated_fields_go_but_not_those_that_must_stay() {
        let mut headers = map(&[
            ("connection", "close, x-secret, Authorization, host"),
            ("x-secret", "1"),
            ("authorization", "Bearer x"),
            ("host", "a"),
            ("te", "trailers"),
            ("upgrade", "foo"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "host"]);
    }

    #[test]
    fn nobody_outside_speaks_for_us_in_any_spelling() {
        let mut headers = map(&[
            ("x-bastide-user", "admin"),
            ("x_bastide_user", "admin"),
            ("x-bastide_roles", "admin"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_host", "evil"),
            ("forwarded", "for=1"),
            ("remote_user", "root"),
            ("client-cert", "x"),
            ("accept", "*/*"),
        ]);
        strip_spoofable(&mut headers);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("accept"));
    }

    #[test]
    fn a_loop_is_seen_by_our_name() {
        assert!(loops(&map(&[("cdn-loop", "other, Bastide; v=1")]), "bastide"));
        assert!(!loops(&map(&[("cdn-loop", "bastide-other")]), "bastide"));
    }

    #[test]
    fn ipv6_clients_are_quoted_in_forwarded() {
        let mut headers = HeaderMap::new();
        set_forwarded(&mut headers, "::1".parse().unwrap(), "https", "a:8443");
        assert_eq!(headers["forwarded"], "for=\"[::1]\";proto=https;host=\"a:8443\"");
    }
}
