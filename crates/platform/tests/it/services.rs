//! Databases of apps: from the manifest to the server and to the replicas, with an agent that is played here.

use crate::{
    api::world_of,
    archives::{Packed, program},
    road::{Road, text},
};
use bastide_platform::{
    config::PostgresConfig,
    services::{pass, repair},
};
use bastide_store::{NewStage, PostgresAdmin};
use bastide_testkit::{
    Postgres,
    postgres::{psql, said},
};
use bastide_types::{
    CustomerName, Secret, StageName,
    message::{ReplicaState, StageState},
    node::Isolation,
    service::PostgresLogin,
};
use http::{Method, StatusCode};
use serde_json::Value;
use std::{fs, process::Output};

/// A road with a server, and what brings databases to it.
struct Town {
    road: Road,
    server: Postgres,
    admin: PostgresAdmin,
    _dir: tempfile::TempDir,
}

impl Town {
    async fn new(deploy_timeout_s: u32) -> Self {
        let server = Postgres::start(&[], &[]);
        let dir = tempfile::tempdir().unwrap();
        let address_file = dir.path().join("postgres");
        fs::write(&address_file, server.admin_url()).unwrap();
        let world = world_of(|config| {
            config.deploy_timeout_s = deploy_timeout_s;
            config.postgres = Some(PostgresConfig { address_file, connections_max: 7 });
        })
        .await;
        let admin = world.app.postgres.clone().unwrap();
        Self { road: Road::in_world(world).await, server, admin, _dir: dir }
    }

    async fn publish(&self, services: &str) -> (StatusCode, Value) {
        self.road.call(Method::POST, "/api/v1/apps/shop/publish", packed(services)).await
    }

    /// One look of what brings databases to the server.
    async fn bring(&self) {
        pass(&self.road.world.app, &self.admin).await.unwrap();
    }

    async fn login(&self, stage: &StageName) -> Option<PostgresLogin> {
        let state = self.road.desired(stage).await;
        state.replicas.iter().rev().find_map(|replica| replica.services.postgres.clone())
    }

    fn sql(&self, login: &PostgresLogin, sql: &str) -> Output {
        let (port, password) = (self.server.port(), login.password.expose());
        psql("127.0.0.1", port, &login.user, password, &login.database, sql).output().unwrap()
    }

    async fn list(&self) -> Value {
        self.road.call(Method::GET, "/api/v1/apps/shop/services", "").await.1
    }
}

fn packed(services: &str) -> Vec<u8> {
    let manifest = format!("[app]\nname = \"shop\"\nkind = \"binary\"\ncommand = [\"./run\"]\n{services}");
    Packed::new().file("bastide.toml", manifest.as_bytes()).file("run", &program(6)).gz()
}

fn users(state: &StageState) -> Vec<String> {
    let logins = state.replicas.iter().map(|replica| replica.services.postgres.as_ref().unwrap());
    logins.map(|login| login.user.clone()).collect()
}

#[tokio::test]
async fn replicas_start_when_their_database_is_there_and_each_stage_has_its_own() {
    let town = Town::new(60).await;
    let development = StageName::development();
    let (status, begun) = town.publish("[services.postgres]\nenv = \"DB\"\nconnections = 50\n").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    let waiting = town.road.desired(&development).await;
    assert!(waiting.replicas.is_empty() && waiting.postgres.is_none(), "nothing starts without it");
    assert_eq!(town.list().await[0]["status"], "waiting");

    town.bring().await;
    let state = town.road.desired(&development).await;
    assert!(state.generation > waiting.generation, "the agents hear of it");
    assert_eq!(state.replicas.len(), 2);
    assert_eq!(state.postgres.as_ref().map(|server| server.port), Some(town.server.port()));
    let login = town.login(&development).await.unwrap();
    assert_eq!(
        (login.connections, login.url_variable.as_str()),
        (7, "DB"),
        "no more than the operator allows"
    );
    assert!(town.sql(&login, "create table t (n int)").status.success());
    let listed = town.list().await;
    assert_eq!((&listed[0]["status"], &listed[0]["user"]), (&"ready".into(), &login.user.clone().into()));
    assert_eq!(listed[0]["at"], "postgres.internal:5432");
    assert!(!listed.to_string().contains(login.password.expose()));
    town.road.all_ready(&development).await;
    // Taken away by hand, or a server that begins empty: it is made anew, with the password that the app has.
    town.server.sql("postgres", &format!("drop role {}", login.user));
    assert!(!town.sql(&login, "select 1").status.success());
    repair(&town.road.world.app, &town.admin).await.unwrap();
    assert!(town.sql(&login, "select * from t").status.success());

    let operation = town.road.operation(&text(&begun["operation"])).await;
    assert_eq!(operation["status"], "finished", "{operation}");
    assert!(operation["steps"].as_array().unwrap().iter().any(|step| step["name"] == "data"), "{operation}");
    let explained =
        town.road.call(Method::GET, "/api/v1/apps/shop/egress?to=postgres.internal:5432", "").await.1;
    assert_eq!(explained["allowed"], true, "{explained}");

    // The same image in the next stage: another database, another role.
    assert_eq!(town.road.promote("test").await.0, StatusCode::ACCEPTED);
    town.bring().await;
    let other = town.login(&StageName::test()).await.unwrap();
    assert_ne!((&other.database, &other.user), (&login.database, &login.user));
    let across = PostgresLogin { database: login.database.clone(), ..other };
    assert!(said(&town.sql(&across, "select 1")).contains("permission denied for database"));

    // A revision that asks for no database gets none; the database is kept.
    let (status, _) = town.publish("").await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let state = town.road.desired(&development).await;
    let new: Vec<_> = state.replicas.iter().filter(|replica| replica.revision_number == 2).collect();
    assert!(new.len() == 2 && new.iter().all(|replica| replica.services.is_empty()));
    town.road.all_ready(&development).await;
    assert_eq!(town.list().await[0]["status"], "kept");
    assert!(town.sql(&login, "select * from t").status.success());
}

#[tokio::test]
async fn an_app_that_asks_for_what_is_not_there_is_refused_before_anything_is_kept() {
    let road = Road::in_world(world_of(|_| ()).await).await;
    let (status, problem) =
        road.call(Method::POST, "/api/v1/apps/shop/publish", packed("[services.postgres]\n")).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("B-SVC-0409")), "{problem}");
    assert!(text(&problem["detail"]).contains("no PostgreSQL server is configured"), "{problem}");
    assert_eq!(road.call(Method::GET, "/api/v1/apps", "").await.1, serde_json::json!([]));
    for (services, key) in [
        ("[services.mysql]\n", "mysql"),
        ("[services.postgres]\nconnections = 0\n", "services.postgres.connections"),
    ] {
        let (status, problem) = road.call(Method::POST, "/api/v1/apps/shop/publish", packed(services)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert!(text(&problem["detail"]).contains(key), "{problem}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_fails_the_deployment_with_its_reason_and_the_next_one_succeeds() {
    let mut town = Town::new(1).await;
    let development = StageName::development();
    town.server.stop();
    let begun = town.publish("[services.postgres]\n").await.1;
    town.bring().await;
    let operation = town.road.operation(&text(&begun["operation"])).await;
    let step = operation["steps"].as_array().unwrap().iter().find(|step| step["name"] == "data").unwrap();
    assert_eq!(step["message"], "the PostgreSQL server cannot be reached");
    assert_eq!(town.list().await[0]["problem"], "the PostgreSQL server cannot be reached");
    let failed = async || town.road.operation(&text(&begun["operation"])).await["status"] == "failed";
    town.road.until("the deployment fails", failed).await;
    let problem = &town.road.operation(&text(&begun["operation"])).await["problem"];
    assert!(text(&problem["detail"]).contains("cannot be reached"), "{problem}");

    town.server.resume();
    town.bring().await;
    let (status, again) = town.publish("[services.postgres]\n").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{again}");
    assert!(town.login(&development).await.is_some(), "it is there since the server is back");
}

#[tokio::test]
async fn a_password_is_changed_without_a_gap() {
    let town = Town::new(60).await;
    let development = StageName::development();
    let rotate = async |body: &str| {
        town.road.call(Method::POST, "/api/v1/apps/shop/services/postgres/rotate", body.to_owned()).await
    };
    assert_eq!(rotate("{}").await.0, StatusCode::NOT_FOUND, "no such app");
    town.publish("[services.postgres]\n").await;
    town.bring().await;
    assert_eq!(rotate("{}").await.0, StatusCode::CONFLICT, "it does not serve yet");
    town.road.all_ready(&development).await;
    let old = town.login(&development).await.unwrap();
    assert!(town.sql(&old, "create table t (n int)").status.success());
    let before: Vec<_> = town.road.desired(&development).await.replicas;
    assert_eq!(rotate(r#"{"stage":"nowhere"}"#).await.0, StatusCode::NOT_FOUND);
    assert_eq!(rotate(r#"{"stage":"test"}"#).await.0, StatusCode::CONFLICT, "it does not serve there");
    assert_eq!(rotate(r#"{"typo":1}"#).await.0, StatusCode::UNPROCESSABLE_ENTITY);

    let (status, begun) = rotate("{}").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    assert_eq!(begun["revision"], 1, "the same revision");
    assert_eq!(rotate("{}").await.0, StatusCode::CONFLICT, "one at a time");
    town.bring().await;
    let state = town.road.desired(&development).await;
    assert_eq!(users(&state).len(), 4);
    let new = town.login(&development).await.unwrap();
    assert_ne!(new.user, old.user);
    assert_eq!(
        users(&state).iter().filter(|user| **user == old.user).count(),
        2,
        "running replicas keep theirs"
    );
    for login in [&old, &new] {
        assert!(town.sql(login, "select * from t").status.success(), "both work meanwhile");
    }
    let fresh: Vec<_> = state.replicas.iter().filter(|r| !before.iter().any(|old| old.id == r.id)).collect();
    town.road.say(&development, &state.replicas.iter().collect::<Vec<_>>(), ReplicaState::Ready).await;
    town.road.reconcile().await;
    assert_eq!(town.road.operation(&text(&begun["operation"])).await["status"], "finished");
    town.bring().await;
    assert!(town.sql(&old, "select 1").status.success(), "the old replicas are still there");
    let gone = async || {
        town.road.say(&development, &fresh, ReplicaState::Ready).await;
        town.road.desired(&development).await.replicas.len() == 2
    };
    town.road.until("the old replicas are gone", gone).await;
    town.bring().await;
    assert!(!town.sql(&old, "select 1").status.success(), "its password is worth nothing any more");
    assert!(town.sql(&new, "select * from t").status.success());

    // Only those who may publish, and only of their own organization.
    let acme =
        town.road.world.app.store.customer_named(&CustomerName::new("acme").unwrap()).await.unwrap().unwrap();
    let nobody = town.road.world.assertion(acme.id, &[]);
    let path = "/api/v1/apps/shop/services/postgres/rotate";
    let (status, _) = town.road.world.call("acme", Method::POST, path, Some(&nobody), "{}").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn where_nothing_is_isolated_there_are_no_databases_and_no_grants() {
    let server = Postgres::start(&[], &[]);
    let dir = tempfile::tempdir().unwrap();
    let address_file = dir.path().join("postgres");
    fs::write(&address_file, server.admin_url()).unwrap();
    let world = world_of(|config| {
        config.isolation = Isolation::None;
        config.postgres = Some(PostgresConfig { address_file, connections_max: 7 });
    })
    .await;
    let acme = world.customer("acme").await;
    let developer = world.assertion(acme, &["developer", "administrator"]);
    let call = async |method: Method, path: &str, body: Vec<u8>| {
        let (status, body) = world.call("acme", method, path, Some(&developer), body).await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let path = "/api/v1/apps/shop/publish";
    let (status, problem) = call(Method::POST, path, packed("[services.postgres]\n")).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("B-SVC-0409")), "{problem}");
    assert!(text(&problem["detail"]).contains("isolates nothing"), "{problem}");
    let mut write = world.app.store.write().await.unwrap();
    let stage = StageName::development();
    let new = NewStage { name: &stage, account: "A", seed: &Secret::new("S") };
    world.app.store.customer(acme).create_stage(&mut write, &new).await.unwrap();
    write.commit().await.unwrap();
    let path = "/api/v1/stages/development/network";
    let grant = br#"{"grants":[{"from":"a","to":"b"}]}"#.to_vec();
    let (status, problem) = call(Method::PUT, path, grant).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::FORBIDDEN, Some("B-RT-0403")), "{problem}");
    assert_eq!(call(Method::PUT, path, br#"{"egress":{"mode":"report"}}"#.to_vec()).await.0, StatusCode::OK);
}
