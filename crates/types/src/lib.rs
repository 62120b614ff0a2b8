//! The words that every part of Bastide shares: names and ids, what the data plane knows (the
//! [`Snapshot`]), what travels on the bus, and how a refusal is said to a client.
//!
//! Plain values only. This crate opens no socket and no file, reads no clock and no environment, and
//! imports no other crate of ours. The words themselves are explained in `docs/glossary.md`.

pub mod access;
pub mod acr;
pub mod assertion;
pub mod audit;
pub mod ban;
pub mod broker;
pub mod cache;
pub mod canonical;
pub mod digest;
pub mod domain;
pub mod egress;
pub mod feed;
pub mod flow;
pub mod header;
pub mod held_role;
pub mod host;
pub mod id;
pub mod manifest;
pub mod message;
pub mod name;
pub mod network;
pub mod node;
pub mod picture;
pub mod problem;
pub mod purge;
pub mod role;
pub mod secret;
pub mod service;
pub mod settings;
pub mod site;
pub mod snapshot;
pub mod tree;
pub mod waf;

/// Where the Platform's API of this version begins on a Platform host. Another version would stand beside it.
pub const API: &str = "/api/v1";

pub use access::{AccessRule, Route};
pub use acr::{Acr, StepUp};
pub use audit::{AuditEntry, AuditFault, AuditLine, AuditTip};
pub use ban::{Ban, BanTable, BannedNet};
pub use digest::Digest;
pub use domain::DomainName;
pub use held_role::HeldRole;
pub use host::{Domains, Site};
pub use id::{AppId, BanId, CustomerId, ReplicaId, RequestId, UserId};
pub use manifest::Manifest;
pub use name::{AppName, CustomerName, StageName, ZoneName};
pub use problem::{Code, Problem};
pub use purge::{Purge, Purges};
pub use role::Role;
pub use secret::Secret;
pub use site::{SiteDocument, SiteSettings};
pub use snapshot::Snapshot;
pub use waf::WafPolicy;
