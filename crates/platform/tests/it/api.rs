//! The API as a whole: every route refuses the anonymous and the foreign.

use axum::body::Body;
use bastide_identity::{SigningKey, mint_assertion};
use bastide_platform::{App, Config, Platform, api::description, router};
use bastide_types::{
    CustomerId, CustomerName, Domains, RequestId,
    assertion::{Assertion, ISSUER, PLATFORM_AUDIENCE},
    header,
    node::Isolation,
};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use std::{fs, path::Path};
use tower::ServiceExt;

/// Id of every request here.
const REQUEST: &str = "01a20de4-d54c-7659-9f5b-f4ec6569bb31";

/// A replica without broker and gateways, and the key of its gateways.
pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) app: App,
    gateway: SigningKey,
}

async fn world() -> World {
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
        database: at("db"),
        kek_file: at("kek"),
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
        custom_domains: bastide_platform::config::CustomDomains::default(),
    };
    change(&mut config);
    let app = Platform::open(config).await.unwrap();
    World { dir, app, gateway }
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

    pub(crate) fn assertion(&self, org: CustomerId, roles: &[&str]) -> String {
        let now = u64::try_from(bastide_store::now_s()).unwrap();
        let assertion = Assertion {
            iss: ISSUER.into(),
            aud: PLATFORM_AUDIENCE.into(),
            sub: "somebody".into(),
            name: "Somebody".into(),
            org,
            org_name: "x".into(),
            stage: None,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            sid: "s".into(),
            request: RequestId::generate(),
            iat: now,
            exp: now + 60,
        };
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
        let mut request =
            Request::builder().method(method).uri(path).header("host", format!("{host}.platform.localhost"));
        request = request.header("content-type", "application/json");
        if let Some(assertion) = assertion {
            request = request.header(header::ASSERTION, assertion);
        }
        let request = request.header(header::REQUEST_ID, REQUEST).body(body.into()).unwrap();
        let response = router(self.app.clone(), |_| axum::Router::new()).oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[tokio::test]
async fn every_route_refuses_the_anonymous_and_the_foreign_customer() {
    let world = world().await;
    world.customer("acme").await;
    let foreign = world.assertion(world.customer("beta").await, &["administrator", "developer", "operator"]);
    let mut walked = 0;
    for (path, item) in &description().paths.paths {
        let operations = [
            (Method::GET, item.get.is_some()),
            (Method::POST, item.post.is_some()),
            (Method::PUT, item.put.is_some()),
            (Method::DELETE, item.delete.is_some()),
        ];
        let path = path.replace("{app}", "shop").replace("{id}", "01a20de4-d54c-7659-9f5b-f4ec6569bb31");
        for (method, _) in operations.into_iter().filter(|(_, there)| *there) {
            for assertion in [None, Some(foreign.as_str()), Some("junk")] {
                let (status, body) = world.call("acme", method.clone(), &path, assertion, "{}").await;
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path} {assertion:?}: {body}");
                assert!(body.contains("B-ID-0401"), "{method} {path}: {body}");
            }
            walked += 1;
        }
    }
    assert!(walked >= 10, "{walked}");
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
    check(Method::GET, "/api/nothing", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/apps/none", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/operations/junk", "", 404, "B-API-0404").await;
    check(Method::POST, "/api/apps/shop/deployments", "{", 422, "B-API-0422").await;
    check(Method::POST, "/api/apps/shop/deployments", r#"{"stage":"test"}"#, 404, "B-API-0404").await;
    check(Method::POST, "/api/members", r#"{"email":"x","roles":["developer"]}"#, 403, "B-ID-0403").await;
    check(Method::DELETE, "/api/apps", "", 405, "B-API-0405").await;
    check(Method::GET, "/api", "", 404, "B-API-0404").await;
    check(Method::GET, "/elsewhere", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/apps/%ff", "", 404, "B-API-0404").await;
    check(Method::GET, "/api/apps/none", "", 404, REQUEST).await;
    let long = format!(r#"{{"stage":"{}"}}"#, "x".repeat(300_000));
    check(Method::POST, "/api/apps/shop/deployments", &long, 422, "B-API-0422").await;
    // Customers are the operator's business; to others the address does not exist.
    check(Method::GET, "/api/customers", "", 404, "B-API-0404").await;
    let nobody = world.assertion(acme, &[]);
    let (status, _) = world.call("acme", Method::POST, "/api/apps/shop/publish", Some(&nobody), "").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
}

#[test]
fn the_description_of_the_api_does_not_change_unseen() {
    let mut paths: Vec<String> = Vec::new();
    for (path, item) in &description().paths.paths {
        for (method, there) in
            [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)]
        {
            if there.is_some() {
                paths.push(format!("{method} {path}"));
            }
        }
    }
    paths.sort();
    insta::assert_snapshot!(paths.join("\n"), @r"
    DELETE /api/clients/{client}
    DELETE /api/clients/{client}/secrets/{secret}
    DELETE /api/domains/{domain}/claim
    DELETE /api/locks/{label}/lock
    DELETE /api/stages/{stage}/site
    DELETE /api/stages/{stage}/site/pages/{page}
    GET /api/apps
    GET /api/apps/{app}
    GET /api/apps/{app}/egress
    GET /api/apps/{app}/roles
    GET /api/apps/{app}/services
    GET /api/cache/figures
    GET /api/clients
    GET /api/clients/{client}
    GET /api/customers
    GET /api/customers/{customer}/quota
    GET /api/domains
    GET /api/locks
    GET /api/members
    GET /api/operations/{id}
    GET /api/runtime
    GET /api/stages/{stage}/network
    GET /api/stages/{stage}/site
    GET /api/stages/{stage}/site/pages/{page}
    GET /api/waf/policy
    GET /api/whoami
    POST /api/apps/{app}/deployments
    POST /api/apps/{app}/publish
    POST /api/apps/{app}/services/postgres/rotate
    POST /api/cache/purges
    POST /api/cache/why
    POST /api/clients
    POST /api/clients/{client}/secrets
    POST /api/customers
    POST /api/domains
    POST /api/domains/{domain}/verify
    POST /api/members
    PUT /api/apps/{app}/roles
    PUT /api/apps/{app}/scale
    PUT /api/clients/{client}/suspension
    PUT /api/customers/{customer}/quota
    PUT /api/domains/{domain}/certificate
    PUT /api/stages/{stage}/default-domain
    PUT /api/stages/{stage}/network
    PUT /api/stages/{stage}/site/fields
    PUT /api/stages/{stage}/site/maintenance
    PUT /api/stages/{stage}/site/pages/{page}
    PUT /api/stages/{stage}/site/redirects
    PUT /api/waf/policy
    ");
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).exists());
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
        (Method::GET, "/api/clients", ""),
        (Method::POST, "/api/clients", new),
        (Method::GET, "/api/clients/web", ""),
        (Method::DELETE, "/api/clients/web", ""),
        (Method::PUT, "/api/clients/web/suspension", r#"{"suspended":true}"#),
        (Method::POST, "/api/clients/web/secrets", "{}"),
        (Method::DELETE, "/api/clients/web/secrets/x", ""),
    ] {
        assert_eq!(call("developer", method.clone(), path, body).await.0, 403, "{method} {path}");
    }
    let admin =
        async |method: Method, path: &str, body: &str| call("administrator", method, path, body).await;
    let (status, made) = admin(Method::POST, "/api/clients", new).await;
    assert_eq!((status, made["secret"].as_str().map(str::len)), (201, Some(43)));
    assert_eq!(admin(Method::POST, "/api/clients", new).await.0, 409);
    let own = world.app.store.customer(acme);
    let good = async |secret: &serde_json::Value| {
        let hash = bastide_identity::opaque::hash(secret.as_str().unwrap());
        own.client("web", &hash).await.unwrap().is_some()
    };
    let (_, second) = admin(Method::POST, "/api/clients/web/secrets", r#"{"days":30}"#).await;
    assert!(good(&made["secret"]).await && good(&second["secret"]).await, "two overlap");
    assert_eq!(admin(Method::POST, "/api/clients/web/secrets", "{}").await.0, 409, "not three");
    let (_, shown) = admin(Method::GET, "/api/clients/web", "").await;
    let (_, listed) = admin(Method::GET, "/api/clients", "").await;
    for text in [shown.to_string(), listed.to_string()] {
        assert!(text.contains("https://a.example/cb") && !text.contains("\"secret\":"), "{text}");
        assert!(!text.contains(second["secret"].as_str().unwrap()));
    }
    let secrets = shown["secrets"].as_array().unwrap();
    let first = secrets.iter().find(|secret| secret["id"] != second["id"]).unwrap()["id"].as_str().unwrap();
    assert_eq!(admin(Method::DELETE, &format!("/api/clients/web/secrets/{first}"), "").await.0, 204);
    assert!(!good(&made["secret"]).await && good(&second["secret"]).await);
    let suspend = async |to: &str| admin(Method::PUT, "/api/clients/web/suspension", to).await.0;
    assert_eq!(suspend(r#"{"suspended":true}"#).await, 204);
    assert!(!good(&second["secret"]).await, "suspended at once");
    assert_eq!(suspend(r#"{"suspended":false}"#).await, 204);
    assert!(good(&second["secret"]).await);
    assert_eq!(admin(Method::DELETE, "/api/clients/web", "").await.0, 204);
    for (method, path) in [(Method::GET, "/api/clients/web"), (Method::DELETE, "/api/clients/web")] {
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
            world.call("acme", Method::POST, "/api/clients", Some(&admin), body.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {text}");
    }
}
