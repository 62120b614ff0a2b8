//! The linux driver, with real containers in real namespaces. Needs root; says so when it skips. Its zones go out by
//! a namespace of the test's own, so the host's network is not touched.

use bastide_container::cgroup::Cgroups;
use bastide_isolation::{Installation, address};
use bastide_network::socket::Sockets;
use bastide_proxy::{Body, Pool, PoolLimits, Request, handover};
use bastide_runtime::{
    Error,
    config::{Linux, Outside, Zone},
    driver::{Found, Launch, Life, LinuxDriver, RuntimeDriver, clear},
};
use bastide_types::{
    AppId, AppName, CustomerName, Digest, Manifest, ReplicaId, StageName, ZoneName,
    egress::{EgressOrder, EgressReceipt},
    message::{DesiredReplica, Reach, StageState},
    network::StageNetwork,
    service::Services,
};
use http::header;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Longer than anything takes on a slow machine; only a failure waits for it.
const PATIENCE: Duration = Duration::from_mins(2);

fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_runtime-probe"))
}

/// A node of its own: directory, installation, and a namespace to go out by. All of it is gone when it goes.
struct Scene {
    dir: tempfile::TempDir,
    outside: String,
}

impl Scene {
    /// `None`, and a line on standard error, where there can be no containers.
    fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if let Some(missing) = bastide_container::preflight().missing().next() {
            let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {}", missing.found);
            return None;
        }
        let dir = tempfile::Builder::new().prefix("bst-rt-").tempdir().unwrap();
        let outside = format!("bstrt{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &outside]);
        Some(Self { dir, outside })
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.path().join("runtime")
    }

    fn control(&self) -> PathBuf {
        self.dir.path().join("egress.sock")
    }

    fn installation(&self) -> Installation {
        Installation::of(&self.state_dir().to_string_lossy())
    }

    fn namespace(&self, replica: ReplicaId) -> PathBuf {
        bastide_network::path(&self.installation().replica(replica))
    }

    /// A driver, as a life of the runtime role has it, and what it finds running.
    async fn driver(&self) -> (LinuxDriver, Vec<Found>) {
        fs::create_dir_all(self.state_dir()).unwrap();
        let zone = |name: &str, last| Zone {
            name: ZoneName::new(name).unwrap(),
            public: Some(Ipv4Addr::new(11, 1, 0, last)),
        };
        let config = Linux {
            zones: vec![zone("a", 11), zone("b", 12)],
            egress: self.control(),
            flow_log: self.dir.path().join("flows.jsonl"),
            zones_file: self.dir.path().join("zones.json"),
            blocked: Vec::new(),
            outside: Outside::Namespace { name: self.outside.clone(), router: Ipv4Addr::new(11, 1, 0, 1) },
            runc: None,
        };
        let driver = LinuxDriver::open(executable().to_owned(), self.state_dir(), config).await.unwrap();
        let found = driver.attach().await.unwrap();
        (driver, found)
    }

    /// An app with these files.
    fn launch(&self, name: &str, manifest: &str, files: &[(&str, &[u8])]) -> Launch {
        use std::os::unix::fs::PermissionsExt;
        let root = self.dir.path().join("images").join(name);
        fs::create_dir_all(&root).unwrap();
        for (path, content) in files {
            // Never under the feet of an app that runs from it.
            let _ = fs::remove_file(root.join(path));
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), content).unwrap();
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let manifest: Manifest = serde_json::from_str(manifest).unwrap();
        let replica = DesiredReplica {
            id: ReplicaId::generate(),
            app: AppId::generate(),
            app_name: AppName::new(name).unwrap(),
            revision: Digest::from_sha256([0; 32]),
            revision_number: 3,
            zone: ZoneName::new("a").unwrap(),
            image: Digest::from_sha256([0; 32]),
            manifest,
            draining: false,
            assertion_keys: "{}".into(),
            serving: true,
            services: Services::default(),
        };
        let (customer, stage) = (CustomerName::new("acme").unwrap(), StageName::test());
        Launch { account: "ACME-TEST".into(), customer, stage, replica, root }
    }

    /// The example app.
    fn hello(&self) -> Launch {
        let program = fs::read(bastide_testkit::build_hello(executable()).unwrap()).unwrap();
        let manifest = r#"{"app":{"name":"hello","kind":"binary","command":["./hello"],"port":8123}}"#;
        self.launch("hello", manifest, &[("hello", &program)])
    }

    /// Nothing of a replica is left outside the logs.
    fn nothing_left(&self, replica: ReplicaId) {
        assert!(!self.namespace(replica).exists(), "its namespace");
        assert_eq!(Cgroups::of(&replica.to_string()).dirs(), Vec::<PathBuf>::new(), "its cgroups");
        assert!(!self.state_dir().join("replicas").join(replica.to_string()).exists(), "its directory");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // On a thread of its own: the test's runtime may be on its way down.
        let (state_dir, installation) = (self.state_dir(), self.installation());
        let cleared = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(clear(&state_dir)).map_err(|error| error.to_string())
        })
        .join();
        let _ = Command::new("ip").args(["netns", "del", &self.outside]).status();
        if !std::thread::panicking() {
            cleared.unwrap().unwrap();
            let left: Vec<_> = fs::read_dir("/run/netns")
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(&installation.prefix()))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

/// Asks a replica on the way that gateways take, until it answers.
async fn ask(scene: &Scene, driver: &LinuxDriver, replica: ReplicaId, path: &str) -> String {
    let begun = Instant::now();
    let pool = Pool::new(PoolLimits::default());
    loop {
        let failed = match driver.connect(replica).await {
            Ok(stream) => {
                let mut request = Request::new(Body::empty());
                *request.uri_mut() = path.parse().unwrap();
                request.headers_mut().insert(header::HOST, "localhost".parse().unwrap());
                match pool.send_over(stream, request, Instant::now() + PATIENCE).await {
                    Ok(response) => {
                        let body = response.into_body().collect_up_to(1 << 20).await.unwrap();
                        return String::from_utf8(body.to_vec()).unwrap();
                    }
                    Err(failure) => failure.error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        assert!(begun.elapsed() < PATIENCE, "{failed}; {}", logs(&scene.state_dir(), replica));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the replica printed, and how it is.
fn logs(state_dir: &Path, replica: ReplicaId) -> String {
    let id = replica.to_string();
    let logs = fs::read_dir(state_dir.join("logs")).into_iter().flatten().flatten();
    let own = logs.filter(|entry| entry.file_name().to_string_lossy().contains(&id));
    let mut text: String = own.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
    text.push_str(
        &fs::read_to_string(state_dir.join("replicas").join(&id).join("life.json")).unwrap_or_default(),
    );
    text
}

async fn ended(mut life: tokio::sync::watch::Receiver<Life>) -> String {
    let end = timeout(PATIENCE, life.wait_for(|life| *life != Life::Running)).await.expect("it ends");
    match &*end.unwrap() {
        Life::Ended(why) => why.clone(),
        Life::Running => unreachable!(),
    }
}

/// The app's process on the host.
fn pid_of(replica: ReplicaId) -> i32 {
    *Cgroups::of(&replica.to_string()).processes().first().expect("it runs")
}

fn shim_of(replica: ReplicaId) -> i32 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid_of(replica))).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_replica_answers_from_its_own_network_and_leaves_nothing_when_it_is_stopped() {
    let Some(scene) = Scene::new("a_replica_answers_from_its_own_network…") else { return };
    let (driver, found) = scene.driver().await;
    assert!(found.is_empty());
    let launch = scene.hello();
    let id = launch.replica.id;
    let started = driver.start(launch).await.unwrap();
    assert_eq!(started.reach, Reach::Broker);
    // The app sees a source address that is neither loopback nor anybody else's.
    let seen = ask(&scene, &driver, id, "/source").await;
    assert_eq!(seen.trim(), address::BROKER.to_string());
    assert!(ask(&scene, &driver, id, "/").await.contains(&id.to_string()));
    let environment = fs::read_to_string(format!("/proc/{}/environ", pid_of(id))).unwrap();
    let variables: Vec<&str> = environment.split('\0').collect();
    for expected in ["PORT=8123", "HOST=0.0.0.0", "BASTIDE_APP=hello", "https_proxy=http://169.254.1.3:3128"]
    {
        assert!(variables.contains(&expected), "{expected} in {variables:?}");
    }
    let usage = driver.usage(id).unwrap();
    assert!(usage.memory_bytes > 0 && usage.cpu > Duration::ZERO, "{usage:?}");
    let (pid, shim) = (pid_of(id), shim_of(id));
    driver.stop(id, Duration::from_secs(30)).await;
    let why = ended(started.life).await;
    assert!(why.contains("exit code 0"), "it was asked first: {why}");
    for process in [pid, shim] {
        assert!(!Path::new(&format!("/proc/{process}")).exists());
    }
    scene.nothing_left(id);
    assert_eq!(driver.connect(id).await.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    driver.stop(id, Duration::ZERO).await;
}

#[tokio::test]
async fn an_app_may_listen_on_any_port_though_it_is_nobody() {
    let Some(scene) = Scene::new("an_app_may_listen_on_any_port…") else { return };
    let (driver, _) = scene.driver().await;
    let program = fs::read(bastide_testkit::build_hello(executable()).unwrap()).unwrap();
    for port in [1, 80, 443] {
        let manifest =
            format!(r#"{{"app":{{"name":"low","kind":"binary","command":["./hello"],"port":{port}}}}}"#);
        let launch = scene.launch("low", &manifest, &[("hello", &program)]);
        let id = launch.replica.id;
        driver.start(launch).await.unwrap();
        assert!(ask(&scene, &driver, id, "/").await.contains("Hello"), "{port}");
        driver.stop(id, Duration::ZERO).await;
    }
}

#[tokio::test]
async fn replicas_outlive_the_role_and_are_found_again() {
    let Some(scene) = Scene::new("replicas_outlive_the_role…") else { return };
    let (first, _) = scene.driver().await;
    let launch = scene.hello();
    let id = launch.replica.id;
    drop(first.start(launch.clone()).await.unwrap());
    let address = ask(&scene, &first, id, "/").await;
    let pid = pid_of(id);
    drop(first);
    let (second, found) = scene.driver().await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].launch, launch);
    assert_eq!(ask(&scene, &second, id, "/").await, address);
    assert_eq!(pid_of(id), pid, "the same process");
    second.stop(id, Duration::from_secs(30)).await;
    ended(found[0].started.life.clone()).await;
    scene.nothing_left(id);
}

#[tokio::test]
async fn what_died_with_its_shim_is_cleared_away_by_the_next_life() {
    let Some(scene) = Scene::new("what_died_with_its_shim…") else { return };
    let (first, _) = scene.driver().await;
    let (lost, kept) = (scene.hello(), scene.hello());
    for launch in [&lost, &kept] {
        first.start(launch.clone()).await.unwrap();
        ask(&scene, &first, launch.replica.id, "/healthz").await;
    }
    drop(first);
    kill(Pid::from_raw(shim_of(lost.replica.id)), Signal::SIGKILL).unwrap();
    let (second, found) = scene.driver().await;
    let found: Vec<_> = found.iter().map(|found| found.launch.replica.id).collect();
    assert_eq!(found, [kept.replica.id]);
    scene.nothing_left(lost.replica.id);
    assert!(ask(&scene, &second, kept.replica.id, "/").await.contains("Hello"));
    second.stop(kept.replica.id, Duration::ZERO).await;
    second.close().await;
    // A third life in the same place finds an empty one.
    assert!(scene.driver().await.1.is_empty());
}

#[tokio::test]
async fn an_app_whose_network_is_taken_away_is_ended_and_says_why() {
    let Some(scene) = Scene::new("an_app_whose_network_is_taken_away…") else { return };
    let (driver, _) = scene.driver().await;
    let launch = scene.hello();
    let id = launch.replica.id;
    let started = driver.start(launch.clone()).await.unwrap();
    ask(&scene, &driver, id, "/healthz").await;
    ip(&["netns", "del", &scene.installation().replica(id)]);
    let why = ended(started.life).await;
    assert!(why.contains("network"), "{why}");
    driver.stop(id, Duration::ZERO).await;
    // It can be started again at once, as its keeper would.
    let again = driver.start(launch).await.unwrap();
    ask(&scene, &driver, id, "/healthz").await;
    driver.stop(id, Duration::ZERO).await;
    ended(again.life).await;
}

#[tokio::test]
async fn a_static_app_is_served_inside_a_container_too() {
    let Some(scene) = Scene::new("a_static_app_is_served…") else { return };
    let (driver, _) = scene.driver().await;
    let manifest = r#"{"app":{"name":"site","kind":"static"}}"#;
    let launch = scene.launch("site", manifest, &[("index.html", b"<h1>inside</h1>"), ("etc.txt", b"mine")]);
    let id = launch.replica.id;
    driver.start(launch).await.unwrap();
    assert_eq!(ask(&scene, &driver, id, "/").await, "<h1>inside</h1>");
    assert_eq!(ask(&scene, &driver, id, "/etc.txt").await, "mine");
    for elsewhere in ["/etc/passwd", "/../etc/passwd", "/%2e%2e/etc/passwd"] {
        assert!(!ask(&scene, &driver, id, elsewhere).await.contains("root"), "{elsewhere}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", pid_of(id))).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000") && status.contains("Seccomp:\t2"), "{status}");
    driver.stop(id, Duration::from_secs(5)).await;
    scene.nothing_left(id);
}

/// The loader that this test's own program asks for, and the libraries that it has loaded, with their content.
fn loader_and_libraries() -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(executable()).unwrap();
    let head = &bytes[..bastide_image::elf::HEAD_BYTES.min(bytes.len())];
    let bastide_image::elf::Program::Dynamic { loader } = bastide_image::elf::inspect(head) else {
        panic!("the probe is linked dynamically");
    };
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let loaded = maps.lines().filter_map(|line| line.splitn(6, ' ').nth(5)).map(str::trim);
    let mut paths: Vec<&str> = loaded.filter(|path| path.contains(".so")).chain([loader.as_str()]).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().map(|path| (path.trim_start_matches('/').to_owned(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn a_program_that_brings_its_loader_and_libraries_runs() {
    let Some(scene) = Scene::new("a_program_that_brings_its_loader…") else { return };
    let (driver, _) = scene.driver().await;
    let program = fs::read(executable()).unwrap();
    let brought = loader_and_libraries();
    let page: (&str, &[u8]) = ("site/index.html", b"by a loader of its own");
    let files: Vec<(&str, &[u8])> = [page, ("app", program.as_slice())]
        .into_iter()
        .chain(brought.iter().map(|(path, content)| (path.as_str(), content.as_slice())))
        .collect();
    let manifest =
        r#"{"app":{"name":"own","kind":"binary","command":["./app","static-server","--root","/site"]}}"#;
    let launch = scene.launch("own", manifest, &files);
    let (id, root) = (launch.replica.id, launch.root.clone());
    driver.start(launch).await.unwrap();
    assert_eq!(ask(&scene, &driver, id, "/").await, "by a loader of its own");
    driver.stop(id, Duration::from_secs(5)).await;
    scene.nothing_left(id);
    // A loader by a link that leads out of the app's directory is none.
    let loader = root.join(&brought.iter().find(|(path, _)| path.contains("ld-")).unwrap().0);
    let mut again = scene.launch("own", manifest, &[]);
    again.replica.id = ReplicaId::generate();
    let outside = scene.dir.path().join("loader");
    fs::rename(&loader, &outside).unwrap();
    std::os::unix::fs::symlink(&outside, &loader).unwrap();
    let refused = driver.start(again).await.unwrap_err();
    assert!(matches!(&refused, Error::Image(why) if why.contains("statically")), "{refused}");
}

#[tokio::test]
async fn a_program_that_cannot_run_in_a_container_is_refused_in_words_and_leaves_nothing() {
    let Some(scene) = Scene::new("a_program_that_cannot_run…") else { return };
    let (driver, _) = scene.driver().await;
    let manifest = r#"{"app":{"name":"bad","kind":"binary","command":["./app"]}}"#;
    let dynamic = fs::read(executable()).unwrap();
    for (content, word) in [(dynamic.as_slice(), "statically"), (b"#!/bin/sh\n", "script"), (b"junk", "ELF")]
    {
        let launch = scene.launch("bad", manifest, &[("app", content)]);
        let id = launch.replica.id;
        let refused = driver.start(launch).await.unwrap_err();
        assert!(matches!(&refused, Error::Image(why) if why.contains(word)), "{word}: {refused}");
        scene.nothing_left(id);
    }
}

#[tokio::test]
async fn many_starts_at_once_get_networks_of_their_own_and_a_start_that_is_given_up_leaves_nothing() {
    let Some(scene) = Scene::new("many_starts_at_once…") else { return };
    let (driver, _) = scene.driver().await;
    let launches: Vec<Launch> = (0..6).map(|_| scene.hello()).collect();
    let starts = launches.iter().map(|launch| driver.start(launch.clone()));
    for started in futures_util::future::join_all(starts).await {
        started.unwrap();
    }
    let given_up = scene.hello();
    // Polled once and dropped, as a keeper does whose replica is not wanted any more.
    let start = driver.start(given_up.clone());
    let _ = timeout(Duration::ZERO, start).await;
    driver.stop(given_up.replica.id, Duration::ZERO).await;
    scene.nothing_left(given_up.replica.id);
    for launch in &launches {
        assert!(ask(&scene, &driver, launch.replica.id, "/").await.contains(&launch.replica.id.to_string()));
    }
    let stops = launches.iter().map(|launch| driver.stop(launch.replica.id, Duration::ZERO));
    futures_util::future::join_all(stops).await;
    launches.iter().for_each(|launch| scene.nothing_left(launch.replica.id));
}

/// The egress role's door, as the role would serve it.
struct Egress {
    listener: tokio::net::UnixListener,
    stream: Option<tokio::net::UnixStream>,
}

impl Egress {
    fn start(path: &Path) -> Self {
        Self { listener: handover::listen(path).unwrap(), stream: None }
    }

    async fn next(&mut self, serves: &[ReplicaId]) -> (EgressOrder, Vec<OwnedFd>) {
        let work = async {
            if self.stream.is_none() {
                self.stream = Some(self.listener.accept().await.unwrap().0);
            }
            let stream = self.stream.as_ref().unwrap();
            let (text, sockets) = handover::receive(stream).await.unwrap();
            let receipt = EgressReceipt { error: None, serves: serves.to_vec() };
            handover::send(stream, &serde_json::to_vec(&receipt).unwrap(), &[]).await.unwrap();
            (serde_json::from_slice(&text).unwrap(), sockets)
        };
        timeout(PATIENCE, work).await.expect("an order comes")
    }
}

fn state(launch: &Launch) -> StageState {
    StageState {
        account: launch.account.clone(),
        generation: 1,
        customer: launch.customer.clone(),
        stage: launch.stage.clone(),
        replicas: vec![launch.replica.clone()],
        network: StageNetwork::default(),
        callees: BTreeMap::new(),
        postgres: None,
        settings: Vec::new(),
    }
}

#[tokio::test]
async fn the_egress_role_gets_the_sockets_that_the_app_finds_inside() {
    let Some(scene) = Scene::new("the_egress_role_gets_the_sockets…") else { return };
    let mut egress = Egress::start(&scene.control());
    let (driver, _) = scene.driver().await;
    assert_eq!(egress.next(&[]).await.0, EgressOrder::Resume);
    let launch = scene.hello();
    let id = launch.replica.id;
    driver.enact(&state(&launch)).await;
    driver.prepare(&launch).await.unwrap();
    let (order, mut sockets) = egress.next(&[]).await;
    assert!(
        matches!(order, EgressOrder::Admit { caller, .. } if caller.replica == id),
        "before the app starts"
    );
    assert_eq!(sockets.len(), 3);
    driver.start(launch.clone()).await.unwrap();
    // A call from inside comes out of the socket that was handed over.
    let proxy = std::net::TcpListener::from(sockets.remove(0));
    proxy.set_nonblocking(true).unwrap();
    let proxy = tokio::net::TcpListener::from_std(proxy).unwrap();
    let namespace = scene.installation().replica(id);
    let to = SocketAddr::from((address::BROKER, 3128));
    let call = Sockets::start().unwrap();
    let (called, accepted) = tokio::join!(
        call.connect(&namespace, Ipv4Addr::LOCALHOST, to, PATIENCE),
        timeout(PATIENCE, proxy.accept())
    );
    called.unwrap();
    accepted.unwrap().unwrap();
    // Whatever else listens inside is made there as well.
    let inner = driver.listen(id, SocketAddr::from((address::BROKER, 9000))).await.unwrap();
    drop(inner);
    // A zone's socket is made where only its gateway leads out.
    driver.outside(id, false).await.unwrap();
    let nowhere = driver.outside(ReplicaId::generate(), false).await;
    assert_eq!(nowhere.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    driver.stop(id, Duration::ZERO).await;
    assert_eq!(egress.next(&[]).await.0, EgressOrder::Dismiss { replica: id });
    assert_eq!(driver.listen(id, to).await.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

/// Looks again until `done` is something.
async fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_gateway_that_is_gone_is_made_again_and_how_zones_are_is_told() {
    let Some(scene) = Scene::new("a_gateway_that_is_gone_is_made_again…") else { return };
    let (driver, _) = scene.driver().await;
    let launch = scene.hello();
    let (id, zone) = (launch.replica.id, launch.replica.zone.clone());
    driver.start(launch).await.unwrap();
    let before = pid_of(id);
    let gateway = scene.installation().gateway(&zone);
    ip(&["netns", "del", &gateway]);
    until("the gateway is back", || bastide_network::path(&gateway).exists().then_some(())).await;
    assert!(ask(&scene, &driver, id, "/").await.contains("Hello"));
    assert_eq!(pid_of(id), before, "apps are none the wiser");
    let file = scene.dir.path().join("zones.json");
    until("both zones are told of", || {
        let told: serde_json::Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        let words: Vec<_> = told.as_array()?.iter().filter_map(|zone| zone["health"].as_str()).collect();
        (words.len() == 2 && words.iter().all(|word| ["passes", "repaired"].contains(word))).then_some(())
    })
    .await;
    driver.stop(id, Duration::ZERO).await;
}

#[tokio::test]
async fn packets_past_the_proxy_are_logged_with_names() {
    let Some(scene) = Scene::new("packets_past_the_proxy_are_logged…") else { return };
    let (driver, _) = scene.driver().await;
    let launch = scene.hello();
    let id = launch.replica.id;
    driver.enact(&state(&launch)).await;
    driver.start(launch).await.unwrap();
    let namespace = scene.installation().replica(id);
    let socket =
        Sockets::start().unwrap().udp(&namespace, SocketAddr::from(([0, 0, 0, 0], 0))).await.unwrap();
    let socket = std::net::UdpSocket::from(socket);
    let file = scene.dir.path().join("flows.jsonl");
    let flow = until("a refused packet is logged", || {
        let _ = socket.send_to(b"hello", "10.1.2.3:53");
        let text = fs::read_to_string(&file).unwrap_or_default();
        text.lines().next().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
    })
    .await;
    assert_eq!(
        (&flow["verdict"], &flow["by"], &flow["port"]),
        (&"refused".into(), &"udp".into(), &53.into())
    );
    assert_eq!(
        (&flow["customer"], &flow["app"], &flow["zone"]),
        (&"acme".into(), &"hello".into(), &"a".into())
    );
    assert_eq!(flow["replica"], id.to_string());
    assert!(flow["why"].as_str().is_some_and(|why| why.contains("blocked")), "{flow}");
    driver.stop(id, Duration::ZERO).await;
}

#[tokio::test]
async fn another_zone_stands_in_for_one_whose_gateway_cannot_be_had_where_that_is_wanted() {
    let Some(scene) = Scene::new("another_zone_stands_in…") else { return };
    let (driver, _) = scene.driver().await;
    let launch = scene.hello();
    let id = launch.replica.id;
    let mut wanted = state(&launch);
    wanted.network.failover = true;
    driver.enact(&wanted).await;
    driver.start(launch.clone()).await.unwrap();
    let world = SocketAddr::from(([11, 1, 0, 1], 8080));
    let listener = Sockets::start().unwrap().listen(&scene.outside, world).await.unwrap();
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    // As the egress role calls out for it: the address that is seen is its zone's, or of who stands in.
    let seen = async || {
        let socket = std::net::TcpStream::from(driver.outside(id, false).await.unwrap());
        socket.set_nonblocking(true).unwrap();
        let called = tokio::net::TcpSocket::from_std_stream(socket).connect(world);
        let (called, accepted) = tokio::join!(
            timeout(Duration::from_secs(2), called),
            timeout(Duration::from_secs(2), listener.accept())
        );
        drop(called);
        accepted.ok().and_then(std::result::Result::ok).map(|(_, from)| from.ip().to_string())
    };
    let begun = Instant::now();
    let first = loop {
        match seen().await {
            Some(from) => break from,
            None => assert!(begun.elapsed() < PATIENCE, "no call comes out"),
        }
    };
    assert_eq!(first, "11.1.0.11", "its own zone's");
    // A gateway that cannot be made again: something else has its name.
    let gateway = scene.installation().gateway(&launch.replica.zone);
    ip(&["netns", "del", &gateway]);
    let blocked = bastide_network::path(&gateway);
    let begun = Instant::now();
    while fs::create_dir(&blocked).is_err() {
        // It was repaired before; take it away again.
        let _ = Command::new("ip").args(["netns", "del", &gateway]).status();
        assert!(begun.elapsed() < PATIENCE, "it cannot be kept away");
    }
    let begun = Instant::now();
    while seen().await.as_deref() != Some("11.1.0.12") {
        assert!(begun.elapsed() < PATIENCE, "nobody stands in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fs::remove_dir(&blocked).unwrap();
    let begun = Instant::now();
    while seen().await.as_deref() != Some("11.1.0.11") {
        assert!(begun.elapsed() < PATIENCE, "its own zone does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    driver.stop(id, Duration::ZERO).await;
}
