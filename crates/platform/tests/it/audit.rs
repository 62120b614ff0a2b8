//! The audit trail over the API.

use crate::api::{World, world};
use bastide_types::{AuditLine, AuditTip, CustomerId};
use http::{Method, StatusCode};
use serde_json::{Value, json};

struct Acme {
    world: World,
    id: CustomerId,
}

impl Acme {
    async fn new() -> Self {
        let world = world().await;
        let id = world.customer("acme").await;
        Self { world, id }
    }

    async fn call(&self, roles: &[&str], method: Method, path: &str, body: Value) -> (u16, String) {
        let who = self.world.assertion(self.id, roles);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) =
            self.world.call("acme", method, &format!("/api/v1{path}"), Some(&who), body).await;
        (status.as_u16(), text)
    }

    async fn get(&self, path: &str) -> Value {
        let (status, text) = self.call(&["administrator"], Method::GET, path, Value::Null).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }
}

#[tokio::test]
async fn the_trail_shows_changes_with_old_and_new_and_where_they_came_from() {
    let acme = Acme::new().await;
    let call = async |method, path: &str, body| acme.call(&["administrator"], method, path, body).await.0;
    assert_eq!(
        call(Method::POST, "/roles", json!({ "name": "purger", "permissions": ["cache.purge"] })).await,
        204
    );
    assert_eq!(call(Method::PUT, "/roles/purger", json!({ "permissions": ["cache.read"] })).await, 204);
    let trail = acme.get("/audit").await;
    let (change, made) = (&trail["entries"][0], &trail["entries"][1]);
    assert_eq!((&change["what"], &change["who"]), (&json!("role.changed"), &json!("somebody")));
    assert_eq!((&change["old"], &change["new"]), (&json!(r#"["cache.purge"]"#), &json!(r#"["cache.read"]"#)));
    assert_eq!((&change["detail"], &change["outcome"]), (&json!("purger"), &json!("done")));
    assert_eq!(change["request"], json!("01a20de4-d54c-7659-9f5b-f4ec6569bb31"));
    assert_eq!(
        (&made["what"], &made["old"], &trail["next"]),
        (&json!("role.created"), &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn what_was_refused_is_in_the_trail() {
    let acme = Acme::new().await;
    let check = async |roles: &[&str],
                       method: Method,
                       path: &str,
                       body: Value,
                       status: u16,
                       entry: Option<(&str, &str)>| {
        let before = acme.world.app.store.customer(acme.id).audit_trail(1).await.unwrap();
        assert_eq!(acme.call(roles, method.clone(), path, body).await.0, status, "{method} {path}");
        let after = acme.world.app.store.customer(acme.id).audit_trail(1).await.unwrap();
        match entry {
            None => assert_eq!(before, after, "{method} {path}"),
            Some((what, code)) => {
                let last = &after[0];
                assert_eq!((last.what.as_str(), last.outcome.as_str()), (what, code), "{last:?}");
                assert_eq!((last.who.as_str(), last.detail.as_str()), ("somebody", path));
            }
        }
    };
    let member = json!({ "email": "x", "roles": ["developer"] });
    check(
        &["developer"],
        Method::POST,
        "/members",
        member.clone(),
        403,
        Some(("POST /members", "B-ID-0403")),
    )
    .await;
    check(&["administrator"], Method::POST, "/members", member, 422, Some(("POST /members", "B-API-0422")))
        .await;
    check(&["developer"], Method::GET, "/audit", Value::Null, 403, Some(("GET /audit", "B-ID-0403"))).await;
    check(
        &["administrator"],
        Method::DELETE,
        "/roles/none",
        Value::Null,
        404,
        Some(("DELETE /roles/{role}", "B-API-0404")),
    )
    .await;
    // Questions about what is not there are no changes.
    check(&["administrator"], Method::GET, "/apps/none", Value::Null, 404, None).await;
    check(&["administrator"], Method::GET, "/apps", Value::Null, 200, None).await;
}

#[tokio::test]
async fn a_flood_of_refusals_does_not_fill_the_trail() {
    let acme = Acme::new().await;
    for _ in 0..100 {
        assert_eq!(acme.call(&["developer"], Method::GET, "/audit", Value::Null).await.0, 403);
    }
    let entries = acme.world.app.store.customer(acme.id).audit_trail(200).await.unwrap();
    // A minute may pass meanwhile.
    assert!((60..100).contains(&entries.len()), "{}", entries.len());
}

#[tokio::test]
async fn pages_follow_one_another_and_filters_hold() {
    let acme = Acme::new().await;
    for number in 0..5 {
        let mut write = acme.world.app.store.write().await.unwrap();
        let own = acme.world.app.store.customer(acme.id);
        own.audit(&mut write, "ann", if number % 2 == 0 { "app.scale" } else { "role.made" }, "")
            .await
            .unwrap();
        write.commit().await.unwrap();
    }
    let numbers = |page: &Value| {
        page["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["sequence"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    let first = acme.get("/audit?limit=2").await;
    assert_eq!((numbers(&first), &first["next"]), (vec![5, 4], &json!(4)));
    let last = acme.get("/audit?limit=3&before=4").await;
    assert_eq!((numbers(&last), &last["next"]), (vec![3, 2, 1], &Value::Null));
    assert_eq!(numbers(&acme.get("/audit?what=app.").await), [5, 3, 1]);
    assert_eq!(numbers(&acme.get("/audit?refused=true").await), [0_u64; 0]);
    for wrong in ["limit=0", "limit=501", "limit=x", "before=-1", "other=1"] {
        let (status, text) =
            acme.call(&["administrator"], Method::GET, &format!("/audit?{wrong}"), Value::Null).await;
        assert_eq!((status, text.contains("B-API-0422")), (422, true), "{wrong}: {text}");
    }
}

#[tokio::test]
async fn the_trail_is_checked_and_handed_out_with_its_hashes() {
    let acme = Acme::new().await;
    assert_eq!(acme.get("/audit/verification").await["tip"], json!(AuditTip::START.to_string()));
    for _ in 0..3 {
        acme.call(&["developer"], Method::GET, "/audit", Value::Null).await;
    }
    let verdict = acme.get("/audit/verification").await;
    let who = acme.world.assertion(acme.id, &["administrator"]);
    let answer = acme.world.answer("acme", Method::GET, "/api/v1/audit/export?after=1", Some(&who), "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let (_, text) = acme.call(&["administrator"], Method::GET, "/audit/export?after=1", Value::Null).await;
    let lines: Vec<AuditLine> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line.entry.sequence).collect::<Vec<_>>(), [2, 3]);
    let tip = AuditTip { sequence: 3, hash: lines[1].hash };
    assert_eq!((&verdict["whole"], &verdict["tip"]), (&json!(true), &json!(tip.to_string())));

    // Another customer has another trail.
    let beta = acme.world.customer("beta").await;
    let other = acme.world.assertion(beta, &["administrator"]);
    let (_, text) = acme.world.call("beta", Method::GET, "/api/v1/audit/export", Some(&other), "").await;
    assert_eq!(text, "");
}

#[tokio::test]
async fn what_is_old_is_given_up_and_the_trail_stays_whole() {
    let acme = Acme::new().await;
    acme.call(&["developer"], Method::GET, "/audit", Value::Null).await;
    let (app, own) = (&acme.world.app, acme.world.app.store.customer(acme.id));
    let now = bastide_store::now_s();
    bastide_platform::retention::pass(app, now).await.unwrap();
    assert_eq!(own.audit_trail(10).await.unwrap().len(), 1);
    bastide_platform::retention::pass(app, now + 401 * 24 * 3600).await.unwrap();
    let trail = own.audit_trail(10).await.unwrap();
    assert_eq!(trail.iter().map(|entry| entry.what.as_str()).collect::<Vec<_>>(), ["audit.given-up"]);
    assert_eq!(acme.get("/audit/verification").await["given_up"], json!(1));
}
