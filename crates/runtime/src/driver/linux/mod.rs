//! The `linux` driver: every replica in a container of its own, in a network namespace of its own.
//!
//! A start is: a network by plan, the sockets of the way out, the container. Nothing of an app runs before the
//! rules around it are in force, and whatever fails takes away what was made before it. Replicas outlive the
//! role: their shims look after them, and the next life of the role finds them by their directories.

mod bundle;
mod flows;
mod governor;
mod ground;
mod members;
mod networks;
mod outward;
mod zones;

use super::{Found, Isolation, Launch, Life, RuntimeDriver, Started, Usage};
use crate::{Error, agent::chain, config, files};
use bastide_container::{Engine, Handle, cgroup::Cgroups};
use bastide_isolation::{Canary, Installation, Topology, address};
use bastide_network::{Network, OutsideNamespace, socket::Sockets};
use bastide_proxy::flow_log::FlowLog;
use bastide_types::{
    CustomerName, ReplicaId, ZoneName,
    egress::{EgressCaller, EgressCanary},
    message::{Reach, StageState},
};
use bundle::Making;
use flows::Owners;
use members::{Member, Members, Rules};
use networks::{Detours, Networks};
use outward::{Listeners, Names, Outward};
use std::{
    collections::HashMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use zones::Zones;

/// Longest wait for a connection inside a namespace; there is no network in between.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// What a replica was started as, in its state directory.
const LAUNCH: &str = "launch.json";
const LOST: usize = 64;

/// The driver. Clones are the same; what it runs does not end with it.
#[derive(Clone)]
pub struct LinuxDriver {
    inner: Arc<Inner>,
}

struct Inner {
    state_dir: PathBuf,
    installation: Installation,
    making: Making,
    sockets: Sockets,
    networks: Networks,
    detours: Detours,
    outward: Outward,
    egress_control: PathBuf,
    replicas: Mutex<HashMap<ReplicaId, Arc<Replica>>>,
    tasks: CancellationToken,
    _tasks_end: DropGuard,
}

/// A replica that runs, starts or stops.
#[derive(Default)]
struct Replica {
    /// Held while it is started or stopped, so that one never meets the other.
    busy: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// How far it is.
#[derive(Default, Clone)]
enum State {
    /// There is nothing of it.
    #[default]
    None,
    /// Its network is there, in this zone, and nobody in it.
    Prepared(ZoneName),
    Running(Running),
}

#[derive(Clone)]
struct Running {
    handle: Handle,
    namespace: String,
    zone: ZoneName,
    port: u16,
    /// Why it was ended by us, if it was.
    fault: Arc<Mutex<Option<String>>>,
}

impl LinuxDriver {
    /// The driver of the node that keeps its things in `state_dir`. It changes nothing yet.
    ///
    /// # Errors
    /// [`Error::NotIsolating`] says what the host lacks.
    pub async fn open(executable: PathBuf, state_dir: PathBuf, config: config::Linux) -> Result<Self, Error> {
        let found = bastide_container::preflight();
        let missing: Vec<_> = found.missing().map(|finding| finding.found.clone()).collect();
        if !missing.is_empty() {
            return Err(Error::NotIsolating(missing.join("; ")));
        }
        for dir in ["replicas", "logs", "empty"] {
            files::private_dir(&state_dir.join(dir))?;
        }
        let installation = ground::installation(&state_dir);
        let outside = match &config.outside {
            config::Outside::Host => OutsideNamespace::Host,
            config::Outside::Namespace { name, .. } => OutsideNamespace::Named(name.clone()),
        };
        let network = Arc::new(Network::open(installation.clone(), outside).await?);
        let ground = ground::ground(&config, &state_dir, network.routes_already().await?)?;
        let members = Members::load(ground, &state_dir)?;
        let sockets = Sockets::start().map_err(Error::file("sockets thread"))?;
        let (lost, gone) = mpsc::channel(LOST);
        let tasks = CancellationToken::new();
        let (owners, detours) = (Owners::default(), Detours::default());
        let (zones, events) = Zones::new(network.clone(), sockets.clone(), config.zones_file);
        let log = FlowLog::open(&config.flow_log).map_err(Error::file(&config.flow_log))?;
        tokio::spawn(flows::keep(log, owners.clone(), events));
        let making = Making {
            libraries: bundle::libraries(&executable)?,
            executable,
            empty: state_dir.join("empty"),
            logs: state_dir.join("logs"),
            user_namespaces: found.user_namespaces,
            engine: config.runc.map_or(Engine::Libcontainer, Engine::Runc),
        };
        let inner = Arc::new(Inner {
            state_dir,
            installation,
            making,
            sockets,
            networks: Networks::start(network, members, zones, owners, detours.clone(), lost),
            detours,
            outward: Outward::new(),
            egress_control: config.egress,
            replicas: Mutex::default(),
            tasks: tasks.clone(),
            _tasks_end: tasks.clone().drop_guard(),
        });
        tokio::spawn(end_the_lost(Arc::downgrade(&inner), gone));
        governor::begin(&inner).map_err(Error::file("governor thread"))?;
        Ok(Self { inner })
    }
}

/// A replica, for whoever verifies what it can reach.
pub(crate) struct Person {
    pub(crate) caller: EgressCaller,
    /// What it finds under internal names.
    pub(crate) names: Names,
    /// Its declared port, when it runs.
    pub(crate) port: Option<u16>,
}

impl LinuxDriver {
    /// A machine outside that answers while isolation is verified, or none any more.
    ///
    /// # Errors
    /// When the networks are not as planned with it.
    pub(crate) async fn canary(&self, canary: Option<Canary>) -> Result<(), Error> {
        self.inner.networks.canary(canary).await
    }

    /// The same for calls by name.
    pub(crate) async fn egress_canary(&self, canary: Option<EgressCanary>) -> Result<(), Error> {
        let told = self.inner.outward.canary(canary).await;
        told.map_err(|error| Error::Network(format!("the egress role does not answer: {error}")))
    }

    /// What the networks were planned from last.
    pub(crate) async fn topology(&self) -> Result<Topology, Error> {
        self.inner.networks.topology().await
    }

    /// Everybody who runs or starts.
    pub(crate) fn people(&self) -> Vec<Person> {
        let callers = self.inner.outward.callers().into_iter();
        callers
            .map(|(caller, names)| {
                let port = self.inner.running(caller.replica).map(|running| running.port);
                Person { caller, names, port }
            })
            .collect()
    }
}

/// Ends containers whose network is gone: their keeper starts them anew, with another.
async fn end_the_lost(inner: std::sync::Weak<Inner>, mut gone: mpsc::Receiver<ReplicaId>) {
    while let Some(id) = gone.recv().await {
        let Some(inner) = inner.upgrade() else { return };
        let Some(running) = inner.running(id) else { continue };
        *lock(&running.fault) = Some("its network was taken away by somebody else".into());
        if let Err(error) = running.handle.stop(Duration::ZERO).await {
            tracing::error!(replica = %id, error = chain(&error), "runs without a network");
        }
    }
}

/// Takes away what an installation's replicas left on this host: containers, networks, cgroups. For when its
/// role does not run.
///
/// # Errors
/// When something could not be removed; the rest is.
pub async fn clear(state_dir: &Path) -> Result<(), Error> {
    let mut result = Ok(());
    for dir in replica_dirs(state_dir)? {
        result = result.and(bastide_container::remove(&dir).await.map_err(Error::from));
    }
    let installation = ground::installation(state_dir);
    let network = Network::open(installation, OutsideNamespace::Host).await?;
    result = result.and(network.clear().await.map_err(Error::from));
    bastide_container::cgroup::sweep();
    result
}

fn replica_dirs(state_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = state_dir.join("replicas");
    match fs::read_dir(&dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file(&dir)(error)),
    }
}

impl Inner {
    fn dir(&self, id: ReplicaId) -> PathBuf {
        self.state_dir.join("replicas").join(id.to_string())
    }

    fn replicas(&self) -> MutexGuard<'_, HashMap<ReplicaId, Arc<Replica>>> {
        lock(&self.replicas)
    }

    fn replica(&self, id: ReplicaId) -> Arc<Replica> {
        self.replicas().entry(id).or_default().clone()
    }

    fn state(&self, id: ReplicaId) -> State {
        let replica = self.replicas().get(&id).cloned();
        replica.map(|replica| lock(&replica.state).clone()).unwrap_or_default()
    }

    fn running(&self, id: ReplicaId) -> Option<Running> {
        match self.state(id) {
            State::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Replicas that run, with their customers.
    fn apps(&self) -> Vec<(CustomerName, ReplicaId)> {
        let callers = self.outward.callers().into_iter().map(|(caller, _)| caller);
        let running = callers.filter(|caller| self.running(caller.replica).is_some());
        running.map(|caller| (caller.customer, caller.replica)).collect()
    }

    fn member(launch: &Launch) -> Member {
        Member { account: launch.account.clone(), caller: Self::caller(launch) }
    }

    fn caller(launch: &Launch) -> EgressCaller {
        let Launch { customer, stage, replica, .. } = launch;
        EgressCaller {
            customer: customer.clone(),
            stage: stage.clone(),
            app: replica.app_name.clone(),
            replica: replica.id,
            zone: replica.zone.clone(),
        }
    }

    /// Makes the network. What was made is taken away when a step fails.
    async fn prepare(&self, launch: &Launch) -> Result<(), Error> {
        let id = launch.replica.id;
        let replica = self.replica(id);
        let _busy = replica.busy.lock().await;
        let state = lock(&replica.state).clone();
        match state {
            State::Prepared(_) => Ok(()),
            State::None | State::Running(_) => self.undo(id, self.make_network(&replica, launch).await).await,
        }
    }

    /// From the network to the running app. What was made is taken away when a step fails.
    async fn start(&self, launch: Launch) -> Result<Started, Error> {
        let id = launch.replica.id;
        let replica = self.replica(id);
        let _busy = replica.busy.lock().await;
        let prepared = matches!(*lock(&replica.state), State::Prepared(_));
        if !prepared {
            self.undo(id, self.make_network(&replica, &launch).await).await?;
        }
        let handle = self.undo(id, self.make_container(&launch).await).await?;
        Ok(self.look_after(&replica, &launch, handle))
    }

    async fn undo<T>(&self, id: ReplicaId, made: Result<T, Error>) -> Result<T, Error> {
        if made.is_err()
            && let Err(error) = self.clear_away(id).await
        {
            tracing::error!(replica = %id, error = chain(&error), "what did not start cannot be removed");
        }
        made
    }

    async fn make_network(&self, replica: &Replica, launch: &Launch) -> Result<(), Error> {
        let id = launch.replica.id;
        let (namespace, dir) = (self.installation.replica(id), self.dir(id));
        // Of an earlier life of the same replica.
        self.clear_away(id).await?;
        files::private_dir(&dir)?;
        files::write(&dir.join(LAUNCH), launch)?;
        let begun = Instant::now();
        self.networks.add(Self::member(launch)).await?;
        tracing::info!(replica = %id, ms = begun.elapsed().as_millis(), "network ready");
        // Before the app is there to take their ports.
        let listeners = Listeners::make(&self.sockets, &namespace).await;
        let listeners =
            listeners.map_err(|error| Error::Network(format!("no sockets for calls out: {error}")))?;
        self.outward.admit(Self::caller(launch), namespace, listeners);
        *lock(&replica.state) = State::Prepared(launch.replica.zone.clone());
        Ok(())
    }

    async fn make_container(&self, launch: &Launch) -> Result<Handle, Error> {
        let id = launch.replica.id;
        let netns = bastide_network::path(&self.installation.replica(id));
        let container = self.making.container(launch, &self.dir(id), netns)?;
        if let Err(error) = bastide_container::cgroup::reserve() {
            tracing::warn!(error = chain(&error), "nothing is kept back for the platform");
        }
        let begun = Instant::now();
        let handle = bastide_container::start(&self.making.executable, &container).await?;
        tracing::info!(replica = %id, ms = begun.elapsed().as_millis(), "container started");
        Ok(handle)
    }

    fn look_after(&self, replica: &Replica, launch: &Launch, handle: Handle) -> Started {
        let (sender, life) = watch::channel(Life::Running);
        let fault = Arc::<Mutex<Option<String>>>::default();
        let running = Running {
            handle: handle.clone(),
            namespace: self.installation.replica(launch.replica.id),
            zone: launch.replica.zone.clone(),
            port: launch.replica.manifest.port(),
            fault: fault.clone(),
        };
        *lock(&replica.state) = State::Running(running);
        let over = self.tasks.clone();
        // Its owner is the container: it ends with it, or with the driver.
        tokio::spawn(async move {
            tokio::select! {
                ended = handle.ended() => {
                    let why = lock(&fault).take().unwrap_or_else(|| ended.to_string());
                    sender.send_replace(Life::Ended(why));
                }
                () = over.cancelled() => {}
            }
        });
        Started { reach: Reach::Broker, life }
    }

    /// Takes away all that there is of a replica, in the opposite order of its making.
    async fn clear_away(&self, id: ReplicaId) -> Result<(), Error> {
        self.outward.dismiss(id);
        let removed = bastide_container::remove(&self.dir(id)).await;
        if let Some(replica) = self.replicas().get(&id) {
            *lock(&replica.state) = State::None;
        }
        // Without its processes gone, its rules stay.
        removed?;
        self.networks.remove(id).await;
        Ok(())
    }

    async fn stop(&self, id: ReplicaId, grace: Duration) {
        let replica = self.replica(id);
        {
            let _busy = replica.busy.lock().await;
            if let Some(running) = self.running(id)
                && let Err(error) = running.handle.stop(grace).await
            {
                tracing::error!(replica = %id, error = chain(&error), "does not end");
            }
            if let Err(error) = self.clear_away(id).await {
                tracing::error!(replica = %id, error = chain(&error), "cannot be removed");
            }
        }
        let mut replicas = self.replicas();
        // Nobody waits to start it again.
        if replicas.get(&id).is_some_and(|kept| Arc::strong_count(kept) == 2 && Arc::ptr_eq(kept, &replica)) {
            replicas.remove(&id);
        }
        let running: Vec<String> = replicas.keys().map(ToString::to_string).collect();
        drop(replicas);
        self.making.sweep_logs(|id| running.iter().any(|running| running == id));
    }

    /// One directory of an earlier life: its replica when it runs; else it is removed.
    async fn find(&self, dir: &Path) -> Result<Option<(Launch, Handle)>, Error> {
        let launch = match files::read::<Launch>(&dir.join(LAUNCH)) {
            Ok(Some(launch)) if self.dir(launch.replica.id) == dir => Some(launch),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(error = chain(&error), "a replica of an earlier life is not known");
                None
            }
        };
        if let Some(launch) = launch
            && let Some(handle) = bastide_container::attach(dir).await?
            && matches!(*handle.life().borrow(), bastide_container::Life::Running { .. })
        {
            return Ok(Some((launch, handle)));
        }
        bastide_container::remove(dir).await?;
        Ok(None)
    }

    async fn attach(&self) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        for dir in replica_dirs(&self.state_dir)? {
            match self.find(&dir).await {
                Ok(running) => found.extend(running),
                Err(error) => tracing::error!(dir = %dir.display(), error = chain(&error), "is left"),
            }
        }
        let members = found.iter().map(|(launch, _)| Self::member(launch)).collect();
        let lost = self.networks.adopt(members).await?;
        let mut all = Vec::new();
        for (launch, handle) in found {
            let id = launch.replica.id;
            if lost.contains(&id) {
                tracing::warn!(replica = %id, "ended, for its network is gone");
                self.clear_away(id).await?;
                continue;
            }
            self.outward.adopt(Self::caller(&launch), self.installation.replica(id));
            let started = self.look_after(&self.replica(id), &launch, handle);
            all.push(Found { launch, started });
        }
        self.outward.begin(self.egress_control.clone(), self.sockets.clone(), self.tasks.clone());
        Ok(all)
    }
}

impl RuntimeDriver for LinuxDriver {
    fn isolation(&self) -> Isolation {
        Isolation::Kernel
    }

    fn outlived(&self) -> bool {
        true
    }

    async fn attach(&self) -> Result<Vec<Found>, Error> {
        self.inner.attach().await
    }

    async fn enact(&self, state: &StageState) {
        let (customer, stage) = (state.customer.clone(), state.stage.clone());
        let names = state.replicas.iter().map(|replica| (replica.id, state.names(replica))).collect();
        self.inner.outward.enact((customer, stage), state.network.egress.clone(), names);
        let rules = Rules { policy: state.network.egress.clone(), failover: state.network.failover };
        if let Err(error) = self.inner.networks.enact(state.account.clone(), rules).await {
            tracing::error!(error = chain(&error), stage = %state.stage, "packets do not follow the policy yet");
        }
    }

    async fn prepare(&self, launch: &Launch) -> Result<(), Error> {
        let (inner, launch) = (self.inner.clone(), launch.clone());
        own_task(async move { inner.prepare(&launch).await }).await
    }

    async fn start(&self, launch: Launch) -> Result<Started, Error> {
        let inner = self.inner.clone();
        own_task(async move { inner.start(launch).await }).await
    }

    async fn stop(&self, replica: ReplicaId, grace: Duration) {
        let inner = self.inner.clone();
        if let Err(error) = tokio::spawn(async move { inner.stop(replica, grace).await }).await {
            tracing::error!(%replica, %error, "was not stopped");
        }
    }

    async fn connect(&self, replica: ReplicaId) -> io::Result<TcpStream> {
        let running = self.inner.running(replica).ok_or(io::ErrorKind::NotFound)?;
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, running.port));
        let sockets = &self.inner.sockets;
        let socket = sockets.connect(&running.namespace, address::BROKER, to, CONNECT_LIMIT).await?;
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        TcpStream::from_std(socket)
    }

    async fn listen(&self, replica: ReplicaId, at: SocketAddr) -> io::Result<TcpListener> {
        if matches!(self.inner.state(replica), State::None) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let namespace = self.inner.installation.replica(replica);
        let socket = std::net::TcpListener::from(self.inner.sockets.listen(&namespace, at).await?);
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    }

    async fn outside(&self, replica: ReplicaId, v6: bool) -> io::Result<OwnedFd> {
        let own = match self.inner.state(replica) {
            State::None => return Err(io::ErrorKind::NotFound.into()),
            State::Prepared(zone) => zone,
            State::Running(running) => running.zone,
        };
        let zone = self.inner.detours.of(replica).unwrap_or(own);
        self.inner.sockets.tcp(&self.inner.installation.probe(&zone), v6).await
    }

    fn usage(&self, replica: ReplicaId) -> Option<Usage> {
        let running = self.inner.running(replica)?;
        let groups = Cgroups::of(&running.handle.container().id);
        let cpu = Duration::from_micros(groups.cpu_us()?);
        Some(Usage { cpu, memory_bytes: groups.memory_bytes()? })
    }

    async fn close(&self) {
        self.inner.tasks.cancel();
        if let Err(error) = self.inner.networks.clear().await {
            tracing::error!(error = chain(&error), "networks are left");
        }
        bastide_container::cgroup::sweep();
    }
}

/// Runs to its end in a task of its own: whoever waits may go away, and what is half done could not be undone.
async fn own_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::Network(error.to_string())),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
