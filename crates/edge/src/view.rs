//! What the edge knows at one moment: a Snapshot and who is ready. Replaced whole.

use bastide_balancer::Directory;
use bastide_bus::facts::Facts;
use bastide_types::Snapshot;
use std::sync::Arc;

/// One consistent view.
pub(crate) struct View {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) directory: Directory,
}

impl View {
    pub(crate) fn new(snapshot: Arc<Snapshot>, facts: &Facts) -> Self {
        let directory = Directory::build(&snapshot, facts);
        Self { snapshot, directory }
    }
}
