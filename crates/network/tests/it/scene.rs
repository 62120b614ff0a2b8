//! A town of two customers with two stages each over two zones, an outside to call, and people who answer.

use bastide_isolation::{
    Caps, Direct, Installation, Ledger, Link, MAIN, Namespace, Outside, Plan, ReplicaNet, Route, StageNet,
    Topology, Uplink, ZoneNet, address, plan,
};
use bastide_network::{Network, OutsideNamespace, Report, socket::Sockets};
use bastide_types::{ReplicaId, ZoneName};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

/// Longest wait for what must come; far more than a slow machine needs.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// Wait for what must not come. Too short a wait would hide a path, so each is tried between two controls.
pub const BRIEFLY: Duration = Duration::from_millis(300);

/// Outside, as apps may call it.
pub const API: Ipv4Addr = Ipv4Addr::new(11, 1, 0, 80);
/// Where the gateways' links end.
pub const OUTER: Ipv4Addr = Ipv4Addr::new(11, 1, 0, 1);
/// What is there and may not be called.
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub const PLATFORM: Ipv4Addr = Ipv4Addr::new(11, 2, 0, 4);
/// The port of every app and of everybody outside.
pub const PORT: u16 = 8080;
pub const BUS: u16 = 4222;

/// Says on the real standard error that something was skipped: the test harness keeps what `eprintln` says.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}");
}

pub fn zone(ordinal: usize) -> ZoneName {
    ZoneName::new(((b'a' + ordinal as u8) as char).to_string()).unwrap()
}

/// An installation nobody else has.
pub fn installation(test: &str) -> Installation {
    Installation::of(&format!("/test/{}/{test}", std::process::id()))
}

/// Addresses by which the outside of [`Town`] sees the zones.
pub fn zone_address(ordinal: usize) -> Ipv4Addr {
    Ipv4Addr::new(11, 1, 0, 11 + ordinal as u8)
}

/// `stages[i][j]`: how many replicas stage `i` has in zone `j`.
pub fn topology(installation: Installation, stages: &[&[usize]]) -> Topology {
    let mut ledger = Ledger::default();
    let stages = stages.iter().enumerate().map(|(number, zones)| {
        let account = format!("ACCOUNT{number}");
        let mut replicas = Vec::new();
        for (ordinal, count) in zones.iter().enumerate() {
            for _ in 0..*count {
                let id = ReplicaId::generate();
                let address = ledger.replica(&account, id).unwrap();
                replicas.push(ReplicaNet { id, zone: zone(ordinal), address });
            }
        }
        let block = ledger.stage(&account).unwrap();
        StageNet { account, block, replicas, failover: Vec::new(), direct: Direct::default() }
    });
    Topology {
        installation,
        stages: stages.collect(),
        zones: (0..2)
            .map(|ordinal| ZoneNet {
                zone: zone(ordinal),
                uplink: Uplink { inner: zone_address(ordinal), outer: OUTER, public: None },
            })
            .collect(),
        outside: Outside::Given,
        blocked: vec!["11.2.0.0/16".parse().unwrap()],
        caps: Caps::default(),
        canary: None,
    }
}

/// A namespace of a test, made as a plan of an installation of its own.
pub struct Place {
    pub network: Network,
    pub namespace: String,
}

impl Place {
    /// Has these addresses on its loopback; with `host`, a cable to the host, whose end has the address.
    pub async fn new(test: &str, addresses: &[Ipv4Addr], host: Option<Ipv4Addr>) -> Self {
        let installation = installation(&format!("{test}/place"));
        let namespace = installation.gateway(&zone(0));
        // It forwards, as machines of the internet do: whatever comes to it finds its way.
        let mut inside = Namespace {
            forwards: true,
            addresses: addresses.iter().map(|address| ("lo".into(), *address)).collect(),
            ..Namespace::default()
        };
        let (mut outside, mut links) = (Namespace::default(), Vec::new());
        if let Some(host) = host {
            let link = installation.uplink(&zone(0));
            let only = |address: Ipv4Addr| ipnet::Ipv4Net::new(address, 32).unwrap();
            inside.routes.push(Route { to: only(host), via: None, link: "eth0".into(), table: MAIN });
            outside.addresses.push((link.clone(), host));
            for address in addresses {
                outside.routes.push(Route { to: only(*address), via: None, link: link.clone(), table: MAIN });
            }
            links.push(Link { near: (namespace.clone(), "eth0".into()), far: (Plan::OUTSIDE.into(), link) });
        }
        let namespaces = BTreeMap::from([(namespace.clone(), inside), (Plan::OUTSIDE.into(), outside)]);
        let network = Network::open(installation, OutsideNamespace::Host).await.unwrap();
        let place = Self { network, namespace };
        let report = place.network.reconcile(&Plan { namespaces, links }).await.unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        cleared(&self.network);
    }
}

/// Clears on a thread of its own: the test's runtime may be on its way down.
fn cleared(network: &Network) {
    let done = std::thread::scope(|scope| {
        let clear =
            || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(network.clear());
        scope.spawn(clear).join()
    });
    if !std::thread::panicking() {
        done.unwrap().unwrap();
    }
}

/// A town, everybody in it answering.
pub struct Town {
    pub topology: Topology,
    pub plan: Plan,
    pub network: Arc<Network>,
    pub outside: Place,
    pub people: People,
}

impl Town {
    /// `None`, and a line on standard error, where there can be no networks.
    pub async fn new(test: &str, stages: &[&[usize]]) -> Option<Self> {
        if !possible(test) {
            return None;
        }
        let outside = Place::new(test, &[API, PRIVATE, METADATA, PLATFORM], None).await;
        let topology = topology(installation(test), stages);
        let plan = plan(&topology).unwrap();
        let by = OutsideNamespace::Named(outside.namespace.clone());
        let network = Arc::new(Network::open(topology.installation.clone(), by).await.unwrap());
        Some(Self { topology, plan, network, outside, people: People::new() })
    }

    /// A town as planned, in which everybody answers.
    pub async fn built(test: &str, stages: &[&[usize]]) -> Option<Self> {
        let mut town = Self::new(test, stages).await?;
        let report = town.reconcile().await;
        assert!(report.failed.is_empty(), "{report:?}");
        town.populate().await;
        Some(town)
    }

    pub async fn reconcile(&self) -> Report {
        self.network.reconcile(&self.plan).await.unwrap()
    }

    pub async fn populate(&mut self) {
        let outside = self.outside.namespace.clone();
        for at in [API, PRIVATE, METADATA, PLATFORM, OUTER] {
            self.people.answers(&outside, at, PORT, "outside").await;
        }
        self.people.answers(&outside, API, BUS, "bus").await;
        for (stage, replica) in self.places() {
            let namespace =
                self.topology.installation.replica(self.topology.stages[stage].replicas[replica].id);
            self.people.answers(&namespace, Ipv4Addr::UNSPECIFIED, PORT, &name(stage, replica)).await;
        }
    }

    /// Stage and replica numbers of everybody.
    pub fn places(&self) -> Vec<(usize, usize)> {
        let stages = self.topology.stages.iter().enumerate();
        stages.flat_map(|(stage, net)| (0..net.replicas.len()).map(move |replica| (stage, replica))).collect()
    }

    pub fn replica(&self, stage: usize, replica: usize) -> &ReplicaNet {
        &self.topology.stages[stage].replicas[replica]
    }

    pub fn namespace(&self, stage: usize, replica: usize) -> String {
        self.topology.installation.replica(self.replica(stage, replica).id)
    }

    pub fn router(&self, stage: usize) -> String {
        self.topology.installation.router(&self.topology.stages[stage].account)
    }

    /// What a replica hears when it calls.
    pub async fn call(
        &self,
        stage: usize,
        replica: usize,
        to: Ipv4Addr,
        port: u16,
        limit: Duration,
    ) -> String {
        let namespace = self.namespace(stage, replica);
        self.people.call(&namespace, self.replica(stage, replica).address, (to, port).into(), limit).await
    }

    /// A replica reaches the outside and is seen there with its zone's address.
    pub async fn control(&self, stage: usize, replica: usize) {
        let zone = &self.replica(stage, replica).zone;
        let ordinal = self.topology.zones.iter().position(|one| one.zone == *zone).unwrap();
        let heard = self.call(stage, replica, API, PORT, PATIENCE).await;
        assert_eq!(
            heard,
            format!("outside hears {}", zone_address(ordinal)),
            "stage {stage} replica {replica}"
        );
    }

    pub async fn controls(&self) {
        for (stage, replica) in self.places() {
            self.control(stage, replica).await;
        }
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        self.people.tasks.abort_all();
        cleared(&self.network);
        if !std::thread::panicking() {
            assert_eq!(left(&self.topology.installation), Vec::<String>::new());
        }
    }
}

pub fn name(stage: usize, replica: usize) -> String {
    format!("app {stage}.{replica}")
}

/// Whether there can be networks here; says so when not.
pub fn possible(test: &str) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skipped(&format!("{test}: it needs root"));
        return false;
    }
    true
}

/// Namespaces and the lock of an installation that are there.
pub fn left(installation: &Installation) -> Vec<String> {
    let names = |dir: &str| fs::read_dir(dir).into_iter().flatten().flatten();
    let all = names("/run/netns").chain(names("/run"));
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.contains(&installation.prefix()))
        .collect()
}

/// Runs a command inside a namespace, as a person at the machine would; what it said.
pub fn by_hand(namespace: &str, command: &str) -> String {
    let at = format!("--net={}", bastide_network::path(namespace).display());
    let done = Command::new("nsenter").arg(at).arg("/bin/sh").arg("-c").arg(command).output().unwrap();
    let said = [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(done.status.success(), "{command}: {said}");
    said
}

/// Those who answer, and their way to call.
pub struct People {
    pub sockets: Sockets,
    pub tasks: JoinSet<()>,
}

impl People {
    pub fn new() -> Self {
        Self { sockets: Sockets::start().unwrap(), tasks: JoinSet::new() }
    }

    /// Somebody in a namespace who tells callers over TCP and UDP who it is and whom it hears.
    pub async fn answers(&mut self, namespace: &str, at: Ipv4Addr, port: u16, who: &str) {
        let at = SocketAddr::from((at, port));
        let listener = self.sockets.listen(namespace, at).await.unwrap();
        let listener = TcpListener::from_std(listener.into()).unwrap();
        let socket = self.sockets.udp(namespace, at).await.unwrap();
        let socket = UdpSocket::from_std(socket.into()).unwrap();
        let (own, own_too) = (who.to_owned(), who.to_owned());
        self.tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let Ok((mut stream, peer)) = listener.accept().await else { continue };
                let said = format!("{own} hears {}", peer.ip());
                open.spawn(async move {
                    let _ = stream.write_all(said.as_bytes()).await;
                    let _ = stream.shutdown().await;
                    let _ = stream.read(&mut [0; 16]).await;
                });
                while open.try_join_next().is_some() {}
            }
        });
        self.tasks.spawn(async move {
            loop {
                let Ok((_, peer)) = socket.recv_from(&mut [0; 64]).await else { continue };
                let _ = socket.send_to(format!("{own_too} hears {}", peer.ip()).as_bytes(), peer).await;
            }
        });
    }

    /// What is heard over TCP; the error's word when nothing is.
    pub async fn call(&self, namespace: &str, from: Ipv4Addr, to: SocketAddr, limit: Duration) -> String {
        let call = async {
            let fd = self.sockets.connect(namespace, from, to, limit).await?;
            let mut stream = TcpStream::from_std(fd.into())?;
            let mut said = String::new();
            stream.read_to_string(&mut said).await?;
            Ok::<_, std::io::Error>(said)
        };
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => format!("{:?}", error.kind()),
            Err(_) => "TimedOut".into(),
        }
    }

    /// What is heard over UDP.
    pub async fn ask(&self, namespace: &str, from: Ipv4Addr, to: SocketAddr, limit: Duration) -> String {
        let ask = async {
            let fd = self.sockets.udp(namespace, (from, 0).into()).await?;
            let socket = UdpSocket::from_std(fd.into())?;
            socket.send_to(b"?", to).await?;
            let mut said = [0; 64];
            let (count, _) = socket.recv_from(&mut said).await?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&said[..count]).into_owned())
        };
        match tokio::time::timeout(limit, ask).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => format!("{:?}", error.kind()),
            Err(_) => "TimedOut".into(),
        }
    }

    /// What an app says to a request that comes as requests do: from the broker's address.
    pub async fn request(&self, namespace: &str, port: u16, limit: Duration) -> String {
        self.call(namespace, address::BROKER, (Ipv4Addr::LOCALHOST, port).into(), limit).await
    }
}
