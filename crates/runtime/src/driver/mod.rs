//! How replicas are started. Small on purpose, so that any container runtime fits.

pub mod process;

use crate::Error;
use bastide_types::{CustomerName, StageName, message::DesiredReplica};
use std::{future::Future, net::SocketAddr, path::PathBuf, time::Duration};
use tokio::sync::watch;

/// What keeps replicas apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Nothing.
    None,
}

impl Isolation {
    /// The word in logs and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "isolation: NONE",
        }
    }
}

/// A replica to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What should run.
    pub replica: DesiredReplica,
    /// For whom.
    pub customer: CustomerName,
    /// Where.
    pub stage: StageName,
    /// Its unpacked image.
    pub root: PathBuf,
}

/// How a started replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// Its process runs.
    Running,
    /// It ended; why, for people.
    Ended(String),
}

/// A started replica.
#[derive(Debug)]
pub struct Started {
    /// Where the gateway reaches it.
    pub addr: SocketAddr,
    /// Changes once, when it ends.
    pub life: watch::Receiver<Life>,
}

/// Starts and stops replicas on this node.
pub trait RuntimeDriver: Send + Sync + 'static {
    /// What keeps replicas apart under this driver.
    fn isolation(&self) -> Isolation;
    /// Removes what a dead run left behind. Called once, before anything is started.
    fn clean_up(&self) -> impl Future<Output = Result<(), Error>> + Send;
    /// Starts a replica.
    fn start(&self, launch: Launch) -> impl Future<Output = Result<Started, Error>> + Send;
    /// Asks a replica to end, and kills it after `grace`. Returns when it is gone.
    fn stop(&self, replica: bastide_types::ReplicaId, grace: Duration) -> impl Future<Output = ()> + Send;
}
