//! What can be wrong with certificates, keys and their files.

use std::path::PathBuf;

/// Why a certificate, key or configuration was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read or written.
    #[error("{}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A text is not PEM of the kind expected.
    #[error("not a PEM {what}")]
    Pem {
        /// What was expected.
        what: &'static str,
    },
    /// A certificate cannot be read, or lacks what it must have.
    #[error("the certificate is not usable: {0}")]
    Certificate(String),
    /// The private key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// A name cannot stand in a certificate of this authority.
    #[error("`{name}` cannot be certified: {why}")]
    Name {
        /// The name asked for.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Making a certificate failed.
    #[error("the certificate could not be made")]
    Issue(#[source] rcgen::Error),
    /// rustls refused the configuration.
    #[error("the TLS configuration was refused")]
    Config(#[source] rustls::Error),
}
