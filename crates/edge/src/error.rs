//! Why an edge cannot run.

use std::path::PathBuf;

/// An edge could not start.
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
    /// The WAF rules cannot be loaded. Nothing is served without them.
    #[error("the WAF rules cannot be loaded")]
    Rules(#[from] bastide_waf::LoadError),
    /// A path of the WAF rules holds none.
    #[error("{}: {why}", path.display())]
    NoRules {
        /// The path.
        path: PathBuf,
        /// Why.
        why: String,
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
    /// The edge that serves does not give its sockets, or they can be given to nobody.
    #[error("cannot take over at {}", door.display())]
    Takeover {
        /// The socket file.
        door: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Origin of a stand-alone edge.
    #[error("the origin `{origin}` cannot be used: {why}")]
    Origin {
        /// As given.
        origin: String,
        /// Why.
        why: String,
    },
}

impl Error {
    pub(crate) fn file(
        path: impl Into<PathBuf>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::File { path: path.into(), source: Box::new(source) }
    }
}
