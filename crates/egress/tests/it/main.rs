//! The egress role as the runtime role and apps meet it: orders with sockets, calls, names, flows.

#![allow(clippy::unwrap_used)]

use bastide_egress::{Config, Control, Dial, FlowLog, Names, NamespaceDialer, Station};
use bastide_proxy::handover;
use bastide_types::{
    AppName, CustomerName, ReplicaId, StageName, ZoneName,
    broker::{SocketOrder, SocketReceipt},
    egress::{
        CANARY_NAMES, EgressCaller, EgressCanary, EgressMode, EgressOrder, EgressPolicy, EgressReceipt,
    },
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::AsFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 7);
const BLOG: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 2);
/// Of a forbidden range; open while isolation is verified.
const CANARY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 3, 4)), 4001);
const PATIENCE: Duration = Duration::from_secs(30);

/// A small DNS: what is not here does not exist.
struct Book;

impl Names for Book {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let private = IpAddr::from([10, 0, 0, 1]);
        Ok(match name {
            name if name.ends_with("internal") => panic!("{name} is asked outside"),
            "api.example.com" | "other.example.org" => vec![PUBLIC.into()],
            "rebind.example.com" => vec![private],
            "mixed.example.com" => vec![private, PUBLIC.into(), "fd00::1".parse().unwrap()],
            _ => return Err(io::ErrorKind::NotFound.into()),
        })
    }
}

/// The outside: the public address leads to a server of the test, everything else fails the test.
struct Outside(SocketAddr);

impl Dial for Outside {
    async fn dial(&self, who: &EgressCaller, to: SocketAddr) -> io::Result<TcpStream> {
        assert_eq!(who.zone.as_str(), "a");
        assert!(to.ip() == PUBLIC || to == CANARY, "only judged addresses are dialled");
        TcpStream::connect(self.0).await
    }
}

/// A running role with one replica, and a server outside that answers with what it was sent.
struct World {
    proxy: SocketAddr,
    names: SocketAddr,
    runtime: UnixStream,
    replica: ReplicaId,
    flows: PathBuf,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn policy(mode: EgressMode, allow: &[&str]) -> EgressPolicy {
    EgressPolicy { mode, allow: allow.iter().map(|rule| rule.parse().unwrap()).collect(), deny: Vec::new() }
}

fn caller(replica: ReplicaId) -> EgressCaller {
    EgressCaller {
        customer: CustomerName::new("acme").unwrap(),
        stage: StageName::development(),
        app: AppName::new("shop").unwrap(),
        replica,
        zone: ZoneName::new("a").unwrap(),
    }
}

impl World {
    async fn new(policy: EgressPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outside = echo().await;
        let flows = dir.path().join("flow.jsonl");
        let station = Station::new(Book, Outside(outside), FlowLog::open(&flows).unwrap());
        let config = Config {
            control: dir.path().join("control"),
            broker: dir.path().join("broker"),
            flow_log: flows.clone(),
            name_servers: Vec::new(),
            connections_max: 16,
            calls_per_s: 1000,
            lookups_per_s: 1000,
        };
        let stop = CancellationToken::new();
        let control = Control::new(Arc::new(station), &config, stop.clone());
        let listener = UnixListener::bind(&config.control).unwrap();
        tokio::spawn(control.serve(listener));
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (udp, tcp) = one_port();
        let replica = ReplicaId::generate();
        let world = Self {
            proxy: proxy.local_addr().unwrap(),
            names: udp.local_addr().unwrap(),
            runtime: UnixStream::connect(&config.control).await.unwrap(),
            replica,
            flows,
            stop,
            _dir: dir,
        };
        let names = BTreeMap::from([("blog.internal".to_owned(), BLOG)]);
        let order = EgressOrder::Admit { caller: caller(replica), policy, names };
        handover::send(
            &world.runtime,
            &serde_json::to_vec(&order).unwrap(),
            &[proxy.as_fd(), udp.as_fd(), tcp.as_fd()],
        )
        .await
        .unwrap();
        world.receipt().await.unwrap();
        world
    }

    async fn order(&self, order: &EgressOrder) -> Result<(), String> {
        handover::send(&self.runtime, &serde_json::to_vec(order).unwrap(), &[]).await.unwrap();
        self.receipt().await
    }

    async fn receipt(&self) -> Result<(), String> {
        let (text, _) = handover::receive(&self.runtime).await.unwrap();
        serde_json::from_slice::<EgressReceipt>(&text).unwrap().error.map_or(Ok(()), Err)
    }

    /// Sends bytes to the proxy and reads until it closes.
    async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn tunnel(&self, to: &str) -> String {
        self.say(format!("CONNECT {to} HTTP/1.1\r\n\r\nhello").as_bytes()).await
    }

    /// The first flow that fits.
    async fn flow(&self, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let find = async {
            loop {
                let text = std::fs::read_to_string(&self.flows).unwrap();
                let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
                if let Some(flow) = lines.into_iter().find(&fits) {
                    return flow;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, find).await.expect("the flow is logged")
    }
}

/// A server that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_tunnel_a_request_and_socks_reach_the_outside_and_are_logged() {
    let world = World::new(policy(EgressMode::Open, &[])).await;
    assert_eq!(
        world.tunnel("API.example.com.:443").await,
        "HTTP/1.1 200 Connection established\r\n\r\nhello"
    );
    let flow = world.flow(|flow| flow["by"] == "connect").await;
    assert_eq!(flow["host"], "api.example.com");
    assert_eq!(
        (&flow["customer"], &flow["stage"], &flow["app"], &flow["zone"]),
        (&"acme".into(), &"development".into(), &"shop".into(), &"a".into())
    );
    assert_eq!((&flow["bytes_out"], &flow["bytes_back"]), (&5.into(), &5.into()));
    assert_eq!((&flow["address"], &flow["port"]), (&PUBLIC.to_string().into(), &443.into()));
    assert_eq!((&flow["verdict"], &flow["why"]), (&"allowed".into(), &"mode: open".into()));

    let answer = world.say(b"GET http://api.example.com/x HTTP/1.1\r\nhost: lies\r\n\r\n").await;
    assert!(answer.starts_with("GET /x HTTP/1.1\r\nhost: api.example.com\r\n"), "{answer}");

    let mut hello = vec![5, 1, 0, 5, 1, 0, 3, 15];
    hello.extend_from_slice(b"api.example.com");
    hello.extend_from_slice(&[1, 187]);
    hello.extend_from_slice(b"hello");
    let answer = world.say(&hello).await;
    assert_eq!(answer.as_bytes(), b"\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00hello");
    world.flow(|flow| flow["by"] == "socks" && flow["bytes_out"] == 5).await;
}

#[tokio::test]
async fn the_policy_decides_by_name_and_another_one_is_in_force_at_once() {
    let world = World::new(policy(EgressMode::Enforce, &["*.example.com:443"])).await;
    assert!(world.tunnel("api.example.com:443").await.contains("hello"));
    for refused in ["api.example.com:80", "other.example.org:443", "11.0.0.7:443"] {
        let answer = world.tunnel(refused).await;
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains("mode: enforce"),
            "{refused}: {answer}"
        );
    }
    let report = EgressOrder::Policy {
        customer: CustomerName::new("acme").unwrap(),
        stage: StageName::development(),
        policy: policy(EgressMode::Report, &[]),
    };
    world.order(&report).await.unwrap();
    assert!(world.tunnel("other.example.org:443").await.contains("hello"));
    let flow = world.flow(|flow| flow["verdict"] == "reported").await;
    assert_eq!(flow["host"], "other.example.org");
}

#[tokio::test]
async fn a_name_that_leads_inside_is_refused_and_mixed_answers_lose_their_private_part() {
    let world = World::new(policy(EgressMode::Open, &[])).await;
    for inside in [
        "rebind.example.com:80",
        "10.0.0.1:80",
        "127.0.0.1:80",
        "[::ffff:127.0.0.1]:80",
        "169.254.169.254:80",
    ] {
        let answer = world.tunnel(inside).await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("range"), "{inside}: {answer}");
    }
    assert!(world.tunnel("mixed.example.com:80").await.contains("hello"));
    for unreadable in ["127.1:80", "0x7f000001:80", "[example.com]:80", "nothing"] {
        assert!(world.tunnel(unreadable).await.starts_with("HTTP/1.1 400"), "{unreadable}");
    }
    assert!(world.tunnel("unknown.example.com:80").await.starts_with("HTTP/1.1 502"));
    assert!(world.say(b"GET / HTTP/1.1\r\n\r\n").await.contains("this is a proxy"));
}

/// A query for one name; `kind` 1 is A, 16 TXT, 28 AAAA.
fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

/// Response code and number of answers.
fn outcome(answer: &[u8]) -> (u8, u16) {
    assert_eq!(&answer[..2], &[0xab, 0xcd], "the id is that of the query");
    (answer[3] & 15, u16::from_be_bytes([answer[6], answer[7]]))
}

async fn ask(world: &World, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(query, world.names).await.unwrap();
    let mut answer = vec![0; 1500];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.unwrap().unwrap();
    answer.truncate(length);
    answer
}

#[tokio::test]
async fn the_resolver_gives_public_addresses_and_nothing_else() {
    let world = World::new(policy(EgressMode::Open, &[])).await;
    let answer = ask(&world, &query("api.example.com", 1)).await;
    assert_eq!(outcome(&answer), (0, 1));
    assert!(answer.ends_with(&PUBLIC.octets()));
    assert_eq!(
        outcome(&ask(&world, &query("mixed.example.com", 1)).await),
        (0, 1),
        "the private one is gone"
    );
    assert_eq!(outcome(&ask(&world, &query("mixed.example.com", 28)).await), (0, 0));
    assert_eq!(outcome(&ask(&world, &query("rebind.example.com", 1)).await), (0, 0));
    assert_eq!(outcome(&ask(&world, &query("api.example.com", 16)).await), (0, 0), "no TXT: no tunnel");
    assert_eq!(outcome(&ask(&world, &query("unknown.example.com", 1)).await).0, 3);
    let flow = world.flow(|flow| flow["by"] == "name").await;
    assert_eq!(flow["host"], "rebind.example.com");

    let mut stream = TcpStream::connect(world.names).await.unwrap();
    for _twice in 0..2 {
        let query = query("api.example.com", 1);
        stream.write_u16(query.len() as u16).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(outcome(&answer), (0, 1));
    }
}

/// A UDP socket and a TCP listener on one port; somebody else may have either.
fn one_port() -> (std::net::UdpSocket, std::net::TcpListener) {
    loop {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

#[tokio::test]
async fn names_that_no_call_may_reach_are_not_looked_up() {
    let world = World::new(policy(EgressMode::Enforce, &["api.example.com:443"])).await;
    assert_eq!(outcome(&ask(&world, &query("api.example.com", 1)).await), (0, 1));
    assert_eq!(outcome(&ask(&world, &query("secret.tunnel.example.org", 1)).await).0, 5);
}

#[tokio::test]
async fn names_inside_are_those_of_the_orders_and_are_never_asked_outside() {
    // No call may leave at all: names inside are not a matter of the egress policy.
    let world = World::new(policy(EgressMode::Enforce, &[])).await;
    let answer = ask(&world, &query("Blog.Internal", 1)).await;
    assert_eq!(outcome(&answer), (0, 1));
    assert!(answer.ends_with(&BLOG.octets()));
    assert_eq!(outcome(&ask(&world, &query("blog.internal", 28)).await), (0, 0), "no IPv6, but it exists");
    assert_eq!(outcome(&ask(&world, &query("blog.internal", 16)).await), (0, 0));
    for unknown in ["shop.internal", "x.blog.internal", "internal", "postgres.internal"] {
        assert_eq!(outcome(&ask(&world, &query(unknown, 1)).await).0, 3, "{unknown}");
        assert_eq!(outcome(&ask(&world, &query(unknown, 28)).await).0, 3, "{unknown}");
    }
    let answer = world.tunnel("blog.internal:80").await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("without a proxy"), "{answer}");

    let (name, other) = ("shop.internal".to_owned(), Ipv4Addr::new(169, 254, 2, 3));
    let names = EgressOrder::Names { replica: world.replica, names: BTreeMap::from([(name, other)]) };
    world.order(&names).await.unwrap();
    assert!(ask(&world, &query("shop.internal", 1)).await.ends_with(&other.octets()));
    assert_eq!(outcome(&ask(&world, &query("blog.internal", 1)).await).0, 3, "in force at once");

    for (name, address) in [("example.com", BLOG), ("blog.internal", PUBLIC)] {
        let names = BTreeMap::from([(name.to_owned(), address)]);
        let refused = world.order(&EgressOrder::Names { replica: world.replica, names }).await;
        assert!(refused.unwrap_err().contains("may not lead"), "{name}");
    }
    let stranger = EgressOrder::Names { replica: ReplicaId::generate(), names: BTreeMap::new() };
    assert!(world.order(&stranger).await.is_err());
}

#[tokio::test]
async fn a_canary_may_be_called_while_it_is_there_and_its_answers_are_judged_like_all() {
    let world = World::new(policy(EgressMode::Enforce, &[])).await;
    let name = |label: &str| format!("{label}.{CANARY_NAMES}");
    let (own, private) = (CANARY.ip(), IpAddr::from([10, 0, 0, 1]));
    let names = BTreeMap::from([
        (name("open"), vec![vec![own]]),
        (name("private"), vec![vec![private, "::ffff:10.0.0.1".parse().unwrap()]]),
        (name("mixed"), vec![vec![private, own]]),
        (name("rebinding"), vec![vec![own], vec![private]]),
    ]);
    let (passes, forbidden) = (["open", "mixed", "rebinding"], "HTTP/1.1 403");
    assert!(world.tunnel(&CANARY.to_string()).await.starts_with(forbidden));
    let order = EgressOrder::Canary { canary: Some(EgressCanary { open: CANARY, names }) };
    world.order(&order).await.unwrap();
    assert!(world.tunnel(&CANARY.to_string()).await.contains("hello"));
    for label in passes {
        assert!(world.tunnel(&format!("{}:4001", name(label))).await.contains("hello"), "{label}");
    }
    for other in ["198.18.3.4:4002".into(), "198.18.3.5:4001".into(), "11.0.0.7:443".into()]
        .into_iter()
        .chain(["private", "rebinding"].map(|label| format!("{}:4001", name(label))))
        .chain([format!("{}:4002", name("open"))])
    {
        let answer = world.tunnel(&other).await;
        assert!(answer.starts_with(forbidden), "{other}: {answer}");
    }
    let told = ask(&world, &query(&name("mixed"), 1)).await;
    assert_eq!(outcome(&told), (0, 1));
    assert!(told.ends_with(&[198, 18, 3, 4]));
    assert_eq!(outcome(&ask(&world, &query(&name("private"), 1)).await), (0, 0));
    assert_eq!(outcome(&ask(&world, &query(&name("private"), 28)).await), (0, 0));

    let names = BTreeMap::from([("api.example.com".to_owned(), vec![vec![own]])]);
    let refused =
        world.order(&EgressOrder::Canary { canary: Some(EgressCanary { open: CANARY, names }) }).await;
    assert!(refused.unwrap_err().contains("of its own"));

    world.order(&EgressOrder::Canary { canary: None }).await.unwrap();
    assert!(world.tunnel(&CANARY.to_string()).await.starts_with(forbidden));
    assert!(world.tunnel(&format!("{}:4001", name("open"))).await.starts_with(forbidden));
}

#[tokio::test]
async fn a_canary_goes_with_the_stream_that_ordered_it() {
    let mut world = World::new(policy(EgressMode::Open, &[])).await;
    let canary = EgressCanary { open: CANARY, names: BTreeMap::new() };
    world.order(&EgressOrder::Canary { canary: Some(canary) }).await.unwrap();
    assert!(world.tunnel(&CANARY.to_string()).await.contains("hello"));
    world.runtime = UnixStream::connect(world.flows.with_file_name("control")).await.unwrap();
    world.order(&EgressOrder::Resume).await.unwrap();
    assert!(world.tunnel(&CANARY.to_string()).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn a_replica_that_is_dismissed_is_cut_off() {
    let world = World::new(policy(EgressMode::Open, &[])).await;
    let mut open = TcpStream::connect(world.proxy).await.unwrap();
    open.write_all(b"CONNECT api.example.com:443 HTTP/1.1\r\n\r\nhello").await.unwrap();
    let mut answer = [0; 44];
    open.read_exact(&mut answer).await.unwrap();
    world.order(&EgressOrder::Dismiss { replica: world.replica }).await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, open.read_to_end(&mut rest)).await.unwrap();
    assert!(end.is_err() || rest.is_empty());
    let flow = world.flow(|flow| flow["by"] == "connect").await;
    assert_eq!(flow["bytes_back"], 5, "what was cut is logged too");
}

#[tokio::test]
async fn orders_that_make_no_sense_are_refused_and_the_next_is_obeyed() {
    let world = World::new(policy(EgressMode::Open, &[])).await;
    let lonely = EgressOrder::Admit {
        caller: caller(ReplicaId::generate()),
        policy: EgressPolicy::default(),
        names: BTreeMap::new(),
    };
    assert!(world.order(&lonely).await.unwrap_err().contains("three sockets"));
    handover::send(&world.runtime, b"junk", &[]).await.unwrap();
    assert!(world.receipt().await.is_err());
    assert!(world.tunnel("api.example.com:443").await.contains("hello"));
}

#[tokio::test]
async fn the_dialer_connects_with_a_socket_of_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker");
    let broker = UnixListener::bind(&path).unwrap();
    let (outside, replica) = (echo().await, ReplicaId::generate());
    let serve = async {
        let (stream, _) = broker.accept().await.unwrap();
        let (text, _) = handover::receive(&stream).await.unwrap();
        let order: SocketOrder = serde_json::from_slice(&text).unwrap();
        assert_eq!(order, SocketOrder::Outside { replica, v6: false });
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let receipt = serde_json::to_vec(&SocketReceipt { refusal: None }).unwrap();
        handover::send(&stream, &receipt, &[socket.as_fd()]).await.unwrap();
    };
    let dialer = NamespaceDialer::new(path.clone());
    let who = caller(replica);
    let (connected, ()) = tokio::join!(dialer.dial(&who, outside), serve);
    let mut connected = connected.unwrap();
    connected.write_all(b"hi").await.unwrap();
    let mut answer = [0; 2];
    connected.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hi");
}
