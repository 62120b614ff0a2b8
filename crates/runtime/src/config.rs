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
