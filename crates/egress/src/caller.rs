//! A replica as this role knows it: who it is, what holds for it now, and how much it may use at a time.

use crate::pace::Pace;
use bastide_types::egress::{EgressCaller, EgressPolicy};
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Instant};
use tokio::sync::{Semaphore, watch};

/// What a replica finds inside its own namespace, by name.
pub type Inside = BTreeMap<String, Ipv4Addr>;

/// A replica that may call out.
pub struct Caller {
    /// Who calls.
    pub who: EgressCaller,
    pub(crate) policy: watch::Receiver<Arc<EgressPolicy>>,
    inside: watch::Receiver<Inside>,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) pace: Pace,
}

impl Caller {
    /// A replica with at most `connections_max` connections at a time and `calls_per_s` new ones, under the newest
    /// value of `policy`, that finds the newest value of `inside`.
    pub fn new(
        who: EgressCaller,
        policy: watch::Receiver<Arc<EgressPolicy>>,
        inside: watch::Receiver<Inside>,
        connections_max: usize,
        calls_per_s: u32,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(connections_max));
        Self { who, policy, inside, connections, pace: Pace::new(calls_per_s, Instant::now()) }
    }

    pub(crate) fn policy(&self) -> Arc<EgressPolicy> {
        self.policy.borrow().clone()
    }

    /// What this name leads to inside.
    pub(crate) fn inside(&self, name: &str) -> Option<Ipv4Addr> {
        self.inside.borrow().get(name).copied()
    }
}
