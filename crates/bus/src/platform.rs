//! The platform's side of the bus.
use crate::account::StageAccount;
use crate::{Authority, BusError, Config};
use bastide_types::message::{NodeQuery, ReplicaFacts, Signed, SnapshotHead, StageGrant, StateQuery};
use bastide_types::{Digest, Problem};
use bytes::Bytes;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What the platform answers. The account is written by the broker: authorize by it.
pub trait PlatformHandler: Send + Sync + 'static {
    /// The newest Snapshot (only edges and gateways get here).
    fn snapshot_head(&self, have: Option<(u64, u64)>) -> impl Future<Output = Result<SnapshotHead, Problem>> + Send;
    /// At most `max` bytes of a blob from `offset`, and the blob's whole length; `None` when it does
    /// not exist or `account` may not read it.
    fn blob(&self, account: &str, digest: &Digest, offset: u64, max: usize) -> impl Future<Output = Option<(Bytes, u64)>> + Send;
    /// Stages of a node (only nodes get here).
    fn node_stages(&self, query: NodeQuery) -> impl Future<Output = Result<Vec<StageGrant>, Problem>> + Send;
    /// Desired state of the stage with this account.
    fn stage_state(&self, account: &str, query: StateQuery) -> impl Future<Output = Result<Signed, Problem>> + Send;
    /// What the stage with this account says about its replicas.
    fn replicas(&self, account: &str, facts: ReplicaFacts) -> impl Future<Output = Result<(), Problem>> + Send;
}

/// The two connections of a platform replica: PLATFORM and SYS.
#[derive(Clone)]
pub struct PlatformBus {}

impl PlatformBus {
    /// Starts connecting, as [`crate::Bus::connect`].
    pub async fn connect(platform: &Config, sys: &Config, authority: Authority) -> Result<Self, BusError> {
        let _ = (platform, sys, authority);
        unimplemented!()
    }
    /// Answers until `stop`; replicas of the platform share the work.
    pub async fn serve<H: PlatformHandler>(&self, handler: Arc<H>, stop: CancellationToken) -> Result<(), BusError> {
        let _ = (handler, stop);
        unimplemented!()
    }
    /// Pushes the JWTs of accounts that the broker lacks or holds differently; reads each back.
    /// Returns how many were pushed.
    pub async fn ensure_accounts(&self, accounts: &[StageAccount]) -> Result<usize, BusError> {
        let _ = accounts;
        unimplemented!()
    }
    /// Tells the agents of a stage that its desired state changed.
    pub async fn notify_state(&self, account: &str, generation: u64) -> Result<(), BusError> {
        let _ = (account, generation);
        unimplemented!()
    }
    /// Tells edges and gateways that there is a newer Snapshot.
    pub async fn hint_snapshot(&self, epoch: u64, revision: u64) -> Result<(), BusError> {
        let _ = (epoch, revision);
        unimplemented!()
    }
    /// Keys of Bastide's own accounts and of the operator.
    pub fn authority(&self) -> &Authority {
        unimplemented!()
    }
    /// Closes both connections.
    pub async fn close(&self) {
        unimplemented!()
    }
}
