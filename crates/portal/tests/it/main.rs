//! The pages over an API that the test makes up.

use axum::{
    Json, Router,
    body::Body,
    http::{Method, Request, Response, StatusCode},
    response::IntoResponse,
    routing::get,
};
use bastide_types::Code;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const HOSTILE: &str = "<script>alert(1)</script>\"'";

fn who(customer: &'static str, role: &'static str) -> Value {
    let permissions: &[&str] = match role {
        "administrator" => &["apps.deploy", "members.write"],
        "developer" => &["apps.deploy"],
        _ => &["members.write"],
    };
    json!({ "subject": "1", "name": HOSTILE, "customer": customer, "permissions": permissions, "session": "s" })
}

fn an_app() -> Value {
    json!({ "id": "1", "name": "shop", "stages": [
        { "stage": "development", "status": "serving", "revision": 2, "image": "sha256:ab",
          "url": "https://acme--development.apps.localhost:8443/shop/",
          "replicas": [{ "id": "r1", "zone": "a", "revision": 2, "state": "failed", "reason": HOSTILE },
          { "id": "r2", "zone": "b", "revision": 2, "state": "ready", "reason": null, "restarts": 3, "last_end": { "at": 1, "why": HOSTILE },
            "usage": { "cpu_millis": 5, "cpu_millis_max": 1000, "memory_bytes": 1, "memory_bytes_max": 1048576 } }] },
        { "stage": "test", "status": "absent", "revision": null, "image": null, "url": "javascript:alert(1)", "replicas": [] },
    ]})
}

fn api(customer: &'static str, role: &'static str, apps: Value) -> Router {
    let operation = json!({ "id": "7", "kind": "promote", "app": "shop", "stage": "test", "revision": 2,
        "status": "failed", "steps": [{ "name": "start", "status": "failed", "message": HOSTILE }],
        "problem": Code::DeployFailed.because(HOSTILE), "url": null });
    let members =
        json!([{ "id": "1", "email": "a@b.c", "name": HOSTILE, "state": "active", "roles": ["developer"] }]);
    let created = json!({ "id": "1", "name": "beta", "platform_url": "https://beta", "invitation_link": "https://beta/l",
        "client": { "id": "automation", "secret": "s3cret" } });
    let fixed = |value: Value| move || async move { Json(value) };
    Router::new()
        .route(
            "/api/v1/whoami",
            get(move |headers: axum::http::HeaderMap| async move {
                // Only the assertion says who asks.
                match headers.get("x-bastide-assertion") {
                    Some(_) => Json(who(customer, role)).into_response(),
                    None => (StatusCode::UNAUTHORIZED, Code::NotSignedIn.problem().json()).into_response(),
                }
            }),
        )
        .route("/api/v1/apps", get(fixed(apps)))
        .route("/api/v1/apps/shop", get(fixed(an_app())))
        .route("/api/v1/apps/shop/deployments", axum::routing::post(fixed(json!({ "operation": "7" }))))
        .route("/api/v1/operations/7", get(fixed(operation)))
        .route("/api/v1/members", get(fixed(members)).post(fixed(json!({ "link": "https://acme/link" }))))
        .route(
            "/api/v1/customers",
            get(fixed(json!([{ "name": "acme", "platform_url": "https://acme" }]))).post(fixed(created)),
        )
}

#[expect(clippy::unwrap_used, reason = "a test")]
async fn send(
    router: Router,
    method: Method,
    path: &str,
    form: &str,
    fields: &[(&str, &str)],
) -> (Response<Body>, String) {
    let mut request =
        Request::builder().method(method).uri(path).header("host", "acme.platform.localhost:8443");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    if !form.is_empty() {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    let response = router.oneshot(request.body(Body::from(form.to_owned())).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    (Response::from_parts(parts, Body::empty()), text)
}

const SIGNED_IN: (&str, &str) = ("x-bastide-assertion", "a");
const OWN: (&str, &str) = ("sec-fetch-site", "same-origin");

#[expect(clippy::unwrap_used, reason = "a test")]
async fn page(path: &str) -> String {
    let router = bastide_portal::router(api("acme", "administrator", json!([an_app()])));
    let (response, text) = send(router, Method::GET, path, "", &[SIGNED_IN]).await;
    assert_eq!(response.status(), 200, "{path}: {text}");
    let policy = response.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    text
}

#[tokio::test]
async fn no_page_lets_hostile_text_or_script_in() {
    for path in ["/", "/portal/", "/portal/apps/shop", "/portal/members", "/portal/operations/7"] {
        let text = page(path).await;
        assert!(!text.contains("<script") && !text.contains("href=\"javascript:"), "{path}: {text}");
        assert!(!text.contains(" style=") && !text.contains(" onclick"), "{path}");
        assert!(text.contains("alert(1)"), "{path} shows the text itself");
    }
}

#[tokio::test]
async fn the_first_page_shows_apps_and_how_to_begin() {
    assert!(page("/").await.contains("acme--development.apps.localhost"));
    let router = bastide_portal::router(api("acme", "developer", json!([])));
    let (_, text) = send(router, Method::GET, "/portal/", "", &[SIGNED_IN]).await;
    assert!(text.contains("bastide publish"));
}

#[tokio::test]
async fn operators_see_customers_and_what_they_create_once() {
    let router = bastide_portal::router(api("operator", "operator", json!([])));
    let (_, text) = send(router.clone(), Method::GET, "/", "", &[SIGNED_IN]).await;
    assert!(text.contains("https://acme") && text.contains("Create a customer"));
    let form = "name=beta&administrator_email=a%40b.c";
    let (_, text) = send(router, Method::POST, "/portal/customers", form, &[SIGNED_IN, OWN]).await;
    assert!(text.contains("s3cret") && text.contains("https://beta/l"));
}

#[tokio::test]
async fn forms_of_other_sites_are_refused() {
    let router = bastide_portal::router(api("acme", "administrator", json!([])));
    let form = "email=x%40y.z&role=developer";
    let host = "https://acme.platform.localhost:8443";
    for (fields, good) in [
        (vec![SIGNED_IN, OWN], true),
        (vec![SIGNED_IN, ("origin", host)], true),
        (vec![SIGNED_IN, ("sec-fetch-site", "cross-site")], false),
        (vec![SIGNED_IN, ("sec-fetch-site", "same-site"), ("origin", host)], false),
        (vec![SIGNED_IN, ("origin", "https://evil")], false),
        (vec![SIGNED_IN], false),
    ] {
        let (response, text) = send(router.clone(), Method::POST, "/portal/members", form, &fields).await;
        assert_eq!(text.contains("https://acme/link"), good, "{fields:?}");
        assert_eq!(response.status() == 403, !good, "{fields:?}");
    }
}

#[tokio::test]
async fn a_promotion_leads_to_its_operation() {
    assert!(page("/portal/apps/shop").await.contains("Promote to test"));
    let router = bastide_portal::router(api("acme", "developer", json!([])));
    let (response, _) =
        send(router, Method::POST, "/portal/apps/shop/promote", "stage=test", &[SIGNED_IN, OWN]).await;
    assert_eq!(response.headers()["location"], "/portal/operations/7");
}

#[tokio::test]
async fn without_an_assertion_the_api_s_refusal_is_shown() {
    let router = bastide_portal::router(api("acme", "developer", json!([])));
    let (response, text) = send(router, Method::GET, "/", "", &[]).await;
    assert_eq!(response.status(), 401);
    assert!(text.contains("B-ID-0401"));
}

#[tokio::test]
async fn names_that_are_none_never_reach_the_api() {
    let router = bastide_portal::router(api("acme", "developer", json!([])));
    for path in ["/portal/apps/..%2fwhoami", "/portal/operations/..%2f..%2fapi%2fwhoami"] {
        let (response, _) = send(router.clone(), Method::GET, path, "", &[SIGNED_IN]).await;
        assert_eq!(response.status(), 404, "{path}");
    }
}
