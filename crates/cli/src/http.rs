//! HTTPS to a Platform: trusts one CA, finds `*.localhost` by itself, turns problems into errors.

use anyhow::{Context, Result, bail};
use bastide_types::Problem;
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
    io,
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
            let response =
                self.pool.request(request).await.with_context(|| format!("cannot reach {host}"))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("the answer of {host} broke off: {error}"))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
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

impl Answer {
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
    fn a_problem_is_said_with_its_code() {
        let problem = bastide_types::Code::NameTaken.because("demo");
        let answer =
            Answer { status: StatusCode::CONFLICT, headers: HeaderMap::new(), body: problem.json().into() };
        let text = answer.good().unwrap_err().to_string();
        assert!(text.contains("B-API-0409") && text.contains("demo"), "{text}");
    }
}
