//! Which certificate answers for which name: the exact name, else the wildcard of one label, else none.
//!
//! A connection whose name is unknown, or that names none, gets no certificate at all, so nobody ever
//! sees the certificate of another customer. Reading takes no lock; changing swaps the whole map.

use crate::{TlsError, ca};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use x509_parser::prelude::GeneralName;

/// Most certificates in one chain.
const CHAIN_MAX: usize = 8;

/// Certificates by name.
#[derive(Default)]
pub struct CertificateStore {
    entries: ArcSwap<HashMap<String, Arc<Entry>>>,
    /// Custom domains: each answers for its own name and no other, whatever its certificate states.
    custom: ArcSwap<HashMap<String, CustomSite>>,
}

/// What a custom domain shows: its certificate, and the answer to an authority that asks by TLS-ALPN-01.
#[derive(Clone, Default)]
pub struct CustomSite {
    entry: Option<Arc<Entry>>,
    challenge: Option<Arc<ServerConfig>>,
}

impl CustomSite {
    /// A site without anything: connections to it are refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a certificate chain and its key (PEM) for one name.
    ///
    /// # Errors
    /// [`TlsError::KeyMismatch`] when the key belongs to another certificate.
    pub fn certificate(mut self, name: &str, certificate_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let key = Arc::new(certified(certificate_pem, key_pem)?);
        self.entry = Some(Arc::new(Entry { key, names: vec![normalized(name)] }));
        Ok(self)
    }

    /// The same without an answer for authorities.
    pub fn without_challenge(mut self) -> Self {
        self.challenge = None;
        self
    }

    /// Answers TLS-ALPN-01 (RFC 8737) with this key authorization.
    pub fn challenge(mut self, name: &str, key_authorization: &str) -> Result<Self, TlsError> {
        self.challenge = Some(challenge_config(name, key_authorization)?);
        Ok(self)
    }
}

struct Entry {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl CertificateStore {
    /// An empty store: every connection is refused.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Takes a certificate chain and its key (PEM) and serves it for every DNS name it states; earlier
    /// certificates of these names are replaced. Returns the names.
    ///
    /// # Errors
    /// [`TlsError::KeyMismatch`] when the key belongs to another certificate; nothing is changed.
    pub fn insert(&self, certificate_pem: &str, key_pem: &str) -> Result<Vec<String>, TlsError> {
        let key = certified(certificate_pem, key_pem)?;
        let names = dns_names(&key.cert[0])?;
        let entry = Arc::new(Entry { key: Arc::new(key), names: names.clone() });
        self.entries.rcu(|entries| {
            let mut entries = HashMap::clone(entries);
            for name in &names {
                entries.insert(name.clone(), entry.clone());
            }
            entries
        });
        Ok(names)
    }

    /// Forgets what is served for exactly this name (`*.apps.localhost` for a wildcard).
    pub fn remove(&self, name: &str) {
        self.entries.rcu(|entries| {
            let mut entries = HashMap::clone(entries);
            entries.remove(name);
            entries
        });
    }

    /// Replaces all custom domains, by name. Names that [`Self::insert`] took come first, so a custom domain can
    /// take none of them.
    pub fn set_custom(&self, sites: HashMap<String, CustomSite>) {
        self.custom.store(Arc::new(sites));
    }

    /// What answers an authority that asks for this name by TLS-ALPN-01.
    pub(crate) fn challenge_of(&self, sni: &str) -> Option<Arc<ServerConfig>> {
        self.custom.load().get(&normalized(sni))?.challenge.clone()
    }

    /// The name of the store under which this SNI is served: itself or a wildcard. `None` when the
    /// connection is refused.
    pub fn site_of(&self, sni: &str) -> Option<String> {
        let entries = self.entries.load();
        let sni = normalized(sni);
        let own = candidates(&sni).find(|name| entries.contains_key(name.as_ref())).map(Cow::into_owned);
        own.or_else(|| self.custom_entry(&sni).map(|_| sni))
    }

    /// Whether `host` is in the scope of the certificate that a connection with this SNI got. When it
    /// is not, the answer is 421: the client shall open another connection.
    pub fn covers(&self, sni: &str, host: &str) -> bool {
        let (sni, host) = (normalized(sni), normalized(host));
        let Some(entry) = self.find(&sni) else { return false };
        candidates(&host).any(|name| entry.names.iter().any(|known| known == name.as_ref()))
    }

    fn find(&self, sni: &str) -> Option<Arc<Entry>> {
        let entries = self.entries.load();
        candidates(sni)
            .find_map(|name| entries.get(name.as_ref()).cloned())
            .or_else(|| self.custom_entry(sni))
    }

    fn custom_entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.custom.load().get(name)?.entry.clone()
    }
}

impl std::fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.load().keys()).finish()
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(&normalized(hello.server_name()?)).map(|entry| entry.key.clone())
    }
}

/// What the world connects to: TLS 1.2 and 1.3, certificates from `store`, session tickets whose keys
/// live in this process only, X25519MLKEM768 offered first.
///
/// A session is resumed only under the very name it began with (rustls binds both tickets and ids to
/// the SNI), so Platform and Runtime names, and customers, never share one. Accept connections with
/// [`accept`](crate::accept::accept), which sends the right alert for unknown names.
pub fn server_config(store: Arc<CertificateStore>, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let config = public_builder()?.with_cert_resolver(store);
    finish(config, alpn)
}

/// One certificate for every name: the stand-alone edge, where the SNI rule does not apply.
pub fn single_config(
    certificate_pem: &str,
    key_pem: &str,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let key = certified(certificate_pem, key_pem)?;
    let config = public_builder()?.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)));
    finish(config, alpn)
}

/// A connection that only proves to an authority that we hold the name: a certificate of one's own with the hash of
/// the key authorization in it (RFC 8737 §3).
fn challenge_config(name: &str, key_authorization: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key_authorization.as_bytes());
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).map_err(TlsError::Issue)?;
    params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(hash.as_ref())];
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(TlsError::Issue)?;
    let certificate = params.self_signed(&key).map_err(TlsError::Issue)?;
    let private = private_key(key.serialize_pem().as_bytes())?;
    let private = provider().key_provider.load_private_key(private).map_err(TlsError::Config)?;
    // Not compared with each other: that would read the certificate, and its extension is critical and unknown.
    let key = CertifiedKey::new(vec![certificate.der().clone()], private);
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(key));
    let mut config = public_builder()?.with_cert_resolver(resolver);
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(Arc::new(config))
}

/// The protocol of a connection that an authority makes to check a name (RFC 8737 §4).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

fn public_builder() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>, TlsError>
{
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Config)?;
    Ok(builder.with_no_client_auth())
}

fn finish(mut config: ServerConfig, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Config)?;
    // All of them are good; auditors want the server to choose.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(crate) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = TlsError::Pem { what: "certificate" };
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if (1..=CHAIN_MAX).contains(&chain.len()) => Ok(chain),
        _ => Err(fault),
    }
}

pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::Pem { what: "private key" })
}

pub(crate) fn certified(certificate_pem: &str, key_pem: &str) -> Result<CertifiedKey, TlsError> {
    let chain = chain(certificate_pem.as_bytes())?;
    let key = private_key(key_pem.as_bytes())?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::KeyMismatch,
        other => TlsError::Config(other),
    })
}

fn dns_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, TlsError> {
    let parsed = ca::parse(certificate)?;
    let names =
        parsed.subject_alternative_name().map_err(|error| TlsError::Certificate(error.to_string()))?;
    let names: Vec<String> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(normalized(name)),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        return Err(TlsError::Certificate("it states no DNS name".into()));
    }
    Ok(names)
}

/// The names that may serve `name`, best first: itself, then the wildcard over its first label. None
/// for what is no host at all, such as a wildcard itself or an empty first label.
fn candidates(name: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let host = !name.starts_with('.') && !name.contains('*');
    let exact = host.then(|| Cow::from(name));
    let wildcard = name.split_once('.').filter(|_| host).map(|(_, parent)| format!("*.{parent}").into());
    exact.into_iter().chain(wildcard)
}

fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
