//! Facts about replicas.
use crate::{Bus, BusError};
use bastide_types::message::ReplicaFacts;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Agent: tells edges and gateways (no answer). Say it on each change and every few seconds; the same
/// sequence number may be said again.
pub async fn publish(bus: &Bus, facts: &ReplicaFacts) -> Result<(), BusError> {
    let _ = (bus, facts);
    unimplemented!()
}

/// Agent: tells the platform and waits for its acknowledgement.
pub async fn report(bus: &Bus, facts: &ReplicaFacts, limit: Duration) -> Result<(), BusError> {
    let _ = (bus, facts, limit);
    unimplemented!()
}

/// Edge, gateway: the newest facts of each account, from disk at once, then from the bus.
pub fn follow(bus: &Bus, dir: &Path, stop: CancellationToken) -> watch::Receiver<Arc<HashMap<String, ReplicaFacts>>> {
    let _ = (bus, dir, stop);
    unimplemented!()
}
