//! The Snapshot: all that the data plane needs to know, immutable and numbered.
//!
//! The platform makes it from SQL; edges and gateways pull it, check it, swap it whole and keep the
//! last good one on disk. Control reaches the data plane in no other way.

use crate::{
    AppId, AppName, CustomerId, CustomerName, Digest, Domains, Purges, ReplicaId, Route, StageName,
    WafPolicy, ZoneName,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest serialized Snapshot that a reader accepts, in bytes.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Everything the data plane knows, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which life of the control plane made this; a restored backup starts a new epoch.
    pub epoch: u64,
    /// Counts up by at least one with each change within an epoch.
    pub revision: u64,
    /// Seconds since 1970.
    pub made_at: u64,
    /// Base domains.
    pub domains: Domains,
    /// Customers, by name. The reserved `operator` organization is among them.
    pub customers: BTreeMap<CustomerName, Customer>,
    /// WAF policies, by digest: many sites share few.
    pub waf: BTreeMap<Digest, WafPolicy>,
    /// WAF policy of the Platform's hosts.
    pub platform_waf: Digest,
}

/// A customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    /// Id, for ever.
    pub id: CustomerId,
    /// Issuer of its members' tokens.
    pub issuer: Issuer,
    /// Stages, by name.
    pub stages: BTreeMap<StageName, Stage>,
}

/// A stage of a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Public key of the stage's account on the bus. Facts about its replicas count only when the
    /// broker says that they come from this account.
    pub account: String,
    /// Issuer of tokens for its apps.
    pub issuer: Issuer,
    /// WAF policy of its hosts.
    pub waf: Digest,
    /// Apps that serve here, by name.
    pub apps: BTreeMap<AppName, App>,
}

/// Who signs tokens, and with which keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// Value of `iss`.
    pub url: String,
    /// Keys that count now: current, next and previous.
    pub keys: Vec<VerifyingKey>,
    /// Tokens of an earlier epoch are refused.
    pub token_epoch: u64,
}

/// A public key of an issuer (Ed25519, RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyingKey {
    /// Key id; an opaque name within its issuer.
    pub kid: String,
    /// The 32 bytes, base64url without padding, as the JWK member `x`.
    pub x: String,
}

/// The revision of an app that serves in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Id, the same in all stages.
    pub id: AppId,
    /// Digest over image, configuration, routes and access rules.
    pub revision: Digest,
    /// Number of that revision for people, counting up per app.
    pub revision_number: u32,
    /// Who may use which part.
    pub routes: Vec<Route>,
    /// WAF policy, if it has one of its own; else that of its stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waf: Option<Digest>,
    /// Replicas that may answer for it. Which of them are ready is a fact of the stage.
    pub replicas: BTreeMap<ReplicaId, ZoneName>,
    /// What edges forget of its stored responses.
    #[serde(default, skip_serializing_if = "Purges::is_empty")]
    pub purges: Purges,
}

impl Snapshot {
    /// The stage of a customer, if both exist.
    pub fn stage(&self, customer: &CustomerName, stage: &StageName) -> Option<(&Customer, &Stage)> {
        let customer = self.customers.get(customer)?;
        Some((customer, customer.stages.get(stage)?))
    }

    /// Whether this one replaces `other`: a later epoch, or a later revision of the same epoch.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.epoch, self.revision) > (other.epoch, other.revision)
    }
}
