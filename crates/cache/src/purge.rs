//! Purges of one app's stored responses: an entry older than a purge that means it is a miss.

use crate::stored::Stored;
use bastide_types::Purge;
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Purges of one kind that are remembered one by one; beyond, everything is purged, which only costs misses.
const REMEMBERED_MAX: usize = 4096;
const PREFIXES_MAX: usize = 256;

/// Purges of one app. A purge gets the next tick of the cache; what began to be fetched at that tick or before
/// is older than it.
#[derive(Debug, Default)]
pub struct Purges {
    /// Tick of the newest purge: what is younger needs no closer look.
    latest: AtomicU64,
    /// Number of the newest purge that came from the control plane.
    applied: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    all: u64,
    urls: HashMap<String, u64>,
    prefixes: Vec<(String, u64)>,
    groups: HashMap<String, u64>,
}

impl Purges {
    /// Tick of the newest purge.
    pub fn latest(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Number of the newest purge from the control plane that is in force.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Remembers a purge that takes place at `tick`.
    pub(crate) fn add(&self, purge: Purge, tick: u64) {
        let mut table = self.table();
        match purge {
            Purge::All => table.all = tick,
            Purge::Url(url) => {
                table.urls.insert(url, tick);
            }
            Purge::Group(group) => {
                table.groups.insert(group, tick);
            }
            Purge::Prefix(prefix) => {
                table.prefixes.retain(|(known, _)| !known.starts_with(&prefix));
                table.prefixes.push((prefix, tick));
            }
        }
        let many = table.urls.len().max(table.groups.len()) > REMEMBERED_MAX;
        if many || table.prefixes.len() > PREFIXES_MAX {
            table.all = tick;
        }
        if table.all == tick {
            // Whatever came before is covered by it.
            *table = Table { all: tick, ..Table::default() };
        }
        self.latest.fetch_max(tick, Ordering::AcqRel);
    }

    pub(crate) fn set_applied(&self, number: u64) {
        self.applied.fetch_max(number, Ordering::AcqRel);
    }

    /// Whether a purge means a response under this path and query whose fetch began at `born`.
    pub(crate) fn means(&self, target: &str, stored: &Stored, born: u64) -> bool {
        let table = self.table();
        let later = |tick: Option<&u64>| tick.is_some_and(|tick| *tick > born);
        table.all > born
            || later(table.urls.get(target))
            || table.prefixes.iter().any(|(prefix, tick)| *tick > born && target.starts_with(prefix))
            || stored.groups.iter().any(|group| later(table.groups.get(group)))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
