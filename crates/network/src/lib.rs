//! Applies plans of `bastide_isolation` in the kernel, reads back what is there, and makes sockets inside
//! namespaces.
//!
//! This is the only crate that makes network namespaces, links and firewall rules. What it is given is a whole
//! [`Plan`](bastide_isolation::Plan); it compares it with what it finds and changes only what differs, so the
//! same call builds, repairs and cleans up. No link of a namespace exists before that namespace's rules were
//! loaded and read back, and a namespace whose rules cannot be had is taken away again.
//!
//! What is deliberately not here: which namespaces, addresses and rules there should be (`isolation` decides
//! that), who runs in them, and what is said over the sockets.

mod error;
mod firewall;
pub mod gateway;
mod look;
mod namespace;
mod netlink;
mod network;
mod nfnetlink;
mod program;
mod repair;
mod settings;
pub mod socket;

pub use error::Error;
pub use namespace::{OutsideNamespace, path};
pub use network::{Network, Report};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
