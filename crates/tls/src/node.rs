//! TLS between our own processes: both ends show a certificate of the internal CA, and each checks in
//! the handshake that the other plays the role it expects. TLS 1.3 only.
//!
//! Sessions are never resumed here: connections are pooled and long-lived, and a full handshake is what
//! checks the peer.

use crate::{TlsError, ca, file};
use bastide_types::Role;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore};
use rustls::{ServerConfig, SignatureScheme};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use x509_parser::prelude::GeneralName;

const URI_PREFIX: &str = "spiffe://bastide/role/";

/// Files with which a process shows who it is and checks who others are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeTls {
    /// Certificate of the internal CA, PEM.
    pub ca_file: PathBuf,
    /// Own certificate, PEM.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
}

impl NodeTls {
    /// For the listening end: a client must show a certificate of the CA with one of these roles.
    pub fn server_config(&self, accept: &[Role], alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = crate::store::provider();
        let chain = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider.clone())
            .build()
            .map_err(|error| TlsError::Certificate(error.to_string()))?;
        let verifier = Arc::new(ClientRole { chain, accept: accept.to_vec() });
        let (certificates, key) = self.identity()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Config)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates, key)
            .map_err(TlsError::Config)?;
        config.alpn_protocols = owned(alpn);
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    /// For the dialling end: the server must show a certificate of the CA with this role. Use
    /// [`server_name`]`(expect)` as the name to connect to.
    pub fn client_config(&self, expect: Role, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = crate::store::provider();
        let chain = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider.clone())
            .build()
            .map_err(|error| TlsError::Certificate(error.to_string()))?;
        let (certificates, key) = self.identity()?;
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Config)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerRole { chain, expect }))
            .with_client_auth_cert(certificates, key)
            .map_err(TlsError::Config)?;
        config.alpn_protocols = owned(alpn);
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        let root = ca::first_certificate(&file::read(&self.ca_file)?)?;
        roots.add(root).map_err(TlsError::Config)?;
        Ok(Arc::new(roots))
    }

    fn identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let certificates = crate::store::chain(file::read(&self.cert_file)?.as_bytes())?;
        let key = crate::store::private_key(file::read(&self.key_file)?.as_bytes())?;
        Ok((certificates, key))
    }
}

/// The name under which a role is dialled: `<role>.bastide.internal`.
pub fn server_name(role: Role) -> String {
    format!("{role}.bastide.internal")
}

/// Role and instance name that a certificate states, if it states exactly one of our form.
///
/// It says nothing about who signed the certificate: ask only about certificates that the handshake
/// accepted.
pub fn peer_role(certificate: &CertificateDer<'_>) -> Option<(Role, String)> {
    let parsed = ca::parse(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next()?;
    if uris.next().is_some() {
        return None;
    }
    let (role, name) = uri.strip_prefix(URI_PREFIX)?.split_once('/')?;
    is_instance_name(name).then_some((Role::from_word(role)?, name.to_owned()))
}

pub(crate) fn role_uri(role: Role, name: &str) -> String {
    format!("{URI_PREFIX}{role}/{name}")
}

pub(crate) fn is_instance_name(name: &str) -> bool {
    let inner = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    (1..=63).contains(&name.len()) && inner
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

fn check_role(certificate: &CertificateDer<'_>, accept: &[Role]) -> Result<(), rustls::Error> {
    match peer_role(certificate) {
        Some((role, _)) if accept.contains(&role) => Ok(()),
        found => {
            tracing::warn!(?found, ?accept, "a peer with the wrong role was refused");
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }
}

#[derive(Debug)]
struct ClientRole {
    chain: Arc<dyn ClientCertVerifier>,
    accept: Vec<Role>,
}

impl ClientCertVerifier for ClientRole {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        check_role(end_entity, &self.accept)?;
        Ok(verified)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct ServerRole {
    chain: Arc<WebPkiServerVerifier>,
    expect: Role,
}

impl ServerCertVerifier for ServerRole {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        check_role(end_entity, &[self.expect])?;
        Ok(verified)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::OffsetDateTime;

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_name_a_role(bytes: Vec<u8>) {
            prop_assert_eq!(peer_role(&CertificateDer::from(bytes)), None);
        }

        #[test]
        fn a_spoilt_certificate_never_makes_the_reader_panic(at in 0usize..600, byte: u8) {
            let ca = ca::LocalCa::create_internal(OffsetDateTime::UNIX_EPOCH).unwrap();
            let issued = ca.issue_role(Role::Edge, "edge", &[], OffsetDateTime::UNIX_EPOCH).unwrap();
            let mut der = ca::first_certificate(&issued.certificate_pem).unwrap().to_vec();
            let at = at % der.len();
            der[at] = byte;
            let _ = peer_role(&CertificateDer::from(der));
        }
    }
}
