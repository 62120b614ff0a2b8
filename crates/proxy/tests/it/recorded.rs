//! What the origin receives, byte for byte: what is accepted is framed anew with one meaning, what is refused
//! never gets there, and nothing of one request reaches the next over a reused connection.

use crate::{origin::forward, start, talk};
use bastide_proxy::Limits;
use bytes::BytesMut;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// Where a request ends that is framed as RFC 9112 says; none when it is not complete.
fn end_of_request(bytes: &[u8]) -> Option<usize> {
    let find = |from: usize, what: &[u8]| {
        bytes[from..].windows(what.len()).position(|window| window == what).map(|at| from + at + what.len())
    };
    let head_end = find(0, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_lowercase();
    if head.contains("transfer-encoding: chunked") {
        let last = if bytes[head_end..].starts_with(b"0\r\n") {
            head_end
        } else {
            find(head_end, b"\r\n0\r\n")? - 3
        };
        return find(last, b"\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let end = head_end + length.unwrap_or(0);
    (bytes.len() >= end).then_some(end)
}

/// An origin that remembers every request as it came, marked with its connection.
pub(crate) async fn recording_origin() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Seen::default();
    let record = seen.clone();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            number += 1;
            let (record, number) = (record.clone(), number);
            tokio::spawn(async move {
                let mut buffer = BytesMut::new();
                while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                    while let Some(end) = end_of_request(&buffer) {
                        let request = String::from_utf8(buffer.split_to(end).to_vec()).unwrap();
                        record.lock().unwrap().push(format!("{number} {request}"));
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err()
                        {
                            return;
                        }
                    }
                }
                if !buffer.is_empty() {
                    record
                        .lock()
                        .unwrap()
                        .push(format!("{number} cut: {}", String::from_utf8_lossy(&buffer)));
                }
            });
        }
    });
    (addr, seen)
}

pub(crate) const SECOND: &str = "GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Sends a probe and a second request; the origin must have received exactly `expected`, both over one
/// connection.
async fn check(probe: &str, expected: &str) {
    let (addr, seen) = recording_origin().await;
    let server = start(forward(addr), Limits::default());
    let answer = talk(server.addr, format!("{probe}{SECOND}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{probe:?} → {answer}");
    let second = "1 GET /second HTTP/1.1\r\nhost: a\r\n\r\n".to_owned();
    assert_eq!(*seen.lock().unwrap(), [format!("1 {expected}"), second], "{probe:?}");
}

#[tokio::test]
async fn what_is_accepted_is_framed_anew() {
    check(
        "\r\n\r\nGET /<x> HTTP/1.1\r\nHost: a\r\nX-A:  spaced\t \r\n\r\n",
        "GET /%3Cx%3E HTTP/1.1\r\nhost: a\r\nx-a: spaced\r\n\r\n",
    )
    .await;
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 005\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    )
    .await;
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked \r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    )
    .await;
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers\r\nConnection: TE\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n",
    )
    .await;
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    )
    .await;
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    check(
        "GET http://a/x?y HTTP/1.1\r\nHost: A\r\nConnection: x-mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\n\r\n",
        "GET /x?y HTTP/1.1\r\nhost: A\r\n\r\n",
    )
    .await;
}

#[tokio::test]
async fn a_protocol_that_carries_http_is_not_let_through() {
    let (addr, seen) = recording_origin().await;
    let server = start(forward(addr), Limits::default());
    let probe = "GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n";
    let answer = talk(server.addr, format!("{probe}{SECOND}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(*seen.lock().unwrap(), ["1 GET /one HTTP/1.1\r\nhost: a\r\n\r\n"]);
}

#[tokio::test]
async fn a_refused_expectation_closes_since_its_body_may_or_may_not_come() {
    let server = start(Arc::new(crate::Echo::default()), Limits::default());
    let probe = "POST /unread HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 60\r\n\r\n";
    let answer = talk(server.addr, format!("{probe}{SECOND}").as_bytes()).await;
    assert!(answer.contains("connection: close") && !answer.contains("100 Continue"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}
