//! What the tests stand in: an installation with its own authority, keys and broker.

use bastide_bus::account::StageAccount;
use bastide_bus::bootstrap::{Material, Server, generate};
use bastide_bus::{Bus, Config, PlatformBus, PlatformHandler, SigningKey, broker};
use bastide_tls::LocalCa;
use bastide_types::feed::{Feed, FeedQuery};
use bastide_types::message::{
    NodeQuery, ReplicaFacts, Signed, SnapshotHead, SnapshotQuery, StageGrant, StageState, StateQuery,
};
use bastide_types::{Code, CustomerName, Digest, Problem, Role, StageName};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes on a slow machine; only a failure waits for it.
pub const LONG: Duration = Duration::from_secs(90);

pub fn now_s() -> u64 {
    OffsetDateTime::now_utc().unix_timestamp() as u64
}

pub struct House {
    pub dir: tempfile::TempDir,
    pub material: Material,
    pub port: u16,
    /// Where the broker is, when it is not one of our own.
    pub url: Option<String>,
    ca: LocalCa,
    broker: Option<Child>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.kill();
    }
}

impl House {
    /// An installation whose broker runs.
    pub fn new() -> Self {
        let mut house = Self::silent();
        house.start();
        house
    }

    /// An installation whose broker does not run.
    pub fn silent() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = LocalCa::create_internal(OffsetDateTime::now_utc()).unwrap();
        ca.write(&dir.path().join("ca.pem"), &dir.path().join("ca.key")).unwrap();
        // Nobody else is given this port while it is not in use for a moment: the system hands them
        // out in turn.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut house = Self { dir, material: generate(now_s()).unwrap(), port, url: None, ca, broker: None };
        house.certify(Role::Bus, &["127.0.0.1".into()]);
        house
    }

    /// Gives the broker a certificate of this role.
    pub fn certify(&mut self, role: Role, hosts: &[String]) {
        let issued = self.ca.issue_role(role, "bus", hosts, OffsetDateTime::now_utc()).unwrap();
        issued.write(&self.path("bus.pem"), &self.path("bus.key")).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn start(&mut self) {
        let server = Server {
            port: self.port,
            cert_file: self.path("bus.pem"),
            key_file: self.path("bus.key"),
            accounts_dir: self.path("accounts"),
        };
        self.material.issuers.write_accounts(&server.accounts_dir).unwrap();
        let conf = self.path("nats.conf");
        std::fs::write(&conf, self.material.issuers.nats_conf(&server).unwrap()).unwrap();
        self.broker = Some(run_broker(&conf, &self.path("nats.log")));
    }

    /// SIGKILL: no farewell to anybody.
    pub fn kill(&mut self) {
        if let Some(mut broker) = self.broker.take() {
            let _ = broker.kill();
            let _ = broker.wait();
        }
    }

    /// Stops the broker where it is; connections stay open and nobody answers.
    pub fn freeze(&self) {
        self.signal("-STOP");
        // On a busy machine its threads stop one after the other.
        while !self.is_stopped() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_stopped(&self) -> bool {
        let threads = format!("/proc/{}/task", self.broker.as_ref().unwrap().id());
        std::fs::read_dir(threads).unwrap().all(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        })
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.broker.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("nats.log")).unwrap_or_default()
    }

    /// Waits until the broker logs this.
    pub async fn logs(&self, text: &str) {
        let wait = async {
            while !self.log().contains(text) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "not in the log: {text}\n{}", self.log());
    }

    fn config(&self, name: &str) -> Config {
        Config {
            url: self.url.clone().unwrap_or_else(|| format!("tls://127.0.0.1:{}", self.port)),
            ca_file: self.path("ca.pem"),
            creds_file: None,
            jwt: None,
            seed_file: None,
            name: name.into(),
        }
    }

    /// Credentials of a role, written as the supervisor does.
    pub fn role(&self, role: Role, name: &str) -> Config {
        for (file, creds) in self.material.issuers.creds(role, name, now_s()).unwrap() {
            std::fs::write(self.path(&file), creds.expose()).unwrap();
        }
        Config { creds_file: Some(self.path(&format!("{name}.creds"))), ..self.config(name) }
    }

    /// Credentials of an agent.
    pub fn agent(&self, stage: &StageAccount, life_s: u64) -> Config {
        let seed_file = self.path(&format!("{}.seed", stage.account));
        let key = bastide_bus::state::NodeKey::load_or_create(&seed_file).unwrap();
        let jwt = stage.agent_jwt(key.public(), now_s(), life_s).unwrap();
        Config { jwt: Some(jwt), seed_file: Some(seed_file), ..self.config("agent") }
    }

    pub async fn edge(&self, name: &str) -> Bus {
        connected(&self.role(Role::Edge, name)).await
    }

    /// A platform replica that serves `fake` until the token is cancelled.
    pub async fn platform(&self, fake: &Arc<Fake>) -> Platform {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("platform-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let platform = self.role(Role::Platform, &name);
        let sys = Config { creds_file: Some(self.path(&format!("{name}.sys.creds"))), ..platform.clone() };
        let bus = PlatformBus::connect(&platform, &sys, self.material.authority.clone()).await.unwrap();
        bus.bus().connected(LONG).await.unwrap();
        let stop = CancellationToken::new();
        let task = {
            let (bus, fake, stop) = (bus.clone(), fake.clone(), stop.clone());
            tokio::spawn(async move { bus.serve(fake, stop).await })
        };
        bus.serving(LONG).await.unwrap();
        Platform { bus, stop, task }
    }

    /// A stage whose account the broker knows, and its agent.
    pub async fn stage(&self, platform: &Platform) -> (StageAccount, Bus) {
        let stage = StageAccount::generate().unwrap();
        assert_eq!(platform.bus.ensure_accounts(std::slice::from_ref(&stage)).await.unwrap(), 1);
        let agent = connected(&self.agent(&stage, 3600)).await;
        (stage, agent)
    }
}

/// Runs a broker with this configuration.
pub fn run_broker(conf: &Path, log: &Path) -> Child {
    let search = broker::Search { path: std::env::var_os("PATH"), ..broker::Search::default() };
    let found = broker::find(&search).unwrap_or_else(|why| panic!("these tests need a broker: {why}"));
    let check = found.check_line(conf);
    let checked = Command::new(&check[0]).args(&check[1..]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let line = found.command_line(conf);
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().unwrap()
}

pub async fn connected(config: &Config) -> Bus {
    let bus = Bus::connect(config).await.unwrap();
    bus.connected(LONG).await.unwrap();
    bus
}

pub struct Platform {
    pub bus: PlatformBus,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<Result<(), bastide_bus::BusError>>,
}

/// Waits until a watched value is as wanted.
pub async fn until<T: Clone>(receiver: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) -> T {
    let found = tokio::time::timeout(LONG, receiver.wait_for(wanted)).await;
    found.expect("in time").expect("the follower lives").clone()
}

/// A platform that answers from memory and remembers who asked.
#[derive(Default)]
pub struct Fake {
    pub head: Mutex<Option<SnapshotHead>>,
    /// Blobs, and the account that may read each (`None`: all).
    pub blobs: Mutex<HashMap<Digest, (Bytes, Option<String>)>>,
    /// Pieces that are still served; later ones get no answer.
    pub pieces_left: Mutex<Option<usize>>,
    pub offsets: Mutex<Vec<u64>>,
    pub states: Mutex<HashMap<String, Signed>>,
    pub facts: Mutex<Vec<(String, ReplicaFacts)>>,
    /// Facts are taken, and answered when there is a permit.
    pub gate: Mutex<Option<Arc<Semaphore>>>,
    pub asked: Mutex<Vec<String>>,
    /// What the last one who asked for a Snapshot did not take.
    pub troubles: Mutex<Vec<String>>,
    pub grants: Mutex<Vec<StageGrant>>,
    /// The whole session feed and the key that signs it; it is given two entries at a time.
    pub feed: Mutex<Option<(SigningKey, Feed)>>,
}

impl Fake {
    pub fn put(&self, content: impl Into<Bytes>, reader: Option<&str>) -> Digest {
        let content = content.into();
        let digest = sha256(&content);
        self.blobs.lock().unwrap().insert(digest, (content, reader.map(str::to_owned)));
        digest
    }
    fn note(&self, what: &str) {
        self.asked.lock().unwrap().push(what.to_owned());
    }
}

pub fn sha256(content: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content).as_ref());
    Digest::from_sha256(bytes)
}

impl PlatformHandler for Fake {
    async fn snapshot_head(&self, query: SnapshotQuery) -> Result<SnapshotHead, Problem> {
        self.note("snapshot");
        *self.troubles.lock().unwrap() = query.troubles;
        self.head.lock().unwrap().clone().ok_or_else(|| Code::ApiUnknown.problem())
    }
    async fn session_feed(&self, query: FeedQuery) -> Result<Signed, Problem> {
        self.note(&format!("feed {}", query.after));
        let feed = self.feed.lock().unwrap();
        let (key, feed) = feed.as_ref().ok_or_else(|| Code::ApiUnknown.problem())?;
        let after = if query.life == feed.life && query.after <= feed.last { query.after } else { 0 };
        let entries = feed.entries.iter().filter(|entry| entry.number > after).take(2).cloned();
        let entries: Vec<_> = entries.collect();
        let more = entries.last().is_some_and(|entry| entry.number < feed.entries.last().unwrap().number);
        let last = if more { entries.last().unwrap().number } else { feed.last };
        Ok(key.sign(&Feed { after, last, more, entries, ..feed.clone() }).unwrap())
    }
    async fn blob(&self, account: &str, digest: &Digest, offset: u64, max: usize) -> Option<(Bytes, u64)> {
        let served = {
            let mut left = self.pieces_left.lock().unwrap();
            match left.as_mut() {
                Some(0) => false,
                Some(left) => {
                    *left -= 1;
                    true
                }
                None => true,
            }
        };
        if !served {
            std::future::pending::<()>().await;
        }
        self.offsets.lock().unwrap().push(offset);
        let blobs = self.blobs.lock().unwrap();
        let (content, reader) = blobs.get(digest)?;
        if reader.as_ref().is_some_and(|reader| reader != account) {
            return None;
        }
        let from = usize::try_from(offset).ok().filter(|from| *from <= content.len())?;
        Some((content.slice(from..content.len().min(from + max)), content.len() as u64))
    }
    async fn node_stages(&self, query: NodeQuery) -> Result<Vec<StageGrant>, Problem> {
        self.note(&query.user_key);
        Ok(self.grants.lock().unwrap().clone())
    }
    async fn stage_state(&self, account: &str, _: StateQuery) -> Result<Signed, Problem> {
        self.note(account);
        self.states.lock().unwrap().get(account).cloned().ok_or_else(|| Code::ApiUnknown.problem())
    }
    async fn replicas(&self, account: &str, facts: ReplicaFacts) -> Result<(), Problem> {
        self.facts.lock().unwrap().push((account.to_owned(), facts));
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}

pub fn signing_key() -> SigningKey {
    SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap()
}

pub fn stage_state(account: &str, generation: u64) -> StageState {
    StageState {
        account: account.into(),
        generation,
        customer: CustomerName::new("acme").unwrap(),
        stage: StageName::test(),
        replicas: Vec::new(),
        network: Default::default(),
        callees: Default::default(),
        postgres: None,
        settings: Vec::new(),
    }
}

pub fn facts(boot: u64, sequence: u64, generation: u64) -> ReplicaFacts {
    ReplicaFacts { boot, sequence, generation, replicas: Vec::new() }
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
