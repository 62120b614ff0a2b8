//! How replicas are started. Small on purpose, so that any container runtime fits.

mod linux;
pub mod process;

pub use bastide_types::node::Isolation;
pub(crate) use linux::Person;
pub use linux::{LinuxDriver, clear};

use crate::Error;
use bastide_types::{
    CustomerName, ReplicaId, StageName,
    message::{DesiredReplica, Reach, StageState},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A replica to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Account of its stage on the bus.
    pub account: String,
    /// For whom.
    pub customer: CustomerName,
    /// Where.
    pub stage: StageName,
    /// What should run.
    pub replica: DesiredReplica,
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
#[derive(Debug, Clone)]
pub struct Started {
    /// How gateways reach it.
    pub reach: Reach,
    /// Changes once, when it ends.
    pub life: watch::Receiver<Life>,
}

/// A replica that runs already.
#[derive(Debug, Clone)]
pub struct Found {
    /// What was started.
    pub launch: Launch,
    /// As [`RuntimeDriver::start`] said it.
    pub started: Started,
}

/// What a replica uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since it was started.
    pub cpu: Duration,
    /// Memory now, in bytes.
    pub memory_bytes: u64,
}

/// Starts and stops replicas on this node, and makes sockets into their networks.
pub trait RuntimeDriver: Send + Sync + 'static {
    /// What keeps replicas apart under this driver.
    fn isolation(&self) -> Isolation;

    /// Whether replicas go on running when the role ends; the next life of the role finds them by
    /// [`RuntimeDriver::attach`].
    fn outlived(&self) -> bool;

    /// The replicas that an earlier life of the role started and that still run. Whatever else it left is
    /// removed. Called once, before anything is started.
    fn attach(&self) -> impl Future<Output = Result<Vec<Found>, Error>> + Send;

    /// What holds for the network of a stage from now on: where its apps may call to, and which names they find
    /// inside. Called with every new desired state, before its
    /// replicas are started.
    fn enact(&self, state: &StageState) -> impl Future<Output = ()> + Send;

    /// Makes the network of a replica that is started next, so that there can be listeners inside before the
    /// app runs. What is there already stays; where replicas have no network of their own nothing happens.
    fn prepare(&self, launch: &Launch) -> impl Future<Output = Result<(), Error>> + Send;

    /// Starts a replica.
    fn start(&self, launch: Launch) -> impl Future<Output = Result<Started, Error>> + Send;

    /// Asks a replica to end, and kills it after `grace`. Returns when it is gone.
    fn stop(&self, replica: ReplicaId, grace: Duration) -> impl Future<Output = ()> + Send;

    /// Connects to the port of a replica, as gateways do.
    ///
    /// # Errors
    /// `NotFound` when it does not run here, `ConnectionRefused` when nothing listens there.
    fn connect(&self, replica: ReplicaId) -> impl Future<Output = io::Result<TcpStream>> + Send;

    /// Listens inside the network of a replica, where only its own processes can call.
    ///
    /// # Errors
    /// `NotFound` when it does not run here, `Unsupported` when replicas have no network of their own.
    fn listen(
        &self,
        replica: ReplicaId,
        at: SocketAddr,
    ) -> impl Future<Output = io::Result<TcpListener>> + Send;

    /// A TCP socket, not connected, whose only way out is the gateway of a replica's zone, or the one that stands
    /// in for it.
    ///
    /// # Errors
    /// `NotFound` when the replica is not here, `Unsupported` when zones have no gateways.
    fn outside(&self, replica: ReplicaId, v6: bool) -> impl Future<Output = io::Result<OwnedFd>> + Send;

    /// What a replica uses now; `None` when that is not known.
    fn usage(&self, replica: ReplicaId) -> Option<Usage>;

    /// The role ends and all its replicas are stopped: takes away what was made for them together.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// What a replica is told: its own variables, its settings, those of its services, and ours; what comes later wins.
fn environment(launch: &Launch, host: IpAddr, port: u16) -> Vec<(String, String)> {
    let replica = &launch.replica;
    let mut all: BTreeMap<String, String> = replica.manifest.env.clone();
    let defaults = replica.manifest.settings.iter();
    all.extend(defaults.filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?))));
    all.extend(replica.services.environment());
    let ours = [
        ("PORT", port.to_string()),
        ("HOST", host.to_string()),
        ("BASTIDE_APP", replica.app_name.to_string()),
        ("BASTIDE_CUSTOMER", launch.customer.to_string()),
        ("BASTIDE_STAGE", launch.stage.to_string()),
        ("BASTIDE_ZONE", replica.zone.to_string()),
        ("BASTIDE_REPLICA", replica.id.to_string()),
        ("BASTIDE_REVISION", replica.revision_number.to_string()),
        ("BASTIDE_ASSERTION_KEYS", replica.assertion_keys.clone()),
    ];
    all.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    all.entry("PATH".into()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".into());
    all.into_iter().collect()
}
