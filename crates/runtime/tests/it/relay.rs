//! Calls from app to app, over loopback: what stands for a namespace here is a table of listeners.

use bastide_runtime::relay::{Inside, Limits, Relays};
use bastide_types::{
    AppId, AppName, CustomerName, Digest, ReplicaId, StageName, ZoneName,
    message::{DesiredReplica, ReplicaFact, ReplicaState, StageState},
    network::{Grant, StageNetwork, callee},
    service::Services,
};
use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Generous: only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_mins(1);

/// The networks of all replicas.
#[derive(Default)]
pub struct Networks {
    /// Where a listener "inside" really is.
    pub doors: Mutex<HashMap<(ReplicaId, SocketAddr), SocketAddr>>,
    /// Where a replica really listens.
    apps: Mutex<HashMap<ReplicaId, SocketAddr>>,
}

impl Inside for Networks {
    async fn listen(&self, replica: ReplicaId, at: SocketAddr) -> io::Result<TcpListener> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        self.doors.lock().unwrap().insert((replica, at), listener.local_addr()?);
        Ok(listener)
    }

    async fn connect(&self, replica: ReplicaId) -> io::Result<TcpStream> {
        let to = self.apps.lock().unwrap().get(&replica).copied();
        TcpStream::connect(to.ok_or(io::ErrorKind::NotFound)?).await
    }
}

fn app(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

pub fn replica(name: &str, zone: &str) -> DesiredReplica {
    let manifest = serde_json::json!({ "app": { "name": name, "kind": "binary", "command": ["./app"] } });
    DesiredReplica {
        id: ReplicaId::generate(),
        app: AppId::generate(),
        app_name: app(name),
        revision: Digest::from_sha256([0; 32]),
        revision_number: 1,
        zone: ZoneName::new(zone).unwrap(),
        image: Digest::from_sha256([0; 32]),
        manifest: serde_json::from_value(manifest).unwrap(),
        draining: false,
        assertion_keys: String::new(),
        serving: true,
        services: Services::default(),
    }
}

/// A stage with `shop` in zone a, which may call `blog` and `mail` as far as it is granted.
struct World {
    networks: Arc<Networks>,
    relays: Relays<Networks>,
    state: StageState,
    shop: DesiredReplica,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl World {
    /// `blog` has replicas in these zones; all of them are ready and say their number to whoever calls.
    async fn new(granted: &[&str], zones: &[&str], limits: Limits) -> Self {
        let networks = Arc::new(Networks::default());
        let stop = CancellationToken::new();
        let shop = replica("shop", "a");
        let mut replicas = vec![shop.clone()];
        for (number, zone) in zones.iter().enumerate() {
            let blog = replica("blog", zone);
            let address = server(number as u8).await;
            networks.apps.lock().unwrap().insert(blog.id, address);
            replicas.push(blog);
        }
        let state = StageState {
            account: "A".into(),
            generation: 1,
            customer: CustomerName::new("acme").unwrap(),
            stage: StageName::test(),
            replicas,
            network: StageNetwork::default(),
            callees: BTreeMap::from([(app("blog"), 2), (app("mail"), 3)]),
            postgres: None,
            settings: Vec::new(),
        };
        let relays = Relays::new(networks.clone(), limits, stop.clone());
        let mut world = Self { networks, relays, state, shop, stop };
        world.all_ready();
        world.grant(granted).await;
        world.relays.open(&world.shop).await.unwrap();
        world
    }

    async fn grant(&mut self, granted: &[&str]) {
        let grants = granted.iter().map(|to| Grant { from: app("shop"), to: app(to) });
        self.state.network.grants = grants.collect();
        self.relays.enact(Arc::new(self.state.clone())).await;
    }

    fn all_ready(&self) {
        let facts: Vec<_> =
            self.state.replicas.iter().map(|r| ReplicaFact::new(r.id, ReplicaState::Ready)).collect();
        self.relays.ready(facts.iter());
    }

    /// Where `shop` finds the app with this number, if it ever did.
    fn door(&self, number: u8) -> Option<SocketAddr> {
        let at = SocketAddr::from((callee(number), 80));
        self.networks.doors.lock().unwrap().get(&(self.shop.id, at)).copied()
    }

    async fn call(&self) -> io::Result<TcpStream> {
        TcpStream::connect(self.door(2).expect("there was a grant once")).await
    }

    /// Which replica answers; an error when nobody does.
    async fn who(&self) -> io::Result<u8> {
        let mut stream = self.call().await?;
        timeout(PATIENCE, stream.read_u8()).await.expect("an answer or an end")
    }
}

/// Says its number, then sends back what it gets, and ends when the other side does.
async fn server(number: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_u8(number).await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn ended(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // By an end or by a reset: both are over.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection is cut");
}

#[tokio::test]
async fn without_a_grant_there_is_no_listener() {
    let world = World::new(&[], &["a"], Limits::default()).await;
    assert!(world.networks.doors.lock().unwrap().is_empty());
    let blog = world.state.replicas[1].clone();
    let world = World::new(&["blog"], &["a"], Limits::default()).await;
    world.relays.open(&blog).await.unwrap();
    let doors: Vec<_> = world.networks.doors.lock().unwrap().keys().copied().collect();
    assert_eq!(doors, [(world.shop.id, "169.254.2.2:80".parse().unwrap())], "a grant has one direction");
}

#[tokio::test]
async fn a_granted_call_goes_through_whole_in_both_directions() {
    let world = World::new(&["blog"], &["a"], Limits::default()).await;
    let stream = world.call().await.unwrap();
    let (mut read, mut write) = stream.into_split();
    const PIECES: usize = 512;
    let sent = tokio::spawn(async move {
        for n in 0..PIECES {
            write.write_all(&vec![n as u8; 32 * 1024]).await.unwrap();
        }
        write.shutdown().await.unwrap();
    });
    assert_eq!(read.read_u8().await.unwrap(), 0);
    let mut piece = vec![0; 32 * 1024];
    for n in 0..PIECES {
        timeout(PATIENCE, read.read_exact(&mut piece)).await.unwrap().unwrap();
        assert!(piece.iter().all(|byte| *byte == n as u8), "piece {n}");
    }
    assert_eq!(read.read(&mut piece).await.unwrap(), 0, "the end comes through too, after all bytes");
    sent.await.unwrap();
}

#[tokio::test]
async fn replicas_take_turns_in_the_zone_of_the_caller_and_others_come_only_when_it_has_none() {
    let world = World::new(&["blog"], &["a", "a", "b", "b"], Limits::default()).await;
    let mut called = BTreeMap::<u8, usize>::new();
    for _ in 0..10 {
        *called.entry(world.who().await.unwrap()).or_default() += 1;
    }
    assert_eq!(called, BTreeMap::from([(0, 5), (1, 5)]));

    // One of the zone does not answer: its turns go to the other.
    world.networks.apps.lock().unwrap().remove(&world.state.replicas[1].id);
    for _ in 0..4 {
        assert_eq!(world.who().await.unwrap(), 1);
    }
    // None of the zone does: the other zone's take turns.
    world.networks.apps.lock().unwrap().remove(&world.state.replicas[2].id);
    let mut others = vec![world.who().await.unwrap(), world.who().await.unwrap()];
    others.sort_unstable();
    assert!(others.iter().all(|n| [2, 3].contains(n)), "{others:?}");
}

#[tokio::test]
async fn only_replicas_that_are_ready_and_serve_are_called() {
    let mut world = World::new(&["blog"], &["a", "a", "a"], Limits::default()).await;
    world.state.replicas[1].serving = false;
    world.state.replicas[2].draining = true;
    world.relays.enact(Arc::new(world.state.clone())).await;
    for _ in 0..3 {
        assert_eq!(world.who().await.unwrap(), 2);
    }
    let starting = ReplicaFact::new(world.state.replicas[3].id, ReplicaState::Starting);
    world.relays.ready([starting].iter());
    assert!(world.who().await.is_err(), "nobody is ready: the call fails at once");
    world.all_ready();
    assert_eq!(world.who().await.unwrap(), 2);
}

#[tokio::test]
async fn grants_come_and_go_while_apps_run() {
    let mut world = World::new(&["blog"], &["a"], Limits::default()).await;
    let mut open = world.call().await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), 0);
    assert_eq!(world.door(3), None);

    world.grant(&["blog", "mail"]).await;
    assert!(world.door(3).is_some(), "another grant, another listener");
    open.write_all(b"x").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'x', "what is open stays open");

    world.grant(&["mail"]).await;
    ended(open).await;
    assert!(world.call().await.is_err(), "its listener is closed");

    world.grant(&["blog"]).await;
    assert_eq!(world.who().await.unwrap(), 0);
}

#[tokio::test]
async fn an_app_on_the_port_of_its_grants_keeps_the_port() {
    let world = World::new(&["blog"], &["a"], Limits::default()).await;
    let mut web = replica("shop", "a");
    web.manifest.app.port = Some(80);
    let refused = world.relays.open(&web).await.unwrap_err();
    assert!(refused.to_string().contains("port 80 itself, where it would find blog"), "{refused}");
    assert!(!world.networks.doors.lock().unwrap().keys().any(|(id, _)| *id == web.id));
}

#[tokio::test]
async fn a_number_that_goes_to_another_app_takes_no_connection_along() {
    let mut world = World::new(&["blog"], &["a"], Limits::default()).await;
    let mut open = world.call().await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), 0);
    world.state.callees = BTreeMap::from([(app("mail"), 2)]);
    world.grant(&["mail"]).await;
    ended(open).await;
    assert!(world.who().await.is_err(), "mail has no replica");
}

#[tokio::test]
async fn a_replica_has_its_own_number_of_places_and_one_more_is_reset() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let world = World::new(&["blog", "mail"], &["a"], limits).await;
    let other = replica("shop", "a");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = world.call().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 0);
        held.push(stream);
    }
    assert!(world.who().await.is_err(), "one too many");
    world.relays.open(&other).await.unwrap();
    let door = world.networks.doors.lock().unwrap()[&(other.id, "169.254.2.2:80".parse().unwrap())];
    let mut stream = TcpStream::connect(door).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 0, "another replica has places of its own");
    held.clear();
    let again = async {
        while world.who().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("a place that is given back is used again");
}

#[tokio::test]
async fn calls_beyond_the_pace_wait() {
    let limits = Limits { calls_per_s: 20, ..Limits::default() };
    let world = World::new(&["blog"], &["a"], limits).await;
    let begun = Instant::now();
    // Forty at once, and then one every 50 ms.
    for _ in 0..46 {
        assert_eq!(world.who().await.unwrap(), 0);
    }
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_that_says_nothing_ends() {
    let limits = Limits { idle: Duration::from_millis(50), ..Limits::default() };
    let world = World::new(&["blog"], &["a"], limits).await;
    let mut open = world.call().await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), 0);
    ended(open).await;
}

#[tokio::test]
async fn a_replica_that_goes_is_cut_and_its_next_life_listens_anew() {
    let world = World::new(&["blog"], &["a"], Limits::default()).await;
    let before = world.door(2);
    let open = world.call().await.unwrap();
    world.relays.open(&world.shop).await.unwrap();
    ended(open).await;
    assert_ne!(world.door(2), before);
    assert_eq!(world.who().await.unwrap(), 0);
    let open = world.call().await.unwrap();
    world.relays.close(world.shop.id).await;
    ended(open).await;
    assert!(world.call().await.is_err());

    let world = World::new(&["blog"], &["a"], Limits::default()).await;
    let open = world.call().await.unwrap();
    world.stop.cancel();
    ended(open).await;
}
