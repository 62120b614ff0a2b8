//! Gateways are told before the request that ended something is answered; over a real broker.

use crate::api::{World, world_of};
use bastide_bus::{
    Bus, Issuers, SigningKey,
    bootstrap::Server,
    broker,
    sessions::{FeedReader, follow},
};
use bastide_store::{MemberRow, NewSession, now_s};
use bastide_tls::LocalCa;
use bastide_types::{
    CustomerId, Role, UserId,
    feed::{Feed, What},
};
use http::Method;
use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// Only a failing test waits so long.
const LONG: Duration = Duration::from_secs(90);

struct Nats(Child);

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the broker that the world was told of.
fn nats(world: &World, port: u16) -> Nats {
    let ca = LocalCa::load(&world.at("ca.pem"), &world.at("ca.key")).unwrap();
    let hosts = ["127.0.0.1".to_owned()];
    let issued = ca.issue_role(Role::Bus, "bus", &hosts, time::OffsetDateTime::now_utc()).unwrap();
    issued.write(&world.at("bus.pem"), &world.at("bus.key")).unwrap();
    let server = Server {
        port,
        cert_file: world.at("bus.pem"),
        key_file: world.at("bus.key"),
        accounts_dir: world.at("accounts"),
    };
    let issuers = Issuers::load(&world.at("issuers.json")).unwrap();
    issuers.write_accounts(&server.accounts_dir).unwrap();
    fs::write(world.at("nats.conf"), issuers.nats_conf(&server).unwrap()).unwrap();
    let search = broker::Search { path: std::env::var_os("PATH"), ..broker::Search::default() };
    let found = broker::find(&search).unwrap_or_else(|why| panic!("this test needs a broker: {why}"));
    let line = found.command_line(&world.at("nats.conf"));
    let mut command = Command::new(&line[0]);
    Nats(
        command
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    )
}

/// A gateway: passes on what it is told, and is content with it.
struct Gateway(mpsc::Sender<Feed>);

impl FeedReader for Gateway {
    fn position(&self) -> (u64, u64) {
        (0, 0)
    }
    fn take(&mut self, part: Feed) -> bool {
        self.0.try_send(part).unwrap();
        true
    }
    fn replace(&mut self, _: Vec<Feed>) {}
}

async fn gateway(world: &World, port: u16) -> (Bus, mpsc::Receiver<Feed>) {
    let issuers = Issuers::load(&world.at("issuers.json")).unwrap();
    let creds = issuers.creds(Role::Gateway, "gateway-a", now_s().unsigned_abs()).unwrap();
    fs::write(world.at("gateway-a.creds"), creds["gateway-a.creds"].expose()).unwrap();
    let config = bastide_bus::Config {
        url: format!("tls://127.0.0.1:{port}"),
        ca_file: world.at("ca.pem"),
        creds_file: Some(world.at("gateway-a.creds")),
        jwt: None,
        seed_file: None,
        name: "gateway-a".into(),
    };
    let bus = Bus::connect(&config).await.unwrap();
    let key = SigningKey::from_pkcs8(&fs::read(world.at("snapshot.key")).unwrap()).unwrap().verify_key();
    let (sender, told) = mpsc::channel(1024);
    follow(&bus, key, Gateway(sender), CancellationToken::new());
    bus.connected(LONG).await.unwrap();
    (bus, told)
}

async fn member(world: &World, acme: CustomerId) -> UserId {
    let id = UserId::generate();
    let row = MemberRow {
        id,
        email: "ann@acme.example".into(),
        name: "Ann".into(),
        state: "active".into(),
        roles: vec!["developer".into()],
        password: None,
        stage: String::new(),
        verified: false,
    };
    let mut write = world.app.store.write().await.unwrap();
    world.app.store.customer(acme).add_member(&mut write, &row).await.unwrap();
    write.commit().await.unwrap();
    id
}

async fn session(world: &World, acme: CustomerId, member: UserId) -> String {
    let new = NewSession { kind: "program", hash: &[1; 32], parent: None, member, until: now_s() + 600 };
    let mut write = world.app.store.write().await.unwrap();
    let id = world.app.store.customer(acme).add_session(&mut write, &new).await.unwrap();
    write.commit().await.unwrap();
    id
}

/// No heartbeat runs here and nobody answers questions: what comes was told by the request itself.
#[tokio::test]
async fn gateways_are_told_by_the_request_that_ends_something() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("tls://127.0.0.1:{port}");
    let world = world_of(|config| {
        config.bus.url.clone_from(&url);
        config.bus_system.url.clone_from(&url);
    })
    .await;
    let acme = world.customer("acme").await;
    let ann = member(&world, acme).await;
    let assertion = world.assertion_of(&ann.to_string(), acme, &["developer"]);
    let end = async |id: &str| {
        let path = format!("/api/v1/sessions/{id}");
        let begun = Instant::now();
        let answer = world.call("acme", Method::DELETE, &path, Some(&assertion), "").await;
        assert_eq!(answer.0, 204, "{}", answer.1);
        begun.elapsed()
    };
    // Without a broker nobody waits for one.
    let untold = session(&world, acme, ann).await;
    let took = end(&untold).await;
    assert!(took < LONG, "{took:?}");

    let _nats = nats(&world, port);
    world.app.bus.bus().connected(LONG).await.unwrap();
    let (_bus, mut told) = gateway(&world, port).await;
    // The subscription is known to the broker once something comes.
    while told.try_recv().is_err() {
        let id = session(&world, acme, ann).await;
        end(&id).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..20 {
        let id = session(&world, acme, ann).await;
        end(&id).await;
        // Of the sessions before, something may still be on its way.
        let part = loop {
            let part = timeout(LONG, told.recv()).await.expect("told").unwrap();
            if part.entries.iter().any(|entry| entry.id == id) {
                break part;
            }
        };
        assert_eq!((part.entries.len(), part.entries[0].what), (1, What::Session));
        assert_eq!(part.last, part.after + 1);
    }
    let quiet = world.call("acme", Method::GET, "/api/v1/sessions", Some(&assertion), "").await;
    assert_eq!(quiet.0, 200);
    assert!(told.try_recv().is_err(), "who changed nothing tells nothing");
}
