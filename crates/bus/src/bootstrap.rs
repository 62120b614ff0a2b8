//! What one machine needs at its first start.
use crate::BusError;
use bastide_types::{Role, Secret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Public keys of Bastide's own accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    /// System account.
    pub sys: String,
    /// Platform services.
    pub platform: String,
    /// Edges and gateways.
    pub edge: String,
    /// Runtime nodes.
    pub node: String,
}

/// What the platform needs to make stage accounts (file `authority.json`, only for platform replicas).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Public key of the operator.
    pub operator: String,
    /// Seed of the operator's signing key.
    pub signing_seed: Secret,
    /// Bastide's own accounts.
    pub accounts: Accounts,
}

impl Authority {
    /// Reads `authority.json`.
    pub fn load(path: &std::path::Path) -> Result<Self, BusError> {
        let _ = path;
        unimplemented!()
    }
}

/// What the supervisor keeps to write the broker's configuration and credentials of roles (file
/// `issuers.json`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuers {
    /// JWT of the operator.
    pub operator_jwt: String,
    /// JWTs of SYS, PLATFORM, EDGE, NODE by public key.
    pub account_jwts: BTreeMap<String, String>,
    /// Bastide's own accounts.
    pub accounts: Accounts,
    /// Seeds of the keys that sign users, by account.
    pub signing_seeds: BTreeMap<String, Secret>,
}

/// How the broker is run.
#[derive(Debug, Clone)]
pub struct Server {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Absolute path of its certificate (role `bus`, issued with host `127.0.0.1`).
    pub cert_file: PathBuf,
    /// Absolute path of its key.
    pub key_file: PathBuf,
    /// Absolute path of the directory where it keeps account JWTs.
    pub accounts_dir: PathBuf,
}

/// Files to be written with mode 0600: name → content.
#[derive(Debug, Clone)]
pub struct Material {
    /// `operator.seed` (keep offline), `authority.json` (platform), `issuers.json` (supervisor).
    pub files: BTreeMap<String, Vec<u8>>,
    /// The parsed `issuers.json`.
    pub issuers: Issuers,
    /// The parsed `authority.json`.
    pub authority: Authority,
}

/// Makes operator, accounts and signing keys.
pub fn generate(now_s: u64) -> Result<Material, BusError> {
    let _ = now_s;
    unimplemented!()
}

impl Issuers {
    /// Reads `issuers.json`.
    pub fn load(path: &std::path::Path) -> Result<Self, BusError> {
        let _ = path;
        unimplemented!()
    }
    /// `nats.conf`.
    pub fn nats_conf(&self, server: &Server) -> Result<String, BusError> {
        let _ = server;
        unimplemented!()
    }
    /// Credentials files of one role instance: `<name>.creds`, for the platform also
    /// `<name>.sys.creds` (mode 0600).
    pub fn creds(&self, role: Role, name: &str, now_s: u64) -> Result<BTreeMap<String, Secret>, BusError> {
        let _ = (role, name, now_s);
        unimplemented!()
    }
}
