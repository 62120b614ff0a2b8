//! HTTPS to a Platform: trusts one CA, finds `*.localhost` by itself, turns problems into errors.

use anyhow::{Context, Result, bail};
use bastide_types::{API, Problem};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client as Pool,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::de::DeserializeOwned;
use std::{
    future::Future,
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::Path,
    pin::Pin,
    task::Poll,
    time::Duration,
};

/// Longest wait for one answer, an upload included.
const ANSWER_LIMIT: Duration = Duration::from_mins(10);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A client for Platforms that one CA vouches for.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Client {
    /// Trusts the certificates in this PEM file and no others.
    pub fn trusting(ca: &Path) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        let certificates = CertificateDer::pem_file_iter(ca).with_context(|| {
            format!(
                "cannot read the CA {}; name it with --ca, or start Bastide on this machine",
                ca.display()
            )
        })?;
        for certificate in certificates {
            roots.add(certificate?)?;
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new_with_resolver(Resolver);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { pool: Pool::builder(TokioExecutor::new()).build(connector) })
    }

    /// Sends a request and reads the whole answer, whatever its status.
    pub async fn send(&self, request: http::Request<Full<Bytes>>) -> Result<Answer> {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let exchange = async {
            let response = self.pool.request(request).await;
            let response =
                response.map_err(|error| anyhow::Error::new(Unanswered(host.clone(), error.into())))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::Error::new(Unanswered(host.clone(), error)))?;
            Answer::unpacked(head.status, head.headers, body.to_bytes())
        };
        match tokio::time::timeout(ANSWER_LIMIT, exchange).await {
            Ok(answer) => answer,
            Err(_) => bail!("{host} did not answer within {} s", ANSWER_LIMIT.as_secs()),
        }
    }

    /// GET.
    pub async fn get(&self, url: &str, fields: &[(&str, &str)]) -> Result<Answer> {
        self.send(request(Method::GET, url, fields, Bytes::new())?).await
    }

    /// POST of a form.
    pub async fn post_form(
        &self,
        url: &str,
        fields: &[(&str, &str)],
        form: &[(&str, &str)],
    ) -> Result<Answer> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = request(Method::POST, url, fields, body.into())?;
        let form = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form);
        self.send(request).await
    }
}

/// Makes a request.
pub fn request(
    method: Method,
    url: &str,
    fields: &[(&str, &str)],
    body: Bytes,
) -> Result<http::Request<Full<Bytes>>> {
    let uri: Uri = url.parse().with_context(|| format!("{url} is no address"))?;
    let mut request =
        http::Request::builder().method(method).uri(uri).header(header::USER_AGENT, "bastide-cli");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    Ok(request.body(Full::new(body))?)
}

/// No answer came, or not all of it.
#[derive(Debug)]
pub struct Unanswered(String, Box<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for Unanswered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot reach {}", self.0)
    }
}

impl std::error::Error for Unanswered {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.1.as_ref())
    }
}

impl Answer {
    /// An answer whose body may be packed.
    fn unpacked(status: StatusCode, headers: HeaderMap, body: Bytes) -> Result<Self> {
        let body = match headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
            None | Some(b"identity") => body,
            Some(b"gzip") => {
                let mut whole = Vec::new();
                let most = ANSWER_BYTES_MAX as u64;
                let read = flate2::read::GzDecoder::new(&body[..]).take(most + 1).read_to_end(&mut whole);
                read.context("the answer is not packed as it says")?;
                if whole.len() > ANSWER_BYTES_MAX {
                    bail!("the answer is too long");
                }
                whole.into()
            }
            Some(_) => bail!("the answer is packed in a way that was not asked for"),
        };
        Ok(Self { status, headers, body })
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<String> {
        let refused = self.status.is_client_error() || self.status.is_server_error();
        let problem = serde_json::from_slice::<Problem>(&self.body).ok().filter(|_| refused)?;
        Some(problem.code.into_owned())
    }

    /// Where a list goes on, below the API.
    pub fn next_page(&self) -> Option<String> {
        let link = self.header(header::LINK)?;
        let (target, rest) = link.strip_prefix('<')?.split_once('>')?;
        rest.contains("rel=\"next\"").then(|| target.strip_prefix(API).map(str::to_owned)).flatten()
    }

    /// The value of a good answer, or the problem as an error.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        let answer = self.good()?;
        serde_json::from_slice(&answer.body).context("the answer is not what was expected")
    }

    /// The answer itself when its status is 2xx, or the problem as an error.
    pub fn good(self) -> Result<Self> {
        if self.status.is_success() { Ok(self) } else { Err(self.refusal()) }
    }

    /// What a refusal says, for people.
    pub fn refusal(&self) -> anyhow::Error {
        if let Ok(problem) = serde_json::from_slice::<Problem>(&self.body) {
            return anyhow::Error::new(problem);
        }
        #[derive(serde::Deserialize)]
        struct OAuth {
            error: String,
            #[serde(default)]
            error_description: String,
            #[serde(default)]
            code: Option<String>,
        }
        if let Ok(oauth) = serde_json::from_slice::<OAuth>(&self.body) {
            let code = oauth.code.map(|code| format!(" ({code})")).unwrap_or_default();
            return anyhow::anyhow!("{}: {}{code}", oauth.error, oauth.error_description);
        }
        anyhow::anyhow!("the answer was {}", self.status)
    }

    /// One header field as text.
    pub fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Finds hosts: names below `.localhost` are this machine (RFC 6761 §6.3), also where the system's
/// resolver does not know that.
#[derive(Debug, Clone, Copy)]
struct Resolver;

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            if is_localhost(name.as_str()) {
                return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))].into_iter());
            }
            let look_up = move || (name.as_str(), 0).to_socket_addrs();
            tokio::task::spawn_blocking(look_up).await.map_err(io::Error::other)?
        })
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_below_localhost_are_this_machine() {
        use std::str::FromStr;
        let name = Name::from_str("demo.platform.localhost").unwrap();
        let found: Vec<_> = tower::Service::call(&mut Resolver, name).await.unwrap().collect();
        assert_eq!(found, [SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]);
        assert!(!is_localhost("notlocalhost") && !is_localhost("localhost.example"));
    }

    #[test]
    fn packed_answers_are_unpacked_within_their_limit() {
        let pack = |bytes: &[u8]| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            io::Write::write_all(&mut packed, bytes).unwrap();
            packed.finish().unwrap()
        };
        let read = |coding: &'static str, body: Vec<u8>| {
            let headers =
                [(header::CONTENT_ENCODING, http::HeaderValue::from_static(coding))].into_iter().collect();
            Answer::unpacked(StatusCode::OK, headers, body.into())
        };
        assert_eq!(read("gzip", pack(b"{}")).unwrap().body, "{}");
        assert!(read("gzip", pack(&vec![b' '; ANSWER_BYTES_MAX + 1])).is_err(), "too long");
        assert!(read("gzip", b"{}".to_vec()).is_err() && read("br", pack(b"{}")).is_err());
    }

    #[test]
    fn a_list_goes_on_where_its_link_says() {
        let next = |link: &'static str| {
            let headers = [(header::LINK, http::HeaderValue::from_static(link))].into_iter().collect();
            Answer::unpacked(StatusCode::OK, headers, Bytes::new()).unwrap().next_page()
        };
        assert_eq!(next("</api/v1/apps?cursor=abc>; rel=\"next\""), Some("/apps?cursor=abc".into()));
        assert_eq!(next("</api/v1/apps?cursor=abc>; rel=\"prev\""), None);
        assert_eq!(next("<https://evil.example/api/v1/apps>; rel=\"next\""), None);
    }

    #[test]
    fn a_problem_is_said_with_its_code() {
        let problem = bastide_types::Code::NameTaken.because("demo");
        let answer =
            Answer { status: StatusCode::CONFLICT, headers: HeaderMap::new(), body: problem.json().into() };
        let text = answer.good().unwrap_err().to_string();
        assert!(text.contains("B-API-0409") && text.contains("demo"), "{text}");
    }
}
