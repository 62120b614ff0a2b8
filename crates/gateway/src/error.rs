//! Why a gateway cannot run.

use std::path::PathBuf;

/// A gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the configuration cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certificates.
    #[error("the certificates cannot be used")]
    Tls(#[from] bastide_tls::TlsError),
    /// Bus.
    #[error("the bus cannot be used")]
    Bus(#[from] bastide_bus::BusError),
    /// Listener.
    #[error("cannot listen")]
    Listen(#[source] std::io::Error),
}
