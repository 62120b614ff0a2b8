//! What can go wrong in the runtime.

use std::{io, path::PathBuf};

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver does not isolate and nobody allowed that.
    #[error(
        "B-RT-0403: the `process` driver isolates nothing: apps can read each other and this user's files. \
         Start with --allow-no-isolation if you accept that"
    )]
    NoIsolation,
    /// A file.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bus.
    #[error("the bus failed")]
    Bus(#[from] bastide_bus::BusError),
    /// An image that is not acceptable.
    #[error("the image is not acceptable: {0}")]
    Image(String),
    /// An image that cannot be unpacked.
    #[error("the image cannot be used")]
    Unpack(#[from] bastide_image::Error),
    /// This host allows no containers.
    #[error("B-RT-0404: apps cannot be isolated here: {0}. `bastide check` says more")]
    NotIsolating(String),
    /// Networks.
    #[error("no network: {0}")]
    Network(String),
    /// Isolation cannot be verified.
    #[error("isolation cannot be verified: {0}")]
    Verify(String),
    /// No room, or ids that meet.
    #[error("no network")]
    Plan(#[from] bastide_isolation::PlanError),
    /// A container.
    #[error("no container")]
    Container(#[from] bastide_container::Error),
    /// A program that cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<bastide_network::Error> for Error {
    fn from(error: bastide_network::Error) -> Self {
        Self::Network(crate::agent::chain(&error))
    }
}

impl Error {
    /// An error about a file.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
