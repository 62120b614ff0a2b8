//! Requests that the Platform makes to addresses which customers name: providers of identity, and clients
//! that hear of sign-outs.
//!
//! Whoever names an address must not reach the Platform's own network by it. Names are resolved here, every address is
//! judged, and that very address is dialled; no redirect is followed; size and time are bounded. Hosts that the operator
//! named may be anywhere.

use crate::{Error, config::OutboundHost, state::unusable};
use bastide_proxy::{Body, Place, Pool, PoolLimits, Request, Upstream, UpstreamTls};
use bastide_types::egress::forbidden_range;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

/// Longest time for one request, with all that it takes.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 2000;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Why somebody was not asked, or gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundFault {
    /// The address cannot be asked at all.
    #[error("{0} is not asked: https, a host, no user, no fragment")]
    Address(String),
    /// It is where customers have no business.
    #[error(
        "{0} is not on the public internet; the operator may name it in the settings of the Identity Service"
    )]
    Private(String),
    /// There is no such name.
    #[error("{0} is not found")]
    Unknown(String),
    /// Nobody answered.
    #[error("{0} does not answer: {1}")]
    Silent(String, String),
    /// It took too long.
    #[error("{0} takes too long")]
    TooLong(String),
    /// The answer is too long.
    #[error("{0} answers too much")]
    TooMuch(String),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

struct Named {
    plain_http: bool,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// The way out.
pub struct Outbound {
    named: HashMap<String, Named>,
    /// For hosts without a CA of their own; read when it is first needed.
    tls: OnceLock<Arc<rustls::ClientConfig>>,
    pool: Pool,
}

impl Outbound {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn open(hosts: &[OutboundHost]) -> Result<Self, Error> {
        let mut named = HashMap::new();
        for host in hosts {
            let tls = match &host.ca_file {
                Some(path) => {
                    let mut roots = rustls::RootCertStore::empty();
                    let all = CertificateDer::pem_file_iter(path).map_err(|error| unusable(path, error))?;
                    for certificate in all {
                        let certificate = certificate.map_err(|error| unusable(path, error))?;
                        roots.add(certificate).map_err(|error| unusable(path, error))?;
                    }
                    Some(client(roots))
                }
                None => None,
            };
            named.insert(host.host.to_ascii_lowercase(), Named { plain_http: host.plain_http, tls });
        }
        let limits = PoolLimits { connect_timeout: LIMIT, ..PoolLimits::default() };
        Ok(Self { named, tls: OnceLock::new(), pool: Pool::new(limits) })
    }

    /// Says whether an address may be asked at all, without asking.
    ///
    /// # Errors
    /// [`OutboundFault::Address`].
    pub(crate) fn demand(&self, address: &str) -> Result<Url, OutboundFault> {
        let refused = || OutboundFault::Address(address.chars().take(200).collect());
        let url = Url::parse(address).map_err(|_| refused())?;
        let plain = self.named.get(&authority(&url)).is_some_and(|named| named.plain_http);
        let good = address.len() <= ADDRESS_BYTES_MAX
            && address.is_ascii()
            && (url.scheme() == "https" || url.scheme() == "http" && plain)
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none();
        if good { Ok(url) } else { Err(refused()) }
    }

    /// GET of JSON.
    ///
    /// # Errors
    /// [`OutboundFault`].
    pub(crate) async fn get(&self, address: &str) -> Result<Reply, OutboundFault> {
        self.send(Method::GET, address, None, None).await
    }

    /// POST of a form.
    ///
    /// # Errors
    /// [`OutboundFault`].
    pub(crate) async fn post(
        &self,
        address: &str,
        form: String,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, OutboundFault> {
        self.send(Method::POST, address, Some(form), authorization).await
    }

    async fn send(
        &self,
        method: Method,
        address: &str,
        form: Option<String>,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, OutboundFault> {
        let url = self.demand(address)?;
        let (shown, deadline) = (authority(&url), Instant::now() + LIMIT);
        let found = timeout_at(deadline, self.resolve(&url)).await;
        let addresses = found.map_err(|_| OutboundFault::TooLong(shown.clone()))??;
        let silent = |why: String| OutboundFault::Silent(shown.clone(), why);
        let tls = match url.scheme() {
            "https" => {
                let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let server_name = ServerName::try_from(name).map_err(|error| silent(error.to_string()))?;
                Some(UpstreamTls { config: self.tls(&url), server_name })
            }
            _ => None,
        };
        let is_form = form.is_some();
        let mut request = Request::new(form.map_or_else(Body::empty, Body::from));
        *request.method_mut() = method;
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        *request.uri_mut() = target.parse().map_err(|_| silent("the address is odd".to_owned()))?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&shown).map_err(|_| silent("the host is odd".to_owned()))?;
        headers.insert(header::HOST, host);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("bastide-identity"));
        if is_form {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, kind);
        }
        authorization.into_iter().for_each(|value| drop(headers.insert(header::AUTHORIZATION, value)));
        let mut why = "it has no address".to_owned();
        for address in addresses {
            let to = Upstream { place: Place::Address(address), tls: tls.clone(), http2: false };
            match self.pool.send(&to, request, deadline).await {
                Ok(response) => {
                    let status = response.status();
                    let body = response.into_body().collect_up_to(ANSWER_BYTES_MAX);
                    let body = timeout_at(deadline, body).await;
                    let body = body.map_err(|_| OutboundFault::TooLong(shown.clone()))?;
                    let body = body.map_err(|_| OutboundFault::TooMuch(shown.clone()))?;
                    return Ok(Reply { status, body });
                }
                Err(failure) => {
                    why = failure.error.to_string();
                    match failure.unsent {
                        Some(unsent) => request = unsent,
                        None => break,
                    }
                }
            }
        }
        Err(silent(why))
    }

    fn tls(&self, url: &Url) -> Arc<rustls::ClientConfig> {
        if let Some(own) = self.named.get(&authority(url)).and_then(|named| named.tls.clone()) {
            return own;
        }
        let read = || {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            client(roots)
        };
        self.tls.get_or_init(read).clone()
    }

    /// The addresses of a host that may be dialled.
    async fn resolve(&self, url: &Url) -> Result<Vec<SocketAddr>, OutboundFault> {
        let shown = authority(url);
        let port = url.port_or_known_default().unwrap_or(443);
        let found: Vec<IpAddr> = match url.host() {
            Some(Host::Ipv4(v4)) => vec![v4.into()],
            Some(Host::Ipv6(v6)) => vec![v6.into()],
            Some(Host::Domain(name)) => match tokio::net::lookup_host((name, port)).await {
                Ok(found) => found.map(|address| address.ip()).collect(),
                Err(_) => return Err(OutboundFault::Unknown(shown)),
            },
            None => Vec::new(),
        };
        let is_named = self.named.contains_key(&shown);
        let allowed = found.into_iter().filter(|address| is_named || forbidden_range(*address).is_none());
        let allowed: Vec<_> = allowed.map(|address| (address, port).into()).take(ADDRESSES_MAX).collect();
        // Which of them is forbidden, and why, is nobody's business.
        if allowed.is_empty() { Err(OutboundFault::Private(shown)) } else { Ok(allowed) }
    }
}

fn client(roots: rustls::RootCertStore) -> Arc<rustls::ClientConfig> {
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Host, and port when it is not the usual one.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(hosts: &[&str]) -> Outbound {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let named = |host: &&str| OutboundHost { host: (*host).to_owned(), ca_file: None, plain_http: true };
        Outbound::open(&hosts.iter().map(named).collect::<Vec<_>>()).unwrap()
    }

    #[tokio::test]
    async fn private_addresses_are_not_dialled_whatever_their_spelling() {
        let outbound = open(&[]);
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://localhost/",
            "https://169.254.169.254/latest",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://192.168.1.1:8443/",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://[fd00::1]/",
            "https://[fe80::1]/",
        ] {
            let fault = outbound.get(url).await.unwrap_err();
            assert!(matches!(fault, OutboundFault::Private(_)), "{url}: {fault}");
        }
    }

    #[test]
    fn only_plain_addresses_over_tls_are_asked_and_others_where_the_operator_said_so() {
        let outbound = open(&["idp.internal:8080"]);
        let check = |url: &str, good: bool| assert_eq!(outbound.demand(url).is_ok(), good, "{url}");
        check("https://op.example/x?y=1", true);
        check("http://idp.internal:8080/x", true);
        for url in [
            "http://op.example/",
            "http://idp.internal/",
            "https://u@op.example/",
            "https://u:p@op.example/",
            "https://op.example/#x",
            "ftp://op.example/",
            "file:///etc/passwd",
            "op.example",
            "",
        ] {
            check(url, false);
        }
        check(&format!("https://op.example/{}", "x".repeat(2000)), false);
    }

    #[tokio::test]
    async fn a_named_host_may_be_anywhere_and_answers_are_bounded() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = tokio::spawn(async move {
            for length in [3, ANSWER_BYTES_MAX + 1] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 2048];
                let _ = stream.read(&mut head).await.unwrap();
                let text = format!(
                    "HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1/\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
                );
                stream.write_all(text.as_bytes()).await.unwrap();
                // Whoever does not read on has hung up.
                let _ = stream.write_all(&vec![b'x'; length]).await;
            }
        });
        let outbound = open(&[&format!("127.0.0.1:{port}")]);
        let url = format!("http://127.0.0.1:{port}/");
        let reply = outbound.get(&url).await.unwrap();
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (302, &b"xxx"[..]), "a redirect is an answer");
        assert!(matches!(outbound.get(&url).await, Err(OutboundFault::TooMuch(_))));
        serve.await.unwrap();
    }
}
