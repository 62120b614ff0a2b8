//! What can go wrong with the kernel's networks.

use std::io;

/// What can go wrong with the kernel's networks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces cannot be made here.
    #[error("network namespaces need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    NotPermitted(#[source] io::Error),
    /// The program is not installed.
    #[error("`nft` is not installed (Debian: nftables)")]
    NoNft,
    /// The namespace that the gateways should go out by is not there.
    #[error("there is no network namespace `{0}` to go out by")]
    NoOutside(String),
    /// A name that would lead out of the directory of namespaces.
    #[error("`{0}` cannot be the name of a network namespace")]
    Name(String),
    /// `nft` refused or did not answer.
    #[error("the firewall of {namespace} does not take its rules: {said}")]
    Firewall {
        /// Where.
        namespace: String,
        /// What nft said.
        said: String,
    },
    /// The kernel has other rules than those it was just given.
    #[error("the rules of {0} are not those that were loaded")]
    ReadBack(String),
    /// The kernel refused.
    #[error("cannot {what}")]
    Kernel {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A thread of this crate ended early, or there is none left.
    #[error("the network's thread ended before its work")]
    Thread,
}

impl Error {
    /// For `map_err`: what was tried.
    pub(crate) fn of(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { what: what.into(), source }
    }
}
