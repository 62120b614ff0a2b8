//! Requests that make two parsers disagree: each is refused, closed, and seen by the service as it was.

use crate::{Echo, start, talk};
use bastide_proxy::Limits;
use std::sync::Arc;

/// Sends a probe followed by a second request; a refused probe must answer once and close.
async fn check(probe: &str, status: u16, reason: &str) {
    let service = Arc::new(Echo::default());
    let server = start(service.clone(), Limits::default());
    let second = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = talk(server.addr, format!("{probe}{second}").as_bytes()).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{probe:?} → {answer}");
    assert!(!answer.contains("/second"), "{probe:?} let a second request through: {answer}");
    if !reason.is_empty() {
        assert!(answer.contains(reason), "{probe:?} → {answer}");
        assert_eq!(service.refused.lock().unwrap().first().map(|(r, _)| r.as_str()), Some(reason));
    }
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_closes() {
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "content-length-and-transfer-encoding",
    )
    .await;
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        400,
        "bad-transfer-encoding",
    )
    .await;
    check("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400, "bad-content-length").await;
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        400,
        "bad-content-length",
    )
    .await;
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad-transfer-encoding")
        .await;
    check("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, "bad-header-name").await;
    check("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400, "bad-header-value").await;
    check("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400, "obs-fold").await;
    check("GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", 400, "bad-header-name").await;
    check("GET / HTTP/1.1\r\nX: a\r\n\r\n", 400, "missing-host").await;
    check("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "malformed-host").await;
    check("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "duplicate-host").await;
    check("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, "target-and-host-differ").await;
    check("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400, "unsupported-version").await;
    check("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "connect-not-served").await;
    check(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17 * 1024)), 414, "target-too-long")
        .await;
    check(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101)), 431, "head-too-large")
        .await;
    check(
        &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(65 * 1024)),
        431,
        "head-too-large",
    )
    .await;
}

#[tokio::test]
async fn broken_chunks_are_a_400_and_close() {
    for chunks in ["3\nabc\r\n0\r\n\r\n", "3;x\nabc\r\n0\r\n\r\n", "zz\r\n", "3\r\nabcX\r\n0\r\n\r\n"] {
        check(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"), 400, "")
            .await;
    }
}

#[tokio::test]
async fn an_upgrade_that_is_not_taken_closes_after_its_answer() {
    check("GET /one HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n", 200, "").await;
}

#[tokio::test]
async fn bare_lf_in_a_head_is_normalised() {
    let server = start(Arc::new(Echo::default()), Limits::default());
    let answer = talk(server.addr, b"GET /x HTTP/1.1\nHost: a\n\n").await;
    assert!(answer.contains("GET /x raw=/x"), "{answer}");
}

#[tokio::test]
async fn raw_targets_reach_the_service() {
    let server = start(Arc::new(Echo::default()), Limits::default());
    let answer =
        talk(server.addr, b"GET /?q=<script>alert(\"1\")</script> HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.contains("raw=/?q=<script>alert(\"1\")</script>"), "{answer}");
    assert!(answer.contains("GET /?q=%3Cscript%3E"), "{answer}");
}

#[tokio::test]
async fn refused_heads_show_their_target() {
    let service = Arc::new(Echo::default());
    let server = start(service.clone(), Limits::default());
    talk(server.addr, b"GET /?id=1'or'1 HTTP/1.1\r\n\r\n").await;
    assert_eq!(service.refused.lock().unwrap()[0], ("missing-host".into(), "/?id=1'or'1".into()));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(Arc::new(Echo::default()), Limits::default());
    let answer = talk(
        server.addr,
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPOST /unread HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("{text} is missing in {answer}"));
    assert!(at("POST /1 raw=/1 body=abc") < at("unread") && at("unread") < at("GET /3"));
    assert!(!answer.contains("GET /4"));
}
