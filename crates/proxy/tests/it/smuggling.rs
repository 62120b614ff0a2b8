//! Requests that make two parsers disagree. Every row is refused with its own reason, answered once, and the
//! connection closes; nothing of it reaches the origin, not over a connection that already served either.

use crate::{
    Echo,
    origin::forward,
    recorded::{SECOND, recording_origin},
    start, talk,
};
use bastide_proxy::Limits;
use std::sync::Arc;

/// What is sent, the status of the one answer, and the reason that the service hears.
type Row = (&'static str, u16, &'static str);

const LENGTHS: &[Row] = &[
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "content-length-and-transfer-encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
        "content-length-and-transfer-encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\nContent-Length: 3\r\n\r\nabc",
        400,
        "content-length-and-transfer-encoding",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400, "bad-content-length"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        400,
        "bad-content-length",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        400,
        "bad-content-length",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400, "bad-content-length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nhello", 400, "bad-content-length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400, "bad-content-length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello", 400, "bad-content-length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello", 400, "bad-content-length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nhello", 400, "bad-content-length"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\nhello", 400, "bad-content-length"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
        400,
        "bad-content-length",
    ),
];

const ENCODINGS: &[Row] = &[
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 400, "bad-transfer-encoding"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400, "bad-transfer-encoding"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    (
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "bad-header-name"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400, "bad-header-name"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400, "bad-header-value"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", 400, "bad-header-value"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400, "obs-fold"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad-header-value",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bare-lf"),
];

const LINES: &[Row] = &[
    ("GET / HTTP/1.1\nHost: a\n\n", 400, "bare-lf"),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "bare-lf"),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "bare-lf"),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bare-lf"),
    ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "bare-cr"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: y\rGET /z HTTP/1.1\r\n\r\n", 400, "bad-header-value"),
    ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, "bad-header-name"),
    ("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", 400, "bad-header-name"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", 400, "bad-header-name"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX(y): a\r\n\r\n", 400, "bad-header-name"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", 400, "bad-header-name"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, "bad-header-value"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x08b\r\n\r\n", 400, "bad-header-value"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, "obs-fold"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", 400, "obs-fold"),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "obs-fold"),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400, "unsupported-version"),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400, "unsupported-version"),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", 400, "unsupported-version"),
    ("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", 400, ""),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, ""),
    ("GET /\r\nHost: a\r\n\r\n", 400, ""),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
    ("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request-line"),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, ""),
    ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request-line"),
    ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
    ("GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
    ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-method"),
    ("G;T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-request-line"),
    ("CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "connect-not-served"),
    ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "trace-not-served"),
    ("POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 2\r\n\r\nhi", 417, "unknown-expectation"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "unsupported-version"),
];

const HOSTS: &[Row] = &[
    ("GET / HTTP/1.1\r\nX: a\r\n\r\n", 400, "missing-host"),
    ("GET / HTTP/1.0\r\nX: a\r\n\r\n", 400, "missing-host"),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "malformed-host"),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "malformed-host"),
    ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "malformed-host"),
    ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "malformed-host"),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "malformed-host"),
    ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400, "malformed-host"),
    ("GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", 400, "malformed-host"),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "malformed-host"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "duplicate-host"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "duplicate-host"),
    ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target-and-host-differ"),
    ("GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target-and-host-differ"),
    ("GET http://a@b/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, "target-and-host-differ"),
    ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target-and-host-differ"),
    ("GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad-target"),
];

/// Found after the head: the service may have begun, but the answer is the client's fault and not a 502.
const CHUNKS: &[&str] = &[
    "3\nabc\r\n0\r\n\r\n",
    "3;x\nabc\r\n0\r\n\r\n",
    "3;x\ry\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\nzz\r\n",
    "3\r\nabcX\r\n0\r\n\r\n",
    "3\r\nabc0\r\n\r\n",
    "3\r\nabc\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    " 3\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "-3\r\nabc\r\n0\r\n\r\n",
    "3,3\r\nabc\r\n0\r\n\r\n",
    "\r\n3\r\nabc\r\n0\r\n\r\n",
    "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\r\nno colon\r\n\r\n",
    "3\r\nabc\r\n0\r\nA: b\n\r\n\r\n",
    "3\r\nabc\r\n0\r\nA: b\r\n c\r\n\r\n",
];

fn rows() -> impl Iterator<Item = Row> {
    [LENGTHS, ENCODINGS, LINES, HOSTS].concat().into_iter()
}

#[tokio::test]
async fn each_is_refused_once_for_its_reason_and_shown_to_the_service_as_it_was() {
    for (probe, status, reason) in rows() {
        let service = Arc::new(Echo::default());
        let server = start(service.clone(), Limits::default());
        let answer = talk(server.addr, format!("{probe}{SECOND}").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{probe:?} → {answer}");
        assert!(answer.contains("connection: close"), "{probe:?} → {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{probe:?} → {answer}");
        let refused = service.refused.lock().unwrap();
        let (heard, _) = refused.first().unwrap_or_else(|| panic!("{probe:?} was not shown"));
        assert!(reason.is_empty() || heard == reason, "{probe:?} → {heard}");
    }
}

#[tokio::test]
async fn nothing_of_them_reaches_the_origin_over_a_new_or_a_used_connection() {
    const FIRST: &str = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
    for (probe, status, _) in rows() {
        let (addr, seen) = recording_origin().await;
        let server = start(forward(addr), Limits::default());
        let answer = talk(server.addr, format!("{FIRST}{probe}{SECOND}").as_bytes()).await;
        assert!(answer.contains(&format!("HTTP/1.1 {status} ")), "{probe:?} → {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{probe:?} → {answer}");
        // Another client's request over the connection that the first one left behind.
        talk(server.addr, SECOND.as_bytes()).await;
        let expected =
            ["1 GET /first HTTP/1.1\r\nhost: a\r\n\r\n", "1 GET /second HTTP/1.1\r\nhost: a\r\n\r\n"];
        assert_eq!(*seen.lock().unwrap(), expected, "{probe:?}");
    }
}

#[tokio::test]
async fn broken_chunks_are_a_400_also_when_they_were_on_their_way() {
    for chunks in CHUNKS {
        let probe =
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{SECOND}");
        let (addr, seen) = recording_origin().await;
        for server in
            [start(forward(addr), Limits::default()), start(Arc::new(Echo::default()), Limits::default())]
        {
            let answer = talk(server.addr, probe.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?} → {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{chunks:?} → {answer}");
        }
        let whole = seen.lock().unwrap().iter().any(|request| !request.contains(" cut: "));
        assert!(!whole, "{chunks:?} → {seen:?}");
    }
}

#[tokio::test]
async fn heads_beyond_the_limits_are_told_apart() {
    for (probe, status, reason) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17 * 1024)), 414, "target-too-long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101)), 431, "head-too-large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(65 * 1024)), 431, "head-too-large"),
    ] {
        let server = start(Arc::new(Echo::default()), Limits::default());
        let answer = talk(server.addr, probe.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(reason), "{answer}");
    }
}
