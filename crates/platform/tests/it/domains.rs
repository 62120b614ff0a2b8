//! Custom domains through the API, with a name server of our own.

use crate::{
    api::{World, world_of},
    road::Road,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_platform::domains::pass;
use bastide_store::now_s;
use bastide_testkit::Dns;
use bastide_tls::{LocalCa, SealingKey};
use bastide_types::{CustomerName, DomainName};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::{fs, net::Ipv4Addr};
use time::OffsetDateTime;

const NAME: &str = "apps.example.com";
/// Where all names below `.localhost` lead (RFC 6761).
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

struct Scene {
    road: Road,
    dns: Dns,
    edge: SealingKey,
}

impl Scene {
    async fn new() -> Self {
        let (dns, edge) = (Dns::start(), SealingKey::generate().unwrap());
        let keys = tempfile::NamedTempFile::new().unwrap();
        fs::write(keys.path(), edge.public().as_bytes()).unwrap();
        let world = world_of(|config| {
            config.custom_domains.name_servers = vec![dns.address()];
            config.custom_domains.edge_key_files = vec![keys.path().to_owned()];
            config.custom_domains.domains_max = 3;
        })
        .await;
        Self { road: Road::in_world(world).await, dns, edge }
    }

    fn world(&self) -> &World {
        &self.road.world
    }

    async fn as_beta(&self, method: Method, path: &str, body: String) -> (StatusCode, Value) {
        let beta = CustomerName::new("beta").unwrap();
        let beta = self.world().app.store.customer_named(&beta).await.unwrap().unwrap();
        let assertion = self.world().assertion(beta.id, &["developer"]);
        let (status, text) = self.world().call("beta", method, path, Some(&assertion), body).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn add(&self, domain: &str) -> (StatusCode, Value) {
        let body = json!({ "domain": domain, "stage": "production" }).to_string();
        self.road.call(Method::POST, "/api/v1/domains", body).await
    }

    async fn verify(&self) -> (StatusCode, Value) {
        self.road.call(Method::POST, &format!("/api/v1/domains/{NAME}/verify"), "").await
    }

    async fn remove(&self) -> StatusCode {
        let path = format!("/api/v1/domains/{NAME}/claim");
        let acme = self.acme().await;
        let assertion = self.world().assertion(acme, &["developer"]);
        self.world().call("acme", Method::DELETE, &path, Some(&assertion), "").await.0
    }

    async fn acme(&self) -> bastide_types::CustomerId {
        let acme = CustomerName::new("acme").unwrap();
        self.world().app.store.customer_named(&acme).await.unwrap().unwrap().id
    }

    async fn shown(&self) -> Value {
        let (_, all) = self.road.call(Method::GET, "/api/v1/domains", "").await;
        all[0].clone()
    }

    /// Writes the record that the API asks for.
    fn write_record(&self, shown: &Value) {
        let record = &shown["record"];
        self.dns
            .set_texts(record["name"].as_str().unwrap(), &["v=spf1 -all", record["value"].as_str().unwrap()]);
    }

    /// Time passes: what was looked at is due, and was missing for that much longer.
    async fn later(&self, seconds: i64) {
        let own = self.world().app.store.customer(self.acme().await);
        let name = DomainName::new(NAME).unwrap();
        let row = own.domain(&name).await.unwrap().unwrap();
        let mut write = self.world().app.store.write().await.unwrap();
        let check = bastide_store::DomainCheck {
            missing_since: row.missing_since.map(|since| since - seconds),
            leads_here: row.leads_here,
            check_at: now_s(),
            problem: None,
        };
        own.note_domain_check(&mut write, &name, &check).await.unwrap();
        write.commit().await.unwrap();
        pass(&self.world().app, &mut now_s()).await.unwrap();
    }

    async fn proven(&self) {
        let (status, made) = self.add(NAME).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        self.write_record(&made);
        let (status, shown) = self.verify().await;
        assert_eq!(status, StatusCode::OK, "{shown}");
    }

    async fn audited(&self) -> Vec<String> {
        let own = self.world().app.store.customer(self.acme().await);
        let done = own.audit_trail(50).await.unwrap().into_iter().filter(|row| row.outcome == "done");
        done.map(|row| row.what).collect()
    }
}

#[tokio::test]
async fn a_domain_is_proven_by_its_record_and_then_the_data_plane_knows_it() {
    let scene = Scene::new().await;
    let (status, made) = scene.add("Apps.Example.COM").await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["domain"], NAME);
    assert_eq!(made["record"]["name"], "_bastide.apps.example.com");
    assert_eq!(made["target"], "acme.apps.localhost");
    assert_eq!(made["state"], "pending-validation");
    assert!(scene.road.snapshot().await.hosts.is_empty());
    let (status, problem) = scene.verify().await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("B-DOM-0403")));
    let (status, _) = scene.verify().await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "not again at once");
    scene.write_record(&made);
    scene.later(0).await;
    assert_eq!(scene.shown().await["state"], "pending-certificate");
    let snapshot = scene.road.snapshot().await;
    let host = &snapshot.hosts[NAME];
    assert_eq!((host.customer.as_str(), host.stage.as_str()), ("acme", "production"));
    assert!(scene.audited().await.starts_with(&["domain.validated".to_owned(), "domain.added".to_owned()]));
    assert_eq!(scene.remove().await, StatusCode::NO_CONTENT);
    assert!(scene.road.snapshot().await.hosts.is_empty());
}

#[tokio::test]
async fn claims_stand_side_by_side_until_one_is_proven() {
    let scene = Scene::new().await;
    scene.add(NAME).await;
    let new = json!({ "domain": NAME, "stage": "test" }).to_string();
    let (status, theirs) = scene.as_beta(Method::POST, "/api/v1/domains", new).await;
    assert_eq!(status, StatusCode::CREATED, "{theirs}");
    // The record of one is none for the other.
    scene.write_record(&theirs);
    let (status, problem) = scene.verify().await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("B-DOM-0403")));
    let path = format!("/api/v1/domains/{NAME}/verify");
    let (status, shown) = scene.as_beta(Method::POST, &path, String::new()).await;
    assert_eq!((status, shown["state"].as_str()), (StatusCode::OK, Some("pending-certificate")));
    // Now the DNS changes hands, but the domain is still beta's.
    let mine = scene.shown().await;
    scene.write_record(&mine);
    scene.later(0).await;
    let shown = scene.shown().await;
    assert_eq!(shown["state"], "pending-validation");
    assert_eq!(shown["problem"], "The domain belongs to somebody else.");
    // Whose record is gone loses it after a while, and then it is ours.
    let beta = scene.world().app.store.domain_owner(&DomainName::new(NAME).unwrap()).await.unwrap().unwrap();
    let own = scene.world().app.store.customer(beta.customer);
    let mut write = scene.world().app.store.write().await.unwrap();
    let check = bastide_store::DomainCheck {
        missing_since: Some(now_s() - 2 * 86_400),
        leads_here: false,
        check_at: now_s(),
        problem: None,
    };
    own.note_domain_check(&mut write, &beta.name, &check).await.unwrap();
    write.commit().await.unwrap();
    scene.later(0).await;
    scene.later(0).await;
    assert_eq!(scene.shown().await["state"], "pending-certificate");
    let (_, theirs) = scene.as_beta(Method::GET, "/api/v1/domains", String::new()).await;
    assert_eq!(theirs[0]["state"], "failed");
}

#[tokio::test]
async fn a_record_that_stays_away_ends_the_ownership_but_a_dns_that_fails_does_not() {
    let scene = Scene::new().await;
    scene.proven().await;
    scene.dns.set_failing(true);
    scene.later(0).await;
    scene.later(30 * 86_400).await;
    let shown = scene.shown().await;
    assert_eq!(shown["state"], "pending-certificate", "{shown}");
    assert!(shown["problem"].as_str().unwrap().contains("no answer"), "{shown}");
    scene.dns.set_failing(false);
    let record = shown["record"]["name"].as_str().unwrap();
    scene.dns.set_texts(record, &[]);
    scene.later(0).await;
    scene.later(86_400).await;
    assert_eq!(scene.shown().await["state"], "pending-certificate", "there is a grace");
    scene.write_record(&shown);
    scene.later(86_400).await;
    scene.dns.set_texts(record, &["bastide=something-else"]);
    scene.later(86_400).await;
    assert_eq!(scene.shown().await["state"], "pending-certificate", "the grace begins anew");
    scene.later(2 * 86_400).await;
    assert_eq!(scene.shown().await["state"], "failed");
    assert!(scene.road.snapshot().await.hosts.is_empty());
    assert!(scene.audited().await.contains(&"domain.lost".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_a_custom_domain_is_refused() {
    let scene = Scene::new().await;
    for domain in [
        "*.example.com",
        "acme.apps.localhost",
        "apps.localhost",
        "localhost",
        "192.0.2.1",
        "a_b.example.com",
        "com",
        "",
    ] {
        let (status, problem) = scene.add(domain).await;
        let refused = (status, problem["code"].as_str());
        assert_eq!(refused, (StatusCode::UNPROCESSABLE_ENTITY, Some("B-DOM-0422")), "{domain}");
    }
    let body = json!({ "domain": NAME, "stage": "nowhere" }).to_string();
    assert_eq!(scene.road.call(Method::POST, "/api/v1/domains", body).await.0, StatusCode::NOT_FOUND);
    for host in ["a.example.com", "b.example.com", "c.example.com"] {
        assert_eq!(scene.add(host).await.0, StatusCode::CREATED);
    }
    let (status, problem) = scene.add("d.example.com").await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::TOO_MANY_REQUESTS, Some("B-DOM-0429")));
}

#[tokio::test]
async fn an_uploaded_certificate_reaches_the_edge_sealed() {
    let scene = Scene::new().await;
    let ca = LocalCa::create_public(&["example.com".into()], OffsetDateTime::now_utc()).unwrap();
    let issue = |name: &str| ca.issue_site(&[name.into()], OffsetDateTime::now_utc()).unwrap();
    let (good, foreign) = (issue(NAME), issue("other.example.com"));
    let put = async |chain: &str, key: &str| {
        let body = json!({ "chain": chain, "key": key }).to_string();
        scene.road.call(Method::PUT, &format!("/api/v1/domains/{NAME}/certificate"), body).await
    };
    assert_eq!(put(&good.certificate_pem, good.key_pem.expose()).await.0, StatusCode::NOT_FOUND);
    let (_, made) = scene.add(NAME).await;
    let (status, problem) = put(&good.certificate_pem, good.key_pem.expose()).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("B-DOM-0403")));
    scene.write_record(&made);
    scene.later(0).await;
    let (status, problem) = put(&foreign.certificate_pem, foreign.key_pem.expose()).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::UNPROCESSABLE_ENTITY, Some("B-DOM-0423")));
    assert!(problem["detail"].as_str().unwrap().contains("other.example.com"), "{problem}");
    assert_eq!(
        put(&good.certificate_pem, foreign.key_pem.expose()).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let (status, shown) = put(&good.certificate_pem, good.key_pem.expose()).await;
    assert_eq!((status, shown["certificate"].as_str()), (StatusCode::OK, Some("uploaded")), "{shown}");
    pass(&scene.world().app, &mut now_s()).await.unwrap();
    let snapshot = scene.road.snapshot().await;
    let certificate = snapshot.hosts[NAME].certificate.as_ref().unwrap();
    assert_eq!(certificate.chain, good.certificate_pem);
    let text = serde_json::to_string(&snapshot).unwrap();
    assert!(!text.contains("PRIVATE"), "no key is readable on the way");
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(&certificate.keys[&scene.edge.public().id()]).unwrap();
    assert_eq!(scene.edge.open(NAME, &sealed).unwrap().expose(), good.key_pem.expose());
    // It leads elsewhere, then here.
    scene.dns.set_address(NAME, ELSEWHERE);
    scene.later(0).await;
    assert_eq!(scene.shown().await["state"], "issued");
    scene.dns.set_address(NAME, HERE);
    scene.later(0).await;
    assert_eq!(scene.shown().await["state"], "active");
}

#[tokio::test]
async fn a_stage_shows_its_addresses_with_its_default_domain() {
    let scene = Scene::new().await;
    scene.proven().await;
    let choose = async |stage: &str, domain: Value| {
        let path = format!("/api/v1/stages/{stage}/default-domain");
        let assertion = scene.world().assertion(scene.acme().await, &["developer"]);
        let body = json!({ "domain": domain }).to_string();
        scene.world().call("acme", Method::PUT, &path, Some(&assertion), body).await.0
    };
    assert_eq!(choose("test", json!(NAME)).await, StatusCode::NOT_FOUND, "it is another stage's");
    assert_eq!(choose("production", json!("x.example.com")).await, StatusCode::NOT_FOUND);
    assert_eq!(choose("production", json!(NAME)).await, StatusCode::NO_CONTENT);
    assert_eq!(scene.shown().await["default"], true);
    assert_eq!(choose("production", Value::Null).await, StatusCode::NO_CONTENT);
    assert_eq!(scene.shown().await["default"], false);
}

#[tokio::test]
async fn only_the_operator_lifts_the_lock_of_a_domain_that_was_given_up() {
    let scene = Scene::new().await;
    scene.proven().await;
    assert_eq!(scene.remove().await, StatusCode::NO_CONTENT);
    let new = json!({ "domain": NAME, "stage": "test" }).to_string();
    let (_, theirs) = scene.as_beta(Method::POST, "/api/v1/domains", new).await;
    scene.write_record(&theirs);
    let path = format!("/api/v1/domains/{NAME}/verify");
    let (status, problem) = scene.as_beta(Method::POST, &path, String::new()).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::CONFLICT, Some("B-DOM-0409")));
    let lock = format!("/api/v1/locks/{NAME}/lock");
    assert_eq!(scene.as_beta(Method::DELETE, &lock, String::new()).await.0, StatusCode::NOT_FOUND);
    let operator = scene.world().app.store.customer_named(&CustomerName::operator()).await.unwrap().unwrap();
    let operator = scene.world().assertion(operator.id, &["operator"]);
    let (_, locks) = scene.world().call("operator", Method::GET, "/api/v1/locks", Some(&operator), "").await;
    assert!(locks.contains(NAME), "{locks}");
    let (status, _) = scene.world().call("operator", Method::DELETE, &lock, Some(&operator), "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    // The next look finds it.
    let (name, beta) = (DomainName::new(NAME).unwrap(), CustomerName::new("beta").unwrap());
    let store = &scene.world().app.store;
    let beta = store.customer_named(&beta).await.unwrap().unwrap().id;
    let mut write = store.write().await.unwrap();
    store.customer(beta).hurry_domain(&mut write, &name).await.unwrap();
    write.commit().await.unwrap();
    pass(&scene.world().app, &mut now_s()).await.unwrap();
    assert_eq!(store.domain_owner(&name).await.unwrap().unwrap().customer, beta);
}
