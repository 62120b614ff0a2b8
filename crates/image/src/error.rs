//! Why an image is not taken.

use std::{io, path::PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image is at fault; the text is for whoever made it.
    #[error("{0}")]
    Refused(String),
    /// It is larger than allowed; the text says in which way.
    #[error("{0}")]
    TooLarge(String),
    /// This host is at fault.
    #[error("cannot use {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// An error about a file of this host.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

/// A refusal.
pub(crate) fn refused<T>(why: impl Into<String>) -> crate::Result<T> {
    Err(Error::Refused(why.into()))
}

/// Foreign bytes for people: no control characters, and not endless.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
    text.escape_debug().to_string()
}
