//! How an edge is set up.

use bastide_tls::NodeTls;
use bastide_types::{Domains, ZoneName};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

/// Configuration of an edge of a Bastide.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address for HTTPS.
    pub https: SocketAddr,
    /// Address for HTTP, which only redirects.
    pub http: SocketAddr,
    /// Base domains and the port that people use.
    pub domains: Domains,
    /// Certificates for the world.
    pub certificates: Vec<CertificateFile>,
    /// Gateways by zone.
    pub gateways: BTreeMap<ZoneName, SocketAddr>,
    /// Own certificate and the CA of the others.
    pub node: NodeTls,
    /// Broker.
    pub bus: bastide_bus::Config,
    /// Directory for the last good Snapshot and facts.
    pub state_dir: PathBuf,
    /// Public key that signs Snapshots, base64url.
    pub snapshot_key_file: PathBuf,
    /// SecLang rules: files or directories, in the order they are loaded.
    pub waf_rules: Vec<PathBuf>,
    /// WAF audit log, one JSON line per transaction that matched.
    pub waf_audit: Option<PathBuf>,
    /// Access log, one JSON line per request.
    pub access_log: Option<PathBuf>,
    /// Largest request body, in bytes. Default 30 000 000.
    #[serde(default = "default_body_bytes_max")]
    pub body_bytes_max: u64,
    /// Largest upload of a publish, in bytes. Default 256 MiB.
    #[serde(default = "default_upload_bytes_max")]
    pub upload_bytes_max: u64,
    /// Longest wait for the head of an answer, in milliseconds. Default 60 000; five times that for the
    /// Platform.
    #[serde(default = "default_deadline_ms")]
    pub deadline_ms: u64,
}

/// A certificate and its key, PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFile {
    /// Certificate chain.
    pub cert_file: PathBuf,
    /// Private key.
    pub key_file: PathBuf,
}

/// Configuration of an edge that stands alone before one origin.
#[derive(Debug, Clone)]
pub struct StandAlone {
    /// Origin, `http://host[:port]` or `https://host[:port]`.
    pub origin: String,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Certificate and key; clear HTTP without.
    pub tls: Option<CertificateFile>,
    /// Whether responses are stored.
    pub cache: bool,
    /// WAF; nothing is inspected without.
    pub waf: Option<WafConfig>,
}

/// WAF of an edge that stands alone.
#[derive(Debug, Clone)]
pub struct WafConfig {
    /// SecLang rules: files or directories, in the order they are loaded.
    pub rules: Vec<PathBuf>,
    /// Whether verdicts are enforced.
    pub mode: bastide_waf::Mode,
    /// Paranoia level, 1 to 4.
    pub paranoia: u8,
    /// `tx` variables set after the rules' own set-up.
    pub variables: Vec<(String, String)>,
    /// Audit log.
    pub audit: Option<PathBuf>,
}

const fn default_body_bytes_max() -> u64 {
    30_000_000
}
const fn default_upload_bytes_max() -> u64 {
    256 * 1024 * 1024
}
const fn default_deadline_ms() -> u64 {
    60_000
}
