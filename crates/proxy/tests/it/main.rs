//! The hop as clients and origins see it, over real sockets.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

mod clients;
mod cuts;
mod http2;
mod http2_hard;
mod interim;
mod origin;
mod probes;
mod raw_h2;
mod recorded;
mod smuggling;
mod streams;
mod takeover;
mod upstream;

use bastide_proxy::{
    Accept, Body, Limits, Listener, Peer, RawHead, RefusedHead, Request, Response, Service, serve,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A service that answers with what it saw, and remembers refused heads.
#[derive(Default)]
pub(crate) struct Echo {
    refused: Mutex<Vec<(String, String)>>,
}

impl Service for Echo {
    async fn call(&self, request: Request) -> Response {
        let raw = request.extensions().get::<Arc<RawHead>>().cloned().unwrap();
        assert!(request.extensions().get::<Arc<Peer>>().is_some());
        let path = request.uri().path().to_owned();
        if path == "/unread" {
            return Response::new(Body::full("unread"));
        }
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect_up_to(64 * 1024 * 1024).await else {
            return http::Response::builder().status(400).body(Body::full("broken body")).unwrap();
        };
        if path == "/length" {
            return Response::new(Body::full(body.len().to_string()));
        }
        let target = String::from_utf8_lossy(&raw.target).into_owned();
        let text =
            format!("{} {} raw={target} body={}", head.method, head.uri, String::from_utf8_lossy(&body));
        Response::new(Body::full(text))
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        let target = String::from_utf8_lossy(&head.raw.target).into_owned();
        self.refused.lock().unwrap().push((head.reason.to_string(), target));
        http::Response::builder().status(head.status).body(Body::full(head.reason.to_string())).unwrap()
    }
}

/// A started listener; it stops when it is dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn start<S: Service>(service: Arc<S>, limits: Limits) -> Server {
    start_with(service, limits, None)
}

pub(crate) fn start_with<S: Service>(service: Arc<S>, limits: Limits, tls: Option<Accept>) -> Server {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = tcp.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(Listener::new(tcp, tls, limits), service, stop.clone()));
    Server { addr, stop, task }
}

/// Sends bytes and reads until the server closes or `answers` complete answers are there.
pub(crate) async fn talk(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good as a close here.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}
