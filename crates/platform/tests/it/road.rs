//! From publish to serving, with an agent that is played here: through the API, and as the bus would ask.

use crate::api::{World, world_with};
use bastide_bus::{PlatformHandler, SigningKey};
use bastide_platform::{BusServices, Platform, deploy::reconciler::pass};
use bastide_store::StageRow;
use bastide_types::{
    AppName, CustomerName, Digest, Problem, Snapshot, StageName, ZoneName,
    message::{
        DesiredReplica, ReplicaFact, ReplicaFacts, ReplicaState, Signed, SnapshotQuery, StageState,
        StateQuery,
    },
};
use flate2::{Compression, write::GzEncoder};
use http::{Method, StatusCode};
use serde_json::Value;
use std::{collections::BTreeSet, fs, time::Duration};

/// A world with the customers acme and beta, and acme's developer.
pub(crate) struct Road {
    pub(crate) world: World,
    pub(crate) services: BusServices,
    developer: String,
}

impl Road {
    async fn new(deploy_timeout_s: u32) -> Self {
        Self::in_world(world_with(deploy_timeout_s).await).await
    }

    pub(crate) async fn in_world(world: World) -> Self {
        let operator = world.app.store.customer_named(&CustomerName::operator()).await.unwrap().unwrap();
        let operator = world.assertion(operator.id, &["operator"]);
        let create = async |name: &str| {
            let new = format!(r#"{{"name":"{name}","administrator_email":"ann@example.com"}}"#);
            world.call("operator", Method::POST, "/api/v1/customers", Some(&operator), new).await
        };
        // At once, because each waits its while for a broker that is not there.
        let (acme, beta) = tokio::join!(create("acme"), create("beta"));
        assert_eq!((acme.0, beta.0), (StatusCode::CREATED, StatusCode::CREATED), "{} {}", acme.1, beta.1);
        let acme =
            world.app.store.customer_named(&CustomerName::new("acme").unwrap()).await.unwrap().unwrap();
        let developer = world.assertion(acme.id, &["developer"]);
        Self { services: BusServices(world.app.clone()), world, developer }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: impl Into<axum::body::Body>,
    ) -> (StatusCode, Value) {
        let (status, body) = self.world.call("acme", method, path, Some(&self.developer), body).await;
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
    }

    /// Publishes a page; the operation and the image.
    pub(crate) async fn publish(&self, page: &str) -> (String, String) {
        let (status, begun) =
            self.call(Method::POST, "/api/v1/apps/shop/publish", packed("shop", page)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
        (text(&begun["operation"]), text(&begun["image"]))
    }

    pub(crate) async fn promote(&self, to: &str) -> (StatusCode, Value) {
        self.call(Method::POST, "/api/v1/apps/shop/deployments", format!(r#"{{"stage":"{to}"}}"#)).await
    }

    pub(crate) async fn operation(&self, id: &str) -> Value {
        self.call(Method::GET, &format!("/api/v1/operations/{id}"), "").await.1
    }

    pub(crate) async fn reconcile(&self) {
        pass(&self.world.app, &mut None).await.unwrap();
    }

    pub(crate) async fn stage(&self, customer: &str, stage: &StageName) -> StageRow {
        let stages = self.world.app.store.stages().await.unwrap();
        stages.into_iter().find(|row| row.customer_name.as_str() == customer && row.name == *stage).unwrap()
    }

    /// What an agent of the stage is told to run, its signature checked.
    pub(crate) async fn desired(&self, stage: &StageName) -> StageState {
        let account = self.stage("acme", stage).await.account;
        let signed = self.services.stage_state(&account, StateQuery { applied: None }).await.unwrap();
        let key = SigningKey::from_pkcs8(&fs::read(self.world.at("deploy.key")).unwrap()).unwrap();
        key.verify_key().verify(&signed).unwrap()
    }

    /// The agent says that each of these is in this state, and that there is nothing else.
    pub(crate) async fn say(&self, stage: &StageName, replicas: &[&DesiredReplica], state: ReplicaState) {
        let account = self.stage("acme", stage).await.account;
        let reason = (state == ReplicaState::Failed).then(|| "it ended with code 3".to_owned());
        let fact = |id| ReplicaFact { reason: reason.clone(), ..ReplicaFact::new(id, state) };
        let replicas = replicas.iter().map(|replica| fact(replica.id)).collect();
        let facts = ReplicaFacts { boot: 1, sequence: 1, generation: 1, replicas };
        self.services.replicas(&account, facts).await.unwrap();
    }

    /// The agent starts all that it should, and the reconciler looks.
    pub(crate) async fn all_ready(&self, stage: &StageName) {
        let state = self.desired(stage).await;
        self.say(stage, &state.replicas.iter().collect::<Vec<_>>(), ReplicaState::Ready).await;
        self.reconcile().await;
    }

    /// What edges and gateways get.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let head = self.services.snapshot_head(SnapshotQuery::default()).await.unwrap();
        let edge = &self.world.app.bus.authority().accounts.edge;
        let (bytes, length) = self.services.blob(edge, &head.digest, 0, 1 << 20).await.unwrap();
        assert_eq!((bytes.len() as u64, head.bytes), (length, length));
        let signed: Signed = serde_json::from_slice(&bytes).unwrap();
        let key = SigningKey::from_pkcs8(&fs::read(self.world.at("snapshot.key")).unwrap()).unwrap();
        key.verify_key().verify(&signed).unwrap()
    }

    pub(crate) async fn serves(&self, stage: &StageName) -> Option<u32> {
        let snapshot = self.snapshot().await;
        let (_, stage) = snapshot.stage(&CustomerName::new("acme").unwrap(), stage).unwrap();
        stage.apps.get(&AppName::new("shop").unwrap()).map(|app| app.revision_number)
    }

    /// Looks again until `done`; the limit is only for a hanging test.
    pub(crate) async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        for _ in 0..600 {
            self.reconcile().await;
            if done().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never: {what}");
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

pub(crate) fn packed(name: &str, page: &str) -> Vec<u8> {
    packed_with(name, page, "")
}

/// The same with more in its manifest.
pub(crate) fn packed_with(name: &str, page: &str, more: &str) -> Vec<u8> {
    let manifest = format!("[app]\nname = \"{name}\"\nkind = \"static\"\n{more}");
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in [("bastide.toml", manifest.as_str()), ("index.html", page)] {
        let mut head = tar::Header::new_gnu();
        head.set_size(content.len() as u64);
        head.set_mode(0o644);
        tar.append_data(&mut head, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn a_published_app_serves_when_all_its_replicas_are_ready() {
    let road = Road::new(60).await;
    let development = StageName::development();
    let (operation, image) = road.publish("one").await;
    let state = road.desired(&development).await;
    let zones: BTreeSet<&ZoneName> = state.replicas.iter().map(|replica| &replica.zone).collect();
    assert_eq!((state.replicas.len(), zones.len()), (2, 2), "one in each zone");
    assert_eq!(state.replicas[0].image.to_string(), image);
    let serving = |state: &StageState| {
        state.replicas.iter().filter(|r| r.serving).map(|r| r.revision_number).collect::<BTreeSet<_>>()
    };
    assert!(serving(&state).is_empty());

    // One of two is not enough.
    road.say(&development, &[&state.replicas[0]], ReplicaState::Ready).await;
    road.reconcile().await;
    assert_eq!(road.operation(&operation).await["status"], "running");
    assert_eq!(road.serves(&development).await, None);

    road.all_ready(&development).await;
    let ended = road.operation(&operation).await;
    assert_eq!(ended["status"], "finished", "{ended}");
    assert_eq!(ended["url"], "https://acme--development.apps.localhost:8443/shop/");
    assert!(ended["steps"].as_array().unwrap().iter().all(|step| step["status"] == "finished"), "{ended}");
    assert_eq!(road.serves(&development).await, Some(1));

    // The next revision replaces it, and the old replicas go only after it serves.
    road.publish("two").await;
    assert_eq!(road.serves(&development).await, Some(1));
    let before = road.desired(&development).await;
    assert_eq!(serving(&before), BTreeSet::from([1]), "other apps do not call a revision on trial");
    road.all_ready(&development).await;
    assert_eq!(road.serves(&development).await, Some(2));
    let after = road.desired(&development).await;
    assert_eq!(serving(&after), BTreeSet::from([2]));
    assert!(after.generation > before.generation, "the agents hear of it");
    let draining = async || {
        let state = road.desired(&development).await;
        let old: Vec<_> = state.replicas.iter().filter(|replica| replica.revision_number == 1).collect();
        old.len() == 2 && old.iter().all(|replica| replica.draining)
    };
    road.until("the old replicas drain", draining).await;
    let state = road.desired(&development).await;
    let new: Vec<_> = state.replicas.iter().filter(|replica| !replica.draining).collect();
    road.say(&development, &new, ReplicaState::Ready).await;
    let gone = async || road.desired(&development).await.replicas.len() == 2;
    road.until("the old replicas are forgotten", gone).await;
    assert_eq!(road.serves(&development).await, Some(2));
}

#[tokio::test]
async fn a_promote_moves_the_same_image_one_stage_on() {
    let road = Road::new(60).await;
    let refused = |(status, problem): (StatusCode, Value), code: &str| {
        assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some(code)), "{problem}");
    };
    let (_, image) = road.publish("one").await;
    refused(road.promote("test").await, "B-DEPLOY-0422");
    let again = road.call(Method::POST, "/api/v1/apps/shop/publish", packed("shop", "x")).await;
    refused(again, "B-DEPLOY-0409");
    road.all_ready(&StageName::development()).await;
    refused(road.promote("production").await, "B-DEPLOY-0422");
    refused(road.promote("development").await, "B-DEPLOY-0422");
    assert_eq!(road.promote("nowhere").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    for stage in ["test", "production"] {
        let (status, begun) = road.promote(stage).await;
        assert_eq!((status, text(&begun["image"])), (StatusCode::ACCEPTED, image.clone()), "{begun}");
        refused(road.promote(stage).await, "B-DEPLOY-0409");
        road.all_ready(&StageName::new(stage).unwrap()).await;
        assert_eq!(road.operation(&text(&begun["operation"])).await["status"], "finished");
    }
    let (_, app) = road.call(Method::GET, "/api/v1/apps/shop", "").await;
    let images: Vec<_> =
        app["stages"].as_array().unwrap().iter().map(|stage| text(&stage["image"])).collect();
    assert_eq!(images, vec![image; 3]);
}

#[tokio::test]
async fn a_revision_that_never_gets_ready_fails_and_the_old_one_keeps_serving() {
    let road = Road::new(0).await;
    let development = StageName::development();
    road.publish("one").await;
    road.all_ready(&development).await;
    let (operation, _) = road.publish("broken").await;
    let state = road.desired(&development).await;
    let (old, new): (Vec<_>, Vec<_>) =
        state.replicas.iter().partition(|replica| replica.revision_number == 1);
    assert_eq!((old.len(), new.len()), (2, 2));
    road.say(&development, &new, ReplicaState::Failed).await;
    let failed = async || road.operation(&operation).await["status"] == "failed";
    road.until("it fails", failed).await;
    let problem = &road.operation(&operation).await["problem"];
    assert_eq!(problem["code"], "B-DEPLOY-0500");
    assert!(text(&problem["detail"]).contains("it ended with code 3"), "{problem}");
    assert_eq!(road.serves(&development).await, Some(1));
    let draining = async || {
        let state = road.desired(&development).await;
        state.replicas.iter().all(|replica| replica.draining == (replica.revision_number == 2))
    };
    road.until("only the new replicas drain", draining).await;
    let next = road.call(Method::POST, "/api/v1/apps/shop/publish", packed("shop", "mended")).await;
    assert_eq!(next.0, StatusCode::ACCEPTED, "{}", next.1);
}

#[tokio::test]
async fn another_replica_moves_on_what_a_killed_one_left() {
    let road = Road::new(60).await;
    let development = StageName::development();
    let (operation, _) = road.publish("one").await;
    let store = &road.world.app.store;
    assert!(store.lease("reconciler", "killed", 60).await.unwrap());
    road.all_ready(&development).await;
    assert_eq!(road.operation(&operation).await["status"], "running", "the other one holds the lease");
    // The lease runs out, and a replica that starts now finds the rest in SQL.
    assert!(store.lease("reconciler", "killed", -1).await.unwrap());
    let mut config = road.world.app.config.clone();
    config.name = "platform-2".into();
    let second = Platform::open(config).await.unwrap();
    pass(&second, &mut None).await.unwrap();
    assert_eq!(road.operation(&operation).await["status"], "finished");
    // Both make the same Snapshot, to the byte.
    let one = road.services.snapshot_head(SnapshotQuery::default()).await.unwrap();
    assert_eq!(BusServices(second).snapshot_head(SnapshotQuery::default()).await.unwrap(), one);
}

#[tokio::test]
async fn a_stage_reads_only_the_content_that_it_should_run() {
    let road = Road::new(60).await;
    let (_, image) = road.publish("one").await;
    let image: Digest = image.parse().unwrap();
    let read = async |account: &str| road.services.blob(account, &image, 0, 1 << 20).await.is_some();
    assert!(read(&road.stage("acme", &StageName::development()).await.account).await);
    assert!(!read(&road.stage("acme", &StageName::production()).await.account).await, "not deployed there");
    assert!(!read(&road.stage("beta", &StageName::development()).await.account).await, "another customer");
    let accounts = road.world.app.bus.authority().accounts.clone();
    for account in [accounts.edge, accounts.node, accounts.platform, "nobody".into()] {
        assert!(!read(&account).await);
    }
    let head = road.services.snapshot_head(SnapshotQuery::default()).await.unwrap();
    let stage = road.stage("acme", &StageName::development()).await;
    let snapshot = road.services.blob(&stage.account, &head.digest, 0, 1 << 20).await;
    assert!(snapshot.is_none(), "a stage learns nothing of the others");
    let unknown: Result<Signed, Problem> =
        road.services.stage_state("nobody", StateQuery { applied: None }).await;
    assert!(unknown.is_err());
}

#[tokio::test]
async fn a_refused_upload_leaves_nothing() {
    let road = Road::new(60).await;
    let refused = async |body: Vec<u8>, code: &str| {
        let (status, problem) = road.call(Method::POST, "/api/v1/apps/shop/publish", body).await;
        assert_eq!((status.as_u16(), problem["code"].as_str()), (422, Some(code)), "{problem}");
        assert_eq!(fs::read_dir(road.world.at("work")).unwrap().count(), 0);
    };
    refused(b"no archive".to_vec(), "B-BUILD-0423").await;
    refused(Vec::new(), "B-BUILD-0423").await;
    refused(packed("other", "x"), "B-BUILD-0422").await;
    let whole = packed("shop", "x");
    refused(whole[..whole.len() / 2].to_vec(), "B-BUILD-0423").await;
    assert_eq!(road.call(Method::GET, "/api/v1/apps", "").await.1, serde_json::json!([]));
    assert!(road.world.app.store.running_operations().await.unwrap().is_empty());
}

#[tokio::test]
async fn network_settings_reach_the_agents_and_explain_themselves() {
    let road = Road::new(60).await;
    road.publish("<p>hi").await;
    let acme =
        road.world.app.store.customer_named(&CustomerName::new("acme").unwrap()).await.unwrap().unwrap();
    let administrator = road.world.assertion(acme.id, &["administrator"]);
    let settings = r#"{"egress":{"mode":"enforce","allow":["*.example.com:443"]},"grants":[{"from":"shop","to":"blog"}]}"#;
    let path = "/api/v1/stages/development/network";
    assert_eq!(road.call(Method::PUT, path, settings).await.0, StatusCode::FORBIDDEN, "developers do not");
    let put = async |path: &str, body: &str| {
        road.world.call("acme", Method::PUT, path, Some(&administrator), body.to_owned()).await
    };
    let before = road.desired(&StageName::development()).await;
    let (status, answer) = put(path, settings).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let told = road.desired(&StageName::development()).await;
    assert!(told.generation > before.generation);
    assert_eq!(told.network.egress.allow[0].to_string(), "*.example.com:443");
    assert!(told.network.grants(&AppName::new("shop").unwrap(), &AppName::new("blog").unwrap()));
    let names = told.names(&told.replicas[0]);
    assert_eq!(names["blog.internal"].to_string(), "169.254.2.2");
    assert_eq!(road.desired(&StageName::test()).await.network, Default::default(), "only that stage");

    let explain =
        async |to: &str| road.call(Method::GET, &format!("/api/v1/apps/shop/egress?to={to}"), "").await;
    assert_eq!(explain("api.example.com:443").await.1["allowed"], true);
    assert_eq!(explain("example.org:443").await.1["why"], "mode: enforce");
    assert!(explain("169.254.169.254:80").await.1["why"].as_str().unwrap().contains("metadata"));
    assert_eq!(explain("127.1:80").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let inside = explain("blog.internal:80").await.1;
    assert_eq!((&inside["allowed"], inside["why"].as_str()), (&true.into(), Some("grant: shop → blog")));
    for (to, why) in [("blog.internal:81", "port 80"), ("other.internal:80", "no grant")] {
        let inside = explain(to).await.1;
        assert!(inside["allowed"] == false && inside["why"].as_str().unwrap().contains(why), "{inside}");
    }

    for wrong in
        [r#"{"egress":{"allow":["*"]}}"#, r#"{"grants":[{"from":"a","to":"a"}]}"#, "junk", r#"{"x":1}"#]
    {
        assert_eq!(put(path, wrong).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    assert_eq!(put("/api/v1/stages/nope/network", settings).await.0, StatusCode::NOT_FOUND);
    assert_eq!(road.desired(&StageName::development()).await.network, told.network, "nothing was lost");
}

#[tokio::test]
async fn purges_reach_the_edges_with_the_snapshot() {
    use bastide_types::Purge;
    let road = Road::new(60).await;
    road.publish("<p>hi").await;
    let stage = StageName::development();
    road.all_ready(&stage).await;
    let purges = async || {
        let snapshot = road.snapshot().await;
        let stage = snapshot.customers[&CustomerName::new("acme").unwrap()].stages[&stage].clone();
        stage.apps[&AppName::new("shop").unwrap()].purges.clone()
    };
    assert!(purges().await.is_empty());
    let purge = async |body: &str| road.call(Method::POST, "/api/v1/cache/purges", body.to_owned()).await;
    let host = "https://acme--development.apps.localhost:8443";
    let (status, answer) = purge(&format!(r#"{{"url":"{host}/shop/a%20b?x=1"}}"#)).await;
    assert_eq!(
        (status, &answer["stage"], &answer["app"]),
        (StatusCode::ACCEPTED, &"development".into(), &"shop".into())
    );
    purge(&format!(r#"{{"prefix":"{host}/shop/css/"}}"#)).await;
    purge(r#"{"stage":"development","app":"shop","group":"red"}"#).await;
    purge(r#"{"stage":"development"}"#).await;
    let found = purges().await;
    let what: Vec<_> = found.list.iter().map(|(_, purge)| purge.clone()).collect();
    assert_eq!(
        what,
        [
            Purge::Url("/shop/a%20b?x=1".into()),
            Purge::Prefix("/shop/css/".into()),
            Purge::Group("red".into()),
            Purge::All
        ]
    );
    assert_eq!(answer["number"], found.list[0].0);

    for (wrong, expected) in [
        ("{}", StatusCode::UNPROCESSABLE_ENTITY),
        ("junk", StatusCode::UNPROCESSABLE_ENTITY),
        (
            r#"{"url":"https://beta--development.apps.localhost:8443/shop/"}"#,
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (r#"{"url":"https://acme.platform.localhost:8443/shop/"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (r#"{"url":"/shop/x"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (r#"{"url":"x","prefix":"y"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (r#"{"stage":"development","group":"red"}"#, StatusCode::UNPROCESSABLE_ENTITY),
        (r#"{"stage":"nope"}"#, StatusCode::NOT_FOUND),
        (r#"{"stage":"development","app":"nope"}"#, StatusCode::NOT_FOUND),
    ] {
        assert_eq!(purge(wrong).await.0, expected, "{wrong}");
    }
    assert_eq!(purges().await, found, "nothing came of what was refused");
    let acme = road.stage("acme", &stage).await.customer;
    let reader = road.world.assertion(acme, &[]);
    let body = r#"{"stage":"development"}"#.to_owned();
    let refused = road.world.call("acme", Method::POST, "/api/v1/cache/purges", Some(&reader), body).await;
    assert_eq!(refused.0, StatusCode::FORBIDDEN);

    let own = road.world.app.store.customer(acme);
    let mut write = road.world.app.store.write().await.unwrap();
    for n in 0..60 {
        own.purge(&mut write, &stage, None, &Purge::Group(n.to_string())).await.unwrap();
    }
    write.commit().await.unwrap();
    let (status, answer) = purge(r#"{"stage":"development"}"#).await;
    assert_eq!((status, &answer["code"]), (StatusCode::TOO_MANY_REQUESTS, &"B-CACHE-0429".into()));
}

#[tokio::test]
async fn rows_of_a_customer_that_cannot_be_read_hold_up_nobody_else() {
    use sqlx::Connection;
    let road = Road::new(60).await;
    let (operation, _) = road.publish("one").await;
    road.all_ready(&StageName::development()).await;
    assert_eq!(road.operation(&operation).await["status"], "finished");
    let whole = road.snapshot().await;
    assert_eq!((whole.customers.len(), &whole.kept), (3, &vec![]));

    let file = format!("sqlite://{}", road.world.app.config.database.file().display());
    let mut sql = sqlx::SqliteConnection::connect(&file).await.unwrap();
    for damage in [
        "UPDATE revision SET manifest = '{'",
        "UPDATE revision SET digest = 'md5:0'",
        "UPDATE stage SET name = '--' WHERE name = 'test' AND customer = (SELECT id FROM customer WHERE name = 'acme')",
    ] {
        sqlx::query(damage).execute(&mut sql).await.unwrap();
        sqlx::query("UPDATE meta SET value = value + 1 WHERE key = 'revision'")
            .execute(&mut sql)
            .await
            .unwrap();
        let made = road.snapshot().await;
        assert_eq!(made.kept, [CustomerName::new("acme").unwrap()], "{damage}");
        assert!(made.is_newer_than(&whole) && made.customers.contains_key("beta"), "{damage}");
        let mut in_force = made.clone();
        in_force.settle(Some(&whole));
        assert_eq!(
            in_force.customers["acme"], whole.customers["acme"],
            "edges and gateways keep it: {damage}"
        );
        // Nor does it hold up the reconciler.
        road.reconcile().await;
    }
    let head = async |schema| {
        let query = SnapshotQuery { schema, ..SnapshotQuery::default() };
        road.services.snapshot_head(query).await
    };
    assert!(head(1).await.is_err(), "readers of before would lose acme: they keep what they have");
}

#[tokio::test]
async fn readers_of_the_version_before_get_what_they_can_read() {
    let road = Road::new(60).await;
    road.publish("one").await;
    let of = async |schema| {
        let query = SnapshotQuery { schema, ..SnapshotQuery::default() };
        let head = road.services.snapshot_head(query).await?;
        let edge = &road.world.app.bus.authority().accounts.edge;
        let (bytes, _) = road.services.blob(edge, &head.digest, 0, 1 << 20).await.unwrap();
        let signed: Signed = serde_json::from_slice(&bytes).unwrap();
        Ok::<Value, Problem>(serde_json::from_str(&signed.payload).unwrap())
    };
    let (before, now, later) = (of(1).await.unwrap(), of(2).await.unwrap(), of(3).await.unwrap());
    assert_eq!((&before["schema"], &now["schema"], &later), (&1.into(), &2.into(), &now));
    assert_eq!((&before["revision"], &before["customers"]), (&now["revision"], &now["customers"]));
    assert!(of(0).await.is_err());
    // A program of before says nothing of its form.
    let query: SnapshotQuery = serde_json::from_str(r#"{"have":null}"#).unwrap();
    assert_eq!(query.schema, 1);
}

#[tokio::test]
async fn a_stage_gets_its_agent_with_its_first_replica() {
    let road = Road::new(60).await;
    let named = async || {
        let stages = road.world.app.store.stages_with_replicas().await.unwrap();
        stages.into_iter().map(|stage| (stage.customer_name.to_string(), stage.name)).collect::<Vec<_>>()
    };
    assert_eq!(named().await, [], "a node is told of no stage that has nothing to run");
    road.publish("one").await;
    assert_eq!(named().await, [("acme".to_owned(), StageName::development())]);
    road.all_ready(&StageName::development()).await;
    road.promote("test").await;
    assert_eq!(named().await.len(), 2);
}
