//! Through the hop to an origin: what the origin receives, reuse, upgrades.

use crate::{start, talk};
use bastide_proxy::{
    Body, Limits, Place, Pool, PoolLimits, RefusedHead, Request, Response, Service, Upstream,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::Instant,
};

/// Sends everything on to one origin.
pub(crate) struct Forward {
    pool: Pool,
    to: Upstream,
}

impl Service for Forward {
    async fn call(&self, mut request: Request) -> Response {
        bastide_proxy::headers::strip_hop_by_hop(request.headers_mut());
        match self.pool.send(&self.to, request, Instant::now() + Duration::from_secs(20)).await {
            Ok(response) => response,
            Err(failure) => {
                http::Response::builder().status(502).body(Body::full(failure.error.to_string())).unwrap()
            }
        }
    }
    async fn refuse(&self, head: RefusedHead) -> Response {
        http::Response::builder().status(head.status).body(Body::empty()).unwrap()
    }
}

pub(crate) fn forward(addr: SocketAddr) -> Arc<Forward> {
    forward_to(Upstream::clear(Place::Address(addr)))
}

pub(crate) fn forward_to(to: Upstream) -> Arc<Forward> {
    Arc::new(Forward { pool: Pool::new(PoolLimits::default()), to })
}

/// An origin that answers every head with a small body and tells how many connections it saw.
async fn counting_origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connections = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            connections += 1;
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut buffer = [0; 4096];
                while let Ok(read) = stream.read(&mut buffer).await {
                    if read == 0 {
                        break;
                    }
                    seen.extend_from_slice(&buffer[..read]);
                    while let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                        let head = String::from_utf8_lossy(&seen[..end]).into_owned();
                        seen.drain(..end + 4);
                        let body = format!("connection={connections} {}", head.replace("\r\n", " | "));
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n{body}",
                            body.len()
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn connections_to_the_origin_are_reused_and_hop_fields_stay_behind() {
    let server = start(forward(counting_origin().await), Limits::default());
    let answer = talk(
        server.addr,
        b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: x-mine\r\nX-Mine: 1\r\nTE: gzip\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(answer.matches("connection=1 ").count(), 2, "{answer}");
    assert!(
        !answer.to_lowercase().contains("x-mine") && !answer.to_lowercase().contains("x-hop"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_origin_that_is_not_there_gives_the_request_back() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pool = Pool::new(PoolLimits::default());
    let request = http::Request::builder().uri("/").header("host", "a").body(Body::empty()).unwrap();
    let to = Upstream::clear(Place::Address(free));
    let failure = pool.send(&to, request, Instant::now() + Duration::from_secs(20)).await.unwrap_err();
    assert!(failure.unsent.is_some(), "{failure:?}");
}

/// An origin that speaks one WebSocket-like protocol: after its 101 it sends everything back.
pub(crate) async fn echoing_origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(String::from_utf8_lossy(&buffer[..read]).to_lowercase().contains("upgrade: websocket"));
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n").await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    addr
}

#[tokio::test]
async fn a_tunnel_opens_only_after_the_origins_101() {
    let server = start(forward(echoing_origin().await), Limits::default());
    let answer = talk(
        server.addr,
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nping-pong",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.to_lowercase().contains("sec-websocket-accept: x"), "{answer}");
    assert!(answer.ends_with("ping-pong"), "{answer}");
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let limits = Limits { tunnel_idle_timeout: Duration::from_millis(100), ..Limits::default() };
    let server = start(forward(echoing_origin().await), limits);
    let mut stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    // Neither side says more, and the connection still comes to its end.
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}
