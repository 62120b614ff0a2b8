//! What a replica finds inside its own network, and what stands behind it: the apps that it may call, and its
//! database.
//!
//! There is no route between replicas. A granted app is an address inside the caller's namespace on which this
//! role listens; what comes in there is carried, byte by byte, to a replica of that app. Without a grant there
//! is no listener, and when a grant is taken back, its listener and all that came through it are cut.
//!
//! The relay reads nothing of what it carries. The called app sees the address from which gateways call it, and
//! nothing says which app calls: an app that must know asks for a token.

mod grants;
pub mod greeting;
mod pace;
mod postgres;
pub mod startup;
mod turns;

use crate::driver::RuntimeDriver;
use bastide_types::{
    AppName, ReplicaId, ZoneName,
    message::{DesiredReplica, ReplicaFact, ReplicaState, StageState},
    network::{CALLEE_PORT, POSTGRES},
    service::{POSTGRES_PORT, PostgresServer},
};
use grants::{Callees, Way};
use pace::Pace;
use postgres::{Current, Database, Target};
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Sockets into the networks of replicas.
pub trait Inside: Send + Sync + 'static {
    /// Listens inside the network of a replica.
    fn listen(
        &self,
        replica: ReplicaId,
        at: SocketAddr,
    ) -> impl Future<Output = io::Result<TcpListener>> + Send;

    /// Connects to the port of a replica.
    fn connect(&self, replica: ReplicaId) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

impl<D: RuntimeDriver> Inside for D {
    fn listen(
        &self,
        replica: ReplicaId,
        at: SocketAddr,
    ) -> impl Future<Output = io::Result<TcpListener>> + Send {
        RuntimeDriver::listen(self, replica, at)
    }

    fn connect(&self, replica: ReplicaId) -> impl Future<Output = io::Result<TcpStream>> + Send {
        RuntimeDriver::connect(self, replica)
    }
}

/// How often listeners that could not be made are tried again.
const AGAIN_EVERY: Duration = Duration::from_secs(2);

/// How much a replica may use of it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of one replica to other apps at a time. One more is reset at once. Default 256.
    pub connections_max: usize,
    /// Calls of one replica to other apps per second, with a burst of twice as many; more wait. Default 1000.
    pub calls_per_s: u32,
    /// Longest wait for one replica to take a connection; then the next is tried. Default 2 s.
    pub connect: Duration,
    /// Longest silence of both sides. Default 15 min.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            calls_per_s: 1000,
            connect: Duration::from_secs(2),
            idle: Duration::from_mins(15),
        }
    }
}

/// The relays of one stage on this node.
pub struct Relays<I> {
    inside: Arc<I>,
    limits: Limits,
    callees: Arc<Callees>,
    target: Current,
    /// What holds now.
    state: Mutex<Option<Arc<StageState>>>,
    /// Held while listeners come and go, so that of two changes the later one has the last word.
    open: tokio::sync::Mutex<BTreeMap<ReplicaId, Open>>,
    stop: CancellationToken,
}

/// A replica that has a network now.
struct Open {
    replica: DesiredReplica,
    /// Its places for connections to other apps.
    places: Arc<Semaphore>,
    /// How often it may call them.
    pace: Arc<Pace>,
    doors: BTreeMap<Ipv4Addr, Door>,
}

/// What stands behind a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
enum To {
    App(AppName),
    Postgres,
}

impl To {
    fn port(&self) -> u16 {
        match self {
            Self::App(_) => CALLEE_PORT,
            Self::Postgres => POSTGRES_PORT,
        }
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(app) => app.fmt(f),
            Self::Postgres => f.write_str("its database"),
        }
    }
}

/// A listener inside a replica's network.
struct Door {
    to: To,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Door {
    /// Closes it and cuts what came through it. Returns when nothing is left.
    async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl<I: Inside> Relays<I> {
    /// Nothing is open. When `stop` comes, everything is cut.
    pub fn new(inside: Arc<I>, limits: Limits, stop: CancellationToken) -> Self {
        Self {
            inside,
            limits,
            callees: Arc::default(),
            target: Current::default(),
            state: Mutex::default(),
            open: tokio::sync::Mutex::default(),
            stop,
        }
    }

    /// What holds for the stage from now on. Listeners of replicas that are open come and go accordingly; those
    /// that cannot be made are tried again at the next call.
    pub async fn enact(&self, state: Arc<StageState>) {
        let mut open = self.open.lock().await;
        self.callees.deploy(&state);
        self.aim(state.postgres.as_ref());
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.clone());
        for (id, open) in open.iter_mut() {
            // What a replica has is settled when it starts; what it may call is not.
            let outcome = self.bring(&state, *id, open).await;
            if let Err(error) = outcome.or_else(allow_none) {
                tracing::warn!(%error, replica = %id, app = %open.replica.app_name, "cannot listen inside its network");
            }
        }
    }

    /// Another PostgreSQL server, or none. Open sessions stay where they are.
    fn aim(&self, server: Option<&PostgresServer>) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if target.as_deref().map(Target::server) == server {
            return;
        }
        *target = match server.cloned().map(Target::new) {
            None => None,
            Some(Ok(new)) => Some(Arc::new(new)),
            Some(Err(error)) => {
                tracing::error!(error, "the PostgreSQL server cannot be used");
                None
            }
        };
    }

    /// Follows what is told of the stage's replicas, and tries again what could not be made, until `stop`.
    pub async fn follow(&self, mut facts: watch::Receiver<BTreeMap<ReplicaId, ReplicaFact>>) {
        let mut again = tokio::time::interval(AGAIN_EVERY);
        loop {
            self.ready(facts.borrow_and_update().values());
            let changed = tokio::select! {
                changed = facts.changed() => changed.is_ok(),
                _ = again.tick() => {
                    let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    if let Some(state) = state {
                        self.enact(state).await;
                    }
                    true
                }
                () = self.stop.cancelled() => false,
            };
            if !changed {
                return;
            }
        }
    }

    /// Which replicas of the stage may be called.
    pub fn ready<'f>(&self, facts: impl Iterator<Item = &'f ReplicaFact>) {
        let ready = facts.filter(|fact| fact.state == ReplicaState::Ready).map(|fact| fact.id);
        self.callees.ready(ready.collect());
    }

    /// A replica has a (new) network: its listeners are made there. Call it before the app starts.
    ///
    /// # Errors
    /// The first listener that cannot be made; the others are.
    pub async fn open(&self, replica: &DesiredReplica) -> io::Result<()> {
        let mut all = self.open.lock().await;
        if let Some(before) = all.remove(&replica.id) {
            close(before).await;
        }
        let places = Arc::new(Semaphore::new(self.limits.connections_max));
        let calls = self.limits.calls_per_s;
        let pace = Arc::new(Pace::new(calls, calls.saturating_mul(2), Instant::now()));
        let mut open = Open { replica: replica.clone(), places, pace, doors: BTreeMap::new() };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let outcome = match state {
            Some(state) => self.bring(&state, replica.id, &mut open).await,
            None => Ok(()),
        };
        all.insert(replica.id, open);
        outcome
    }

    /// A replica is gone, and its network with it.
    pub async fn close(&self, replica: ReplicaId) {
        let before = self.open.lock().await.remove(&replica);
        if let Some(before) = before {
            close(before).await;
        }
    }

    /// Brings the listeners of a replica to what it should have.
    async fn bring(&self, state: &StageState, id: ReplicaId, open: &mut Open) -> io::Result<()> {
        let mut wanted: BTreeMap<Ipv4Addr, To> =
            state.callees(&open.replica).into_iter().map(|(app, at)| (at, To::App(app))).collect();
        if open.replica.services.postgres.is_some() {
            wanted.insert(POSTGRES, To::Postgres);
        }
        let gone: Vec<_> = open
            .doors
            .iter()
            .filter(|(at, door)| wanted.get(at) != Some(&door.to))
            .map(|(at, _)| *at)
            .collect();
        for at in gone {
            if let Some(door) = open.doors.remove(&at) {
                door.close().await;
            }
        }
        let mut outcome = Ok(());
        for (at, to) in wanted {
            if open.doors.contains_key(&at) {
                continue;
            }
            let listener = if open.replica.manifest.port() == to.port() {
                // On all addresses, most likely: whoever came second would find the port in use.
                let why = format!("the app listens on port {} itself, where it would find {to}", to.port());
                Err(io::Error::new(io::ErrorKind::AddrInUse, why))
            } else {
                self.inside.listen(id, (at, to.port()).into()).await
            };
            match listener {
                Ok(listener) => {
                    let door = self.door(listener, to, open);
                    open.doors.insert(at, door);
                }
                Err(error) if outcome.is_ok() => outcome = Err(error),
                Err(_) => {}
            }
        }
        outcome
    }

    fn door(&self, listener: TcpListener, to: To, open: &Open) -> Door {
        let (stop, tasks) = (self.stop.child_token(), TaskTracker::new());
        match (&to, &open.replica.services.postgres) {
            (To::App(app), _) => {
                let way = Way {
                    inside: self.inside.clone(),
                    callees: self.callees.clone(),
                    app: app.clone(),
                    zone: open.replica.zone.clone(),
                    limits: self.limits,
                };
                let ends = (tasks.clone(), stop.clone());
                let served =
                    grants::serve(listener, Arc::new(way), open.places.clone(), open.pace.clone(), ends);
                tasks.spawn(served);
            }
            (To::Postgres, Some(login)) => {
                let database = Database::new(login.clone(), self.target.clone());
                tasks.spawn(postgres::serve(listener, Arc::new(database), tasks.clone(), stop.clone()));
            }
            (To::Postgres, None) => {}
        }
        Door { to, stop, tasks }
    }
}

/// Where replicas have no network of their own there are no grants: the Platform says so to whoever asks for one.
fn allow_none(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(error) }
}

async fn close(open: Open) {
    for door in open.doors.into_values() {
        door.close().await;
    }
}

/// A replica that may be called.
type Place = (ZoneName, ReplicaId);
