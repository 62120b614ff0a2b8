//! Roles: what a process of the one executable does, as its certificate says.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A role. Each hop accepts only peers whose certificate names the role it expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ends TLS for the world, inspects, caches, routes.
    Edge,
    /// Checks identity and balances, one per zone.
    Gateway,
    /// Runs the Platform's services.
    Platform,
    /// Runs the apps of stages.
    Runtime,
    /// The broker.
    Bus,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Edge, Self::Gateway, Self::Platform, Self::Runtime, Self::Bus];

    /// The word, as in certificates (`spiffe://bastide/role/<word>/<name>`), logs and the CLI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Gateway => "gateway",
            Self::Platform => "platform",
            Self::Runtime => "runtime",
            Self::Bus => "bus",
        }
    }

    /// The role of this word, if there is one.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
