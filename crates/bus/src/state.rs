//! What should run: for nodes and their agents.
use crate::{Bus, BusError, VerifyKey};
use bastide_types::message::{StageGrant, StageState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The key of a node, made on the node; its seed never leaves it.
pub struct NodeKey {}

impl NodeKey {
    /// Reads the seed file, or makes a key and writes it (mode 0600).
    pub fn load_or_create(seed_file: &Path) -> Result<Self, BusError> {
        let _ = seed_file;
        unimplemented!()
    }
    /// Its public half, for [`grants`].
    pub fn public(&self) -> &str {
        unimplemented!()
    }
}

/// Node (account NODE): the stages that it runs, each with a credential for `user_key`.
pub async fn grants(bus: &Bus, user_key: &str, limit: Duration) -> Result<Vec<StageGrant>, BusError> {
    let _ = (bus, user_key, limit);
    unimplemented!()
}

/// Agent: follows the desired state of its stage. The last good one is read from `dir` before this
/// returns; a state of another account, with a wrong signature or of an earlier generation is refused.
pub fn follow(
    bus: &Bus,
    dir: &Path,
    key: VerifyKey,
    account: &str,
    stop: CancellationToken,
) -> watch::Receiver<Option<Arc<StageState>>> {
    let _ = (bus, dir, key, account, stop);
    unimplemented!()
}
