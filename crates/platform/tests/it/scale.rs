//! How many replicas there are: by load, by word, by quota; and where.

use crate::{
    api::{world_of, world_with},
    archives::Packed,
    road::{Road, text},
};
use bastide_bus::PlatformHandler;
use bastide_store::ScalingRow;
use bastide_types::{
    AppName, CustomerName, StageName,
    message::{ReplicaFact, ReplicaFacts, ReplicaState, Usage},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const WIDE: &str = "[scale]\nmin = 2\nmax = 6\ncpu_percent = 50\n";

async fn publish(road: &Road, name: &str, scale: &str) -> (StatusCode, Value) {
    let toml = format!("[app]\nname = \"{name}\"\nkind = \"static\"\n{scale}");
    let archive = Packed::new().file("bastide.toml", toml.as_bytes()).gz();
    road.call(Method::POST, &format!("/api/v1/apps/{name}/publish"), archive).await
}

/// Publishes, and the app serves.
async fn serve(road: &Road, name: &str, scale: &str) {
    let (status, begun) = publish(road, name, scale).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    road.all_ready(&StageName::development()).await;
    assert_eq!(road.operation(&text(&begun["operation"])).await["status"], "finished");
}

async fn set(road: &Road, body: Value) -> (StatusCode, Value) {
    road.call(Method::PUT, "/api/v1/apps/shop/scale", body.to_string()).await
}

/// Replicas by zone that gateways send requests to.
async fn zones(road: &Road) -> BTreeMap<String, usize> {
    let snapshot = road.snapshot().await;
    let (acme, shop) = (CustomerName::new("acme").unwrap(), AppName::new("shop").unwrap());
    let (_, stage) = snapshot.stage(&acme, &StageName::development()).unwrap();
    let mut zones = BTreeMap::new();
    for zone in stage.apps[&shop].replicas.values() {
        *zones.entry(zone.to_string()).or_default() += 1;
    }
    zones
}

/// All replicas of the stage are ready, and use so much of a processor.
async fn busy(road: &Road, cpu_millis: u32) {
    let development = StageName::development();
    let account = road.stage("acme", &development).await.account;
    let fact = |id| ReplicaFact {
        usage: Some(Usage { cpu_millis, memory_bytes: 1 << 20 }),
        ..ReplicaFact::new(id, ReplicaState::Ready)
    };
    let replicas = road.desired(&development).await.replicas;
    let running =
        replicas.iter().filter(|replica| !replica.draining).map(|replica| fact(replica.id)).collect();
    let facts = ReplicaFacts { boot: 1, sequence: 1, generation: 1, replicas: running };
    road.services.replicas(&account, facts).await.unwrap();
}

/// The app's time to be looked at has come; what was advised was so long ago.
async fn later(road: &Road, seconds: i64) {
    let store = &road.world.app.store;
    let acme = store.customer_named(&CustomerName::new("acme").unwrap()).await.unwrap().unwrap();
    let (own, stage) = (store.customer(acme.id), StageName::development());
    let mut write = store.write().await.unwrap();
    for (app, row) in own.scaling(&stage).await.unwrap() {
        let advice = row.advice.iter().map(|(at, replicas)| (at - seconds, *replicas)).collect();
        let row = ScalingRow { look_at: 0, advice, ..row };
        own.keep_scaling(&mut write, &stage, app, &row).await.unwrap();
    }
    write.commit().await.unwrap();
    road.reconcile().await;
}

async fn shown(road: &Road) -> Value {
    road.call(Method::GET, "/api/v1/apps/shop", "").await.1["stages"][0].take()
}

#[tokio::test]
async fn load_brings_replicas_at_once_and_its_end_takes_them_away_after_five_minutes() {
    let road = Road::in_world(world_with(60).await).await;
    serve(&road, "shop", WIDE).await;
    assert_eq!(zones(&road).await, [("a".into(), 1), ("b".into(), 1)].into());
    road.reconcile().await;
    busy(&road, 1000).await;
    later(&road, 0).await;
    assert_eq!(zones(&road).await, [("a".into(), 2), ("b".into(), 2)].into());
    assert_eq!(shown(&road).await["scale"]["why"], "cpu 100 %, target 50 %");
    // The new ones are not measured yet: nothing more is concluded from the old ones.
    later(&road, 15).await;
    assert_eq!(zones(&road).await.values().sum::<usize>(), 4);
    // A publish under load takes nothing away.
    busy(&road, 500).await;
    serve(&road, "shop", WIDE).await;
    assert_eq!(zones(&road).await, [("a".into(), 2), ("b".into(), 2)].into());
    // The load is over.
    busy(&road, 0).await;
    later(&road, 0).await;
    assert_eq!(zones(&road).await.values().sum::<usize>(), 4);
    assert!(text(&shown(&road).await["scale"]["why"]).contains("fewer only after 300 s"));
    busy(&road, 0).await;
    later(&road, 200).await;
    assert_eq!(zones(&road).await.values().sum::<usize>(), 4);
    later(&road, 200).await;
    assert_eq!(zones(&road).await, [("a".into(), 1), ("b".into(), 1)].into());
    let fewer = async || {
        busy(&road, 0).await;
        road.desired(&StageName::development()).await.replicas.len() == 2
    };
    road.until("those that are too many drain and are forgotten", fewer).await;
    let acme = CustomerName::new("acme").unwrap();
    let acme = road.world.app.store.customer_named(&acme).await.unwrap().unwrap();
    let entries = road.world.app.store.customer(acme.id).audit_trail(100).await.unwrap();
    let scaled: Vec<_> = entries.iter().filter(|entry| entry.what == "app.scaled").collect();
    assert_eq!(scaled.len(), 2, "{scaled:?}");
    let grown = "shop in development: 2 to 4 replicas (cpu 100 %, target 50 %)";
    assert!(scaled.iter().any(|entry| entry.detail == grown), "{scaled:?}");
}

#[tokio::test]
async fn what_is_set_for_a_stage_holds_at_once_and_until_it_is_taken_back() {
    let road = Road::in_world(world_with(60).await).await;
    serve(&road, "shop", "").await;
    let (status, scale) = set(&road, json!({"stage": "development", "scale": {"replicas": 5}})).await;
    assert_eq!(
        (status, &scale["min"], &scale["set_here"]),
        (StatusCode::OK, &json!(5), &json!(true)),
        "{scale}"
    );
    road.reconcile().await;
    assert_eq!(zones(&road).await, [("a".into(), 3), ("b".into(), 2)].into());
    road.all_ready(&StageName::development()).await;
    set(&road, json!({"stage": "development", "scale": {"replicas": 2}})).await;
    road.reconcile().await;
    assert_eq!(zones(&road).await, [("a".into(), 1), ("b".into(), 1)].into());
    // It holds for the next revision, and for no other stage.
    set(&road, json!({"stage": "development", "scale": {"replicas": 3}})).await;
    road.reconcile().await;
    serve(&road, "shop", "").await;
    assert_eq!(zones(&road).await.values().sum::<usize>(), 3);
    road.promote("test").await;
    assert_eq!(road.desired(&StageName::test()).await.replicas.len(), 2);
    let (_, scale) = set(&road, json!({"stage": "development", "scale": null})).await;
    assert_eq!((&scale["max"], &scale["set_here"]), (&json!(2), &json!(false)));
    road.reconcile().await;
    assert_eq!(zones(&road).await.values().sum::<usize>(), 2);
    for (body, status) in [
        (json!({"stage": "development", "scale": {"replicas": 17}}), 422),
        (json!({"stage": "development", "scale": {"min": 3, "max": 2}}), 422),
        (json!({"stage": "nowhere", "scale": null}), 422),
        (json!({"stage": "development", "scale": {"typo": 1}}), 422),
    ] {
        assert_eq!(set(&road, body.clone()).await.0.as_u16(), status, "{body}");
    }
    let none =
        road.call(Method::PUT, "/api/v1/apps/none/scale", r#"{"stage":"development","scale":null}"#).await;
    assert_eq!(none.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_quota_holds_against_people_load_and_deployments() {
    let road = Road::in_world(world_of(|config| config.replicas_per_customer = 5).await).await;
    serve(&road, "shop", WIDE).await;
    serve(&road, "blog", "[scale]\nreplicas = 1\n").await;
    let refused = |(status, problem): (StatusCode, Value)| {
        assert_eq!(
            (status, problem["code"].as_str()),
            (StatusCode::CONFLICT, Some("B-DEPLOY-0429")),
            "{problem}"
        );
    };
    refused(set(&road, json!({"stage": "development", "scale": {"replicas": 5}})).await);
    refused(publish(&road, "mail", "[scale]\nreplicas = 3\n").await);
    assert_eq!(
        road.call(Method::GET, "/api/v1/apps/mail", "").await.0,
        StatusCode::NOT_FOUND,
        "nothing half-made"
    );
    busy(&road, 1000).await;
    later(&road, 0).await;
    assert_eq!(zones(&road).await.values().sum::<usize>(), 4, "five, and one is another app's");
    let operator = CustomerName::operator();
    let operator = road.world.app.store.customer_named(&operator).await.unwrap().unwrap();
    let operator = road.world.assertion(operator.id, &["operator"]);
    let quota = async |method: Method, body: &str| {
        let path = "/api/v1/customers/acme/quota";
        let (status, body) =
            road.world.call("operator", method, path, Some(&operator), body.to_owned()).await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    assert_eq!(quota(Method::GET, "").await, (StatusCode::OK, json!({"replicas": 5, "used": 5})));
    assert_eq!(quota(Method::PUT, r#"{"replicas": 7}"#).await.0, StatusCode::OK);
    assert_eq!(quota(Method::PUT, r#"{"replicas": -1}"#).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    busy(&road, 1000).await;
    later(&road, 0).await;
    assert_eq!(zones(&road).await.values().sum::<usize>(), 6);
    let (status, _) = road.call(Method::PUT, "/api/v1/customers/acme/quota", r#"{"replicas": 99}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "not for customers themselves");
}

#[tokio::test]
async fn an_app_that_is_being_deployed_is_left_alone() {
    let road = Road::in_world(world_with(60).await).await;
    serve(&road, "shop", WIDE).await;
    road.reconcile().await;
    assert_eq!(publish(&road, "shop", WIDE).await.0, StatusCode::ACCEPTED);
    let account = road.stage("acme", &StageName::development()).await.account;
    let old: Vec<_> = road.desired(&StageName::development()).await.replicas;
    let fact = |id| ReplicaFact {
        usage: Some(Usage { cpu_millis: 1000, memory_bytes: 0 }),
        ..ReplicaFact::new(id, ReplicaState::Ready)
    };
    let replicas =
        old.iter().filter(|replica| replica.revision_number == 1).map(|replica| fact(replica.id)).collect();
    let facts = ReplicaFacts { boot: 1, sequence: 2, generation: 1, replicas };
    road.services.replicas(&account, facts).await.unwrap();
    later(&road, 0).await;
    assert_eq!(road.desired(&StageName::development()).await.replicas.len(), 4, "two old, two new");
}
