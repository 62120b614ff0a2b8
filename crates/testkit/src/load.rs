//! A steady load whose every request is counted: over HTTP/1.1 connections that stay open, over HTTP/2, and over new
//! connections. What a client may send again by the rules of HTTP, since the server said that it did not take it, is
//! counted apart; everything else that has no good answer is lost.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

/// Pause between two requests of one client: the load is to be steady, not heavy.
const PAUSE: Duration = Duration::from_millis(5);
/// Only a server that hangs takes this long.
const PATIENCE: Duration = Duration::from_mins(2);
/// How many kinds of faults are told in words.
const TOLD_MAX: usize = 10;

/// Whom the load is for.
#[derive(Clone)]
pub struct Target {
    /// Port on loopback.
    pub port: u16,
    /// Name of the host.
    pub host: String,
    /// Path.
    pub path: String,
    tls: [Arc<rustls::ClientConfig>; 2],
}

impl Target {
    /// A target whose certificate is signed by `ca`, a PEM file. All connections share their TLS sessions.
    pub fn new(ca: &Path, host: &str, port: u16, path: &str) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca)? {
            roots.add(certificate?)?;
        }
        let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let one = Arc::new(tls.clone());
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { port, host: host.into(), path: path.into(), tls: [one, Arc::new(tls)] })
    }

    pub(crate) async fn connect(&self, http2: bool) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
        self.connect_from(Ipv4Addr::LOCALHOST, http2).await
    }

    /// A connection from this address, one of loopback's.
    pub(crate) async fn connect_from(
        &self,
        from: Ipv4Addr,
        http2: bool,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let tcp = socket.connect((Ipv4Addr::LOCALHOST, self.port).into()).await?;
        tcp.set_nodelay(true)?;
        let connector = tokio_rustls::TlsConnector::from(self.tls[usize::from(http2)].clone());
        Ok(connector.connect(ServerName::try_from(self.host.clone())?, tcp).await?)
    }

    /// A connection for requests of HTTP/1.1, also for upgrades.
    pub async fn http1(&self) -> Result<http1::SendRequest<Empty<Bytes>>> {
        let io = TokioIo::new(self.connect(false).await?);
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(sender)
    }

    async fn http2(&self) -> Result<http2::SendRequest<Empty<Bytes>>> {
        let io = TokioIo::new(self.connect(true).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    /// A request for another path of the same host, over HTTP/1.1.
    pub fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>> {
        Ok(Request::get(path).header("host", format!("{}:{}", self.host, self.port)).body(Empty::new())?)
    }
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// Good answers.
    pub answered: u64,
    /// Requests that the server said it did not take, sent again over another connection.
    pub again: u64,
    /// Connections made.
    pub connections: u64,
    /// Requests without a good answer.
    pub lost: u64,
    /// What was wrong with the first of these.
    pub faults: Vec<String>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    again: AtomicU64,
    connections: AtomicU64,
    lost: AtomicU64,
    faults: Mutex<Vec<String>>,
    over: AtomicBool,
}

impl Counts {
    fn lose(&self, how: &str, error: &anyhow::Error) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.len() < TOLD_MAX {
            faults.push(format!("{how}: {error:#}"));
        }
    }
}

/// A running load.
pub struct Load {
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts `clients` of each kind. `good` judges answers that came whole.
    pub fn start(target: &Target, clients: usize, good: fn(StatusCode, &Bytes) -> bool) -> Self {
        let counts = Arc::new(Counts::default());
        let mut load = Self { counts: counts.clone(), clients: JoinSet::new() };
        for _ in 0..clients {
            for kind in [Kind::Kept, Kind::Http2, Kind::New] {
                let client = Client { target: target.clone(), counts: counts.clone(), good };
                load.clients.spawn(async move { client.run(kind).await });
            }
        }
        load
    }

    /// Good answers so far.
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Lets every client finish its request and tells what came of all.
    pub async fn end(mut self) -> Report {
        self.counts.over.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        Report {
            answered: read(&counts.answered),
            again: read(&counts.again),
            connections: read(&counts.connections),
            lost: read(&counts.lost),
            faults: std::mem::take(&mut *counts.faults.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kept,
    Http2,
    New,
}

struct Client {
    target: Target,
    counts: Arc<Counts>,
    good: fn(StatusCode, &Bytes) -> bool,
}

/// A connection of either kind.
enum Connection {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

/// What came of one attempt.
enum Sent {
    Answer(Response<Incoming>),
    /// The server said, or it is certain, that it did nothing with the request.
    Untaken,
}

impl Client {
    async fn run(&self, kind: Kind) {
        let mut kept = None;
        while !self.counts.over.load(Ordering::Relaxed) {
            match tokio::time::timeout(PATIENCE, self.ask(kind, &mut kept)).await {
                Ok(Ok(())) => {
                    self.counts.answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(error)) => {
                    kept = None;
                    self.counts.lose(&format!("{kind:?}"), &error);
                }
                Err(_) => {
                    kept = None;
                    self.counts.lose(&format!("{kind:?}"), &anyhow::anyhow!("no answer"));
                }
            }
            if kind == Kind::New {
                kept = None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One request and its whole answer, over the kept connection if there is one.
    async fn ask(&self, kind: Kind, kept: &mut Option<Connection>) -> Result<()> {
        loop {
            let connection = match kept {
                Some(connection) => connection,
                None => {
                    let new = match kind {
                        Kind::Http2 => Connection::Two(self.target.http2().await.context("no connection")?),
                        _ => Connection::One(self.target.http1().await.context("no connection")?),
                    };
                    self.counts.connections.fetch_add(1, Ordering::Relaxed);
                    kept.insert(new)
                }
            };
            match self.send(connection).await? {
                Sent::Untaken => {
                    *kept = None;
                    self.counts.again.fetch_add(1, Ordering::Relaxed);
                }
                Sent::Answer(response) => {
                    let (head, body) = response.into_parts();
                    let body = body.collect().await.context("the answer was cut")?.to_bytes();
                    if !(self.good)(head.status, &body) {
                        bail!("{} {}", head.status, String::from_utf8_lossy(&body[..body.len().min(200)]));
                    }
                    return Ok(());
                }
            }
        }
    }

    async fn send(&self, connection: &mut Connection) -> Result<Sent> {
        match connection {
            Connection::One(sender) => {
                // Closed after the last answer, before anything was sent: nothing is lost.
                if sender.ready().await.is_err() {
                    return Ok(Sent::Untaken);
                }
                match sender.try_send_request(self.target.request(&self.target.path)?).await {
                    Ok(response) => Ok(Sent::Answer(response)),
                    Err(failed) => unsent(failed, |error| Err(error.into())),
                }
            }
            Connection::Two(sender) => {
                let uri = format!("https://{}:{}{}", self.target.host, self.target.port, self.target.path);
                let request = Request::get(uri).body(Empty::new())?;
                if sender.ready().await.is_err() {
                    return Ok(Sent::Untaken);
                }
                match sender.try_send_request(request).await {
                    Ok(response) => Ok(Sent::Answer(response)),
                    Err(failed) => unsent(failed, untaken),
                }
            }
        }
    }
}

/// A request that never left the client is as good as untaken.
fn unsent<R>(
    mut failed: TrySendError<R>,
    otherwise: impl FnOnce(hyper::Error) -> Result<Sent>,
) -> Result<Sent> {
    match failed.take_message() {
        Some(_) => Ok(Sent::Untaken),
        None => otherwise(failed.into_error()),
    }
}

/// RFC 9113 §6.8 and §8.7: streams above the last one of a GOAWAY, and refused ones, were not processed.
fn untaken(error: hyper::Error) -> Result<Sent> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(now) = cause {
        if let Some(h2) = now.downcast_ref::<h2::Error>()
            && ((h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR))
                || h2.reason() == Some(h2::Reason::REFUSED_STREAM))
        {
            return Ok(Sent::Untaken);
        }
        cause = now.source();
    }
    Err(error.into())
}
