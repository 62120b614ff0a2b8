//! How a node's runtime is set up.

use bastide_types::ZoneName;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::{net::Ipv4Addr, path::PathBuf};

/// Configuration of the runtime role on one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Broker, with the credential of a node.
    pub bus: bastide_bus::Config,
    /// Directory for images, replicas and the last good state.
    pub state_dir: PathBuf,
    /// The executable of Bastide: starts apps so that none outlives the agent, and serves static apps.
    pub executable: PathBuf,
    /// Socket files of the socket broker.
    pub doors: Doors,
    /// A file that is there when the role is told to end for good: then replicas are stopped. Without it they go
    /// on running for the next life of the role, where the driver can do that.
    pub down_mark: PathBuf,
    /// How replicas are started.
    #[serde(default)]
    pub driver: DriverKind,
    /// Settings of the `linux` driver.
    #[serde(default)]
    pub linux: Option<Linux>,
    /// Must be true for a driver that does not isolate.
    #[serde(default)]
    pub allow_no_isolation: bool,
    /// Public key that signs desired states, base64url.
    pub deploy_key_file: PathBuf,
    /// Most bytes of one unpacked image. Default 1 GiB.
    #[serde(default = "default_image_bytes_max")]
    pub image_bytes_max: u64,
}

/// Socket files of the socket broker, in directories for this user only. Who asks behind which file decides what
/// may be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doors {
    /// For gateways: connections to replicas.
    pub gateways: PathBuf,
    /// For the egress role: sockets behind the zones' gateways.
    pub egress: PathBuf,
    /// For the operator: verification of isolation, with a driver that isolates.
    pub verify: PathBuf,
}

/// Drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// A container and a network namespace for each replica.
    #[default]
    Linux,
    /// Plain child processes; nothing is isolated.
    Process,
}

/// Settings of the `linux` driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linux {
    /// Zones of this node, in an order that does not change.
    pub zones: Vec<Zone>,
    /// Control socket of the egress role.
    pub egress: PathBuf,
    /// File of the flow log of packets, JSON lines; it belongs to this role alone.
    pub flow_log: PathBuf,
    /// File that says how the zones' gateways are, JSON; written every few seconds.
    pub zones_file: PathBuf,
    /// Ranges that no app may reach, besides those that nobody may: the platform's own.
    #[serde(default)]
    pub blocked: Vec<Ipv4Net>,
    /// Where the zones' gateways go out. Default: the host.
    #[serde(default)]
    pub outside: Outside,
    /// A program with runc's command line that makes the containers. Default: Bastide makes them itself.
    #[serde(default)]
    pub runc: Option<PathBuf>,
}

/// A zone and its public address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Its name.
    pub name: ZoneName,
    /// An address of this host that is seen outside; without it, whichever the host sends with.
    #[serde(default)]
    pub public: Option<Ipv4Addr>,
}

/// Where the zones' gateways go out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Outside {
    /// The host, which translates their addresses once more.
    #[default]
    Host,
    /// A network namespace that knows how to reach the zones' public addresses.
    Namespace {
        /// Its name, as `ip netns` has it.
        name: String,
        /// Address of its end of each link.
        router: Ipv4Addr,
    },
}

const fn default_image_bytes_max() -> u64 {
    1024 * 1024 * 1024
}
