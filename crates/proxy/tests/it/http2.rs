//! HTTP/2 between our own hops: mutual TLS, the same requests as in HTTP/1, tunnels, failover.

use crate::{
    Echo,
    origin::{echoing_origin, forward, forward_to},
    start, start_with, talk,
};
use bastide_proxy::{
    Accept, Body, Limits, Peer, Place, Pool, PoolLimits, RawHead, RefusedHead, Request, Response, Service,
    Upstream, UpstreamTls, accept_tls,
};
use http_body_util::BodyExt;
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Both ends of mutual TLS by one authority.
pub(crate) struct Mutual {
    pub(crate) accept: Accept,
    client: Arc<rustls::ClientConfig>,
    anonymous: Arc<rustls::ClientConfig>,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn leaf(ca: &Authority) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["hop.internal".to_owned()]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, ca).unwrap();
    (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
}

pub(crate) fn mutual() -> Mutual {
    // Another test may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder(roots.clone()).build().unwrap();
    let (chain, key) = leaf(&ca);
    let mut server = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (chain, key) = leaf(&ca);
    let client = || rustls::ClientConfig::builder().with_root_certificates(roots.clone());
    let mut known = client().with_client_auth_cert(chain, key).unwrap();
    known.alpn_protocols = vec![b"h2".to_vec()];
    let mut anonymous = client().with_no_client_auth();
    anonymous.alpn_protocols = vec![b"h2".to_vec()];
    Mutual { accept: accept_tls(Arc::new(server)), client: Arc::new(known), anonymous: Arc::new(anonymous) }
}

impl Mutual {
    pub(crate) fn upstream(&self, addr: SocketAddr) -> Upstream {
        let server_name = ServerName::try_from("hop.internal").unwrap();
        Upstream {
            place: Place::Address(addr),
            tls: Some(UpstreamTls { config: self.client.clone(), server_name }),
            http2: true,
        }
    }
}

/// Tells what it knows of the peer and the head.
struct Tells;

impl Service for Tells {
    async fn call(&self, request: Request) -> Response {
        let peer = request.extensions().get::<Arc<Peer>>().unwrap();
        let raw = request.extensions().get::<Arc<RawHead>>().unwrap();
        let tls = peer.tls.as_ref().unwrap();
        let text = format!(
            "{:?} {} {} host={:?} sni={:?} alpn={:?} certificates={} raw={:?} {:?}",
            request.version(),
            request.method(),
            request.uri(),
            request.headers().get("host").unwrap(),
            tls.sni,
            tls.alpn.as_deref().map(String::from_utf8_lossy),
            tls.peer_certificates.len(),
            raw.target,
            raw.headers.first(),
        );
        Response::new(Body::full(text))
    }
    async fn refuse(&self, head: RefusedHead) -> Response {
        http::Response::builder().status(head.status).body(Body::empty()).unwrap()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn get(uri: &str) -> Request {
    http::Request::builder().uri(uri).header("host", "a.example:8443").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_request_over_mutual_tls_looks_like_one_of_http_1() {
    let mutual = mutual();
    let server = start_with(Arc::new(Tells), Limits::default(), Some(mutual.accept.clone()));
    let pool = Pool::new(PoolLimits::default());
    let response = pool.send(&mutual.upstream(server.addr), get("/x?y"), soon()).await.unwrap();
    let text = response.into_body().collect_up_to(10_000).await.unwrap();
    assert_eq!(
        std::str::from_utf8(&text).unwrap(),
        "HTTP/2.0 GET /x?y host=\"a.example:8443\" sni=Some(\"hop.internal\") alpn=Some(\"h2\") certificates=1 raw=b\"/x?y\" Some((b\"host\", b\"a.example:8443\"))"
    );
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let mutual = mutual();
    struct Mirror;
    impl Service for Mirror {
        async fn call(&self, request: Request) -> Response {
            Response::new(request.into_body())
        }
        async fn refuse(&self, _: RefusedHead) -> Response {
            Response::new(Body::empty())
        }
    }
    let server = start_with(Arc::new(Mirror), Limits::default(), Some(mutual.accept.clone()));
    let front = start(forward_to(mutual.upstream(server.addr)), Limits::default());
    let answer = talk(
        front.addr,
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("5\r\nhello\r\n") && answer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    let pool = Pool::new(PoolLimits::default());
    let large = vec![b'x'; 8 << 20];
    let mut request = get("/");
    *request.method_mut() = http::Method::POST;
    *request.body_mut() = Body::full(large.clone());
    let response = pool.send(&mutual.upstream(server.addr), request, soon()).await.unwrap();
    assert!(response.into_body().collect().await.unwrap().to_bytes() == large);
}

#[tokio::test]
async fn a_websocket_crosses_an_http_2_hop() {
    let mutual = mutual();
    let gateway = start_with(forward(echoing_origin().await), Limits::default(), Some(mutual.accept.clone()));
    let front = start(forward_to(mutual.upstream(gateway.addr)), Limits::default());
    let answer = talk(
        front.addr,
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nping-pong",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.to_lowercase().contains("upgrade: websocket\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("sec-websocket-accept: x"), "{answer}");
    assert!(answer.ends_with("ping-pong"), "{answer}");
}

/// Answers `/endless` without end, everything else at once.
struct Endless;

impl Service for Endless {
    async fn call(&self, request: Request) -> Response {
        if request.uri().path() != "/endless" {
            return Response::new(Body::full("done"));
        }
        let piece = bytes::Bytes::from(vec![b'x'; 64 * 1024]);
        let pieces = futures_util::stream::repeat_with(move || Ok(http_body::Frame::data(piece.clone())));
        Response::new(Body::stream(http_body_util::StreamBody::new(pieces)))
    }
    async fn refuse(&self, _: RefusedHead) -> Response {
        Response::new(Body::empty())
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_do_not_stop_others_over_the_same_hop() {
    let mutual = mutual();
    let gateway = start_with(Arc::new(Endless), Limits::inner(), Some(mutual.accept.clone()));
    let pool = Pool::new(PoolLimits::default());
    let to = mutual.upstream(gateway.addr);
    let mut unread = Vec::new();
    // More than a connection's streams, each with as much on its way as it may.
    for _ in 0..250 {
        unread.push(pool.send(&to, get("/endless"), soon()).await.unwrap());
    }
    for _ in 0..20 {
        let answer = pool.send(&to, get("/"), soon()).await.unwrap();
        assert_eq!(&answer.into_body().collect_up_to(100).await.unwrap()[..], b"done");
    }
    // They are not lost either.
    for answer in &mut unread {
        assert!(answer.body_mut().frame().await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn an_upload_that_nobody_reads_does_not_stop_others_over_the_same_hop() {
    struct Unread(tokio::sync::Semaphore);
    impl Service for Unread {
        async fn call(&self, request: Request) -> Response {
            if request.uri().path() == "/unread" {
                self.0.acquire().await.unwrap().forget();
            }
            let length = request.into_body().collect_up_to(1 << 30).await.unwrap().len();
            Response::new(Body::full(length.to_string()))
        }
        async fn refuse(&self, _: RefusedHead) -> Response {
            Response::new(Body::empty())
        }
    }
    let mutual = mutual();
    let service = Arc::new(Unread(tokio::sync::Semaphore::new(0)));
    let gateway = start_with(service.clone(), Limits::inner(), Some(mutual.accept.clone()));
    let pool = Pool::new(PoolLimits::default());
    let to = mutual.upstream(gateway.addr);
    let upload = |path: &str| {
        let mut request = get(path);
        *request.method_mut() = http::Method::POST;
        *request.body_mut() = Body::full(vec![b'x'; 1 << 20]);
        request
    };
    let stuck = futures_util::future::join_all((0..60).map(|_| pool.send(&to, upload("/unread"), soon())));
    let others = async {
        for _ in 0..5 {
            let answer = pool.send(&to, upload("/read"), soon()).await.unwrap();
            assert_eq!(&answer.into_body().collect_up_to(100).await.unwrap()[..], b"1048576");
        }
        service.0.add_permits(60);
    };
    let (stuck, ()) = tokio::join!(stuck, others);
    assert!(stuck.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 200)));
}

/// As gRPC does it: both sides send by turns in one stream, and the answer ends with trailers.
#[tokio::test]
async fn a_conversation_in_one_stream_ends_with_trailers() {
    struct Talks;
    impl Service for Talks {
        async fn call(&self, request: Request) -> Response {
            assert_eq!(request.headers()["te"], "trailers");
            let mut asked = request.into_body();
            let (sender, frames) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                while let Some(Ok(frame)) = asked.frame().await {
                    sender.send(Ok(frame)).await.unwrap();
                }
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                sender.send(Ok(http_body::Frame::trailers(trailers))).await.unwrap();
            });
            let frames = futures_util::stream::unfold(frames, |mut frames| async {
                let frame = frames.recv().await?;
                Some((frame, frames))
            });
            Response::new(Body::stream(http_body_util::StreamBody::new(frames)))
        }
        async fn refuse(&self, _: RefusedHead) -> Response {
            Response::new(Body::empty())
        }
    }
    let (mutual, tls) = (mutual(), crate::raw_h2::tls());
    let app = start_with(Arc::new(Talks), Limits::default(), Some(mutual.accept.clone()));
    let front =
        start_with(forward_to(mutual.upstream(app.addr)), Limits::default(), Some(tls.accept.clone()));
    let tcp = tokio::net::TcpStream::connect(front.addr).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(tls.client.clone());
    let io = connector.connect("a".try_into().unwrap(), tcp).await.unwrap();
    let (client, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post("https://a/service/Method").header("te", "trailers").body(()).unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    let mut answer = response.await.unwrap().into_body();
    for word in ["one", "two", "three"] {
        send.send_data(bytes::Bytes::from_static(word.as_bytes()), false).unwrap();
        let heard = answer.data().await.unwrap().unwrap();
        answer.flow_control().release_capacity(heard.len()).unwrap();
        assert_eq!(heard, word);
    }
    send.send_data(bytes::Bytes::new(), true).unwrap();
    assert!(answer.data().await.is_none());
    assert_eq!(answer.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn an_upload_that_stalls_in_a_stream_is_a_408_and_the_connection_lives() {
    use crate::raw_h2::{Client, END_HEADERS, END_STREAM, HEADERS, block, frame, head, tls};
    struct Fails;
    impl Service for Fails {
        async fn call(&self, request: Request) -> Response {
            let whole = request.into_body().collect_up_to(1000).await;
            http::Response::builder()
                .status(if whole.is_ok() { 200 } else { 502 })
                .body(Body::empty())
                .unwrap()
        }
        async fn refuse(&self, head: RefusedHead) -> Response {
            http::Response::builder().status(head.status).body(Body::empty()).unwrap()
        }
    }
    let tls = tls();
    let limits = Limits { body_idle_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start_with(Arc::new(Fails), limits, Some(tls.accept.clone()));
    let mut client = Client::connect(server.addr, &tls).await;
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&head("POST", "/", &[])))).await;
    assert_eq!(client.status(1).await, 408);
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&head("GET", "/", &[])))).await;
    assert_eq!(client.status(3).await, 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    use crate::raw_h2::{Client, DATA, END_HEADERS, END_STREAM, HEADERS, block, frame, head, tls};
    let tls = tls();
    // The client does not even answer the farewell.
    let limits = Limits {
        idle_timeout: Duration::from_secs(1),
        head_timeout: Duration::from_secs(3),
        ..Limits::default()
    };
    let server = start_with(Arc::new(Echo::default()), limits, Some(tls.accept.clone()));
    let mut client = Client::connect(server.addr, &tls).await;
    client.send(&frame(HEADERS, END_HEADERS, 1, &block(&head("POST", "/", &[])))).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.send(&frame(DATA, END_STREAM, 1, b"late")).await;
    assert_eq!(client.status(1).await, 200);
    while client.next().await.is_some() {}
}

#[tokio::test]
async fn a_request_given_back_goes_elsewhere_unchanged() {
    let mutual = mutual();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let pool = Pool::new(PoolLimits::default());
    let failure = pool.send(&mutual.upstream(free), get("/x?y"), soon()).await.unwrap_err();
    let request = failure.unsent.expect("nothing was sent");
    assert_eq!(
        (request.uri().to_string(), &request.headers()["host"]),
        ("/x?y".into(), &"a.example:8443".parse().unwrap())
    );
    let server = start(Arc::new(Echo::default()), Limits::default());
    let to = Upstream::clear(Place::Address(server.addr));
    let response = pool.send(&to, request, soon()).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_listener_that_stops_lets_streams_finish_and_the_pool_connects_anew() {
    let mutual = mutual();
    let pool = Pool::new(PoolLimits::default());
    let mut first = start_with(Arc::new(Tells), Limits::default(), Some(mutual.accept.clone()));
    let to = mutual.upstream(first.addr);
    assert_eq!(pool.send(&to, get("/"), soon()).await.unwrap().status(), 200);
    first.stop.cancel();
    (&mut first.task).await.unwrap().unwrap();
    let failure = pool.send(&to, get("/"), soon()).await.unwrap_err();
    assert!(failure.unsent.is_some(), "{failure:?}");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_not_let_in() {
    let mutual = mutual();
    let server = start_with(Arc::new(Tells), Limits::default(), Some(mutual.accept.clone()));
    let mut to = mutual.upstream(server.addr);
    to.tls.as_mut().unwrap().config = mutual.anonymous.clone();
    let pool = Pool::new(PoolLimits::default());
    assert!(pool.send(&to, get("/"), soon()).await.is_err());
}
