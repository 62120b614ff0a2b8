//! This role's end of the egress role's control socket: what the egress role should serve, and the task that
//! brings it there, again after each restart of either.
//!
//! The sockets that a replica finds in its namespace are kept open here too. So nobody else in the namespace
//! can take their ports while the egress role is away, and calls that arrive meanwhile wait for it.

use crate::agent::chain;
use bastide_isolation::address;
use bastide_network::socket::Sockets;
use bastide_proxy::handover;
use bastide_types::{
    CustomerName, ReplicaId, StageName,
    egress::{EgressCaller, EgressCanary, EgressOrder, EgressPolicy, EgressReceipt},
};
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::UnixStream,
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// Port of the proxy in a replica's namespace.
pub(crate) const PROXY_PORT: u16 = 3128;
/// Port of its name service.
const NAMES_PORT: u16 = 53;
const CONNECT_EVERY: Duration = Duration::from_millis(200);
/// Pause after an order that was refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);
/// Longest wait for a receipt.
const RECEIPT_LIMIT: Duration = Duration::from_secs(5);

type StageKey = (CustomerName, StageName);
/// Names below `internal`, each with an address inside a replica's namespace.
pub(crate) type Names = BTreeMap<String, Ipv4Addr>;

/// What the egress role should serve. Clones are the same.
#[derive(Clone)]
pub(crate) struct Outward {
    wanted: Arc<Mutex<Wanted>>,
    changed: Arc<Notify>,
    /// The canary that the egress role knows now.
    canary: watch::Sender<Option<EgressCanary>>,
}

#[derive(Default)]
struct Wanted {
    lives: u64,
    replicas: BTreeMap<ReplicaId, Wish>,
    /// A replica is served only after its stage is known here: until then, what it may do is not.
    stages: BTreeMap<StageKey, Stage>,
    canary: Option<EgressCanary>,
}

struct Stage {
    policy: EgressPolicy,
    /// What each replica finds inside its namespace.
    names: BTreeMap<ReplicaId, Names>,
}

struct Wish {
    /// Which life of the replica: sockets of an earlier one are in a namespace that is gone. Zero stands for one
    /// that an earlier life of this role began.
    life: u64,
    caller: EgressCaller,
    namespace: String,
    sockets: Option<Listeners>,
}

impl Wish {
    fn stage(&self) -> StageKey {
        (self.caller.customer.clone(), self.caller.stage.clone())
    }
}

impl Stage {
    fn names(&self, replica: ReplicaId) -> Names {
        self.names.get(&replica).cloned().unwrap_or_default()
    }
}

/// The proxy's listener, the UDP socket and the listener for names, made in a replica's namespace.
pub(crate) struct Listeners([OwnedFd; 3]);

impl Listeners {
    /// Makes them. Before the app starts, or it could take their ports.
    pub(crate) async fn make(sockets: &Sockets, namespace: &str) -> io::Result<Self> {
        let at = |port| SocketAddr::from((address::BROKER, port));
        Ok(Self([
            sockets.listen(namespace, at(PROXY_PORT)).await?,
            sockets.udp(namespace, at(NAMES_PORT)).await?,
            sockets.listen(namespace, at(NAMES_PORT)).await?,
        ]))
    }
}

impl Outward {
    /// Nothing is said before [`Outward::begin`].
    pub(crate) fn new() -> Self {
        Self { wanted: Arc::default(), changed: Arc::default(), canary: watch::Sender::default() }
    }

    /// Starts the task, which runs until `stop`. Whom the egress role serves already and who was not adopted until
    /// now is dismissed.
    pub(crate) fn begin(&self, control: PathBuf, sockets: Sockets, stop: CancellationToken) {
        let mut link = Link { control, sockets, outward: self.clone(), told: Told::default() };
        tokio::spawn(async move {
            tokio::select! {
                () = link.keep() => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Serve a replica that is about to start.
    pub(crate) fn admit(&self, caller: EgressCaller, namespace: String, sockets: Listeners) {
        self.change(|wanted| {
            wanted.lives += 1;
            let wish = Wish { life: wanted.lives, caller, namespace, sockets: Some(sockets) };
            wanted.replicas.insert(wish.caller.replica, wish);
        });
    }

    /// Go on serving a replica that runs already. Sockets are made should the egress role have none.
    pub(crate) fn adopt(&self, caller: EgressCaller, namespace: String) {
        self.change(|wanted| {
            wanted.replicas.insert(caller.replica, Wish { life: 0, caller, namespace, sockets: None });
        });
    }

    /// Serve it no longer.
    pub(crate) fn dismiss(&self, replica: ReplicaId) {
        self.change(|wanted| {
            wanted.replicas.remove(&replica);
        });
    }

    /// What holds in a stage from now on.
    pub(crate) fn enact(&self, stage: StageKey, policy: EgressPolicy, names: BTreeMap<ReplicaId, Names>) {
        self.change(|wanted| {
            wanted.stages.insert(stage, Stage { policy, names });
        });
    }

    /// Lets apps call something that is not the internet, or nothing of the kind any more. Returns when that is in
    /// force.
    pub(crate) async fn canary(&self, canary: Option<EgressCanary>) -> io::Result<()> {
        self.change(|wanted| wanted.canary.clone_from(&canary));
        let mut known = self.canary.subscribe();
        timeout(RECEIPT_LIMIT, known.wait_for(|known| *known == canary)).await?.map_err(io::Error::other)?;
        Ok(())
    }

    /// Who may call out, and what each finds inside its namespace.
    pub(crate) fn callers(&self) -> Vec<(EgressCaller, Names)> {
        let wanted = self.lock();
        let names =
            |wish: &Wish| wanted.stages.get(&wish.stage()).map(|stage| stage.names(wish.caller.replica));
        wanted.replicas.values().map(|wish| (wish.caller.clone(), names(wish).unwrap_or_default())).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the egress role was told over the present stream.
#[derive(Default)]
struct Told {
    replicas: BTreeMap<ReplicaId, Served>,
    policies: BTreeMap<StageKey, EgressPolicy>,
    /// Replicas that could not be admitted, and when that is tried again.
    refused: BTreeMap<ReplicaId, Instant>,
    canary: Option<EgressCanary>,
}

/// A replica that the egress role serves.
#[derive(Default)]
struct Served {
    life: u64,
    /// `None` for those that an earlier life of this role told.
    names: Option<Names>,
}

struct Link {
    control: PathBuf,
    sockets: Sockets,
    outward: Outward,
    told: Told,
}

/// What to say next.
struct Next {
    order: EgressOrder,
    sockets: Vec<OwnedFd>,
    /// Of which replica, and which life of it, an admission is.
    admits: Option<(ReplicaId, u64)>,
}

impl Link {
    async fn keep(&mut self) {
        let mut said = false;
        loop {
            match self.life().await {
                Ok(never) => match never {},
                Err(error) if !said => {
                    tracing::warn!(error = chain(&error), "the egress role is not there; calls out wait");
                    said = true;
                }
                Err(error) => tracing::debug!(error = chain(&error), "the egress role is not there"),
            }
            if !self.told.policies.is_empty() {
                said = false;
            }
            tokio::time::sleep(CONNECT_EVERY).await;
        }
    }

    /// One stream, until it ends.
    async fn life(&mut self) -> io::Result<std::convert::Infallible> {
        self.told = Told::default();
        self.outward.canary.send_replace(None);
        let stream = timeout(RECEIPT_LIMIT, handover::connect(&self.control)).await??;
        let receipt = say(&stream, &EgressOrder::Resume, &[]).await?;
        self.told.replicas = receipt.serves.into_iter().map(|replica| (replica, Served::default())).collect();
        loop {
            match self.next().await {
                Some(next) => {
                    let receipt = say(&stream, &next.order, &next.sockets).await?;
                    if let Some(error) = &receipt.error {
                        tracing::error!(error, order = ?next.order, "the egress role refused");
                    }
                    match next.admits {
                        Some((replica, _)) if receipt.error.is_some() => self.refuse(replica),
                        admitted => self.note(next.order, admitted.map_or(0, |(_, life)| life)),
                    }
                }
                None => tokio::select! {
                    () = self.outward.changed.notified() => {}
                    () = tokio::time::sleep(REFUSED_PAUSE), if !self.told.refused.is_empty() => {}
                    error = end(&stream) => return Err(error),
                },
            }
        }
    }

    fn refuse(&mut self, replica: ReplicaId) {
        self.told.refused.insert(replica, Instant::now() + REFUSED_PAUSE);
    }

    fn note(&mut self, order: EgressOrder, life: u64) {
        match order {
            EgressOrder::Admit { caller, names, policy } => {
                self.told.policies.insert((caller.customer, caller.stage), policy);
                self.told.refused.remove(&caller.replica);
                self.told.replicas.insert(caller.replica, Served { life, names: Some(names) });
            }
            EgressOrder::Policy { customer, stage, policy } => {
                self.told.policies.insert((customer, stage), policy);
            }
            EgressOrder::Names { replica, names } => {
                self.told.replicas.entry(replica).or_default().names = Some(names);
            }
            EgressOrder::Dismiss { replica } => {
                self.told.replicas.remove(&replica);
            }
            EgressOrder::Canary { canary } => {
                self.told.canary.clone_from(&canary);
                self.outward.canary.send_replace(canary);
            }
            EgressOrder::Resume => {}
        }
    }

    /// The first thing that the egress role should be told and was not.
    async fn next(&mut self) -> Option<Next> {
        loop {
            if let Some(order) = self.plain() {
                return Some(Next { order, sockets: Vec::new(), admits: None });
            }
            // An admission needs sockets, which may have to be made first.
            let (replica, namespace) = match self.admission()? {
                Admission::Ready(next) => return Some(next),
                Admission::NoSockets(replica, namespace) => (replica, namespace),
            };
            match Listeners::make(&self.sockets, &namespace).await {
                Ok(made) => {
                    if let Some(wish) = self.outward.lock().replicas.get_mut(&replica) {
                        wish.sockets = Some(made);
                    }
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), %replica, "no way out for a replica");
                    self.refuse(replica);
                }
            }
        }
    }

    fn plain(&self) -> Option<EgressOrder> {
        let wanted = self.outward.lock();
        let told = &self.told;
        let unwanted = told
            .replicas
            .iter()
            .find(|(id, served)| wanted.replicas.get(id).is_none_or(|wish| wish.life != served.life));
        if let Some((replica, _)) = unwanted {
            return Some(EgressOrder::Dismiss { replica: *replica });
        }
        if wanted.canary != told.canary {
            return Some(EgressOrder::Canary { canary: wanted.canary.clone() });
        }
        wanted.replicas.iter().find_map(|(id, wish)| {
            let served = told.replicas.get(id)?;
            let stage = wanted.stages.get(&wish.stage())?;
            let names = stage.names(*id);
            if told.policies.get(&wish.stage()) != Some(&stage.policy) {
                let (customer, stage_name) = wish.stage();
                return Some(EgressOrder::Policy {
                    customer,
                    stage: stage_name,
                    policy: stage.policy.clone(),
                });
            }
            (served.names.as_ref() != Some(&names)).then_some(EgressOrder::Names { replica: *id, names })
        })
    }

    fn admission(&self) -> Option<Admission> {
        let wanted = self.outward.lock();
        let now = Instant::now();
        let open = |id: &ReplicaId| {
            !self.told.replicas.contains_key(id)
                && self.told.refused.get(id).is_none_or(|until| *until <= now)
        };
        wanted.replicas.iter().filter(|(id, _)| open(id)).find_map(|(id, wish)| {
            let stage = wanted.stages.get(&wish.stage())?;
            let Some(Listeners(sockets)) = &wish.sockets else {
                return Some(Admission::NoSockets(*id, wish.namespace.clone()));
            };
            let copies = sockets.iter().map(|socket| socket.as_fd().try_clone_to_owned());
            match copies.collect::<io::Result<Vec<_>>>() {
                Ok(sockets) => {
                    let (caller, policy) = (wish.caller.clone(), stage.policy.clone());
                    let names = stage.names(*id);
                    let order = EgressOrder::Admit { caller, policy, names };
                    Some(Admission::Ready(Next { order, sockets, admits: Some((*id, wish.life)) }))
                }
                Err(error) => {
                    tracing::error!(%error, "no descriptors are left");
                    None
                }
            }
        })
    }
}

enum Admission {
    Ready(Next),
    /// The sockets of this replica, in this namespace, have to be made first.
    NoSockets(ReplicaId, String),
}

/// Waits until the other side is gone. It never speaks first: whatever comes is its end.
async fn end(stream: &UnixStream) -> io::Error {
    loop {
        if let Err(error) = stream.readable().await {
            return error;
        }
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
            Ok(_) => return io::ErrorKind::UnexpectedEof.into(),
        }
    }
}

async fn say(stream: &UnixStream, order: &EgressOrder, sockets: &[OwnedFd]) -> io::Result<EgressReceipt> {
    let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let talk = async {
        handover::send(stream, &serde_json::to_vec(order)?, &descriptors).await?;
        let (text, _) = handover::receive(stream).await?;
        Ok(serde_json::from_slice(&text)?)
    };
    timeout(RECEIPT_LIMIT, talk).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::{AppName, ZoneName, egress::EgressMode};
    use std::path::Path;
    use tokio::net::UnixListener;

    /// Longer than anything takes; only a failure waits for it.
    const LONG: Duration = Duration::from_mins(1);

    struct Role {
        listener: UnixListener,
        stream: Option<UnixStream>,
    }

    impl Role {
        fn start(path: &Path) -> Self {
            Self { listener: handover::listen(path).unwrap(), stream: None }
        }

        /// Takes a new stream, whose first order must be to resume.
        async fn resumed(&mut self, serves: &[ReplicaId]) {
            let (stream, _) = timeout(LONG, self.listener.accept()).await.unwrap().unwrap();
            self.stream = Some(stream);
            let (order, _) = self.take().await;
            assert_eq!(order, EgressOrder::Resume);
            self.answer(None, serves).await;
        }

        async fn take(&mut self) -> (EgressOrder, Vec<OwnedFd>) {
            let stream = self.stream.as_ref().unwrap();
            let (text, sockets) = timeout(LONG, handover::receive(stream)).await.unwrap().unwrap();
            (serde_json::from_slice(&text).unwrap(), sockets)
        }

        async fn answer(&mut self, error: Option<&str>, serves: &[ReplicaId]) {
            let receipt = EgressReceipt { error: error.map(str::to_owned), serves: serves.to_vec() };
            let text = serde_json::to_vec(&receipt).unwrap();
            handover::send(self.stream.as_ref().unwrap(), &text, &[]).await.unwrap();
        }

        /// Takes an order and says that it was done.
        async fn obey(&mut self) -> (EgressOrder, Vec<OwnedFd>) {
            let taken = self.take().await;
            self.answer(None, &[]).await;
            taken
        }
    }

    fn caller(replica: ReplicaId) -> EgressCaller {
        EgressCaller {
            customer: CustomerName::new("acme").unwrap(),
            stage: StageName::test(),
            app: AppName::new("shop").unwrap(),
            replica,
            zone: ZoneName::new("a").unwrap(),
        }
    }

    fn stage() -> StageKey {
        (CustomerName::new("acme").unwrap(), StageName::test())
    }

    fn listeners() -> Listeners {
        let tcp = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
        Listeners([tcp(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(), tcp()])
    }

    fn policy(mode: EgressMode) -> EgressPolicy {
        EgressPolicy { mode, ..EgressPolicy::default() }
    }

    struct Scene {
        _dir: tempfile::TempDir,
        path: PathBuf,
        outward: Outward,
        role: Role,
        _end: tokio_util::sync::DropGuard,
    }

    fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let (outward, stop) = (Outward::new(), CancellationToken::new());
        let role = Role::start(&path);
        let scene = Scene { _dir: dir, path, outward, role, _end: stop.clone().drop_guard() };
        scene.outward.begin(scene.path.clone(), Sockets::start().unwrap(), stop);
        scene
    }

    #[tokio::test]
    async fn a_replica_is_served_with_its_sockets_once_its_stage_is_known_and_changes_follow() {
        let mut scene = scene();
        let (known, id) = (ReplicaId::generate(), ReplicaId::generate());
        scene.outward.admit(caller(id), "none".into(), listeners());
        scene.role.resumed(&[known]).await;
        // Nobody wants it any more.
        assert_eq!(scene.role.obey().await.0, EgressOrder::Dismiss { replica: known });
        let names =
            |address| BTreeMap::from([("blog.internal".to_owned(), Ipv4Addr::new(169, 254, 2, address))]);
        scene.outward.enact(stage(), policy(EgressMode::Enforce), BTreeMap::from([(id, names(2))]));
        let (order, sockets) = scene.role.obey().await;
        let admit =
            EgressOrder::Admit { caller: caller(id), policy: policy(EgressMode::Enforce), names: names(2) };
        assert_eq!((order, sockets.len()), (admit, 3));
        scene.outward.enact(stage(), policy(EgressMode::Report), BTreeMap::from([(id, names(2))]));
        assert!(
            matches!(scene.role.obey().await.0, EgressOrder::Policy { policy, .. } if policy.mode == EgressMode::Report)
        );
        scene.outward.enact(stage(), policy(EgressMode::Report), BTreeMap::from([(id, names(3))]));
        assert_eq!(scene.role.obey().await.0, EgressOrder::Names { replica: id, names: names(3) });
        // Started anew: what is served belongs to a namespace that is gone.
        scene.outward.dismiss(id);
        scene.outward.admit(caller(id), "none".into(), listeners());
        assert_eq!(scene.role.obey().await.0, EgressOrder::Dismiss { replica: id });
        assert!(matches!(scene.role.obey().await.0, EgressOrder::Admit { .. }));
        scene.outward.dismiss(id);
        assert_eq!(scene.role.obey().await.0, EgressOrder::Dismiss { replica: id });
    }

    #[tokio::test]
    async fn another_life_of_the_egress_role_gets_the_same_sockets_again() {
        let mut scene = scene();
        let id = ReplicaId::generate();
        scene.outward.enact(stage(), policy(EgressMode::Open), BTreeMap::new());
        let sockets = listeners();
        let port = |socket: &OwnedFd| {
            std::net::TcpListener::from(socket.try_clone().unwrap()).local_addr().unwrap().port()
        };
        let first = port(&sockets.0[0]);
        scene.outward.admit(caller(id), "none".into(), sockets);
        scene.role.resumed(&[]).await;
        assert_eq!(port(&scene.role.obey().await.1[0]), first);
        drop(scene.role);
        scene.role = Role::start(&scene.path);
        scene.role.resumed(&[]).await;
        assert_eq!(port(&scene.role.obey().await.1[0]), first, "nobody else could take it meanwhile");
    }

    #[tokio::test]
    async fn another_life_of_this_role_leaves_alone_what_is_served() {
        let mut scene = scene();
        let (id, refused) = (ReplicaId::generate(), ReplicaId::generate());
        scene.outward.adopt(caller(id), "none".into());
        scene.role.resumed(&[id]).await;
        // Nothing is said of it until its stage is known: it may do what it might before.
        scene.outward.enact(stage(), policy(EgressMode::Enforce), BTreeMap::new());
        assert!(matches!(scene.role.obey().await.0, EgressOrder::Policy { .. }));
        assert!(matches!(scene.role.obey().await.0, EgressOrder::Names { replica, .. } if replica == id));
        // One that is refused holds up nobody.
        scene.outward.admit(caller(refused), "none".into(), listeners());
        assert!(matches!(scene.role.take().await.0, EgressOrder::Admit { .. }));
        scene.role.answer(Some("no"), &[]).await;
        scene.outward.dismiss(id);
        assert_eq!(scene.role.obey().await.0, EgressOrder::Dismiss { replica: id });
        assert!(
            matches!(scene.role.obey().await.0, EgressOrder::Admit { caller, .. } if caller.replica == refused)
        );
    }
}
