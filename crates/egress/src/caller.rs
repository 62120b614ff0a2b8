//! A replica as this role knows it: who it is, what holds for it now, and how much it may use at a time.

use bastide_types::egress::{EgressCaller, EgressPolicy};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// A replica that may call out.
pub struct Caller {
    /// Who calls.
    pub who: EgressCaller,
    pub(crate) policy: watch::Receiver<Arc<EgressPolicy>>,
    pub(crate) connections: Arc<Semaphore>,
}

impl Caller {
    /// A replica with at most `connections_max` connections at a time, under the newest value of `policy`.
    pub fn new(
        who: EgressCaller,
        policy: watch::Receiver<Arc<EgressPolicy>>,
        connections_max: usize,
    ) -> Self {
        Self { who, policy, connections: Arc::new(Semaphore::new(connections_max)) }
    }

    pub(crate) fn policy(&self) -> Arc<EgressPolicy> {
        self.policy.borrow().clone()
    }
}
