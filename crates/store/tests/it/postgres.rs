//! Databases of apps: the rows, and what is made of them on a real PostgreSQL server.

use crate::{SEED, World, begin, publish, shop};
use bastide_store::{PostgresAdmin, PostgresRow, ServerError, login_of};
use bastide_testkit::{
    Postgres,
    postgres::{ADMIN_PASSWORD, psql, said},
};
use bastide_types::{AppId, CustomerId, ReplicaId, Secret, StageName};
use std::{fs, process::Output};
use uuid::Uuid;

fn row(connections: u32) -> PostgresRow {
    PostgresRow {
        customer: CustomerId::generate(),
        stage: StageName::development(),
        app: AppId::generate(),
        database: format!("bastide_{}", Uuid::now_v7().simple()),
        id: Uuid::now_v7(),
        number: 1,
        password: Secret::new("secret2of3this4app"),
        connections,
        applied: None,
        problem: None,
        created: 0,
    }
}

/// The login after this one.
fn next(login: &PostgresRow) -> PostgresRow {
    PostgresRow {
        id: Uuid::now_v7(),
        number: login.number + 1,
        password: Secret::new("another2one"),
        ..login.clone()
    }
}

fn admin(server: &Postgres) -> PostgresAdmin {
    PostgresAdmin::new(&Secret::new(server.admin_url())).unwrap()
}

fn run(server: &Postgres, login: &PostgresRow, database: &str, sql: &str) -> Output {
    psql("127.0.0.1", server.port(), &login.user(), login.password.expose(), database, sql).output().unwrap()
}

fn answer(server: &Postgres, login: &PostgresRow, sql: &str) -> String {
    let output = run(server, login, &login.database, sql);
    assert!(output.status.success(), "{sql}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test]
async fn an_app_gets_a_database_of_its_own_and_nothing_of_others() {
    let server = Postgres::start(&["log_statement=all"], &[]);
    let admin = admin(&server);
    let (one, two) = (row(3), row(3));
    // Again and at the same time: two replicas of the Platform may both try.
    let (first, second) = tokio::join!(admin.provide(&one), admin.provide(&one));
    first.unwrap();
    second.unwrap();
    let open = admin.provide(&two).await.unwrap();
    assert_eq!(open, ["postgres", "template1"], "the operator is told what else lets everybody in");
    admin.provide(&one).await.unwrap();

    let owner = &one.database;
    assert_eq!(answer(&server, &one, "select current_user, session_user"), format!("{owner}|{}", one.user()));
    answer(
        &server,
        &one,
        "create table t (n int); insert into t values (7); create schema s; create extension pgcrypto",
    );
    assert_eq!(answer(&server, &one, "select n from t"), "7");
    assert_eq!(answer(&server, &one, "show statement_timeout"), "1min");
    assert_eq!(answer(&server, &one, "show idle_in_transaction_session_timeout"), "1min");
    assert_eq!(answer(&server, &one, "show temp_file_limit"), "1GB");

    for (login, database) in [(&two, &one.database), (&one, &two.database)] {
        let output = run(&server, login, database, "select 1");
        assert!(said(&output).contains("permission denied for database"), "{}", said(&output));
    }
    for forbidden in [
        "create role x",
        "create database x",
        "copy t to program 'id'",
        "copy t from '/etc/passwd'",
        "select pg_read_file('/etc/passwd')",
        "alter system set work_mem = '1GB'",
        "set temp_file_limit = -1",
        "create language plpython3u",
        "create extension dblink",
        "create extension postgres_fdw",
        "alter role current_user superuser",
        &format!("set role {}", two.database),
        &format!("grant connect on database {} to public", one.database),
        &format!("alter database {} owner to {}", one.database, one.user()),
    ] {
        let output = run(&server, &one, &one.database, forbidden);
        let denied = ["denied", "must be", "owner", "not available", "No grant", "no privileges"];
        let said = said(&output);
        assert!(denied.iter().any(|word| said.contains(word)), "{forbidden}: {said}");
    }
    assert_eq!(server.sql("postgres", "select has_database_privilege('public', oid, 'CONNECT') from pg_database where datname like 'bastide%' group by 1"), "f");

    // The server's log holds what was run, and no password.
    let log = fs::read_to_string(server.log()).unwrap();
    assert!(log.contains("CREATE DATABASE") && log.contains("SCRAM-SHA-256$4096"));
    assert!(!log.contains(one.password.expose()) && !log.contains(ADMIN_PASSWORD));
}

#[tokio::test]
async fn a_login_has_so_many_connections_and_another_limit_is_brought_to_the_server() {
    let server = Postgres::start(&[], &[]);
    let admin = admin(&server);
    let mut login = row(1);
    admin.provide(&login).await.unwrap();
    let limit = || {
        server
            .sql("postgres", &format!("select rolconnlimit from pg_roles where rolname = '{}'", login.user()))
    };
    assert_eq!(limit(), "1");
    let mut holding = psql(
        "127.0.0.1",
        server.port(),
        &login.user(),
        login.password.expose(),
        &login.database,
        "select pg_sleep(600)",
    );
    let mut holding = holding.spawn().unwrap();
    server.until("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
    let output = run(&server, &login, &login.database, "select 1");
    assert!(said(&output).contains("too many connections"), "{}", said(&output));
    login.connections = 2;
    admin.provide(&login).await.unwrap();
    assert_eq!(answer(&server, &login, "select 1"), "1");
    holding.kill().unwrap();
    holding.wait().unwrap();
}

#[tokio::test]
async fn logins_are_exchanged_without_a_gap_and_the_old_one_ends() {
    let server = Postgres::start(&[], &[]);
    let admin = admin(&server);
    let old = row(5);
    admin.provide(&old).await.unwrap();
    answer(&server, &old, "create table t (n int); insert into t values (7)");
    // What an app makes when it steps out of its role is not in the way later.
    answer(&server, &old, "reset role; create table own (n int)");
    let new = next(&old);
    admin.provide(&new).await.unwrap();
    assert_eq!(answer(&server, &old, "select n from t"), "7", "the old one goes on meanwhile");
    assert_eq!(answer(&server, &new, "insert into t values (8); select sum(n) from t"), "15");

    let mut holding = psql(
        "127.0.0.1",
        server.port(),
        &old.user(),
        old.password.expose(),
        &old.database,
        "select pg_sleep(600)",
    );
    let holding = holding.spawn().unwrap();
    server.until("select count(*) from pg_stat_activity where wait_event = 'PgSleep'", "1");
    admin.retire(&old).await.unwrap();
    let ended = holding.wait_with_output().unwrap();
    assert!(said(&ended).contains("terminating connection"), "{}", said(&ended));
    assert!(!run(&server, &old, &old.database, "select 1").status.success());
    assert_eq!(answer(&server, &new, "select sum(n) from t; select count(*) from own"), "15\n0");
    assert_eq!(
        server.sql("postgres", &format!("select count(*) from pg_roles where rolname = '{}'", old.user())),
        "0"
    );
    admin.retire(&old).await.unwrap();
}

#[tokio::test]
async fn an_administrator_that_is_no_superuser_will_do() {
    let server = Postgres::start(&[], &[]);
    server.sql("postgres", "create role maker login createdb createrole password 'maker'");
    server.sql("postgres", "create role weak login password 'weak'");
    let of = |name: &str| {
        let address = format!("postgres://{name}:{name}@127.0.0.1:{}/postgres", server.port());
        PostgresAdmin::new(&Secret::new(address)).unwrap()
    };
    let maker = of("maker");
    assert!(maker.check().await.unwrap().contains("PostgreSQL 1"));
    let login = row(5);
    maker.provide(&login).await.unwrap();
    maker.provide(&login).await.unwrap();
    answer(&server, &login, "create table t (n int)");
    let newer = next(&login);
    maker.provide(&newer).await.unwrap();
    answer(&server, &login, "reset role; create table own (n int)");
    maker.retire(&login).await.unwrap();
    assert!(!run(&server, &login, &login.database, "select 1").status.success());
    assert_eq!(answer(&server, &newer, "select count(*) from own"), "0");
    let weak = of("weak").check().await.unwrap_err();
    assert!(weak.to_string().contains("CREATEROLE"), "{weak}");
    assert!(matches!(of("weak").provide(&row(5)).await, Err(ServerError::Refused(_))));
}

#[tokio::test]
async fn a_server_that_is_away_or_is_not_the_one_meant_is_not_used() {
    let made = bastide_testkit::postgres::certificate("localhost");
    let mut server = Postgres::start(&[], &["hostnossl all admin 127.0.0.1/32 reject"]);
    server.file("data/server.crt", &made.0);
    server.file("data/server.key", &made.1);
    server.stop();
    fs::write(server.file("data/postgresql.auto.conf", ""), "ssl = on\n").unwrap();
    server.resume();
    let address = |host: &str, ca: &str| {
        let ca = server.file("ca.pem", ca);
        let address = format!(
            "postgres://admin:{ADMIN_PASSWORD}@{host}:{}/postgres?sslmode=verify-full&sslrootcert={}",
            server.port(),
            ca.display()
        );
        PostgresAdmin::new(&Secret::new(address)).unwrap()
    };
    let good = address("localhost", &made.0);
    good.provide(&row(5)).await.unwrap();
    assert_eq!(good.server().authorities.as_deref(), Some(made.0.as_str()));
    let another = bastide_testkit::postgres::certificate("localhost").0;
    for wrong in [address("localhost", &another), address("127.0.0.1", &made.0)] {
        let error = wrong.provide(&row(5)).await.unwrap_err();
        assert!(matches!(error, ServerError::Unreachable(Some(_))), "{error:?}");
    }
    server.stop();
    assert!(matches!(good.provide(&row(5)).await, Err(ServerError::Unreachable(_))));
}

/// Wants a database for an app, and reads what there is then.
async fn want(world: &World, customer: CustomerId, app: AppId, connections: u32) -> Vec<PostgresRow> {
    let (own, stage) = (world.store.customer(customer), StageName::development());
    let mut write = world.store.write().await.unwrap();
    own.want_postgres(&mut write, &stage, app, connections).await.unwrap();
    write.commit().await.unwrap();
    own.postgres(&stage).await.unwrap()
}

#[tokio::test]
async fn a_login_is_sealed_bound_to_its_customer_and_used_by_the_replicas_made_after_it() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let stage = StageName::development();
    let revision = publish(&world.store, acme, &shop()).await;
    let own = world.store.customer(acme);
    let logins = want(&world, acme, revision.app, 20).await;
    let [first] = &logins[..] else { panic!("{logins:?}") };
    assert_eq!((first.number, first.connections, first.applied), (1, 20, None));
    assert!(first.user().starts_with(&first.database) && first.user().len() <= 63);
    assert_eq!(first.password.expose().len(), 32);
    assert_eq!(want(&world, acme, revision.app, 20).await, logins, "it is there already");

    // At rest it is sealed, and opens only in its place.
    let mut sql = world.sql().await;
    let sealed = sql.find_bytes("SELECT password FROM postgres_login").await;
    assert!(!String::from_utf8_lossy(&sealed).contains(first.password.expose()) && !SEED.is_empty());
    let other = publish(&world.store, beta, &shop()).await;
    let theirs = want(&world, beta, other.app, 5).await;
    assert_ne!(theirs[0].database, first.database);
    assert_ne!(theirs[0].password, first.password);
    assert_eq!(own.postgres(&StageName::test()).await.unwrap(), []);
    assert!(want_fails(&world, beta, revision.app).await, "an app of another customer has none here");

    assert_eq!(world.store.postgres_wanted().await.unwrap().len(), 2);
    let before = generation(&world, acme).await;
    let mut write = world.store.write().await.unwrap();
    own.note_postgres_problem(&mut write, first.id, "away").await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(own.postgres(&stage).await.unwrap()[0].problem.as_deref(), Some("away"));
    let mut write = world.store.write().await.unwrap();
    own.note_postgres(&mut write, first).await.unwrap();
    write.commit().await.unwrap();
    assert!(generation(&world, acme).await > before, "the agents hear of it");
    let noted = &own.postgres(&stage).await.unwrap()[0];
    assert_eq!((noted.applied, &noted.problem), (Some(20), &None));
    assert_eq!(world.store.postgres_wanted().await.unwrap().len(), 1);
    assert_eq!(want(&world, acme, revision.app, 30).await[0].connections, 30);
    assert_eq!(
        world.store.postgres_wanted().await.unwrap().len(),
        2,
        "another limit is brought to the server"
    );

    // Replicas made before a new login keep the old one, until they are gone.
    begin(&world.store, acme, &revision).await.unwrap();
    let old: Vec<ReplicaId> = own.replicas(&stage).await.unwrap().iter().map(|replica| replica.id).collect();
    let mut write = world.store.write().await.unwrap();
    own.add_postgres_login(&mut write, &stage, revision.app, 30).await.unwrap();
    write.commit().await.unwrap();
    let both = own.postgres(&stage).await.unwrap();
    let new = ReplicaId::generate();
    assert_eq!(login_of(&both, revision.app, old[0]).unwrap().number, 1);
    assert_eq!(login_of(&both, revision.app, new).unwrap().number, 2);
    assert_eq!(login_of(&both, other.app, new), None);
    assert_eq!(both[1].database, both[0].database);
    assert_eq!(world.store.postgres_unused().await.unwrap(), [], "the new one is not on the server yet");
    let mut write = world.store.write().await.unwrap();
    own.note_postgres(&mut write, &both[1]).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(world.store.postgres_unused().await.unwrap(), [], "replicas use the old one");
    let mut write = world.store.write().await.unwrap();
    for replica in old {
        own.forget_replica(&mut write, &stage, replica).await.unwrap();
    }
    write.commit().await.unwrap();
    let unused = world.store.postgres_unused().await.unwrap();
    assert_eq!(unused.iter().map(|login| login.number).collect::<Vec<_>>(), [1]);
    let mut write = world.store.write().await.unwrap();
    own.forget_postgres_login(&mut write, unused[0].id).await.unwrap();
    write.commit().await.unwrap();
    let left = own.postgres(&stage).await.unwrap();
    assert_eq!(left.iter().map(|login| login.number).collect::<Vec<_>>(), [2]);
}

async fn want_fails(world: &World, customer: CustomerId, app: AppId) -> bool {
    let mut write = world.store.write().await.unwrap();
    let wanted =
        world.store.customer(customer).want_postgres(&mut write, &StageName::development(), app, 1).await;
    wanted.is_err() || write.commit().await.is_err()
}

async fn generation(world: &World, customer: CustomerId) -> u64 {
    let stages = world.store.stages().await.unwrap();
    stages
        .iter()
        .find(|row| row.customer == customer && row.name == StageName::development())
        .unwrap()
        .generation
}
