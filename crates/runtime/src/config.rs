//! How a node's runtime is set up.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
}

/// Drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// Plain child processes; nothing is isolated.
    #[default]
    Process,
}

const fn default_image_bytes_max() -> u64 {
    1024 * 1024 * 1024
}
