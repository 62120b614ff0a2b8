//! What the service sees of requests, good ones and refused ones.

use crate::{Echo, start, talk};
use bastide_proxy::Limits;
use std::sync::Arc;

#[tokio::test]
async fn an_upgrade_that_is_not_taken_closes_after_its_answer() {
    let server = start(Arc::new(Echo::default()), Limits::default());
    let probe = "GET /one HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
    let answer =
        talk(server.addr, format!("{probe}GET /second HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    assert!(!answer.contains("/second"), "{answer}");
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
