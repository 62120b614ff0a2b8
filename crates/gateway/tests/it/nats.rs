//! A real broker, and the Platform's side of the session feed.

use crate::world::{LONG, now_s};
use bastide_bus::{
    Config, PlatformBus, PlatformHandler, SigningKey,
    bootstrap::{Material, Server, generate},
    broker,
};
use bastide_types::{
    Code, CustomerId, Digest, Problem, Role, Snapshot,
    feed::{Entry, Feed, FeedQuery, What},
    message::{NodeQuery, ReplicaFacts, Signed, SnapshotHead, SnapshotQuery, StageGrant, StateQuery},
};
use bytes::Bytes;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// The broker of an installation, killed when dropped.
pub struct Nats {
    pub material: Material,
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Nats {
    /// Starts one with the certificate `bus.pem` in `dir`.
    pub fn start(dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut nats = Self { material: generate(now_s()).unwrap(), dir: dir.to_owned(), port, child: None };
        nats.run();
        nats
    }

    fn run(&mut self) {
        let at = |name: &str| self.dir.join(name);
        let server = Server {
            port: self.port,
            cert_file: at("bus.pem"),
            key_file: at("bus.key"),
            accounts_dir: at("accounts"),
        };
        self.material.issuers.write_accounts(&server.accounts_dir).unwrap();
        std::fs::write(at("nats.conf"), self.material.issuers.nats_conf(&server).unwrap()).unwrap();
        let search = broker::Search { path: std::env::var_os("PATH"), ..broker::Search::default() };
        let found = broker::find(&search).unwrap_or_else(|why| panic!("these tests need a broker: {why}"));
        let line = found.command_line(&at("nats.conf"));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    pub fn url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port)
    }

    /// The Platform's side, with the key that signs Snapshots.
    pub async fn platform(&self, key: SigningKey) -> Told {
        let creds = self.material.issuers.creds(Role::Platform, "platform-1", now_s()).unwrap();
        let config = |file: &str| {
            let path = self.dir.join(file);
            std::fs::write(&path, creds[file].expose()).unwrap();
            Config {
                url: self.url(),
                ca_file: self.dir.join("ca.pem"),
                creds_file: Some(path),
                jwt: None,
                seed_file: None,
                name: "platform-1".into(),
            }
        };
        let (own, sys) = (config("platform-1.creds"), config("platform-1.sys.creds"));
        let bus = PlatformBus::connect(&own, &sys, self.material.authority.clone()).await.unwrap();
        bus.bus().connected(LONG).await.unwrap();
        let feed = Feed { life: 1, at_s: now_s(), after: 0, last: 0, more: false, entries: Vec::new() };
        let feed = Mutex::new(feed);
        let state = Arc::new(State { feed, key, offered: Mutex::default(), troubles: Mutex::default() });
        let (serving, served, stop) = (bus.clone(), state.clone(), CancellationToken::new());
        let ends = stop.clone();
        tokio::spawn(async move { serving.serve(served, ends).await });
        bus.serving(LONG).await.unwrap();
        Told { bus, state, stop }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct State {
    feed: Mutex<Feed>,
    key: SigningKey,
    offered: Mutex<Option<(SnapshotHead, Vec<u8>)>>,
    troubles: Mutex<Vec<String>>,
}

/// What tells the session feed.
pub struct Told {
    bus: PlatformBus,
    state: Arc<State>,
    stop: CancellationToken,
}

impl Told {
    /// Something happens, and gateways are told.
    pub async fn say(&self, customer: CustomerId, what: What, id: &str, resource: Option<&str>) {
        let part = {
            let mut feed = self.state.feed.lock().unwrap();
            let after = feed.last;
            feed.last += 1;
            feed.at_s = now_s();
            let (number, id, resource) = (feed.last, id.to_owned(), resource.map(str::to_owned));
            let entry = Entry { number, customer, what, id, until_s: now_s() + 3600, resource };
            feed.entries.push(entry.clone());
            Feed { after, entries: vec![entry], ..feed.clone() }
        };
        self.bus.tell_sessions(&self.state.key.sign(&part).unwrap()).await.unwrap();
    }

    /// There is a newer Snapshot, and gateways are told.
    pub async fn offer(&self, snapshot: &Snapshot) {
        let signed = self.state.key.sign(snapshot).unwrap();
        *self.state.offered.lock().unwrap() =
            Some(bastide_bus::snapshot::serialize(snapshot, &signed).unwrap());
        self.bus.hint_snapshot(snapshot.epoch, snapshot.revision).await.unwrap();
    }

    /// What the gateway did not take of it.
    pub async fn troubles(&self) -> Vec<String> {
        loop {
            let troubles = self.state.troubles.lock().unwrap().clone();
            if !troubles.is_empty() {
                return troubles;
            }
            self.bus.hint_snapshot(1, 1).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Nothing more is said.
    pub fn be_silent(&self) {
        self.stop.cancel();
    }
}

impl PlatformHandler for State {
    async fn session_feed(&self, query: FeedQuery) -> Result<Signed, Problem> {
        let mut feed = self.feed.lock().unwrap().clone();
        let after = if query.life == feed.life && query.after <= feed.last { query.after } else { 0 };
        feed.entries.retain(|entry| entry.number > after);
        Ok(self.key.sign(&Feed { after, at_s: now_s(), ..feed }).unwrap())
    }
    async fn snapshot_head(&self, query: SnapshotQuery) -> Result<SnapshotHead, Problem> {
        *self.troubles.lock().unwrap() = query.troubles;
        let offered = self.offered.lock().unwrap();
        offered.as_ref().map(|(head, _)| head.clone()).ok_or_else(|| Code::ApiUnknown.problem())
    }
    async fn blob(&self, _: &str, digest: &Digest, offset: u64, max: usize) -> Option<(Bytes, u64)> {
        let offered = self.offered.lock().unwrap();
        let (_, bytes) = offered.as_ref().filter(|(head, _)| head.digest == *digest)?;
        let from = offset as usize;
        let part = bytes[from..bytes.len().min(from + max)].to_vec();
        Some((part.into(), bytes.len() as u64))
    }
    async fn node_stages(&self, _: NodeQuery) -> Result<Vec<StageGrant>, Problem> {
        Err(Code::ApiUnknown.problem())
    }
    async fn stage_state(&self, _: &str, _: StateQuery) -> Result<Signed, Problem> {
        Err(Code::ApiUnknown.problem())
    }
    async fn replicas(&self, _: &str, _: ReplicaFacts) -> Result<(), Problem> {
        Err(Code::ApiUnknown.problem())
    }
}
