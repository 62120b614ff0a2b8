//! The dialling end towards servers of others.

use crate::{TlsError, store};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::sync::Arc;

/// TLS 1.2 and 1.3 to a server whose certificate comes from one of these authorities (PEM) and states the
/// name that is dialled. Nobody else is trusted.
///
/// # Errors
/// [`TlsError::Pem`] without any certificate, [`TlsError::Config`] when one cannot be an authority.
pub fn trusting(authorities_pem: &str) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities_pem.as_bytes()) {
        roots
            .add(certificate.map_err(|_| TlsError::Pem { what: "certificate" })?)
            .map_err(TlsError::Config)?;
    }
    if roots.is_empty() {
        return Err(TlsError::Pem { what: "certificate" });
    }
    let config = ClientConfig::builder_with_provider(store::provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Config)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_make_an_authority() {
        let key = rcgen::generate_simple_self_signed(vec!["x".into()]).unwrap();
        assert!(trusting(&key.cert.pem()).is_ok());
        assert!(trusting(&format!("{0}{0}", key.cert.pem())).is_ok());
        for wrong in ["", "junk", &key.signing_key.serialize_pem(), "-----BEGIN CERTIFICATE-----\nAA\n"] {
            assert!(trusting(wrong).is_err(), "{wrong}");
        }
    }
}
