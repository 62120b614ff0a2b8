//! Who the client is behind a proxy, and how much of the listener one client gets.

use crate::raw_h2::tls;
use bastide_proxy::{Accept, Body, Limits, Listener, Peer, RefusedHead, Request, Response, Service, serve};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Tells who asks, and whom they dialled.
struct Who;

impl Service for Who {
    async fn call(&self, request: Request) -> Response {
        let peer = request.extensions().get::<Arc<Peer>>().unwrap();
        Response::new(Body::full(format!("{} to {}", peer.addr, peer.local)))
    }
    async fn refuse(&self, head: RefusedHead) -> Response {
        http::Response::builder().status(head.status).body(Body::empty()).unwrap()
    }
}

fn start(proxies: &[&str], limits: Limits, tls: Option<Accept>) -> (SocketAddr, DropGuard) {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = tcp.local_addr().unwrap();
    let proxies = proxies.iter().map(|net| net.parse().unwrap()).collect();
    let stop = CancellationToken::new();
    tokio::spawn(serve(Listener { proxies, ..Listener::new(tcp, tls, limits) }, Arc::new(Who), stop.clone()));
    (addr, stop.drop_guard())
}

/// A PROXY header for a client of IPv4.
fn header(client: [u8; 4]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &client[..], &[198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb]].concat()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends these bytes and reads what comes until the answer is whole (its last words are the port
/// of [`header`]) or the connection ends.
async fn ask(addr: SocketAddr, bytes: &[u8]) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    while !answer.ends_with(b":443") {
        // A reset is as good as an end here.
        if stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
            break;
        }
    }
    (stream, String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn a_listed_proxy_says_who_the_client_is() {
    let (addr, _stop) = start(&["127.0.0.0/8"], Limits::default(), None);
    let (_, answer) = ask(addr, &[&header([192, 0, 2, 1])[..], GET].concat()).await;
    assert!(answer.ends_with("192.0.2.1:12345 to 198.51.100.2:443"), "{answer}");
}

#[tokio::test]
async fn a_listed_proxy_must_say_it() {
    let (addr, _stop) = start(&["127.0.0.0/8"], Limits::default(), None);
    let (_, answer) = ask(addr, GET).await;
    assert_eq!(answer, "");
}

#[tokio::test]
async fn nobody_else_may_say_it() {
    let (addr, _stop) = start(&["192.0.2.0/24"], Limits::default(), None);
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(&[&header([192, 0, 2, 1])[..], GET].concat()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn it_comes_before_the_handshake() {
    let tls = tls();
    let (addr, _stop) = start(&["127.0.0.0/8"], Limits::default(), Some(tls.accept.clone()));
    let mut config = (*tls.client).clone();
    config.alpn_protocols.clear();
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    tcp.write_all(&header([192, 0, 2, 7])).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect("a".try_into().unwrap(), tcp).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("192.0.2.7:12345 to 198.51.100.2:443"), "{answer}");
}

#[tokio::test]
async fn a_source_that_is_shut_out_gets_no_byte_and_others_are_served() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, stop) = (tcp.local_addr().unwrap(), CancellationToken::new());
    let banned: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    let listener = Listener {
        proxies: vec!["127.0.0.0/8".parse().unwrap()],
        shut: Some(Arc::new(move |source| source == banned)),
        ..Listener::new(tcp, None, Limits::default())
    };
    tokio::spawn(serve(listener, Arc::new(Who), stop.clone()));
    let _stop = stop.drop_guard();
    let from = |last| [&header([192, 0, 2, last])[..], GET].concat();
    assert_eq!(ask(addr, &from(1)).await.1, "");
    assert!(ask(addr, &from(2)).await.1.contains("192.0.2.2"));
}

#[tokio::test]
async fn one_client_gets_only_its_share_and_gets_it_again() {
    let limits = Limits { connections_per_client_max: 2, ..Limits::default() };
    let (addr, _stop) = start(&["127.0.0.0/8"], limits, None);
    let from = |last| [&header([192, 0, 2, last])[..], GET].concat();
    let (one, two) = (ask(addr, &from(1)).await, ask(addr, &from(1)).await);
    assert!(one.1.contains("192.0.2.1") && two.1.contains("192.0.2.1"));
    assert_eq!(ask(addr, &from(1)).await.1, "", "a third connection");
    assert!(ask(addr, &from(2)).await.1.contains("192.0.2.2"), "another client");
    drop(one);
    // The server notices the end in its own time.
    while !ask(addr, &from(1)).await.1.contains("192.0.2.1") {}
}

#[tokio::test]
async fn handshakes_that_are_not_done_have_their_own_share() {
    let tls = tls();
    let limits = Limits { handshakes_per_client_max: 2, ..Limits::default() };
    let (addr, _stop) = start(&["127.0.0.0/8"], limits, Some(tls.accept.clone()));
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(addr).await.unwrap();
        tcp.write_all(&header([192, 0, 2, 1])).await.unwrap();
        silent.push(tcp);
    }
    let shake = async |last| {
        let mut tcp = TcpStream::connect(addr).await.unwrap();
        tcp.write_all(&header([192, 0, 2, last])).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(tls.client.clone());
        connector.connect("a".try_into().unwrap(), tcp).await.is_ok()
    };
    // The silent ones may not have been seen yet.
    while shake(1).await {}
    assert!(shake(2).await, "another client");
    drop(silent);
    while !shake(1).await {}
}
