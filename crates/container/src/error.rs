//! What can go wrong with a container.

use std::{io, path::PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A container that cannot be meant.
    #[error("the container is not well described: {0}")]
    Invalid(String),
    /// A file.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The shim could not be started, or died before it said anything.
    #[error("the shim does not start")]
    Shim(#[source] io::Error),
    /// The container could not be made; nothing of it is left.
    #[error("the container does not start: {0}")]
    Start(String),
    /// It took too long.
    #[error("the container did not start within {0} s")]
    Slow(u64),
    /// Processes that do not die.
    #[error("processes of {0} are still there after SIGKILL")]
    Undead(String),
}

impl Error {
    /// An error about a file.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
