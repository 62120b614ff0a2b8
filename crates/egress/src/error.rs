//! What can go wrong, by what the caller does about it.

use std::path::PathBuf;

/// Why the role cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or socket of its own.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The name servers of this machine are not known.
    #[error("cannot set up the resolver")]
    Resolver(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// Why one call does not go out. The text is for the app's developer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request to the proxy cannot be read.
    #[error("the request to the egress proxy is not valid: {0}")]
    Request(String),
    /// The policy, or a forbidden range.
    #[error("the egress policy of this stage does not allow this call ({why})")]
    Policy { why: String },
    /// The name leads nowhere.
    #[error("the name cannot be resolved")]
    Name(#[source] std::io::Error),
    /// Nobody answers there.
    #[error("the destination cannot be reached")]
    Connect(#[source] std::io::Error),
    /// It took too long.
    #[error("the destination did not answer in time")]
    TimedOut,
}
