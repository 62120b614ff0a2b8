//! Pulling an image from a registry (OCI distribution specification 1.1), by digest.
//!
//! Whoever publishes chooses the host, so this must not become a way into the Platform's own network: names
//! are resolved here, every address is judged, and that very address is dialled, for redirects and token
//! servers too. Registries that the operator named may be anywhere.

use crate::{Error, config, state::unusable};
use base64::{Engine, prelude::BASE64_STANDARD};
use bastide_image::{Blobs, DOCUMENT_BYTES_MAX, Limits, Parsed, choose, parse};
use bastide_proxy::{Body, Pool, PoolLimits, Request, Response, Upstream, UpstreamTls};
use bastide_types::{Code, Digest, Problem, Secret, egress::forbidden_range, manifest::image::Reference};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::{Instant, timeout};
use url::{Host, Url};

const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for the next piece of a body.
const PIECE_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const REDIRECTS_MAX: usize = 5;
const INDEX_DEPTH_MAX: usize = 4;
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// The registries that the operator named, and what is needed to speak TLS with all others.
pub(crate) struct Registries {
    named: HashMap<String, Named>,
    /// The system's CAs, read when they are first needed.
    tls: OnceLock<Arc<rustls::ClientConfig>>,
}

struct Named {
    plain_http: bool,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// `Basic …`.
    basic: Option<HeaderValue>,
}

impl Registries {
    /// Reads the files that the configuration names.
    pub(crate) fn open(config: &[config::Registry]) -> Result<Self, Error> {
        let mut named = HashMap::new();
        for registry in config {
            let tls = match &registry.ca_file {
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
            let basic = match (&registry.username, &registry.password_file) {
                (Some(username), Some(path)) => {
                    let password = fs::read_to_string(path).map_err(|error| unusable(path, error))?;
                    let password = Secret::new(password.trim().to_owned());
                    Some(basic(username, &password).map_err(|error| unusable(path, error))?)
                }
                _ => None,
            };
            named.insert(registry.host.clone(), Named { plain_http: registry.plain_http, tls, basic });
        }
        Ok(Self { named, tls: OnceLock::new() })
    }

    fn named(&self, url: &Url) -> Option<&Named> {
        self.named.get(&authority(url))
    }

    fn tls(&self, url: &Url) -> Arc<rustls::ClientConfig> {
        if let Some(own) = self.named(url).and_then(|named| named.tls.clone()) {
            return own;
        }
        let read = || {
            let mut roots = rustls::RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            client(roots)
        };
        self.tls.get_or_init(read).clone()
    }
}

fn client(roots: rustls::RootCertStore) -> Arc<rustls::ClientConfig> {
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn basic(username: &str, password: &Secret) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let both = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
    let mut value = HeaderValue::from_str(&format!("Basic {both}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Host, and port when it is not the usual one.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Pulls the image of a reference into `blobs`, and gives the digest of its manifest. What is there already is not
/// pulled again.
///
/// # Errors
/// [`Code::PullFailed`] and [`Code::ImageInvalid`] say why.
pub(crate) async fn pull(
    registries: &Registries,
    reference: &Reference,
    blobs: &Blobs,
    limits: &Limits,
) -> Result<Digest, Problem> {
    let mut session = Session::new(registries, reference)?;
    let mut digest = reference.digest;
    for _ in 0..INDEX_DEPTH_MAX {
        if !blobs.has(&digest) {
            session.fetch("manifests", &digest, blobs, DOCUMENT_BYTES_MAX).await?;
        }
        let document = blobs.bytes(&digest, DOCUMENT_BYTES_MAX).map_err(of_image)?;
        match parse(&document).map_err(of_image)? {
            Parsed::Index(index) => digest = choose(&index).map_err(of_image)?.digest,
            Parsed::Manifest(manifest) => {
                if manifest.layers.len() > limits.layers_max {
                    let most = limits.layers_max;
                    return Err(Code::ImageInvalid.because(format!("it has more than {most} layers")));
                }
                let mut left = limits.bytes_max;
                for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    left = left.checked_sub(part.size).ok_or_else(|| {
                        let most = limits.bytes_max / (1024 * 1024);
                        Code::UploadTooLarge.because(format!("the image is larger than {most} MiB"))
                    })?;
                    if !blobs.has(&part.digest) {
                        session.fetch("blobs", &part.digest, blobs, part.size).await?;
                    }
                }
                return Ok(digest);
            }
        }
    }
    Err(Code::ImageInvalid.because(format!("more than {INDEX_DEPTH_MAX} indexes lie within each other")))
}

/// Says what is wrong with an image; what is wrong with this host goes to the log.
pub(crate) fn of_image(error: bastide_image::Error) -> Problem {
    match error {
        bastide_image::Error::Refused(why) => Code::ImageInvalid.because(why),
        bastide_image::Error::TooLarge(why) => Code::UploadTooLarge.because(why),
        error @ bastide_image::Error::File { .. } => crate::ApiError::internal(&error).0,
    }
}

fn failed(why: impl Into<String>) -> Problem {
    Code::PullFailed.because(why)
}

/// One pull: the registry, and the token that it asked for.
struct Session<'r> {
    registries: &'r Registries,
    base: Url,
    repository: &'r str,
    authorization: Option<HeaderValue>,
    pool: Pool,
}

impl<'r> Session<'r> {
    fn new(registries: &'r Registries, reference: &'r Reference) -> Result<Self, Problem> {
        let host = reference.host.to_string();
        let port = reference.port.map(|port| format!(":{port}")).unwrap_or_default();
        let plain = registries.named.get(&format!("{host}{port}")).is_some_and(|named| named.plain_http);
        // Docker Hub answers under another name than the one that people write.
        let host = if host == "docker.io" { "registry-1.docker.io" } else { &host };
        let scheme = if plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}{port}/v2/"))
            .map_err(|error| failed(format!("{host}{port} is no registry: {error}")))?;
        let limits = PoolLimits { connect_timeout: CONNECT_LIMIT, ..PoolLimits::default() };
        let pool = Pool::new(limits);
        Ok(Self { registries, base, repository: &reference.repository, authorization: None, pool })
    }

    /// Fetches one thing by digest, and keeps it.
    async fn fetch(
        &mut self,
        kind: &str,
        digest: &Digest,
        blobs: &Blobs,
        bytes_max: u64,
    ) -> Result<(), Problem> {
        let url = self.base.join(&format!("{}/{kind}/{digest}", self.repository));
        let url = url.map_err(|error| failed(error.to_string()))?;
        let response = self.get(&url).await?;
        let said = |status: StatusCode| {
            let meaning = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": it wants credentials",
                StatusCode::NOT_FOUND => ": there is no such image, or it is not public",
                StatusCode::TOO_MANY_REQUESTS => ": too many pulls; try again later",
                _ => "",
            };
            failed(format!(
                "{} answered {status} to {kind}/{}{meaning}",
                authority(&self.base),
                digest.short()
            ))
        };
        if response.status() != StatusCode::OK {
            return Err(said(response.status()));
        }
        let mut body = response.into_body();
        let mut blob = blobs.begin(bytes_max).map_err(of_image)?;
        loop {
            let piece = timeout(PIECE_LIMIT, body.frame()).await;
            let piece = piece.map_err(|_| failed(format!("{} stopped sending", authority(&self.base))))?;
            match piece {
                None => break,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        blob.write(&data).map_err(of_image)?;
                    }
                }
                Some(Err(error)) => return Err(failed(format!("the transfer broke off: {error}"))),
            }
        }
        blob.finish(Some(digest)).map_err(of_image)?;
        Ok(())
    }

    /// Asks, signs in when that is wanted, and follows to where the content lies.
    async fn get(&mut self, url: &Url) -> Result<Response, Problem> {
        let mut response = self.send(url, self.authorization.clone()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorization = self.sign_in(response.headers()).await?;
            if self.authorization.is_some() {
                response = self.send(url, self.authorization.clone()).await?;
            }
        }
        let mut url = url.clone();
        for _ in 0..REDIRECTS_MAX {
            let moved = response.status().is_redirection().then(|| response.headers().get(header::LOCATION));
            let Some(location) = moved.flatten() else { return Ok(response) };
            let to = location.to_str().ok().and_then(|to| url.join(to).ok());
            url = to.ok_or_else(|| failed("the registry leads to no address"))?;
            // The token is for the registry, not for the store that it refers to.
            let own = authority(&url) == authority(&self.base) && url.scheme() == self.base.scheme();
            response = self.send(&url, self.authorization.clone().filter(|_| own)).await?;
        }
        Err(failed("the registry redirects without end"))
    }

    /// The answer to a challenge (RFC 6750, and the distribution specification's token server); `None` when it
    /// asks for what we do not have.
    async fn sign_in(&self, challenge: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<Secret>,
            access_token: Option<Secret>,
        }
        let own = self.registries.named(&self.base).and_then(|named| named.basic.clone());
        let challenges =
            challenge.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut parameters = None;
        for text in challenges {
            match text.split_once(' ').map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest)) {
                Some((scheme, rest)) if scheme == "bearer" => parameters = Some(parameters_of(rest)),
                Some((scheme, _)) if scheme == "basic" && own.is_some() => return Ok(own),
                _ => {}
            }
        }
        let Some(parameters) = parameters else { return Ok(None) };
        let realm = parameters.get("realm").and_then(|realm| Url::parse(realm).ok());
        let mut realm = realm.ok_or_else(|| failed("the registry names no token server"))?;
        let wanted = format!("repository:{}:pull", self.repository);
        realm.query_pairs_mut().append_pair("scope", &wanted);
        if let Some(service) = parameters.get("service") {
            realm.query_pairs_mut().append_pair("service", service);
        }
        // The password goes to the server that the operator's registry named over an encrypted or trusted way.
        let response = self.send(&realm, own).await?;
        if response.status() != StatusCode::OK {
            return Err(failed(format!("{} answered {}", authority(&realm), response.status())));
        }
        let body = timeout(PIECE_LIMIT, response.into_body().collect_up_to(TOKEN_BYTES_MAX)).await;
        let body = body.map_err(|_| failed("the token server stopped sending"))?;
        let body = body.map_err(|error| failed(format!("the token server: {error}")))?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| failed("the token server's answer is no token"))?;
        let token =
            answer.token.or(answer.access_token).ok_or_else(|| failed("the token server gave no token"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| failed("the token server's answer is no token"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// One request to one address.
    async fn send(&self, url: &Url, authorization: Option<HeaderValue>) -> Result<Response, Problem> {
        let shown = authority(url);
        let deadline = Instant::now() + HEAD_LIMIT;
        let addresses = timeout(CONNECT_LIMIT, self.resolve(url)).await;
        let addresses = addresses.map_err(|_| failed(format!("{shown} is not found in time")))??;
        let tls = match url.scheme() {
            "https" => {
                let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let server_name = ServerName::try_from(name).map_err(|error| failed(error.to_string()))?;
                Some(UpstreamTls { config: self.registries.tls(url), server_name })
            }
            // Only where the operator said so, and never anywhere else.
            "http" if self.registries.named(url).is_some_and(|named| named.plain_http) => None,
            _ => return Err(failed(format!("{shown} is not asked without TLS"))),
        };
        let mut request = Request::new(Body::empty());
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        *request.uri_mut() = target.parse().map_err(|_| failed("the registry leads to no address"))?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&shown).map_err(|_| failed("the registry has no name"))?;
        headers.insert(header::HOST, host);
        headers.insert(header::ACCEPT, HeaderValue::from_static(ACCEPT));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("bastide-build"));
        authorization.into_iter().for_each(|value| drop(headers.insert(header::AUTHORIZATION, value)));
        let mut why = format!("{shown} has no address");
        for address in addresses {
            let place = bastide_proxy::Place::Address(address);
            let to = Upstream { place, tls: tls.clone(), http2: false };
            match self.pool.send(&to, request, deadline).await {
                Ok(response) => return Ok(response),
                Err(failure) => {
                    let cause = std::error::Error::source(&failure.error).map(|cause| format!(": {cause}"));
                    why = format!("{shown}: {}{}", failure.error, cause.unwrap_or_default());
                    match failure.unsent {
                        Some(unsent) => request = unsent,
                        None => break,
                    }
                }
            }
        }
        Err(failed(why))
    }

    /// The addresses of a host that may be dialled.
    async fn resolve(&self, url: &Url) -> Result<Vec<SocketAddr>, Problem> {
        let shown = authority(url);
        let port = url.port_or_known_default().unwrap_or(443);
        let found: Vec<IpAddr> = match url.host() {
            Some(Host::Ipv4(v4)) => vec![v4.into()],
            Some(Host::Ipv6(v6)) => vec![v6.into()],
            Some(Host::Domain(name)) => match tokio::net::lookup_host((name, port)).await {
                Ok(found) => found.map(|address| address.ip()).collect(),
                Err(_) => return Err(failed(format!("{shown} is not found"))),
            },
            None => return Err(failed("the registry leads to no address")),
        };
        // Which of them is forbidden, and why, is nobody's business.
        let named = self.registries.named(url).is_some();
        let allowed = found.into_iter().filter(|address| named || forbidden_range(*address).is_none());
        let allowed: Vec<_> = allowed.map(|address| (address, port).into()).take(ADDRESSES_MAX).collect();
        if allowed.is_empty() {
            return Err(failed(format!(
                "{shown} is not on the public internet; the operator may name it in the Platform's configuration"
            )));
        }
        Ok(allowed)
    }
}

/// `realm="…",service="…"` of a challenge (RFC 9110 §11.2).
fn parameters_of(mut text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    while let Some((name, rest)) = text.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut characters = quoted.char_indices();
                let end = loop {
                    match characters.next() {
                        Some((_, '\\')) => value.extend(characters.next().map(|(_, escaped)| escaped)),
                        Some((at, '"')) => break at + 1,
                        Some((_, other)) => value.push(other),
                        None => break quoted.len(),
                    }
                };
                (value, &quoted[end..])
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
        };
        found.insert(name, value);
        text = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_their_quotes() {
        let found =
            parameters_of(r#"realm="https://auth.example/token",service="a, \"b\"" , scope=x , error="y"#);
        let expected = [
            ("realm", "https://auth.example/token"),
            ("service", "a, \"b\""),
            ("scope", "x"),
            ("error", "y"),
        ];
        assert_eq!(found.len(), 4);
        for (name, value) in expected {
            assert_eq!(found[name], value);
        }
        assert!(parameters_of("").is_empty());
        assert_eq!(parameters_of("a=\"b\\").len(), 1);
    }

    #[tokio::test]
    async fn private_addresses_are_not_dialled_whatever_their_spelling() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let registries = Registries::open(&[]).unwrap();
        let hex = "0".repeat(64);
        let source: bastide_types::manifest::ImageSource =
            format!("a.example/x@sha256:{hex}").parse().unwrap();
        let bastide_types::manifest::ImageSource::Registry(reference) = source else { panic!("a reference") };
        let session = Session::new(&registries, &reference).unwrap();
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://localhost/",
            "https://169.254.169.254/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://192.168.1.1:8443/",
        ] {
            let problem = session.send(&Url::parse(url).unwrap(), None).await.unwrap_err();
            assert!(problem.detail.unwrap().contains("not on the public internet"), "{url}");
        }
        let plain = session.send(&Url::parse("http://1.1.1.1/").unwrap(), None).await.unwrap_err();
        assert!(plain.detail.unwrap().contains("without TLS"));
    }
}
