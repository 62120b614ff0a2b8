//! How an edge is set up.

use bastide_proxy::Limits;
use bastide_tls::NodeTls;
use bastide_types::{Domains, ZoneName};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};

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
    /// Key with which private keys of custom domains are opened; without one, no custom domain is served.
    #[serde(default)]
    pub sealing_key_file: Option<PathBuf>,
    /// Socket file at which another edge takes over from this one, and this one from the one that serves; without one,
    /// no other edge can.
    #[serde(default)]
    pub takeover_socket: Option<PathBuf>,
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
    /// SecLang rules: files, directories or globs, in the order they are loaded. None: the imported ones, else
    /// Debian's, else the built-in ones.
    pub waf_rules: Vec<PathBuf>,
    /// Directory of imported versions of rules.
    #[serde(default)]
    pub waf_versions: Option<PathBuf>,
    /// File that says which rules are in force, as JSON.
    #[serde(default)]
    pub waf_status: Option<PathBuf>,
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
    /// What the operator set.
    #[serde(default)]
    pub settings: Settings,
}

/// What an operator may set: limits of the listener, and who stands before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Limits.
    pub limits: ListenerLimits,
    /// Load balancers whose connections begin with a PROXY header of version 2, as networks. It is read from
    /// nobody else. Default none.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Proxies whose `Forwarded` or `X-Forwarded-For` says who the client is, as networks. Default none.
    pub forwarded_from: Vec<IpNet>,
    /// Address that serves figures in the Prometheus text format at `/metrics`. It names all customers' apps: give
    /// it an address that only the operator reaches. Default none.
    pub metrics: Option<SocketAddr>,
}

/// Limits of the listener for HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerLimits {
    /// Most bytes of a head. Default 65 536; more is 431.
    pub head_bytes_max: NonZeroUsize,
    /// Most fields of a head. Default 100; more is 431.
    pub header_count_max: NonZeroUsize,
    /// Most bytes of a request target. Default 16 384; more is 414.
    pub target_bytes_max: NonZeroUsize,
    /// Longest wait for a complete head, in milliseconds. Default 10 000.
    pub head_timeout_ms: NonZeroU64,
    /// Longest TLS handshake, in milliseconds. Default 10 000.
    pub handshake_timeout_ms: NonZeroU64,
    /// Longest pause between two requests of a connection, in milliseconds. Default 60 000.
    pub idle_timeout_ms: NonZeroU64,
    /// Longest pause within a body, either way, in milliseconds. Default 60 000.
    pub body_idle_timeout_ms: NonZeroU64,
    /// Longest silence of both ends of a WebSocket, in milliseconds. Default 600 000.
    pub tunnel_idle_timeout_ms: NonZeroU64,
    /// How long requests may go on when the edge stops, in milliseconds. Default 10 000.
    pub drain_ms: NonZeroU64,
    /// How long requests and WebSockets may go on in an edge from which another one took over, in milliseconds.
    /// Default 3 600 000.
    pub takeover_drain_ms: NonZeroU64,
    /// Connections at once, per core. Default 10 000.
    pub connections_max: NonZeroUsize,
    /// Connections at once of one client (IPv4 address or IPv6 /64), per core. Default 1 000.
    pub connections_per_client_max: NonZeroU32,
    /// Unfinished TLS handshakes of one client, per core. Default 100.
    pub handshakes_per_client_max: NonZeroU32,
    /// Streams at once in an HTTP/2 connection. Default 128.
    pub streams_max: NonZeroU32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        let limits = Limits::default();
        let size = |size: usize| NonZeroUsize::new(size).expect("a default is not zero");
        let count = |count: u32| NonZeroU32::new(count).expect("a default is not zero");
        let millis =
            |time: Duration| NonZeroU64::new(time.as_millis() as u64).expect("a default is not zero");
        Self {
            head_bytes_max: size(limits.head_bytes_max),
            header_count_max: size(limits.header_count_max),
            target_bytes_max: size(limits.target_bytes_max),
            head_timeout_ms: millis(limits.head_timeout),
            handshake_timeout_ms: millis(limits.handshake_timeout),
            idle_timeout_ms: millis(limits.idle_timeout),
            body_idle_timeout_ms: millis(limits.body_idle_timeout),
            tunnel_idle_timeout_ms: millis(limits.tunnel_idle_timeout),
            drain_ms: millis(limits.drain),
            takeover_drain_ms: millis(limits.takeover_drain),
            connections_max: size(limits.connections_max),
            connections_per_client_max: count(limits.connections_per_client_max),
            handshakes_per_client_max: count(limits.handshakes_per_client_max),
            streams_max: count(limits.streams_max),
        }
    }
}

impl ListenerLimits {
    pub(crate) fn limits(&self) -> Limits {
        let millis = |time: NonZeroU64| Duration::from_millis(time.get());
        Limits {
            head_bytes_max: self.head_bytes_max.get(),
            header_count_max: self.header_count_max.get(),
            target_bytes_max: self.target_bytes_max.get(),
            head_timeout: millis(self.head_timeout_ms),
            handshake_timeout: millis(self.handshake_timeout_ms),
            idle_timeout: millis(self.idle_timeout_ms),
            body_idle_timeout: millis(self.body_idle_timeout_ms),
            tunnel_idle_timeout: millis(self.tunnel_idle_timeout_ms),
            drain: millis(self.drain_ms),
            takeover_drain: millis(self.takeover_drain_ms),
            connections_max: self.connections_max.get(),
            connections_per_client_max: self.connections_per_client_max.get(),
            handshakes_per_client_max: self.handshakes_per_client_max.get(),
            streams_max: self.streams_max.get(),
            ..Limits::default()
        }
    }
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
    /// Whether answers are compressed.
    pub compress: bool,
    /// Address that serves figures of the cache.
    pub metrics: Option<SocketAddr>,
    /// Socket file at which one edge takes over from another.
    pub takeover_socket: Option<PathBuf>,
    /// WAF; nothing is inspected without.
    pub waf: Option<WafConfig>,
}

/// WAF of an edge that stands alone.
#[derive(Debug, Clone)]
pub struct WafConfig {
    /// SecLang rules: files, directories or globs, in the order they are loaded. None: Debian's, else the built-in
    /// ones.
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
