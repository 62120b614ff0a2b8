//! How a gateway is set up.

use bastide_tls::NodeTls;
use bastide_types::ZoneName;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};

/// Configuration of one gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Zone that it belongs to.
    pub zone: ZoneName,
    /// Address on which it takes requests from edges.
    pub listen: SocketAddr,
    /// Own certificate and the CA of the others.
    pub node: NodeTls,
    /// Broker.
    pub bus: bastide_bus::Config,
    /// Directory for the last good Snapshot and facts.
    pub state_dir: PathBuf,
    /// Public key that signs Snapshots, base64url.
    #[serde(alias = "snapshot_key_file")]
    pub snapshot_verify_key_file: PathBuf,
    /// Private key of the gateways' assertions, PKCS #8.
    pub assertion_key_file: PathBuf,
    /// Key that seals login cookies, 32 bytes; the same for all gateways.
    pub cookie_key_file: PathBuf,
    /// Unix socket of the node's socket broker, which connects to replicas in namespaces of their own.
    pub broker: PathBuf,
    /// Platform replicas.
    pub platform: Vec<SocketAddr>,
    /// Longest wait for the head of an app's answer, in milliseconds. Default 60 000.
    #[serde(default = "default_deadline_ms")]
    pub deadline_ms: u64,
    /// Longest wait for the head of a platform service's answer, in milliseconds. Default 300 000.
    #[serde(default = "default_platform_deadline_ms")]
    pub platform_deadline_ms: u64,
    /// Verified tokens that are remembered. Default 100 000.
    #[serde(default = "default_tokens_max")]
    pub tokens_max: usize,
    /// Seconds without a word of the Platform about sessions after which members are refused, as it is not known who
    /// was signed out or suspended meanwhile; users of apps go on. 18446744073709551615: never. Default 15.
    #[serde(default = "default_silence_max_s")]
    pub silence_max_s: u64,
}

/// Default of [`Config::silence_max_s`].
pub const fn default_silence_max_s() -> u64 {
    15
}

const fn default_deadline_ms() -> u64 {
    60_000
}
const fn default_platform_deadline_ms() -> u64 {
    300_000
}
const fn default_tokens_max() -> usize {
    100_000
}
