//! What the gateway knows at one moment: a Snapshot and who is ready. Replaced whole.

use bastide_balancer::Directory;
use bastide_bus::facts::Facts;
use bastide_types::Snapshot;
use std::sync::Arc;

/// One consistent view.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) directory: Directory,
    /// What the directory was made of, besides the Snapshot.
    facts: Arc<Facts>,
}

impl View {
    pub(crate) fn new(snapshot: Arc<Snapshot>, facts: Arc<Facts>) -> Self {
        let directory = Directory::build(&snapshot, &facts);
        Self { snapshot, directory, facts }
    }

    /// The same Snapshot with these facts; itself, if those are its own.
    pub(crate) fn with(self: Arc<Self>, facts: Arc<Facts>) -> Arc<Self> {
        if Arc::ptr_eq(&self.facts, &facts) {
            return self;
        }
        Arc::new(Self::new(self.snapshot.clone(), facts))
    }
}
