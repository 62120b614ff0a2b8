//! Interim responses pass from the origin to the client, before the answer and in order.

use crate::{
    http2::mutual,
    origin::{forward, forward_to},
    raw_h2::{Client, END_HEADERS, END_STREAM, HEADERS, block, frame, head, tls},
    start, start_with, talk,
};
use bastide_proxy::Limits;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// An origin that hints twice before it answers; it answers only after `go` bytes came beyond the head.
async fn hinting_origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
                    if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Bastide-User: root\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
                             HTTP/1.1 102 Processing\r\n\r\n";
                stream.write_all(hints.as_bytes()).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            });
        }
    });
    addr
}

fn check(answer: &str) {
    let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("{text} is missing in {answer}"));
    assert!(at("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n") < at("HTTP/1.1 102 "));
    assert!(at("HTTP/1.1 102 ") < at("HTTP/1.1 200 "));
    assert!(!answer.contains("x-hop") && !answer.contains("root"), "{answer}");
    assert!(answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn they_reach_clients_of_http_1() {
    let server = start(forward(hinting_origin().await), Limits::default());
    check(&talk(server.addr, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await);
}

#[tokio::test]
async fn they_cross_a_hop_of_http_2() {
    let mutual = mutual();
    let gateway = start_with(forward(hinting_origin().await), Limits::default(), Some(mutual.accept.clone()));
    let front = start(forward_to(mutual.upstream(gateway.addr)), Limits::default());
    check(&talk(front.addr, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await);
}

#[tokio::test]
async fn they_reach_clients_of_http_2() {
    let tls = tls();
    let server = start_with(forward(hinting_origin().await), Limits::default(), Some(tls.accept.clone()));
    let mut client = Client::connect(server.addr, &tls).await;
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&head("GET", "/", &[])))).await;
    assert_eq!(client.status(1).await, 103);
    assert_eq!(client.status(1).await, 0, "102");
    assert_eq!(client.status(1).await, 200);
}

#[tokio::test]
async fn clients_of_http_1_0_get_none() {
    let server = start(forward(hinting_origin().await), Limits::default());
    let answer = talk(server.addr, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("HTTP/1.1 10"), "{answer}");
}
