//! The Snapshot: all that the data plane needs to know, immutable and numbered.
//!
//! The platform makes it from SQL; edges and gateways pull it, check it, swap it whole and keep the
//! last good one on disk. Control reaches the data plane in no other way.

mod cost;
mod places;
mod read;
#[cfg(test)]
mod sample;
mod settle;

pub use cost::Cost;
pub use places::{Leads, Place};
pub use read::{Quarantined, ReadError};

use crate::{
    AppId, AppName, Ban, CustomerId, CustomerName, Digest, DomainName, Domains, Purges, ReplicaId, Route,
    Site, SiteDocument, StageName, WafPolicy, ZoneName,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Largest serialized Snapshot that a reader accepts, in bytes.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Version of the form of Snapshots that are made now. Readers take this one and the one before, and the Platform makes
/// both, so that either side may be upgraded first. 2 added [`Snapshot::kept`].
pub const SCHEMA: u32 = 2;

/// What said nothing of its form.
const FIRST_SCHEMA: u32 = 1;

pub(crate) const fn first_schema() -> u32 {
    FIRST_SCHEMA
}

/// Everything the data plane knows, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of its form.
    #[serde(default = "first_schema")]
    pub schema: u32,
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
    /// Customers whose rows could not be read when this was made: readers keep what they have of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<CustomerName>,
    /// Custom domains whose ownership is proven, by host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<DomainName, CustomDomain>,
    /// WAF policies, by digest: many sites share few.
    pub waf: BTreeMap<Digest, WafPolicy>,
    /// WAF policy of the Platform's hosts.
    pub platform_waf: Digest,
}

/// A host of a customer's own. It belongs to exactly one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomDomain {
    /// Whose it is.
    pub customer: CustomerName,
    /// Where its requests go.
    pub stage: StageName,
    /// The one app that it serves, at `/`. Without one, all apps of the stage answer below their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<AppName>,
    /// Its certificate. Without one, no connection to it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// What an authority asks for before it issues one (RFC 8555 §8): key authorizations by token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub challenges: BTreeMap<String, String>,
}

/// A certificate of a custom domain, with its key for each edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Chain, PEM, leaf first.
    pub chain: String,
    /// The private key (PEM) sealed for the edges, base64url, by the id of the edge's sealing key. Nobody else on
    /// the way of a Snapshot can read it.
    pub keys: BTreeMap<String, String>,
}

/// A customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    /// Id, for ever.
    pub id: CustomerId,
    /// Issuer of its members' tokens.
    pub issuer: Issuer,
    /// Sources that its hosts refuse; those of the operator organization all hosts. Read by the edge, and by nobody else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bans: Vec<Ban>,
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
    /// How its hosts behave by themselves, if anything was said about it. Read by the edge, and by nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteDocument>,
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

impl Customer {
    /// The WAF policies that its stages and apps name.
    pub fn policies(&self) -> BTreeSet<Digest> {
        let of = |stage: &Stage| {
            let apps: Vec<_> = stage.apps.values().filter_map(|app| app.waf).collect();
            std::iter::once(stage.waf).chain(apps)
        };
        self.stages.values().flat_map(of).collect()
    }
}

impl Snapshot {
    /// The same in another form; none where that form cannot say it, or is too old or too new.
    pub fn in_schema(mut self, schema: u32) -> Option<Self> {
        let can_say = match schema {
            SCHEMA => true,
            FIRST_SCHEMA => self.kept.is_empty(),
            _ => false,
        };
        self.schema = schema;
        can_say.then_some(self)
    }

    /// The stage of a customer, if both exist.
    pub fn stage(&self, customer: &CustomerName, stage: &StageName) -> Option<(&Customer, &Stage)> {
        let customer = self.customers.get(customer)?;
        Some((customer, customer.stages.get(stage)?))
    }

    /// What a host leads to: by its form below the base domains, or because it is a custom domain. Whether the
    /// customer exists is still to be looked up.
    pub fn site(&self, host: &str) -> Option<Site> {
        let custom = || {
            let domain = self.hosts.get(host)?;
            Some(Site::Runtime(domain.customer.clone(), domain.stage.clone()))
        };
        self.domains.site(host).or_else(custom)
    }

    /// The app that a host serves at `/`, if it serves only one.
    pub fn root_app(&self, host: &str) -> Option<&AppName> {
        self.hosts.get(host)?.root.as_ref()
    }

    /// Whether this one replaces `other`: a later epoch, or a later revision of the same epoch.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.epoch, self.revision) > (other.epoch, other.revision)
    }
}
