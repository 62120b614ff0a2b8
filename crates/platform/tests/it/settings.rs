//! Settings and secrets of apps: set, brought to the replicas without a gap, shown to nobody who must not see them.

use crate::{
    api::world_with,
    road::{Road, packed_with, text},
};
use bastide_types::{CustomerName, StageName, message::ReplicaState};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SECRET: &str = "hunter2-and-more-of-it-to-look-for";

fn path(stage: &str, kind: &str) -> String {
    format!("/api/v1/apps/shop/stages/{stage}/{kind}")
}

async fn put(road: &Road, stage: &str, kind: &str, body: Value) -> (u16, Value) {
    let (status, answer) = road.call(Method::PUT, &path(stage, kind), body.to_string()).await;
    (status.as_u16(), answer)
}

async fn shown(road: &Road, stage: &str) -> Value {
    road.call(Method::GET, &path(stage, "settings"), "").await.1
}

async fn publish(road: &Road, page: &str, more: &str) -> (StatusCode, Value) {
    road.call(Method::POST, "/api/v1/apps/shop/publish", packed_with("shop", page, more)).await
}

/// What the replicas of the stage are told, one text for each that does not drain.
async fn told(road: &Road, stage: &StageName, name: &str) -> BTreeSet<Option<String>> {
    let mut state = road.desired(stage).await;
    state.hand_out_settings();
    let told = |replica: &bastide_types::message::DesiredReplica| {
        let all = replica.services.environment();
        all.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    };
    state.replicas.iter().filter(|replica| !replica.draining).map(told).collect()
}

async fn audit(road: &Road) -> Vec<String> {
    let acme = CustomerName::new("acme").unwrap();
    let acme = road.world.app.store.customer_named(&acme).await.unwrap().unwrap();
    let entries = road.world.app.store.customer(acme.id).audit_trail(500).await.unwrap();
    entries.iter().map(|entry| format!("{entry:?}")).collect()
}

#[tokio::test]
async fn a_secret_reaches_new_replicas_while_the_old_ones_serve_and_nobody_reads_it() {
    let road = Road::in_world(world_with(60).await).await;
    let development = StageName::development();
    assert_eq!(publish(&road, "one", "").await.0, StatusCode::ACCEPTED);
    road.all_ready(&development).await;
    let before = road.desired(&development).await;
    let (status, begun) = put(&road, "development", "secrets", json!({ "set": { "KEY": SECRET } })).await;
    assert_eq!((status, &begun["set"], &begun["version"]), (202, &json!(["KEY"]), &json!(1)), "{begun}");
    let operation = text(&begun["operation"]);
    assert_eq!(road.operation(&operation).await["kind"], "settings");

    // The same revision and image, beside the old replicas, which serve until the new ones are ready.
    let state = road.desired(&development).await;
    assert_eq!((before.replicas.len(), state.replicas.len()), (2, 4));
    assert_eq!(state.replicas.iter().map(|replica| &replica.image).collect::<BTreeSet<_>>().len(), 1);
    assert!(state.replicas.iter().all(|replica| !replica.draining && replica.revision_number == 1));
    assert_eq!(told(&road, &development, "KEY").await, [None, Some(SECRET.to_owned())].into());
    let now = shown(&road, "development").await;
    assert_eq!((&now["version"], &now["serving_version"]), (&json!(1), &json!(0)));
    let busy = put(&road, "development", "settings", json!({ "set": { "A": "x" } })).await;
    assert_eq!((busy.0, busy.1["code"].as_str()), (409, Some("B-DEPLOY-0409")), "{}", busy.1);
    road.all_ready(&development).await;
    assert_eq!(road.operation(&operation).await["status"], "finished");
    let drained = async || told(&road, &development, "KEY").await == [Some(SECRET.to_owned())].into();
    road.until("the old replicas drain", drained).await;

    let now = shown(&road, "development").await;
    assert_eq!((&now["version"], &now["serving_version"]), (&json!(1), &json!(1)));
    let row = &now["settings"][0];
    assert_eq!((&row["name"], &row["secret"], &row["value"]), (&json!("KEY"), &json!(true), &Value::Null));
    assert_eq!(text(&row["fingerprint"]).len(), 8);
    assert_eq!(now["settings"].as_array().unwrap().len(), 1, "nothing of the busy one is there");

    // Neither in answers, nor in what edges and gateways get, nor in the audit trail.
    let snapshot = serde_json::to_string(&road.snapshot().await).unwrap();
    let trail = audit(&road).await.join("\n");
    let operations = road.call(Method::GET, "/api/v1/operations", "").await.1.to_string();
    for text in [&now.to_string(), &begun.to_string(), &snapshot, &trail, &operations] {
        assert!(!text.contains(SECRET), "{text}");
    }
    assert!(trail.contains("app.secrets") && trail.contains(row["fingerprint"].as_str().unwrap()), "{trail}");
    // Not in another stage either, also when the app comes there.
    assert_eq!(road.promote("test").await.0, StatusCode::ACCEPTED);
    assert_eq!(told(&road, &StageName::test(), "KEY").await, [None].into());
    let other = serde_json::to_string(&road.desired(&StageName::test()).await).unwrap();
    assert!(!other.contains(SECRET));
}

#[tokio::test]
async fn a_setting_that_the_app_does_not_start_with_takes_nothing_away_and_can_be_mended() {
    let road = Road::in_world(world_with(0).await).await;
    let development = StageName::development();
    publish(&road, "one", "").await;
    road.all_ready(&development).await;
    let (_, begun) = put(&road, "development", "settings", json!({ "set": { "LEVEL": "wrong" } })).await;
    let state = road.desired(&development).await;
    let new: Vec<_> = state.replicas.iter().filter(|one| one.services.settings_version == Some(1)).collect();
    assert_eq!(new.len(), 2);
    road.say(&development, &new, ReplicaState::Failed).await;
    let id = text(&begun["operation"]);
    let failed = async || road.operation(&id).await["status"] == "failed";
    road.until("it fails", failed).await;
    assert_eq!(road.serves(&development).await, Some(1));
    let now = shown(&road, "development").await;
    assert_eq!((&now["version"], &now["serving_version"]), (&json!(1), &json!(0)), "{now}");
    // The same again tries again; another value replaces it.
    let again = json!({ "set": { "LEVEL": "wrong" }, "dry_run": true });
    let (status, answer) = put(&road, "development", "settings", again).await;
    assert_eq!((status, &answer["set"], &answer["operation"]), (200, &json!([]), &Value::Null), "{answer}");
    let (status, begun) = put(&road, "development", "settings", json!({ "set": { "LEVEL": "wrong" } })).await;
    assert_eq!((status, &begun["version"]), (202, &json!(1)), "{begun}");
    let id = text(&begun["operation"]);
    let failed = async || road.operation(&id).await["status"] == "failed";
    road.until("it fails again", failed).await;
    let (status, begun) = put(&road, "development", "settings", json!({ "unset": ["LEVEL"] })).await;
    assert_eq!((status, &begun["unset"], &begun["version"]), (202, &json!(["LEVEL"]), &json!(2)), "{begun}");
}

#[tokio::test]
async fn what_a_revision_requires_is_set_before_it_comes_and_stays_while_it_serves() {
    let road = Road::in_world(world_with(60).await).await;
    let development = StageName::development();
    let needs = "[settings]\nKEY = { required = true, secret = true }\nLEVEL = { default = \"info\" }\n";
    let refused = |(status, problem): (StatusCode, Value)| {
        assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("B-CONFIG-0409")), "{problem}");
        assert!(text(&problem["detail"]).contains("KEY"), "{problem}");
    };
    refused(publish(&road, "one", needs).await);
    // Before the app is there.
    let (status, answer) = put(&road, "development", "secrets", json!({ "set": { "KEY": SECRET } })).await;
    assert_eq!(
        (status, &answer["operation"], &answer["revision"]),
        (200, &Value::Null, &Value::Null),
        "{answer}"
    );
    assert_eq!(publish(&road, "one", needs).await.0, StatusCode::ACCEPTED);
    assert_eq!(told(&road, &development, "KEY").await, [Some(SECRET.to_owned())].into());
    road.all_ready(&development).await;

    // Each stage has its own.
    refused(road.promote("test").await);
    let body = json!({ "stage": "test", "dry_run": true }).to_string();
    let (status, impact) = road.call(Method::POST, "/api/v1/apps/shop/deployments", body).await;
    assert_eq!((status.as_u16(), &impact["blockers"][0]["code"]), (200, &json!("B-CONFIG-0409")), "{impact}");
    put(&road, "test", "settings", json!({ "set": { "KEY": "open" } })).await;
    let (status, begun) = road.promote("test").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    assert!(begun["warnings"].to_string().contains("wants a secret"), "{begun}");

    // It cannot be taken away from what serves, and comes back with nothing.
    let (status, problem) = put(&road, "development", "secrets", json!({ "unset": ["KEY"] })).await;
    refused((StatusCode::from_u16(status).unwrap(), problem));
    assert_eq!(told(&road, &development, "KEY").await, [Some(SECRET.to_owned())].into());
    assert_eq!(shown(&road, "development").await["version"], 1);
}

#[tokio::test]
async fn a_roll_back_keeps_the_settings_and_says_which_were_changed() {
    let road = Road::in_world(world_with(60).await).await;
    let development = StageName::development();
    put(&road, "development", "settings", json!({ "set": { "A": "1", "B": "1" } })).await;
    publish(&road, "one", "").await;
    road.all_ready(&development).await;
    publish(&road, "two", "").await;
    road.all_ready(&development).await;
    put(&road, "development", "settings", json!({ "set": { "A": "2", "B": "1" } })).await;
    road.all_ready(&development).await;
    let body = json!({ "stage": "development", "to": 1 }).to_string();
    let (status, begun) = road.call(Method::POST, "/api/v1/apps/shop/rollbacks", body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    assert!(begun["warnings"].to_string().contains("these were changed: A\""), "{begun}");
    let mut state = road.desired(&development).await;
    state.hand_out_settings();
    let new: Vec<_> = state.replicas.iter().filter(|replica| replica.revision_number == 1).collect();
    assert!(new.iter().any(|replica| replica.services.settings["A"].expose() == "2"));
}

#[tokio::test]
async fn names_values_kinds_and_strangers_are_refused() {
    let road = Road::in_world(world_with(60).await).await;
    let absent = road.call(Method::GET, &path("development", "settings"), "").await;
    assert_eq!(absent.0, StatusCode::NOT_FOUND);
    put(&road, "development", "settings", json!({ "set": { "OPEN": "1" } })).await;
    put(&road, "development", "secrets", json!({ "set": { "KEY": SECRET } })).await;
    for (kind, body, status) in [
        ("settings", json!({ "set": { "PORT": "1" } }), 422),
        ("settings", json!({ "set": { "BASTIDE_STAGE": "x" } }), 422),
        ("settings", json!({ "set": { "A-B": "x" } }), 422),
        ("settings", json!({ "set": { "A": "x\u{0}" } }), 422),
        ("settings", json!({ "set": { "A": "x".repeat(33 * 1024) } }), 422),
        ("settings", json!({ "set": { "A": 1 } }), 422),
        ("settings", json!({ "set": { "A": "x" }, "unset": ["A"] }), 422),
        ("settings", json!({ "set": { "KEY": "x" } }), 422),
        ("settings", json!({ "unset": ["KEY"] }), 422),
        ("secrets", json!({ "set": { "OPEN": "x" } }), 422),
        ("settings", json!({ "set": { "A": "x".repeat(32 * 1024), "B": "x".repeat(32 * 1024) } }), 422),
        ("settings", json!({ "other": 1 }), 422),
        ("settings", json!({ "unset": ["GONE"] }), 200),
        ("settings", json!({}), 200),
    ] {
        let (found, answer) = put(&road, "development", kind, body.clone()).await;
        assert_eq!(found, status, "{kind} {body}: {answer}");
        assert!(!answer.to_string().contains(SECRET));
    }
    assert_eq!(put(&road, "nowhere", "settings", json!({ "set": { "A": "1" } })).await.0, 404);
    assert_eq!(shown(&road, "development").await["version"], 2, "nothing of it was done");

    // Another customer's app of the same name is another app; who may not publish makes none.
    let store = &road.world.app.store;
    let beta = store.customer_named(&CustomerName::new("beta").unwrap()).await.unwrap().unwrap().id;
    let stranger = road.world.assertion(beta, &["administrator"]);
    let (status, answer) =
        road.world.call("beta", Method::GET, &path("development", "settings"), Some(&stranger), "").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    let own = store.customer(beta);
    let mut write = store.write().await.unwrap();
    let row = bastide_store::RoleRow { name: "setter".into(), permissions: vec!["settings.write".into()] };
    own.add_role(&mut write, &row).await.unwrap();
    write.commit().await.unwrap();
    let setter = road.world.assertion(beta, &["setter"]);
    let body = json!({ "set": { "A": "1" } }).to_string();
    let (status, _) =
        road.world.call("beta", Method::PUT, &path("development", "settings"), Some(&setter), body).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let audit = audit(&road).await;
    assert!(audit.iter().any(|entry| entry.contains("B-API-0422")), "refusals are in the trail: {audit:?}");
}

#[tokio::test]
async fn who_saw_something_older_changes_nothing_and_a_key_counts_once() {
    let road = Road::in_world(world_with(60).await).await;
    let acme = CustomerName::new("acme").unwrap();
    let acme = road.world.app.store.customer_named(&acme).await.unwrap().unwrap();
    let developer = road.world.assertion(acme.id, &["developer"]);
    let at = path("development", "settings");
    let send = async |fields: &[(&str, &str)], body: Value| {
        let answer = road
            .world
            .answer_with("acme", Method::PUT, &at, Some(&developer), fields, body.to_string())
            .await;
        answer.status().as_u16()
    };
    let body = |value: &str| json!({ "set": { "A": value } });
    let once = ("idempotency-key", "one");
    assert_eq!(send(&[once], body("1")).await, 200);
    let answer = road.world.answer_with("acme", Method::GET, &at, Some(&developer), &[], "").await;
    let tag = answer.headers()[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(send(&[once], body("1")).await, 200);
    assert_eq!(shown(&road, "development").await["version"], 1);
    assert_eq!(send(&[once], body("2")).await, 422, "another request");
    assert_eq!(send(&[("if-match", "\"other\"")], body("2")).await, 412);
    assert_eq!(send(&[("if-match", &tag)], body("2")).await, 200);
    assert_eq!(send(&[("if-match", &tag)], body("3")).await, 412);
    assert_eq!(shown(&road, "development").await["settings"][0]["value"], "2");
}
