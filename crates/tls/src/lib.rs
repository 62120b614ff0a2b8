//! Certificates: by SNI for the world, by role between our own processes.
//!
//! Two authorities exist and never sign for each other: the *public* one makes certificates that
//! browsers see (bounded by name constraints to our base domains, because people import it), the
//! *internal* one makes certificates that say which role a process plays. [`CertificateStore`] picks a
//! certificate by SNI and [`accept`](accept::accept) refuses unknown names with the right alert.
//!
//! This crate does not know routes, customers or listeners, and asks no authority over the network.

pub mod accept;
pub mod ca;
pub mod client;
pub mod error;
pub mod file;
pub mod node;
pub mod seal;
pub mod site;
pub mod store;

pub use accept::{AcceptError, accept};
pub use ca::{About, Issued, LocalCa, about, remaining};
pub use error::TlsError;
pub use node::{NodeTls, peer_role, server_name};
pub use seal::{SealedFault, SealingKey, SealingPublic};
pub use site::{SiteFault, check_site};
pub use store::{CertificateStore, CustomSite, server_config, single_config};
