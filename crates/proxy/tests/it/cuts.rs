//! Bodies that break or stall: never a clean end, never without bound.

use crate::{start, talk};
use bastide_proxy::{Body, BodyError, Limits, RefusedHead, Request, Response, Service};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

/// Answers with a body that breaks after `abc`.
struct Breaks;

impl Service for Breaks {
    async fn call(&self, request: Request) -> Response {
        let frames = [Ok(Frame::data(Bytes::from_static(b"abc"))), Err(BodyError::Incomplete)];
        let mut response = Response::new(Body::stream(StreamBody::new(stream::iter(frames))));
        if request.uri().path() == "/length" {
            response.headers_mut().insert("content-length", http::HeaderValue::from_static("10"));
        }
        response
    }
    async fn refuse(&self, _: RefusedHead) -> Response {
        Response::new(Body::empty())
    }
}

#[tokio::test]
async fn a_body_that_breaks_has_no_clean_end() {
    let server = start(Arc::new(Breaks), Limits::default());
    let chunked = talk(server.addr, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(chunked.contains("transfer-encoding: chunked") && chunked.ends_with("3\r\nabc\r\n"), "{chunked}");
    let length = talk(server.addr, b"GET /length HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(length.contains("content-length: 10") && length.ends_with("\r\n\r\nabc"), "{length}");
    // Without a length or chunks only a reset tells.
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    assert!(stream.read_to_end(&mut answer).await.is_err(), "{answer:?}");
}

/// Answers with endless data and counts it; does not read uploads before it is allowed to.
struct Endless {
    sent: Arc<AtomicUsize>,
    gate: Semaphore,
}

const PIECE: usize = 64 * 1024;
/// Far above what sockets buffer, far below what would be sent without back-pressure.
const BOUND: usize = 64 << 20;

impl Service for Endless {
    async fn call(&self, request: Request) -> Response {
        if request.method() == http::Method::POST {
            self.gate.acquire().await.unwrap().forget();
            let length = request.into_body().collect_up_to(4 * BOUND).await.unwrap().len();
            return Response::new(Body::full(length.to_string()));
        }
        let sent = self.sent.clone();
        let piece = Bytes::from(vec![b'x'; PIECE]);
        let pieces = stream::repeat_with(move || {
            sent.fetch_add(PIECE, Ordering::Relaxed);
            Ok(Frame::data(piece.clone()))
        });
        Response::new(Body::stream(StreamBody::new(pieces)))
    }
    async fn refuse(&self, _: RefusedHead) -> Response {
        Response::new(Body::empty())
    }
}

fn endless() -> Arc<Endless> {
    Arc::new(Endless { sent: Arc::default(), gate: Semaphore::new(0) })
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_download() {
    let service = endless();
    let server = start(service.clone(), Limits::default());
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stream.readable().await.unwrap();
    let mut before = 0;
    // It must come to rest; however slow the machine is, it may not pass the bound.
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = service.sent.load(Ordering::Relaxed);
        assert!(now < BOUND, "{now} bytes were made for a client that reads none");
        if now == before {
            break;
        }
        before = now;
    }
    let mut taken = vec![0; 2 * before];
    stream.read_exact(&mut taken).await.unwrap();
}

#[tokio::test]
async fn a_service_that_does_not_read_stops_the_upload() {
    let service = endless();
    let server = start(service.clone(), Limits::default());
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let total = 2 * BOUND;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {total}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; PIECE];
    let mut written = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(200), stream.write(&piece)).await {
        written += n.unwrap();
        assert!(written < BOUND, "{written} bytes were taken though nobody reads them");
    }
    service.gate.add_permits(1);
    while written < total {
        written += stream.write(&piece[..PIECE.min(total - written)]).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with(&total.to_string()), "{answer}");
}

#[tokio::test]
async fn an_upload_that_pauses_too_long_ends() {
    let limits = Limits { body_idle_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start(Arc::new(crate::Echo::default()), limits);
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close"), "{answer}");
}
