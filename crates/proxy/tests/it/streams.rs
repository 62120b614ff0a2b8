//! Bodies, waits, drains.

use crate::{Echo, start, talk};
use bastide_proxy::{Body, Limits, RefusedHead, Request, Response, Service};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

#[tokio::test]
async fn a_large_upload_streams_through() {
    let server = start(Arc::new(Echo::default()), Limits::default());
    let mut request = format!(
        "POST /length HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        8 << 20
    )
    .into_bytes();
    request.extend(std::iter::repeat_n(b'x', 8 << 20));
    let answer = talk(server.addr, &request).await;
    assert!(answer.ends_with("8388608"), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_when_the_body_is_wanted() {
    let server = start(Arc::new(Echo::default()), Limits::default());
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 25];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("body=hi"), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_come_in_time_is_a_408() {
    let limits = Limits { head_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start(Arc::new(Echo::default()), limits);
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"GET / HT").await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn head_requests_and_empty_answers_have_no_body() {
    let server = start(Arc::new(Echo::default()), Limits::default());
    let answer = talk(server.addr, b"HEAD /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("content-length: ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

/// A service that says when it is asked, and answers when it is allowed to.
struct Gate {
    asked: Semaphore,
    open: Semaphore,
}

impl Service for Gate {
    async fn call(&self, _: Request) -> Response {
        self.asked.add_permits(1);
        self.open.acquire().await.unwrap().forget();
        Response::new(Body::full("done"))
    }
    async fn refuse(&self, _: RefusedHead) -> Response {
        Response::new(Body::empty())
    }
}

#[tokio::test]
async fn a_request_in_flight_is_finished_when_the_listener_stops() {
    let gate = Arc::new(Gate { asked: Semaphore::new(0), open: Semaphore::new(0) });
    let mut server = start(gate.clone(), Limits::default());
    let addr = server.addr;
    let client = tokio::spawn(async move { talk(addr, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await });
    // A second connection that is idle must not hold the drain up.
    let _idle = TcpStream::connect(addr).await.unwrap();
    let _asked = gate.asked.acquire().await.unwrap();
    server.stop.cancel();
    gate.open.add_permits(1);
    let answer = client.await.unwrap();
    assert!(answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
    (&mut server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(addr).await.is_err());
}
