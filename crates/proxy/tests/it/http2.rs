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
struct Mutual {
    accept: Accept,
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

fn mutual() -> Mutual {
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
    fn upstream(&self, addr: SocketAddr) -> Upstream {
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
