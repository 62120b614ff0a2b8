//! What stored responses are to be forgotten, as the data plane hears it.

use serde::{Deserialize, Serialize};

/// Part of an app's stored responses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purge {
    /// Everything of the app.
    All,
    /// One address: path and query.
    Url(String),
    /// All addresses whose path and query begin so.
    Prefix(String),
    /// All that belong to a cache group (RFC 9875).
    Group(String),
}

/// Purges of one app, oldest first. Numbers count up over all apps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purges {
    /// Purges up to this number are not listed any more: an edge that has not seen them all forgets everything
    /// of the app.
    pub before: u64,
    /// The newest ones.
    pub list: Vec<(u64, Purge)>,
}

impl Purges {
    /// Whether there never was one.
    pub fn is_empty(&self) -> bool {
        self.before == 0 && self.list.is_empty()
    }
}
