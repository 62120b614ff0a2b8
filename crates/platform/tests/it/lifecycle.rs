//! What becomes of a revision: said, compared, promoted with a version, rolled back, taken out.

use crate::{
    api::{world, world_of},
    road::{Road, packed_with, text},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_types::{AppName, CustomerName, StageName};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/apps/shop";

async fn road() -> Road {
    Road::in_world(world().await).await
}

/// Publishes a page with more in its manifest, and lets it serve.
async fn publish(road: &Road, page: &str, more: &str) -> Value {
    let body = packed_with("shop", page, more);
    let (status, begun) = road.call(Method::POST, &format!("{PATH}/publish"), body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{begun}");
    road.all_ready(&StageName::development()).await;
    begun
}

async fn post(road: &Road, what: &str, body: Value) -> (u16, Value) {
    let (status, answer) = road.call(Method::POST, &format!("{PATH}/{what}"), body.to_string()).await;
    (status.as_u16(), answer)
}

async fn get(road: &Road, path: &str) -> (u16, Value) {
    let (status, answer) = road.call(Method::GET, path, "").await;
    (status.as_u16(), answer)
}

/// What the data plane serves of the app in a stage: number, whether `/` is public, paranoia of its policy.
async fn served(road: &Road, stage: &StageName) -> (u32, bool, Option<u8>) {
    let snapshot = road.snapshot().await;
    let (_, stage) = snapshot.stage(&CustomerName::new("acme").unwrap(), stage).unwrap();
    let app = &stage.apps[&AppName::new("shop").unwrap()];
    let public = app.routes.iter().any(|route| route.access == bastide_types::AccessRule::Public);
    (app.revision_number, public, app.waf.map(|id| snapshot.waf[&id].paranoia))
}

#[tokio::test]
async fn a_roll_back_restores_image_configuration_routes_and_policy_under_one_digest() {
    let road = road().await;
    let development = StageName::development();
    let first = publish(
        &road,
        "one",
        "[env]\nCOLOR = \"red\"\n[[route]]\npath = \"/\"\naccess = \"public\"\n[waf]\nparanoia = 3\n",
    )
    .await;
    publish(&road, "two", "[env]\nCOLOR = \"blue\"\n").await;
    assert_eq!(served(&road, &development).await, (2, false, None));
    let rows = get(&road, &format!("{PATH}/revisions")).await.1["revisions"].take();
    let digests: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["digest"].clone()).collect();
    assert_ne!(digests[0], digests[1]);

    let (status, begun) = post(&road, "rollbacks", json!({ "stage": "development" })).await;
    assert_eq!((status, &begun["revision"], &begun["image"]), (202, &json!(1), &first["image"]), "{begun}");
    assert!(begun["warnings"].to_string().contains("/ will be open to more people"), "{begun}");
    assert_eq!(served(&road, &development).await, (2, false, None), "not before it is ready");
    let id = text(&begun["operation"]);
    let running = road.operation(&id).await;
    assert_eq!((&running["kind"], &running["status"]), (&json!("rollback"), &json!("running")));
    assert_eq!(
        (&running["progress"], &running["steps"][0]["message"]),
        (&json!(10), &json!("0 of 2 replicas ready"))
    );
    road.all_ready(&development).await;
    assert_eq!(served(&road, &development).await, (1, true, Some(3)));
    let ended = road.operation(&id).await;
    assert_eq!((&ended["status"], &ended["progress"]), (&json!("finished"), &json!(100)));
    let state = road.desired(&development).await;
    let serving = state.replicas.iter().find(|replica| replica.serving).unwrap();
    assert_eq!(serving.revision.to_string(), text(&digests[1]));
    assert_eq!(serving.manifest.env["COLOR"], "red");

    // Back and forth: the one before is now the second again.
    let (status, begun) = post(&road, "rollbacks", json!({ "stage": "development" })).await;
    assert_eq!((status, &begun["revision"]), (202, &json!(2)));
}

#[tokio::test]
async fn only_what_served_in_a_stage_can_be_gone_back_to() {
    let road = road().await;
    publish(&road, "one", "").await;
    for (body, status, code) in [
        (json!({ "stage": "development" }), 409, "B-DEPLOY-0404"),
        (json!({ "stage": "development", "to": 1 }), 409, "B-DEPLOY-0404"),
        (json!({ "stage": "development", "to": 9 }), 409, "B-DEPLOY-0404"),
        (json!({ "stage": "test" }), 409, "B-DEPLOY-0404"),
        (json!({ "stage": "none" }), 422, "B-API-0422"),
        (json!({ "stage": "development", "other": 1 }), 422, "B-API-0422"),
    ] {
        let (found, answer) = post(&road, "rollbacks", body.clone()).await;
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{body}: {answer}");
    }
    publish(&road, "two", "").await;
    let (status, _) = post(&road, "rollbacks", json!({ "stage": "development", "to": 1 })).await;
    assert_eq!(status, 202);
    let (status, answer) = post(&road, "rollbacks", json!({ "stage": "development", "to": 1 })).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("B-DEPLOY-0409")), "{answer}");
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_does_nothing() {
    let road = road().await;
    publish(&road, "one", "[[route]]\npath = \"/\"\n").await;
    let store = road.world.app.store.clone();
    let before = (store.version().await.unwrap(), get(&road, "/api/v1/operations").await.1);
    let open = packed_with("shop", "two", "[[route]]\npath = \"/\"\naccess = \"public\"\n");
    let (status, impact) = road.call(Method::POST, &format!("{PATH}/publish?dry_run=true"), open).await;
    assert_eq!((status.as_u16(), &impact["blockers"]), (200, &json!([])), "{impact}");
    assert!(impact["warnings"].to_string().contains("/ will be open to more"), "{impact}");
    let many = packed_with("shop", "two", "[scale]\nreplicas = 16\n");
    let quota = store.customer(road.stage("acme", &StageName::development()).await.customer);
    let mut write = store.write().await.unwrap();
    quota.set_quota(&mut write, 4).await.unwrap();
    write.commit().await.unwrap();
    let (status, impact) =
        road.call(Method::POST, &format!("{PATH}/publish?dry_run=true"), many.clone()).await;
    assert_eq!((status.as_u16(), &impact["blockers"][0]["code"]), (200, &json!("B-DEPLOY-0429")), "{impact}");
    for (what, body) in [
        ("deployments", json!({ "stage": "test", "dry_run": true })),
        ("undeployments", json!({ "stage": "development", "dry_run": true })),
    ] {
        let (status, impact) = post(&road, what, body).await;
        assert_eq!((status, &impact["blockers"]), (200, &json!([])), "{what}: {impact}");
    }
    assert_eq!((store.version().await.unwrap(), get(&road, "/api/v1/operations").await.1), before);
    // Without it the blocker stops the publish, and no revision is made.
    let (status, problem) = road.call(Method::POST, &format!("{PATH}/publish"), many).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("B-DEPLOY-0429")), "{problem}");
    assert_eq!(get(&road, &format!("{PATH}/revisions")).await.1["revisions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_policy_that_loosens_blocks_the_publish() {
    let road = Road::in_world(world_of(|config| config.waf.paranoia = 2).await).await;
    let loose = packed_with("shop", "one", "[waf]\nparanoia = 1\n");
    let (status, problem) = road.call(Method::POST, &format!("{PATH}/publish"), loose).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("B-WAF-0409")), "{problem}");
    let wrong = packed_with("shop", "one", "[waf]\nparanoia = 9\n");
    let (status, problem) = road.call(Method::POST, &format!("{PATH}/publish"), wrong).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("B-BUILD-0422")), "{problem}");
}

#[tokio::test]
async fn revisions_get_versions_in_the_last_stage_that_only_grow() {
    let road = road().await;
    let stages = StageName::defaults();
    let (development, test, production) = (&stages[0], &stages[1], &stages[2]);
    let to_production = async |version: Value| {
        road.promote(test.as_str()).await;
        road.all_ready(test).await;
        let mut body = json!({ "stage": production });
        if !version.is_null() {
            body["version"] = version;
        }
        let answer = post(&road, "deployments", body).await;
        road.all_ready(production).await;
        answer
    };
    publish(&road, "one", "").await;
    let (status, begun) = to_production(Value::Null).await;
    assert_eq!((status, &begun["version"]), (202, &json!("0.1.0")), "{begun}");
    publish(&road, "two", "").await;
    for wrong in ["0.1.0", "0.0.9", "1", "01.0.0", "x"] {
        let (status, problem) = to_production(json!(wrong)).await;
        assert_eq!((status, &problem["code"]), (422, &json!("B-API-0422")), "{wrong}: {problem}");
    }
    let (status, begun) = to_production(json!("1.0.0")).await;
    assert_eq!((status, &begun["version"]), (202, &json!("1.0.0")), "{begun}");
    let (status, _) = post(&road, "deployments", json!({ "stage": test, "version": "9.0.0" })).await;
    assert_eq!(status, 422, "only the last stage gives versions");
    // Rolled back, a revision is what it was.
    let (status, begun) = post(&road, "rollbacks", json!({ "stage": production })).await;
    assert_eq!((status, &begun["version"], &begun["revision"]), (202, &json!("0.1.0"), &json!(1)), "{begun}");
    road.all_ready(production).await;
    let rows = get(&road, &format!("{PATH}/revisions")).await.1["revisions"].take();
    assert_eq!((&rows[0]["version"], &rows[1]["version"]), (&json!("1.0.0"), &json!("0.1.0")));
    assert_eq!((&rows[0]["stages"], &rows[1]["stages"]), (&json!([development, test]), &json!([production])));
}

#[tokio::test]
async fn an_app_is_taken_out_of_a_stage_when_its_replicas_have_ended() {
    let road = road().await;
    let development = StageName::development();
    let (status, problem) = post(&road, "undeployments", json!({ "stage": "development" })).await;
    assert_eq!((status, &problem["code"]), (404, &json!("B-API-0404")));
    publish(&road, "one", "").await;
    let (status, problem) = post(&road, "undeployments", json!({ "stage": "test" })).await;
    assert_eq!((status, &problem["code"]), (409, &json!("B-DEPLOY-0404")), "{problem}");
    let (status, begun) = post(&road, "undeployments", json!({ "stage": "development" })).await;
    assert_eq!(status, 202, "{begun}");
    assert_eq!(road.serves(&development).await, None, "at once");
    let id = text(&begun["operation"]);
    let drained = async || {
        let state = road.desired(&development).await;
        !state.replicas.is_empty() && state.replicas.iter().all(|replica| replica.draining)
    };
    road.until("the replicas drain", drained).await;
    assert_eq!(road.operation(&id).await["status"], "running");
    road.say(&development, &[], bastide_types::message::ReplicaState::Ready).await;
    let ended = async || road.operation(&id).await["status"] == "finished";
    road.until("the operation ends", ended).await;
    assert_eq!(road.desired(&development).await.replicas.len(), 0);
    let list = get(&road, "/api/v1/operations?app=shop").await.1["operations"].take();
    assert_eq!((&list[0]["kind"], &list[1]["kind"]), (&json!("undeploy"), &json!("publish")));
    // What was taken out can be brought back.
    let (status, begun) = post(&road, "rollbacks", json!({ "stage": "development" })).await;
    assert_eq!((status, &begun["revision"]), (202, &json!(1)), "{begun}");
    road.all_ready(&development).await;
    assert_eq!(road.serves(&development).await, Some(1));
}

#[tokio::test]
async fn a_publish_has_a_message_of_at_most_2000_characters() {
    let road = road().await;
    let developer =
        road.world.assertion(road.stage("acme", &StageName::development()).await.customer, &["developer"]);
    let publish = async |value: String| {
        let request = http::Request::builder()
            .method(Method::POST)
            .uri(format!("{PATH}/publish"))
            .header("host", "acme.platform.localhost")
            .header(bastide_types::header::ASSERTION, &developer)
            .header("bastide-message", value)
            .body(axum::body::Body::from(packed_with("shop", "one", "")))
            .unwrap();
        let answer = road.world.send(request).await;
        road.all_ready(&StageName::development()).await;
        answer
    };
    let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let long = "é".repeat(2000);
    assert_eq!(publish(encoded(&long)).await, StatusCode::ACCEPTED);
    for wrong in [encoded(&"é".repeat(2001)), "!".to_owned(), BASE64_URL_SAFE_NO_PAD.encode([0xff])] {
        assert_eq!(publish(wrong).await, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let rows = get(&road, &format!("{PATH}/revisions")).await.1["revisions"].take();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["message"]), (1, &json!(long)));
    assert_eq!(rows[0]["by"], "somebody");
}

#[tokio::test]
async fn revisions_and_stages_are_compared() {
    let road = road().await;
    publish(&road, "one", "[env]\nA = \"1\"\n").await;
    road.promote("test").await;
    road.all_ready(&StageName::defaults()[1]).await;
    publish(&road, "two", "[env]\nA = \"2\"\n").await;
    for sides in ["from=1&to=2", "from=test&to=development", "from=test&to=2"] {
        let (status, found) = get(&road, &format!("{PATH}/diff?{sides}")).await;
        assert_eq!((status, &found["from"], &found["to"]), (200, &json!(1), &json!(2)), "{found}");
        let keys: Vec<_> =
            found["differences"].as_array().unwrap().iter().map(|one| text(&one["key"])).collect();
        assert_eq!(keys, ["image", "env.A"], "{sides}");
    }
    for (sides, status) in
        [("from=1&to=9", 404), ("from=1&to=production", 409), ("from=1", 422), ("from=1&to=A%20B", 422)]
    {
        assert_eq!(get(&road, &format!("{PATH}/diff?{sides}")).await.0, status, "{sides}");
    }
}

#[tokio::test]
async fn what_was_changed_behind_the_platform_is_neither_deployed_nor_run() {
    use sqlx::Connection;
    let road = road().await;
    publish(&road, "one", "").await;
    let development = StageName::development();
    let whole = road.desired(&development).await;
    assert_eq!(whole.replicas.len(), 2);
    let file = format!("sqlite://{}", road.world.app.config.database.file().display());
    let mut sql = sqlx::SqliteConnection::connect(&file).await.unwrap();
    // Another image, as if somebody who can write rows wanted to have it run.
    let (image, other) = (whole.replicas[0].image.to_string(), format!("sha256:{}", "0".repeat(64)));
    let change = "UPDATE revision SET image = ?";
    sqlx::query(change).bind(&other).execute(&mut sql).await.unwrap();
    let (status, answer) = post(&road, "deployments", json!({ "stage": "test" })).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("B-DEPLOY-0403")), "{answer}");
    assert!(road.desired(&development).await.replicas.is_empty(), "no agent is told to run it");
    // Put back as it was, it is what was published.
    sqlx::query(change).bind(&image).execute(&mut sql).await.unwrap();
    assert_eq!(road.desired(&development).await.replicas, whole.replicas);
}

#[tokio::test]
async fn content_of_revisions_that_are_gone_is_removed_and_nothing_else() {
    let road = road().await;
    for page in ["one", "two", "three"] {
        publish(&road, page, "").await;
    }
    let (app, acme) = (&road.world.app, road.stage("acme", &StageName::development()).await.customer);
    let own = app.store.customer(acme);
    let shop = own.app_named(&AppName::new("shop").unwrap()).await.unwrap().unwrap();
    let revisions = own.revisions_of(shop.id, 10).await.unwrap();
    let lie = || std::fs::read_dir(road.world.at("images/blobs/sha256")).unwrap().count();
    let (before, now) = (lie(), bastide_store::now_s());
    let day = 24 * 3600;
    bastide_platform::retention::pass(app, now + 2 * day).await.unwrap();
    assert_eq!(lie(), before, "all are named");
    // Its replicas have drained long ago.
    for replica in own.replicas(&StageName::development()).await.unwrap() {
        if replica.revision == 1 {
            let mut write = app.store.write().await.unwrap();
            own.forget_replica(&mut write, &StageName::development(), replica.id).await.unwrap();
            write.commit().await.unwrap();
        }
    }
    let mut write = app.store.write().await.unwrap();
    assert_eq!(own.give_up_revisions(&mut write, now + day, (1, 2)).await.unwrap(), 1);
    write.commit().await.unwrap();
    bastide_platform::retention::pass(app, now).await.unwrap();
    assert_eq!(lie(), before, "an image that was just built may be named in a moment");
    bastide_platform::retention::pass(app, now + 2 * day).await.unwrap();
    let left = app.store.content_named().await.unwrap();
    let gone: Vec<_> = revisions[2].blobs.iter().filter(|blob| !left.contains(blob)).collect();
    assert!(!gone.is_empty());
    assert_eq!(lie(), before - gone.len());
    assert_eq!(
        post(&road, "rollbacks", json!({ "stage": "development" })).await.0,
        202,
        "the one before is there"
    );
}
