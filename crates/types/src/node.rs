//! What a node can do for its apps.

use crate::ZoneName;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// What keeps the apps of a node apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Namespaces, limits and filters of the kernel.
    Kernel,
    /// Nothing: apps are plain processes.
    None,
}

impl Isolation {
    /// The word in logs and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kernel => "isolation: kernel",
            Self::None => "isolation: NONE",
        }
    }

    /// What everybody has to be told who uses it.
    pub const fn warning(self) -> Option<&'static str> {
        match self {
            Self::Kernel => None,
            Self::None => Some(
                "isolation: NONE. Apps run as plain processes: they can reach each other, this machine and its files. \
                 One customer, no Production.",
            ),
        }
    }
}

/// A zone and the address that outsiders see when its apps call them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ZoneAddress {
    /// The zone.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub zone: ZoneName,
    /// The address; unknown when the host has no way out at the moment.
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>))]
    pub address: Option<Ipv4Addr>,
    /// Whether the operator chose it for this zone. Otherwise it is whichever address the host sends with, and a
    /// translator behind the host may change it once more.
    pub chosen: bool,
}
