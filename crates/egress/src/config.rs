//! What the egress role is told at its start.

use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};

/// Settings of the egress role.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Unix socket on which the runtime role gives its orders. Only the user of this process may use it.
    pub control: PathBuf,
    /// Unix socket of the runtime role's broker, which makes sockets in the gateway namespaces.
    pub broker: PathBuf,
    /// File of the flow log, JSON lines. It is turned at 64 MiB; one older file is kept.
    pub flow_log: PathBuf,
    /// Name servers to ask. Default: those of this machine.
    #[serde(default)]
    pub name_servers: Vec<SocketAddr>,
    /// Most connections of one replica at a time. Default 256.
    #[serde(default = "connections_max")]
    pub connections_max: usize,
    /// Calls of one replica per second, with a burst of twice as many; more wait. Default 200.
    #[serde(default = "calls_per_s")]
    pub calls_per_s: u32,
    /// Look-ups of one replica per second, with a burst of twice as many; more wait. Default 50.
    #[serde(default = "lookups_per_s")]
    pub lookups_per_s: u32,
}

const fn connections_max() -> usize {
    256
}

const fn calls_per_s() -> u32 {
    200
}

const fn lookups_per_s() -> u32 {
    50
}
