//! How the hosts of a stage behave: set by those who may, checked, told to the edges, written into the trail.

use crate::{api::world_with, road::Road};
use bastide_types::{CustomerId, CustomerName, SiteSettings, StageName};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const SITE: &str = "/api/v1/stages/test/site";

struct Scene {
    road: Road,
    acme: CustomerId,
}

impl Scene {
    async fn new() -> Self {
        let road = Road::in_world(world_with(60).await).await;
        let acme = CustomerName::new("acme").unwrap();
        let acme = road.world.app.store.customer_named(&acme).await.unwrap().unwrap().id;
        Self { road, acme }
    }

    async fn as_role(&self, roles: &[&str], method: Method, end: &str, body: &str) -> (StatusCode, Value) {
        let assertion = self.road.world.assertion(self.acme, roles);
        let path = format!("{SITE}{end}");
        let (status, text) =
            self.road.world.call("acme", method, &path, Some(&assertion), body.to_owned()).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
    }

    async fn put(&self, end: &str, body: &Value) -> (StatusCode, Value) {
        self.as_role(&["administrator"], Method::PUT, end, &body.to_string()).await
    }

    async fn page(&self, page: &str, html: &str) -> (StatusCode, Value) {
        self.as_role(&["developer"], Method::PUT, &format!("/pages/{page}"), html).await
    }

    /// What edges are told about a stage of acme.
    async fn told(&self, stage: StageName) -> Option<SiteSettings> {
        let snapshot = self.road.snapshot().await;
        let (_, stage) = snapshot.stage(&CustomerName::new("acme").unwrap(), &stage).unwrap();
        stage.site.as_ref().map(|document| document.read().unwrap())
    }

    async fn trail(&self) -> Vec<String> {
        let rows = self.road.world.app.store.customer(self.acme).audit_trail(200).await.unwrap();
        rows.into_iter().filter(|row| row.what == "site.changed").map(|row| row.detail).collect()
    }
}

fn refused(answer: &(StatusCode, Value), status: u16, code: &str) -> String {
    assert_eq!((answer.0.as_u16(), answer.1["code"].as_str()), (status, Some(code)), "{}", answer.1);
    answer.1["detail"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_is_set_reaches_the_edges_of_this_stage_and_the_trail() {
    let scene = Scene::new().await;
    assert_eq!(scene.told(StageName::test()).await, None);
    let (status, shown) = scene.page("404", "<h1>{{status}}</h1>").await;
    assert_eq!((status, &shown["pages"]), (StatusCode::OK, &json!({"404": 19})), "{shown}");
    let closed = json!({"apps": {"shop": {"open_for": ["192.0.2.0/24"]}}});
    assert_eq!(scene.put("/maintenance", &closed).await.0, StatusCode::OK);
    let redirects = json!([{"from": "/old/*", "to": "/shop/*", "status": 308}]);
    assert_eq!(scene.put("/redirects", &redirects).await.0, StatusCode::OK);
    let fields = json!({"x-frame-options": {"value": "DENY", "force": true}});
    let (_, shown) = scene.put("/fields", &fields).await;
    assert_eq!(shown["fields_in_force"].as_array().unwrap().len(), 3, "{shown}");
    let told = scene.told(StageName::test()).await.unwrap();
    assert_eq!((told.pages.len(), told.redirects.len(), told.maintenance.apps.len()), (1, 1, 1));
    assert_eq!(scene.told(StageName::production()).await, None, "another stage has its own");
    let (_, page) = scene.as_role(&["developer"], Method::GET, "/pages/404", "").await;
    assert_eq!(page, json!({"page": "404", "html": "<h1>{{status}}</h1>"}));
    let (status, _) = scene.as_role(&["developer"], Method::DELETE, "/pages/404", "").await;
    assert_eq!(status, StatusCode::OK);
    refused(&scene.as_role(&["developer"], Method::DELETE, "/pages/404", "").await, 404, "B-API-0404");
    refused(&scene.as_role(&["developer"], Method::GET, "/pages/404", "").await, 404, "B-API-0404");
    let (_, shown) = scene.as_role(&["administrator"], Method::DELETE, "", "").await;
    assert_eq!(shown["redirects"], json!([]));
    assert_eq!(scene.told(StageName::test()).await, None);
    assert_eq!(
        scene.trail().await,
        [
            "test: everything reset",
            "test: page 404 removed",
            "test: fields {\"x-frame-options\":{\"value\":\"DENY\",\"force\":true}}",
            "test: redirects + /old/* → /shop/* (308)",
            "test: maintenance {\"apps\":{\"shop\":{\"retry_after_s\":300,\"open_for\":[\"192.0.2.0/24\"]}}}",
            "test: page 404 set, 19 bytes",
        ]
    );
}

#[tokio::test]
async fn each_part_is_set_by_those_who_may() {
    let scene = Scene::new().await;
    for (method, end, body, allowed) in [
        (Method::GET, "", "", &["developer", "administrator"][..]),
        (Method::PUT, "/pages/404", "x", &["developer", "administrator"]),
        (Method::GET, "/pages/404", "", &["developer", "administrator"]),
        (Method::PUT, "/maintenance", "{}", &["developer", "administrator"]),
        (Method::PUT, "/redirects", "[]", &["developer", "administrator"]),
        (Method::PUT, "/fields", "{}", &["administrator"]),
        (Method::DELETE, "/pages/404", "", &["developer"]),
        (Method::DELETE, "", "", &["administrator"]),
    ] {
        for roles in [&["developer"][..], &["administrator"], &["operator"], &[]] {
            let may = roles.iter().any(|role| allowed.contains(role));
            if end == "/pages/404" && method == Method::DELETE && roles == ["administrator"] {
                continue; // it is gone by then
            }
            let (status, answer) = scene.as_role(roles, method.clone(), end, body).await;
            let expected = if may { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(status, expected, "{method} {end} {roles:?}: {answer}");
        }
    }
    let administrator = scene.road.world.assertion(scene.acme, &["administrator"]);
    for stage in ["none", "Test", "%2e%2e"] {
        let path = format!("/api/v1/stages/{stage}/site");
        let (status, _) = scene.road.world.call("acme", Method::GET, &path, Some(&administrator), "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{stage}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_its_place_and_changes_nothing() {
    let scene = Scene::new().await;
    let check = async |end: &str, body: Value, said: &str| {
        let detail = refused(&scene.put(end, &body).await, 422, "B-SITE-0422");
        assert!(detail.contains(said), "{end} {body}: {detail}");
    };
    let one = |from: &str, to: &str| json!({"from": from, "to": to});
    check("/redirects", json!([one("/a", "http://example.com/")]), "https://").await;
    check("/redirects", json!([one("/a", "//evil.example")]), "one slash").await;
    check("/redirects", json!([one("/.bastide/logout", "/x")]), "belong to Bastide").await;
    check("/redirects", json!([one("/.well-known/acme-challenge/*", "/x")]), "belong to Bastide").await;
    check("/redirects", json!([one("/a", "/b"), one("/b", "/a")]), "circle").await;
    check("/redirects", json!([one("/*", "https://acme--test.apps.localhost:8443/x/*")]), "circle").await;
    check("/redirects", json!([{"host": "beta.apps.localhost", "from": "/a", "to": "/b"}]), "no host").await;
    check("/redirects", json!([{"from": "/a", "to": "/b", "status": 200}]), "301, 302").await;
    check("/redirects", json!({"from": "/a"}), "").await;
    check("/fields", json!({"set-cookie": {"value": "a=b"}}), "set-cookie").await;
    check("/fields", json!({"cdn-loop": {"value": "a"}}), "cdn-loop").await;
    check("/fields", json!({"referrer-policy": {"value": "none"}}), "referrer-policy: write one of").await;
    check("/fields", json!({"content-security-policy": {"value": "img-src a\r\nx: y"}}), "ASCII").await;
    check("/maintenance", json!({"stage": {"open_for": ["everybody"]}}), "").await;
    check("/maintenance", json!({"stage": {"retry_after_s": 0}}), "seconds").await;
    for (page, html) in [("200", "x"), ("421", "x"), ("404", ""), ("404", "a\0b")] {
        refused(&scene.page(page, html).await, 422, "B-SITE-0422");
    }
    refused(&scene.page("404", &"x".repeat(32 * 1024 + 1)).await, 422, "B-SITE-0422");
    assert_eq!(scene.told(StageName::test()).await, None);
    assert!(scene.trail().await.is_empty());
}

#[tokio::test]
async fn settings_have_a_size_by_stage_and_by_customer() {
    let scene = Scene::new().await;
    let page = "x".repeat(32 * 1024);
    for page_name in ["403", "404", "500"] {
        assert_eq!(scene.page(page_name, &page).await.0, StatusCode::OK);
    }
    let detail = refused(&scene.page("502", &page).await, 429, "B-SITE-0429");
    assert!(detail.contains("a stage may have 131072 bytes"), "{detail}");
    let administrator = scene.road.world.assertion(scene.acme, &["administrator"]);
    let put = async |stage: &str, page_name: &str| {
        let path = format!("/api/v1/stages/{stage}/site/pages/{page_name}");
        scene.road.world.call("acme", Method::PUT, &path, Some(&administrator), page.clone()).await
    };
    for (stage, page_name) in
        [("production", "403"), ("production", "404"), ("production", "500"), ("development", "404")]
    {
        assert_eq!(put(stage, page_name).await.0, StatusCode::OK);
    }
    let (status, text) = put("development", "403").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{text}");
    assert!(text.contains("a customer may have 262144 bytes"), "{text}");
    assert_eq!(scene.told(StageName::development()).await.unwrap().pages.len(), 1);
}

#[tokio::test]
async fn changes_have_a_pace() {
    let scene = Scene::new().await;
    for _ in 0..60 {
        assert_eq!(scene.put("/maintenance", &json!({})).await.0, StatusCode::OK);
    }
    refused(&scene.put("/maintenance", &json!({})).await, 429, "B-SITE-0429");
}
