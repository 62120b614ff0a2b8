//! Databases of apps through the relay, against a real PostgreSQL server and its own client.

use crate::relay::{Networks, replica};
use bastide_runtime::relay::{Limits, Relays};
use bastide_testkit::{
    Postgres,
    postgres::{certificate, psql, said},
};
use bastide_types::{
    CustomerName, ReplicaId, Secret, StageName,
    message::{DesiredReplica, StageState},
    network::{POSTGRES, StageNetwork},
    service::{PostgresLogin, PostgresServer, Services},
};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    process::{Command, Output},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Generous: only a test that fails waits this long.
const PATIENCE: Duration = Duration::from_mins(1);
const TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// Two customers' apps on one server: `shop` and `other`. `plain` may sign in without a password, for clients
/// that are written by hand here.
struct World {
    server: Postgres,
    networks: Arc<Networks>,
    relays: Relays<Networks>,
    state: StageState,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn login(name: &str, connections: u32) -> PostgresLogin {
    PostgresLogin {
        user: name.into(),
        database: name.into(),
        password: Secret::new(format!("{name}-password")),
        connections,
        url_variable: "DATABASE_URL".into(),
    }
}

impl World {
    async fn new() -> Self {
        Self::with(&[], &["host all plain 127.0.0.1/32 trust"], None).await
    }

    async fn with(settings: &[&str], rules: &[&str], authorities: Option<String>) -> Self {
        let server = Postgres::start(settings, rules);
        Self::at(server, authorities, "127.0.0.1").await
    }

    async fn at(server: Postgres, authorities: Option<String>, host: &str) -> Self {
        for name in ["shop", "other", "plain"] {
            server.sql("postgres", &format!("CREATE ROLE {name} LOGIN PASSWORD '{name}-password'"));
            server.sql("postgres", &format!("CREATE DATABASE {name}"));
            server.sql("postgres", &format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"));
            server.sql("postgres", &format!("GRANT CONNECT, CREATE ON DATABASE {name} TO {name}"));
        }
        let networks = Arc::new(Networks::default());
        let stop = CancellationToken::new();
        let relays = Relays::new(networks.clone(), Limits::default(), stop.clone());
        let state = StageState {
            account: "A".into(),
            generation: 1,
            customer: CustomerName::new("acme").unwrap(),
            stage: StageName::test(),
            replicas: Vec::new(),
            network: StageNetwork::default(),
            callees: BTreeMap::new(),
            postgres: Some(PostgresServer { host: host.into(), port: server.port(), authorities }),
            settings: Vec::new(),
        };
        relays.enact(Arc::new(state.clone())).await;
        Self { server, networks, relays, state, stop }
    }

    /// A replica that has this database.
    async fn app(&self, name: &str, connections: u32) -> App {
        let services = Services { postgres: Some(login(name, connections)), ..Services::default() };
        let replica = DesiredReplica { services, ..replica("shop", "a") };
        self.relays.open(&replica).await.unwrap();
        let inside = SocketAddr::from((POSTGRES, 5432));
        let door = self.networks.doors.lock().unwrap()[&(replica.id, inside)];
        App { replica: replica.id, door, name: name.into() }
    }
}

/// An app as its database sees it.
#[derive(Clone)]
struct App {
    replica: ReplicaId,
    door: SocketAddr,
    name: String,
}

impl App {
    fn command(&self, user: &str, password: &str, database: &str, sql: &str) -> Command {
        psql("127.0.0.1", self.door.port(), user, password, database, sql)
    }

    /// Runs SQL with the given names; off this thread, on which the relay runs.
    async fn psql_as(&self, user: &str, password: &str, database: &str, sql: &str) -> Output {
        let mut command = self.command(user, password, database, sql);
        let run = tokio::task::spawn_blocking(move || command.output().unwrap());
        timeout(PATIENCE, run).await.unwrap().unwrap()
    }

    /// Runs SQL as the app would.
    async fn sql(&self, sql: &str) -> String {
        let output = self.psql_as(&self.name, &format!("{}-password", self.name), &self.name, sql).await;
        assert!(output.status.success(), "{sql}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    async fn refused(&self, user: &str, database: &str, why: &str) {
        let output = self.psql_as(user, "other-password", database, "select 1").await;
        assert!(!output.status.success(), "{user} at {database} got in");
        assert!(said(&output).contains(why), "{}", said(&output));
    }

    /// A session by hand, without a password, that is ready; the key by which it is cancelled.
    async fn session(&self) -> (TcpStream, Vec<u8>) {
        let mut stream = TcpStream::connect(self.door).await.unwrap();
        stream.write_all(&start(&[("user", &self.name), ("database", &self.name)])).await.unwrap();
        let mut key = Vec::new();
        loop {
            let (kind, body) = message(&mut stream).await;
            match kind {
                b'K' => key = body,
                b'Z' => return (stream, key),
                b'E' => panic!("{}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
    }
}

fn start(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    framed(None, &body)
}

fn framed(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

fn query(sql: &str) -> Vec<u8> {
    framed(Some(b'Q'), format!("{sql}\0").as_bytes())
}

async fn message(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let kind = stream.read_u8().await.unwrap();
        let mut body = vec![0; stream.read_u32().await.unwrap() as usize - 4];
        stream.read_exact(&mut body).await.unwrap();
        (kind, body)
    };
    timeout(PATIENCE, read).await.expect("a message")
}

/// What comes until the end.
async fn rest(mut stream: TcpStream) -> String {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end");
    String::from_utf8_lossy(&rest).into_owned()
}

/// Waits for something that is asked of the server, off this thread.
async fn until(world: &World, sql: &str, answer: &str) {
    tokio::task::block_in_place(|| world.server.until(sql, answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_works_with_its_own_database_and_with_nothing_else() {
    let world = World::new().await;
    let shop = world.app("shop", 5).await;
    assert_eq!(shop.sql("select current_user, session_user, current_database()").await, "shop|shop|shop");
    shop.sql("create schema s; create table s.t (n int); insert into s.t select generate_series(1, 1000)")
        .await;
    assert_eq!(shop.sql("select sum(n) from s.t").await, "500500");

    // Refused by the relay, with a word.
    shop.refused("other", "shop", "may not connect as \"other\"").await;
    shop.refused("admin", "postgres", "may not connect as \"admin\"").await;
    shop.refused("shop", "other", "to the database \"other\"").await;
    shop.refused("shop", "postgres", "to the database \"postgres\"").await;
    shop.refused("shop", "shop", "password authentication failed").await;
    let replication =
        shop.psql_as("shop", "shop-password", "dbname=shop replication=database", "select 1").await;
    assert!(
        said(&replication).contains("replication connections are not available"),
        "{}",
        said(&replication)
    );
    let mut preload = shop.command("shop", "shop-password", "shop", "select 1");
    preload.env("PGOPTIONS", "-c local_preload_libraries=x");
    let preload = tokio::task::spawn_blocking(move || preload.output().unwrap()).await.unwrap();
    assert!(said(&preload).contains("\"local_preload_libraries\" may not be given"), "{}", said(&preload));
    let mut harmless = shop.command("shop", "shop-password", "shop", "show search_path");
    harmless.env("PGOPTIONS", "-c search_path=s").env("PGTZ", "UTC").env("PGAPPNAME", "an app");
    let harmless = tokio::task::spawn_blocking(move || harmless.output().unwrap()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&harmless.stdout).trim(), "s", "{}", said(&harmless));

    // And by the server, should the relay not be there.
    let direct = |user: &str, database: &str| {
        let mut command =
            psql("127.0.0.1", world.server.port(), user, &format!("{user}-password"), database, "select 1");
        command.output().unwrap()
    };
    assert!(direct("shop", "shop").status.success());
    assert!(said(&direct("shop", "other")).contains("permission denied for database"));

    // A replica without a database has no listener at all.
    let without = replica("shop", "a");
    world.relays.open(&without).await.unwrap();
    assert!(!world.networks.doors.lock().unwrap().keys().any(|(id, _)| *id == without.id));

    // A replica that goes is cut off.
    let (session, _) = world.app("plain", 5).await.session().await;
    world.stop.cancel();
    assert_eq!(rest(session).await, "");
    assert!(TcpStream::connect(shop.door).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_is_read_strictly_and_encryption_is_declined() {
    let world = World::new().await;
    let app = world.app("plain", 5).await;
    let own = start(&[("user", "plain"), ("database", "plain")]);

    let mut stream = TcpStream::connect(app.door).await.unwrap();
    for ask in [GSS, TLS] {
        stream.write_all(&ask).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'N');
    }
    stream.write_all(&own).await.unwrap();
    assert_eq!(message(&mut stream).await.0, b'R');

    for (bytes, state) in [
        ([TLS, TLS].concat(), "08P01"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "08P01"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01"),
        (vec![0, 0, 0x27, 0x11], "08P01"),
        (framed(None, &[0, 2, 0, 0, 0]), "0A000"),
        (start(&[("user", "plain"), ("user", "admin")]), "08P01"),
        (start(&[("user", "plain"), ("database", "shop")]), "3D000"),
        (start(&[("user", "admin"), ("database", "plain")]), "28000"),
        (start(&[("user", "plain"), ("replication", "true")]), "0A000"),
        (start(&[("user", "plain"), ("options", "-c role=admin")]), "0A000"),
        ([&own[..own.len() - 1], b"x"].concat(), "08P01"),
    ] {
        let mut stream = TcpStream::connect(app.door).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let answer = rest(stream).await;
        assert!(answer.contains(state) && answer.contains("bastide: "), "{bytes:?}: {answer}");
    }
    // An unknown version of the protocol is settled between client and server.
    let mut newer = own;
    newer[7] = 9;
    let mut stream = TcpStream::connect(app.door).await.unwrap();
    stream.write_all(&newer).await.unwrap();
    assert_eq!(message(&mut stream).await.0, b'v');
    assert_eq!(message(&mut stream).await.0, b'R');
    let admins = "select count(*) from pg_stat_activity
        where usename = 'admin' and backend_type = 'client backend' and pid <> pg_backend_pid()";
    until(&world, admins, "0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_replicas_own_statements_can_be_cancelled() {
    let world = World::new().await;
    let (app, other) = (world.app("plain", 5).await, world.app("plain", 5).await);
    assert_ne!(app.replica, other.replica);
    let running =
        "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";

    // By the usual client, which asks for it on a connection of its own.
    let mut command =
        world.app("shop", 5).await.command("shop", "shop-password", "shop", "select pg_sleep(600)");
    let child = command.spawn().unwrap();
    until(&world, running, "1").await;
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    let output = timeout(PATIENCE, output).await.expect("it is cancelled").unwrap();
    assert!(said(&output).contains("canceling statement due to user request"), "{}", said(&output));

    // A key that another replica got hold of, or one that belongs to nobody, cancels nothing.
    let (mut session, key) = app.session().await;
    session.write_all(&query("select pg_sleep(600)")).await.unwrap();
    until(&world, running, "1").await;
    let cancel = |key: &[u8]| framed(None, &[&80_877_102u32.to_be_bytes(), key].concat());
    let mut near = key.clone();
    *near.last_mut().unwrap() ^= 1;
    for (door, key) in [(other.door, &key), (app.door, &near)] {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(&cancel(key)).await.unwrap();
        assert_eq!(rest(stream).await, "");
        until(&world, running, "1").await;
    }
    let mut stream = TcpStream::connect(app.door).await.unwrap();
    stream.write_all(&cancel(&key)).await.unwrap();
    assert_eq!(rest(stream).await, "");
    let (kind, body) = loop {
        let (kind, body) = message(&mut session).await;
        if kind == b'E' {
            break (kind, body);
        }
    };
    assert!(kind == b'E' && String::from_utf8_lossy(&body).contains("57014"));

    // A session that is over has no key any more, even if the server gives its number to another.
    drop(session);
    until(&world, "select count(*) from pg_stat_activity where usename = 'plain'", "0").await;
    let (_session, _) = other.session().await;
    let mut stream = TcpStream::connect(app.door).await.unwrap();
    stream.write_all(&cancel(&key)).await.unwrap();
    assert_eq!(rest(stream).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_makes_the_server_wait_and_costs_no_memory() {
    let world = World::new().await;
    let app = world.app("plain", 5).await;
    let (mut session, _) = app.session().await;
    let before = resident_kb();
    session.write_all(&query("select repeat('x', 1000) from generate_series(1, 400000)")).await.unwrap();
    // 400 MB are on their way; the server waits for its client, which is the relay, which waits for us.
    until(&world, "select wait_event from pg_stat_activity where usename = 'plain'", "ClientWrite").await;
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 128 * 1024, "{grown} KiB more");
    let mut rows = 0;
    loop {
        match message(&mut session).await {
            (b'D', row) => {
                assert_eq!(row.len(), 2 + 4 + 1000);
                rows += 1;
            }
            (b'Z', _) => break,
            _ => {}
        }
    }
    assert_eq!(rows, 400_000, "all of it comes when it is read");
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 128 * 1024, "{grown} KiB more");
}

fn resident_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_has_so_many_connections_and_can_still_cancel() {
    let world = World::new().await;
    let app = world.app("plain", 2).await;
    let held = [app.session().await, app.session().await];
    let mut stream = TcpStream::connect(app.door).await.unwrap();
    stream.write_all(&start(&[("user", "plain"), ("database", "plain")])).await.unwrap();
    let answer = rest(stream).await;
    assert!(answer.contains("53300") && answer.contains("has 2 connections"), "{answer}");
    let (mut first, key) = held.into_iter().next().unwrap();
    first.write_all(&query("select pg_sleep(600)")).await.unwrap();
    until(&world, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1").await;
    let mut stream = TcpStream::connect(app.door).await.unwrap();
    stream.write_all(&framed(None, &[&80_877_102u32.to_be_bytes(), &key[..]].concat())).await.unwrap();
    assert_eq!(rest(stream).await, "");
    until(&world, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "0").await;
    drop(first);
    let begun = Instant::now();
    loop {
        let mut stream = TcpStream::connect(app.door).await.unwrap();
        stream.write_all(&start(&[("user", "plain")])).await.unwrap();
        if message(&mut stream).await.0 == b'R' {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "a place that is given back is used again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_said_clearly_and_comes_back() {
    let mut world = World::new().await;
    let app = world.app("plain", 5).await;
    let (mut session, _) = app.session().await;
    session.write_all(&query("select pg_sleep(600)")).await.unwrap();
    tokio::task::block_in_place(|| world.server.stop());
    // Whatever the server says last comes through, then the end.
    rest(session).await;
    let output = app.psql_as("plain", "", "plain", "select 1").await;
    assert!(
        said(&output).contains("the PostgreSQL server cannot be reached at present"),
        "{}",
        said(&output)
    );
    let mut stream = TcpStream::connect(app.door).await.unwrap();
    stream.write_all(&start(&[("user", "plain")])).await.unwrap();
    assert!(rest(stream).await.contains("57P03"));

    tokio::task::block_in_place(|| world.server.resume());
    assert_eq!(app.sql("select 1").await, "1");

    // Without a server in the desired state there is none, and with another one it is that.
    let server = world.state.postgres.take();
    world.relays.enact(Arc::new(world.state.clone())).await;
    let output = app.psql_as("plain", "", "plain", "select 1").await;
    assert!(said(&output).contains("no PostgreSQL server is configured"), "{}", said(&output));
    world.state.postgres = server;
    world.relays.enact(Arc::new(world.state.clone())).await;
    assert_eq!(app.sql("select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_way_to_the_server_is_encrypted_and_the_server_proves_its_name() {
    let (made, key) = certificate("localhost");
    let (another, _) = certificate("localhost");
    let server = Postgres::start(&[], &["hostnossl all shop 127.0.0.1/32 reject"]);
    server.file("data/server.crt", &made);
    server.file("data/server.key", &key);
    server.sql("postgres", "alter system set ssl = on");
    server.sql("postgres", "select pg_reload_conf()");
    server.until("show ssl", "on");

    let world = World::at(server, Some(made.clone()), "localhost").await;
    let shop = world.app("shop", 5).await;
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    // The server offers authentication bound to TLS; libpq, which has none, must not hear of it.
    assert_eq!(shop.sql(encrypted).await, "t");
    let mut command = shop.command("shop", "shop-password", "shop", "select pg_sleep(600)");
    let child = command.spawn().unwrap();
    until(&world, "select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1").await;
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    let output = timeout(PATIENCE, output).await.expect("it is cancelled").unwrap();
    assert!(said(&output).contains("canceling statement"), "{}", said(&output));

    let mut state = world.state.clone();
    let mut server = state.postgres.clone().unwrap();
    for (host, authorities) in [("localhost", Some(another)), ("127.0.0.1", Some(made.clone()))] {
        server.host = host.into();
        server.authorities = authorities;
        state.postgres = Some(server.clone());
        world.relays.enact(Arc::new(state.clone())).await;
        let output = shop.psql_as("shop", "shop-password", "shop", "select 1").await;
        assert!(said(&output).contains("cannot be reached"), "{host}: {}", said(&output));
    }
    // Without TLS the server itself refuses.
    server.authorities = None;
    state.postgres = Some(server);
    world.relays.enact(Arc::new(state)).await;
    let output = shop.psql_as("shop", "shop-password", "shop", "select 1").await;
    assert!(
        said(&output).contains("no encryption") || said(&output).contains("rejects"),
        "{}",
        said(&output)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_not_used_where_it_should_have_it() {
    let (made, _) = certificate("localhost");
    let world = World::at(Postgres::start(&[], &[]), Some(made.clone()), "localhost").await;
    let shop = world.app("shop", 5).await;
    let output = shop.psql_as("shop", "shop-password", "shop", "select 1").await;
    assert!(said(&output).contains("cannot be reached"), "{}", said(&output));
}
