//! Header hygiene: what belongs to one connection stays there, and nobody outside speaks for us.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, header, header::AsHeaderName};
use std::{borrow::Cow, net::IpAddr};

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
    "http2-settings",
];

/// Fields that only we may set; compared with everything but letters and digits read as `-`, since some
/// servers read them alike.
const OURS: &[&str] = &[
    "forwarded",
    "x-forwarded",
    "forwarded-for",
    "forwarded-proto",
    "client-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-remote-user",
    "remote-addr",
    "fastly-client-ip",
    "x-azure-clientip",
    "x-original-uri",
    "x-original-forwarded-for",
    "x-client-cert",
    "x-ssl-client-cert",
    "ssl-client-cert",
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

/// Fields that have a meaning for every server; under another spelling (`Content_Length`) they are removed,
/// since servers after the model of CGI read both alike.
const MEANINGFUL: &[&str] = &[
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "range",
    "authorization",
    "proxy-authorization",
    "cookie",
    "origin",
    "referer",
    "via",
    "cdn-loop",
];

/// Removes what belongs to one connection: the known fields and those that `Connection` nominates.
///
/// Fields that must stay end-to-end may not be nominated away (`Host`, `Content-Length`, `Authorization`
/// and the like): such a nomination is ignored.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if only_says_whether_to_stay(headers) {
        headers.remove(header::CONNECTION);
        return;
    }
    // Most heads have none: a look at each name there is costs less than a search for each of ours.
    let known = headers.keys().filter(|name| HOP_BY_HOP.contains(&name.as_str()));
    let known: Vec<HeaderName> = known.cloned().collect();
    if known.is_empty() {
        return; // without Connection nothing is nominated
    }
    let nominated: Vec<HeaderName> = list(headers, header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !END_TO_END.contains(&name.as_str()) && !is_ours(name.as_str()))
        .collect();
    // The one word of TE that everybody behind us understands (RFC 9110 §10.1.4): gRPC needs it.
    let trailers = list(headers, header::TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
    for name in known.into_iter().chain(nominated) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether the one field that belongs to the connection is a `Connection` that nominates nothing, as most are.
fn only_says_whether_to_stay(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::CONNECTION).iter();
    let plain = |line: &HeaderValue| matches!(line.as_bytes(), b"keep-alive" | b"close");
    lines.next().is_some_and(plain)
        && lines.next().is_none()
        && !headers.keys().any(|name| *name != header::CONNECTION && HOP_BY_HOP.contains(&name.as_str()))
}

/// The members of a list field over all its lines, without the white space around them.
pub(crate) fn list(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii)
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
    let foreign = |name: &HeaderName| is_ours(name.as_str()) || is_misspelled(name.as_str());
    let foreign: Vec<HeaderName> = headers.keys().filter(|name| foreign(name)).cloned().collect();
    for name in foreign {
        headers.remove(name);
    }
}

/// Whether only we may set this field.
pub(crate) fn is_ours(name: &str) -> bool {
    let name = plainly(name);
    // Most names begin like none of ours: those are looked at no further.
    name.as_bytes().first().is_some_and(|first| OURS_FIRST[usize::from(*first)])
        && (OURS.contains(&&*name) || OURS_BEGIN.iter().any(|begin| name.starts_with(begin)))
}

/// First bytes of the fields that only we may set.
const OURS_FIRST: [bool; 256] = {
    let mut first = [false; 256];
    let mut at = 0;
    while at < OURS.len() {
        first[OURS[at].as_bytes()[0] as usize] = true;
        at += 1;
    }
    at = 0;
    while at < OURS_BEGIN.len() {
        first[OURS_BEGIN[at].as_bytes()[0] as usize] = true;
        at += 1;
    }
    first
};

/// Whether this is another spelling of a field that has a meaning.
fn is_misspelled(name: &str) -> bool {
    match plainly(name) {
        Cow::Borrowed(_) => false,
        Cow::Owned(name) => MEANINGFUL.contains(&&*name),
    }
}

fn plainly(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Cow::Borrowed(name);
    }
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect::<String>().into()
}

/// The field in which each hop of a kind names itself (RFC 8586).
pub static CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Whether `CDN-Loop` already names us (RFC 8586).
pub fn loops(headers: &HeaderMap, own: &[u8]) -> bool {
    let entries = list(headers, &CDN_LOOP);
    entries
        .filter_map(|entry| entry.split(|b| *b == b';').next())
        .any(|id| id.trim_ascii().eq_ignore_ascii_case(own))
}

/// Says who the client is and how it came here.
pub fn set_forwarded(headers: &mut HeaderMap, block: &mut Block, client: IpAddr, proto: &str, host: &str) {
    let address = client.to_string();
    let (open, close) = if client.is_ipv6() { ("\"[", "]\"") } else { ("", "") };
    let forwarded = block.value(&["for=", open, &address, close, ";proto=", proto, ";host=\"", host, "\""]);
    set(headers, header::FORWARDED, forwarded);
    set(headers, X_FORWARDED_FOR.clone(), block.value(&[&address]));
    set(headers, X_FORWARDED_PROTO.clone(), block.value(&[proto]));
    set(headers, X_FORWARDED_HOST.clone(), block.value(&[host]));
}

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Puts a value in the place of what a field said; nothing when there is none.
fn set(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

/// Values of fields that are written one behind the other into one piece of memory.
#[derive(Debug)]
pub struct Block(BytesMut);

impl Default for Block {
    fn default() -> Self {
        Self(BytesMut::with_capacity(512))
    }
}

impl Block {
    /// A value of these parts; none when they cannot be one.
    pub fn value(&mut self, parts: &[&str]) -> Option<HeaderValue> {
        for part in parts {
            self.0.extend_from_slice(part.as_bytes());
        }
        HeaderValue::from_maybe_shared(self.0.split().freeze()).ok()
    }
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
            ("te", "gzip;q=0.5"),
            ("upgrade", "foo"),
        ]);
        let broken = HeaderValue::from_bytes(b"\xff, x-other").unwrap();
        headers.append("connection", broken);
        headers.append("x-other", HeaderValue::from_static("1"));
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "host"]);
    }

    #[test]
    fn a_connection_that_only_says_whether_to_stay_goes_alone() {
        for word in ["keep-alive", "close"] {
            let mut headers = map(&[("connection", word), ("accept", "*/*")]);
            strip_hop_by_hop(&mut headers);
            assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
            let mut headers = map(&[("connection", word), ("keep-alive", "timeout=5"), ("te", "x")]);
            strip_hop_by_hop(&mut headers);
            assert!(headers.is_empty());
            let mut headers = map(&[("connection", word), ("connection", "x-hop"), ("x-hop", "1")]);
            strip_hop_by_hop(&mut headers);
            assert!(headers.is_empty());
        }
    }

    #[test]
    fn of_te_only_trailers_is_passed_on() {
        let mut headers = map(&[("te", "gzip, Trailers"), ("connection", "te")]);
        strip_hop_by_hop(&mut headers);
        assert_eq!((headers.len(), headers["te"].as_bytes()), (1, &b"trailers"[..]));
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
            ("x.forwarded!for", "1"),
            ("client_ip", "1"),
            ("accept", "*/*"),
            ("api_key", "1"),
        ]);
        strip_spoofable(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "api_key"]);
    }

    #[test]
    fn other_spellings_of_what_has_a_meaning_go() {
        let mut headers = map(&[
            ("content-length", "3"),
            ("content_length", "9"),
            ("transfer_encoding", "chunked"),
            ("proxy~authorization", "x"),
            ("cookie", "a=b"),
        ]);
        strip_spoofable(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "cookie"]);
    }

    #[test]
    fn a_loop_is_seen_by_our_name() {
        assert!(loops(&map(&[("cdn-loop", "other, Bastide; v=1")]), b"bastide"));
        assert!(loops(&map(&[("cdn-loop", "other"), ("cdn-loop", "x,bastide")]), b"bastide"));
        assert!(!loops(&map(&[("cdn-loop", "bastide-other")]), b"bastide"));
    }

    #[test]
    fn ipv6_clients_are_quoted_in_forwarded() {
        let mut headers = HeaderMap::new();
        set_forwarded(&mut headers, &mut Block::default(), "::1".parse().unwrap(), "https", "a:8443");
        assert_eq!(headers["forwarded"], "for=\"[::1]\";proto=https;host=\"a:8443\"");
        assert_eq!(headers["x-forwarded-for"], "::1");
    }
}
