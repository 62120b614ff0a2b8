//! A small HTTPS client for tests: one connection per request, nothing hidden.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Longest wait for one answer: generous, since it only ends a test that already failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// Sends requests to hosts below `.localhost`, which all lead to loopback.
#[derive(Clone)]
pub struct Client {
    tls: Arc<rustls::ClientConfig>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
    /// One header field, empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Client {
    /// Trusts only the certificates in `ca`, a PEM file.
    pub fn trusting(ca: &Path) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(ca)? {
            roots.add(certificate?)?;
        }
        let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls) })
    }

    /// GET without further fields.
    pub async fn get(&self, url: &str) -> Result<Answer> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    /// Sends one request and reads the whole answer.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let body = body.into();
        tokio::time::timeout(PATIENCE, self.exchange(method, url, fields, body))
            .await
            .context("no answer in time")?
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        fields: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let to = Target::of(url)?;
        let mut request = http::Request::builder().method(method).uri(to.path).header("host", to.authority);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let tcp = TcpStream::connect(("127.0.0.1", to.port)).await?;
        if to.secure {
            converse(TokioIo::new(self.secure(to.host, tcp).await?), request).await
        } else {
            converse(TokioIo::new(tcp), request).await
        }
    }

    async fn secure(&self, host: String, tcp: TcpStream) -> Result<TlsStream<TcpStream>> {
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        Ok(connector.connect(ServerName::try_from(host)?, tcp).await?)
    }

    /// A connection for many requests of one `https` URL, from this address of loopback.
    pub async fn line(&self, url: &str, from: Ipv4Addr) -> Result<Line> {
        let Target { host, port, authority, path, .. } = Target::of(url)?;
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let tcp = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
        tcp.set_nodelay(true)?;
        let stream = TokioIo::new(self.secure(host, tcp).await?);
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Line { sender, connection, authority, path })
    }
}

/// A connection that stays open, for one request after the other.
pub struct Line {
    sender: SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<()>,
    authority: String,
    path: String,
}

impl Line {
    /// Asks and reads the whole answer.
    pub async fn get(&mut self) -> Result<Answer> {
        let request = http::Request::get(&self.path).header("host", &self.authority);
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::default())?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A URL, taken apart.
struct Target {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    fn of(url: &str) -> Result<Self> {
        let uri: Uri = url.parse()?;
        let secure = uri.scheme_str() == Some("https");
        Ok(Self {
            secure,
            host: uri.host().context("a URL has a host")?.to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            authority: uri.authority().context("a URL has an authority")?.as_str().to_owned(),
            path: uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned(),
        })
    }
}

async fn converse<I>(io: I, request: http::Request<Full<Bytes>>) -> Result<Answer>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    // Either may be through first: a connection that ends may have brought the answer.
    let (answer, end) = tokio::join!(answer, connection);
    answer.inspect_err(|_| drop(end))
}
