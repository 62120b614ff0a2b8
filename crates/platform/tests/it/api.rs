//! The API as a whole: its description and its answers.

use axum::body::Body;
use bastide_identity::{SigningKey, mint_assertion};
use bastide_platform::{App, Config, Platform, api::description, config::Database, router};
use bastide_store::NewStage;
use bastide_types::{
    CustomerId, CustomerName, Domains, RequestId, StageName,
    assertion::{Assertion, ISSUER, PLATFORM_AUDIENCE},
    header,
    node::Isolation,
};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use std::{
    fs,
    num::{NonZeroU16, NonZeroU32},
    sync::OnceLock,
};
use tower::ServiceExt;

/// Id of every request here.
const REQUEST: &str = "01a20de4-d54c-7659-9f5b-f4ec6569bb31";

/// A replica without broker and gateways, and the key of its gateways.
pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) app: App,
    gateway: SigningKey,
    router: OnceLock<axum::Router>,
}

pub(crate) async fn world() -> World {
    world_with(60).await
}

/// A world in which deployments may take so many seconds.
pub(crate) async fn world_with(deploy_timeout_s: u32) -> World {
    world_of(|config| config.deploy_timeout_s = deploy_timeout_s).await
}

/// A world of another configuration.
pub(crate) async fn world_of(change: impl FnOnce(&mut Config)) -> World {
    let _ = rustls_provider();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let now = 1_790_000_000;
    let material = bastide_bus::bootstrap::generate(now).unwrap();
    for (name, bytes) in &material.files {
        fs::write(at(name), bytes).unwrap();
    }
    let creds = material.issuers.creds(bastide_types::Role::Platform, "platform-1", now).unwrap();
    for (name, text) in &creds {
        fs::write(at(name), text.expose()).unwrap();
    }
    let ca = bastide_tls::LocalCa::create_internal(time::OffsetDateTime::now_utc()).unwrap();
    ca.write(&at("ca.pem"), &at("ca.key")).unwrap();
    let gateway = SigningKey::generate().unwrap();
    let public = gateway.verifying_key();
    let jwks = serde_json::json!({ "keys": [{ "kid": public.kid, "x": public.x }] });
    fs::write(at("assertion.jwks"), jwks.to_string()).unwrap();
    fs::write(at("kek"), [7; 32]).unwrap();
    fs::write(at("operator"), "secret").unwrap();
    for key in ["snapshot.key", "deploy.key"] {
        fs::write(at(key), bastide_bus::SigningKey::generate().unwrap()).unwrap();
    }
    let bus = |creds: &str| bastide_bus::Config {
        url: "tls://127.0.0.1:1".into(),
        ca_file: at("ca.pem"),
        creds_file: Some(at(creds)),
        jwt: None,
        seed_file: None,
        name: "platform-1".into(),
    };
    let mut config = Config {
        name: "platform-1".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        node: bastide_tls::NodeTls { ca_file: at("ca.pem"), cert_file: at("x"), key_file: at("x") },
        database: Database::File(at("db")),
        kek_file: at("kek"),
        kek_command: Vec::new(),
        images: at("images"),
        work_dir: at("work"),
        domains: Domains::default(),
        zones: vec!["a".parse().unwrap(), "b".parse().unwrap()],
        bus: bus("platform-1.creds"),
        bus_system: bus("platform-1.sys.creds"),
        bus_authority_file: at("authority.json"),
        snapshot_key_file: at("snapshot.key"),
        deploy_key_file: at("deploy.key"),
        assertion_jwks_file: at("assertion.jwks"),
        operator_client_file: at("operator"),
        isolation: Isolation::Kernel,
        egress_addresses: Vec::new(),
        waf: bastide_types::WafPolicy::default(),
        deploy_timeout_s: 60,
        postgres: None,
        replicas_per_customer: 200,
        registries: Vec::new(),
        breached_passwords_file: None,
        mail: None,
        outbound: Vec::new(),
        custom_domains: bastide_platform::config::CustomDomains::default(),
        key_days: NonZeroU16::new(30).unwrap(),
        api_limits: bastide_platform::wire::pace::Limits {
            requests_per_service: NonZeroU32::MAX,
            deployments: NonZeroU32::MAX,
        },
        audit_days: NonZeroU16::new(400).unwrap(),
        operation_days: NonZeroU16::new(90).unwrap(),
        revision_days: NonZeroU16::new(90).unwrap(),
    };
    change(&mut config);
    let app = Platform::open(config).await.unwrap();
    World { dir, app, gateway, router: OnceLock::new() }
}

fn rustls_provider() -> bool {
    rustls::crypto::aws_lc_rs::default_provider().install_default().is_ok()
}

impl World {
    /// A file of its data.
    pub(crate) fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn customer(&self, name: &str) -> CustomerId {
        let (id, name) = (CustomerId::generate(), CustomerName::new(name).unwrap());
        let mut write = self.app.store.write().await.unwrap();
        self.app.store.create_customer(&mut write, id, &name).await.unwrap();
        write.commit().await.unwrap();
        id
    }

    /// A customer with the stages that customers begin with, which no broker knows.
    pub(crate) async fn customer_with_stages(&self, name: &str) -> CustomerId {
        let id = self.customer(name).await;
        let mut write = self.app.store.write().await.unwrap();
        for stage in StageName::defaults() {
            let (account, seed) = (format!("{name}-{stage}"), bastide_types::Secret::new("seed"));
            let new = NewStage { name: &stage, account: &account, seed: &seed };
            self.app.store.customer(id).create_stage(&mut write, &new).await.unwrap();
        }
        write.commit().await.unwrap();
        id
    }

    pub(crate) fn assertion(&self, org: CustomerId, roles: &[&str]) -> String {
        self.assertion_of("somebody", org, roles)
    }

    pub(crate) fn assertion_of(&self, sub: &str, org: CustomerId, roles: &[&str]) -> String {
        self.assertion_with(sub, org, roles, |_| {})
    }

    pub(crate) fn assertion_with(
        &self,
        sub: &str,
        org: CustomerId,
        roles: &[&str],
        change: impl FnOnce(&mut Assertion),
    ) -> String {
        let now = u64::try_from(bastide_store::now_s()).unwrap();
        let mut assertion = Assertion {
            iss: ISSUER.into(),
            aud: PLATFORM_AUDIENCE.into(),
            sub: sub.into(),
            name: "Somebody".into(),
            org,
            org_name: "x".into(),
            stage: None,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            sid: "s".into(),
            acr: bastide_types::Acr::Password,
            auth_time: now,
            request: RequestId::generate(),
            iat: now,
            exp: now + 60,
        };
        change(&mut assertion);
        mint_assertion(&self.gateway, &assertion).unwrap()
    }

    pub(crate) async fn call(
        &self,
        host: &str,
        method: Method,
        path: &str,
        assertion: Option<&str>,
        body: impl Into<Body>,
    ) -> (StatusCode, String) {
        let response = self.answer(host, method, path, assertion, body).await;
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> StatusCode {
        router(self.app.clone(), |_| axum::Router::new()).oneshot(request).await.unwrap().status()
    }

    pub(crate) async fn answer(
        &self,
        host: &str,
        method: Method,
        path: &str,
        assertion: Option<&str>,
        body: impl Into<Body>,
    ) -> http::Response<Body> {
        self.answer_with(host, method, path, assertion, &[], body).await
    }

    pub(crate) async fn answer_with(
        &self,
        host: &str,
        method: Method,
        path: &str,
        assertion: Option<&str>,
        fields: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> http::Response<Body> {
        let body = axum::body::to_bytes(body.into(), usize::MAX).await.unwrap();
        let mut request =
            Request::builder().method(method).uri(path).header("host", format!("{host}.platform.localhost"));
        request = request.header("content-type", "application/json");
        if let Some(assertion) = assertion {
            request = request.header(header::ASSERTION, assertion);
        }
        for (name, value) in fields {
            request = request.header(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        // As HTTP does it for a body of known length.
        request = request.header("content-length", body.len());
        let request = request.header(header::REQUEST_ID, REQUEST).body(Body::from(body)).unwrap();
        let made = || router(self.app.clone(), |_| axum::Router::new());
        self.router.get_or_init(made).clone().oneshot(request).await.unwrap()
    }
}

#[tokio::test]
async fn an_invitation_is_good_for_seven_days() {
    let world = world().await;
    let acme = world.customer("acme").await;
    let administrator = world.assertion(acme, &["administrator"]);
    let body = r#"{"email":"bob@example.com","roles":["developer"]}"#;
    let before = bastide_store::now_s();
    let (status, text) =
        world.call("acme", Method::POST, "/api/v1/members", Some(&administrator), body).await;
    let after = bastide_store::now_s();
    assert_eq!(status, StatusCode::CREATED, "{text}");
    let made: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (_, token) = made["link"].as_str().unwrap().rsplit_once('/').unwrap();
    let hash = bastide_identity::opaque::hash(token);
    let (_, until) = world.app.store.customer(acme).invitation(&hash).await.unwrap().unwrap();
    assert!((before..=after).contains(&(until - 7 * 24 * 3600)), "{until}");
}

#[tokio::test]
async fn answers_are_problems_with_stable_codes() {
    let world = world().await;
    let acme = world.customer("acme").await;
    let developer = world.assertion(acme, &["developer"]);
    let check = async |method, path: &str, body: &str, status: u16, code: &str| {
        let (found, text) = world.call("acme", method, path, Some(&developer), body.to_owned()).await;
        assert_eq!((found.as_u16(), text.contains(code)), (status, true), "{path}: {text}");
    };
    check(Method::GET, "/api/v1/nothing", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/v1/apps/none", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/v1/operations/junk", "", 404, "B-API-0404").await;
    check(Method::POST, "/api/v1/apps/shop/deployments", "{", 422, "B-API-0422").await;
    check(Method::POST, "/api/v1/apps/shop/deployments", r#"{"stage":"test"}"#, 404, "B-API-0404").await;
    check(Method::POST, "/api/v1/members", r#"{"email":"x","roles":["developer"]}"#, 403, "B-ID-0403").await;
    check(Method::DELETE, "/api/v1/apps", "", 405, "B-API-0405").await;
    check(Method::GET, "/api", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/apps", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/v2/apps", "", 404, "B-API-0404").await;
    check(Method::GET, "/elsewhere", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/v1/apps/%ff", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/v1/apps/none", "", 404, REQUEST).await;
    let long = format!(r#"{{"stage":"{}"}}"#, "x".repeat(300_000));
    check(Method::POST, "/api/v1/apps/shop/deployments", &long, 422, "B-API-0422").await;
    // Customers are the operator's business; to others the address does not exist.
    check(Method::GET, "/api/v1/customers", "", 404, "B-API-0404").await;
    let nobody = world.assertion(acme, &[]);
    let (status, _) = world.call("acme", Method::POST, "/api/v1/apps/shop/publish", Some(&nobody), "").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[test]
fn the_description_of_the_api_does_not_change_unseen() {
    insta::assert_snapshot!("openapi", outline(description()));
}

/// A line for each operation and for each schema: what people review when they change.
fn outline(all: &Value) -> String {
    let mut lines = vec![format!("OpenAPI {} at {}", all["openapi"], all["servers"][0]["url"])];
    for (path, item) in all["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            lines.push(format!("{} {path}", method.to_uppercase()));
            let names = |place: &str| {
                let all = operation["parameters"].as_array().into_iter().flatten();
                let named = all.filter(|one| one["in"] == place).map(|one| one["name"].as_str().unwrap());
                named.collect::<Vec<_>>().join(", ")
            };
            let limits: Vec<_> = operation["x-rate-limits"]
                .as_array()
                .unwrap()
                .iter()
                .map(|limit| format!("{} {}", limit["class"].as_str().unwrap(), limit["requests"]))
                .collect();
            lines.push(format!("  {} | {}", operation["x-permission"].as_str().unwrap(), limits.join(", ")));
            lines.push(format!("  query: {} | fields: {}", names("query"), names("header")));
            for (kind, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                lines.push(format!("  takes {kind}: {}", shape(&content["schema"])));
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let content = response["content"].as_object().into_iter().flatten();
                let shapes: Vec<_> =
                    content.map(|(kind, one)| format!("{kind}: {}", shape(&one["schema"]))).collect();
                lines.push(format!("  {status} {}", shapes.join(", ")));
            }
        }
    }
    for (name, schema) in all["components"]["schemas"].as_object().unwrap() {
        let required: Vec<_> =
            schema["required"].as_array().into_iter().flatten().map(|one| one.as_str().unwrap()).collect();
        let fields = schema["properties"].as_object().into_iter().flatten().map(|(name, one)| {
            let missing = if required.contains(&name.as_str()) { "" } else { "?" };
            format!("{name}{missing}: {}", shape(one))
        });
        let fields = fields.collect::<Vec<_>>().join(", ");
        lines.push(format!(
            "{name} = {}",
            if fields.is_empty() { shape(schema) } else { format!("{{ {fields} }}") }
        ));
    }
    lines.join("\n")
}

fn shape(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap().to_owned();
    }
    for many in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema[many].as_array() {
            return all.iter().map(shape).collect::<Vec<_>>().join(" | ");
        }
    }
    let kinds = match &schema["type"] {
        Value::String(one) => one.clone(),
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>().join(" | "),
        _ => "anything".into(),
    };
    if kinds.contains("array") {
        return kinds.replace("array", &format!("[{}]", shape(&schema["items"])));
    }
    match &schema["additionalProperties"] {
        inner @ Value::Object(_) => kinds.replace("object", &format!("{{ *: {} }}", shape(inner))),
        _ => kinds,
    }
}

#[tokio::test]
async fn only_administrators_register_clients_and_each_secret_is_shown_once() {
    let world = world().await;
    let acme = world.customer("acme").await;
    let call = async |role: &str, method: Method, path: &str, body: &str| {
        let who = world.assertion(acme, &[role]);
        let (status, text) = world.call("acme", method, path, Some(&who), body.to_owned()).await;
        (status.as_u16(), serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default())
    };
    let new = r#"{"id":"web","kind":"confidential","redirect_uris":["https://a.example/cb"]}"#;
    for (method, path, body) in [
        (Method::GET, "/api/v1/clients", ""),
        (Method::POST, "/api/v1/clients", new),
        (Method::GET, "/api/v1/clients/web", ""),
        (Method::DELETE, "/api/v1/clients/web", ""),
        (Method::PUT, "/api/v1/clients/web/suspension", r#"{"suspended":true}"#),
        (Method::POST, "/api/v1/clients/web/secrets", "{}"),
        (Method::DELETE, "/api/v1/clients/web/secrets/x", ""),
    ] {
        assert_eq!(call("developer", method.clone(), path, body).await.0, 403, "{method} {path}");
    }
    let admin =
        async |method: Method, path: &str, body: &str| call("administrator", method, path, body).await;
    let (status, made) = admin(Method::POST, "/api/v1/clients", new).await;
    assert_eq!((status, made["secret"].as_str().map(str::len)), (201, Some(43)));
    assert_eq!(admin(Method::POST, "/api/v1/clients", new).await.0, 409);
    let own = world.app.store.customer(acme);
    let good = async |secret: &serde_json::Value| {
        let hash = bastide_identity::opaque::hash(secret.as_str().unwrap());
        own.client("web", &hash).await.unwrap().is_some()
    };
    let (_, second) = admin(Method::POST, "/api/v1/clients/web/secrets", r#"{"days":30}"#).await;
    assert!(good(&made["secret"]).await && good(&second["secret"]).await, "two overlap");
    assert_eq!(admin(Method::POST, "/api/v1/clients/web/secrets", "{}").await.0, 409, "not three");
    let (_, shown) = admin(Method::GET, "/api/v1/clients/web", "").await;
    let (_, listed) = admin(Method::GET, "/api/v1/clients", "").await;
    for text in [shown.to_string(), listed.to_string()] {
        assert!(text.contains("https://a.example/cb") && !text.contains("\"secret\":"), "{text}");
        assert!(!text.contains(second["secret"].as_str().unwrap()));
    }
    let secrets = shown["secrets"].as_array().unwrap();
    let first = secrets.iter().find(|secret| secret["id"] != second["id"]).unwrap()["id"].as_str().unwrap();
    assert_eq!(admin(Method::DELETE, &format!("/api/v1/clients/web/secrets/{first}"), "").await.0, 204);
    assert!(!good(&made["secret"]).await && good(&second["secret"]).await);
    let suspend = async |to: &str| admin(Method::PUT, "/api/v1/clients/web/suspension", to).await.0;
    assert_eq!(suspend(r#"{"suspended":true}"#).await, 204);
    assert!(!good(&second["secret"]).await, "suspended at once");
    assert_eq!(suspend(r#"{"suspended":false}"#).await, 204);
    assert!(good(&second["secret"]).await);
    assert_eq!(admin(Method::DELETE, "/api/v1/clients/web", "").await.0, 204);
    for (method, path) in [(Method::GET, "/api/v1/clients/web"), (Method::DELETE, "/api/v1/clients/web")] {
        assert_eq!(admin(method, path, "").await.0, 404);
    }
    let trail = own.audit_trail(100).await.unwrap();
    for what in ["created", "secret.added", "secret.removed", "suspended", "resumed", "removed"] {
        assert!(trail.iter().any(|row| row.what == format!("client.{what}")), "{what}");
    }
}

#[tokio::test]
async fn a_client_that_could_do_harm_is_not_registered() {
    let world = world().await;
    let acme = world.customer("acme").await;
    let admin = world.assertion(acme, &["administrator"]);
    for (id, kind, redirects, roles) in [
        ("web", "confidential", r#"["http://a.example/cb"]"#, "[]"),
        ("web", "confidential", r#"["https://*.example/cb"]"#, "[]"),
        ("web", "confidential", r#"["https://a.example/cb#x"]"#, "[]"),
        ("web", "confidential", "[]", "[]"),
        ("web", "public", r#"["javascript:alert(1)"]"#, "[]"),
        ("web", "service", r#"["https://a.example/cb"]"#, "[]"),
        ("web", "device", r#"["https://a.example/cb"]"#, "[]"),
        ("web", "other", "[]", "[]"),
        ("web", "service", "[]", r#"["operator"]"#),
        ("bastide-cli", "service", "[]", "[]"),
        ("Web", "service", "[]", "[]"),
        ("a/b", "service", "[]", "[]"),
        ("", "service", "[]", "[]"),
        ("01a20de4-d54c-7659-9f5b-f4ec6569bb31", "service", "[]", "[]"),
    ] {
        let body = format!(r#"{{"id":"{id}","kind":"{kind}","redirect_uris":{redirects},"roles":{roles}}}"#);
        let (status, text) =
            world.call("acme", Method::POST, "/api/v1/clients", Some(&admin), body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {text}");
    }
}
