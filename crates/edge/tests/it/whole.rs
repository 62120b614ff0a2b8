//! A whole edge before gateways over mutual TLS. Its broker is away: it serves from what is on disk.

use crate::client::{Answer, LONG, connect, get_tls, send, trusting};
use bastide_edge::{Config, config::CertificateFile, run};
use bastide_proxy::{Body, Limits, Listener, RefusedHead, Request, Response, Service, accept_tls, serve};
use bastide_tls::{LocalCa, NodeTls};
use bastide_types::{
    AccessRule, AppId, AppName, CustomerId, CustomerName, Digest, Domains, Purges, ReplicaId, Role, Route,
    Snapshot, StageName, WafPolicy, ZoneName, header,
    message::{Reach, ReplicaFact, ReplicaFacts, ReplicaState},
    snapshot::{App, Customer, Issuer, Stage},
    waf::{Beyond, BodyLimit},
};
use http::{HeaderValue, StatusCode};
use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

pub(crate) const APPS: &str = "demo.apps.localhost";
pub(crate) const PLATFORM: &str = "demo.platform.localhost";

fn revision() -> Digest {
    Digest::from_sha256([7; 32])
}

/// Says what it got; marks answers as fit for everybody, with the revision that the path names.
struct Gateway {
    zone: &'static str,
    count: Arc<AtomicUsize>,
}

impl Service for Gateway {
    async fn call(&self, request: Request) -> Response {
        let n = self.count.fetch_add(1, Ordering::SeqCst);
        let uri = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let mut text = format!("{n} {uri}\n");
        for (name, value) in request.headers() {
            text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
        let mut response = Response::new(Body::from(text));
        let headers = response.headers_mut();
        let old = Digest::from_sha256([1; 32]);
        let mark = match uri.as_str() {
            path if path.contains("/marked") => Some(revision()),
            path if path.contains("/of-another-revision") => Some(old),
            _ => None,
        };
        if let Some(mark) = mark {
            headers.insert(header::CACHEABLE, HeaderValue::from_str(&mark.to_string()).unwrap());
        }
        headers.insert("cache-control", HeaderValue::from_static("public, max-age=60"));
        if uri.contains("/framed") {
            headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
        }
        if uri.contains("/refused") {
            headers.insert(header::REFUSAL, HeaderValue::from_static("B-GW-0503"));
            headers.insert("retry-after", HeaderValue::from_static("1"));
        }
        if uri.contains("/refused") || uri.contains("/failing") {
            headers.remove("cache-control");
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = response.headers_mut();
        headers.insert("server", HeaderValue::from_static("secret/1.0"));
        headers.insert(header::ZONE, HeaderValue::from_static(self.zone));
        response
    }
    async fn refuse(&self, head: RefusedHead) -> Response {
        panic!("the edge sends only valid requests: {:?}", head.reason)
    }
}

/// Everything that stands, until dropped.
pub(crate) struct World {
    dir: tempfile::TempDir,
    public: LocalCa,
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) trust: Arc<rustls::ClientConfig>,
    count: Arc<AtomicUsize>,
    stop: CancellationToken,
    edge: Option<JoinHandle<()>>,
    gateways: Option<tokio::runtime::Runtime>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(edge) = self.edge.take() {
            let _ = edge.join();
        }
        if let Some(gateways) = self.gateways.take() {
            gateways.shutdown_background();
        }
    }
}

fn issuer() -> Issuer {
    Issuer { url: String::new(), keys: vec![], token_epoch: 0 }
}

/// One customer with the app `shop` in Production: one replica in each zone.
pub(crate) fn snapshot() -> Snapshot {
    let route = |path: &str, access| Route { path: path.into(), access, acr: None, max_age_s: None };
    let zone = |name: &str| ZoneName::new(name).unwrap();
    let shop = App {
        id: AppId::generate(),
        revision: revision(),
        revision_number: 1,
        routes: vec![route("/", AccessRule::Public), route("/me", AccessRule::Authenticated)],
        replicas: [(ReplicaId::generate(), zone("a")), (ReplicaId::generate(), zone("b"))].into(),
        waf: None,
        purges: Purges::default(),
    };
    let apps = BTreeMap::from([(AppName::new("shop").unwrap(), shop)]);
    let waf = Digest::from_sha256([0; 32]);
    let stage = Stage { account: "DEMO".into(), issuer: issuer(), waf, site: None, apps };
    let stages = BTreeMap::from([(StageName::production(), stage)]);
    let demo = Customer { id: CustomerId::generate(), issuer: issuer(), bans: Vec::new(), stages };
    Snapshot {
        epoch: 1,
        revision: 1,
        made_at: 0,
        domains: Domains::default(),
        customers: [(CustomerName::new("demo").unwrap(), demo)].into(),
        hosts: std::collections::BTreeMap::new(),
        waf: [(Digest::from_sha256([0; 32]), WafPolicy::default())].into(),
        kept: Vec::new(),
        schema: bastide_types::snapshot::SCHEMA,
        platform_waf: Digest::from_sha256([0; 32]),
    }
}

pub(crate) fn write(path: PathBuf, bytes: impl AsRef<[u8]>) -> PathBuf {
    std::fs::write(&path, bytes).unwrap();
    path
}

fn node(ca: &LocalCa, dir: &Path, role: Role, name: &str) -> NodeTls {
    let path = |end: &str| dir.join(format!("{name}.{end}"));
    let issued = ca.issue_role(role, name, &[], OffsetDateTime::now_utc()).unwrap();
    issued.write(&path("pem"), &path("key")).unwrap();
    NodeTls { ca_file: dir.join("ca.pem"), cert_file: path("pem"), key_file: path("key") }
}

/// An address where nobody listens now.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Starts gateways with these roles in their certificates, and the edge.
fn world(roles: [Role; 2]) -> World {
    world_with(roles, |_| {})
}

/// The same, with another configuration of the edge.
pub(crate) fn world_with(roles: [Role; 2], change: impl FnOnce(&mut Config)) -> World {
    let (dir, now) = (tempfile::tempdir().unwrap(), OffsetDateTime::now_utc());
    let at = |name: &str| dir.path().join(name);
    let ca = LocalCa::create_internal(now).unwrap();
    ca.write(&at("ca.pem"), &at("ca.key")).unwrap();
    let public = LocalCa::create_public(&["localhost".into()], now).unwrap();
    let certificates = ["apps", "platform"].map(|base| {
        let files =
            CertificateFile { cert_file: at(&format!("{base}.crt")), key_file: at(&format!("{base}.k")) };
        let issued = public.issue_site(&[format!("*.{base}.localhost")], now).unwrap();
        issued.write(&files.cert_file, &files.key_file).unwrap();
        files
    });
    let count = Arc::<AtomicUsize>::default();
    let gateways = tokio::runtime::Runtime::new().unwrap();
    let mut zones = BTreeMap::new();
    for (zone, role) in ["a", "b"].into_iter().zip(roles) {
        let tls = node(&ca, dir.path(), role, &format!("gateway-{zone}"));
        let tls = tls.server_config(&[Role::Edge], &[b"h2"]).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        zones.insert(ZoneName::new(zone).unwrap(), tcp.local_addr().unwrap());
        let listener = Listener::new(tcp, Some(accept_tls(tls)), Limits::default());
        let gateway = Arc::new(Gateway { zone, count: count.clone() });
        gateways.spawn(serve(listener, gateway, CancellationToken::new()));
    }
    let snapshot = snapshot();
    write_state(dir.path(), &snapshot);
    let made = bastide_bus::bootstrap::generate(now.unix_timestamp() as u64).unwrap().issuers;
    let creds = made.creds(Role::Edge, "edge-1", now.unix_timestamp() as u64).unwrap();
    let creds_file = write(at("edge-1.creds"), creds["edge-1.creds"].expose());
    let mut config = Config {
        https: free(),
        http: free(),
        domains: snapshot.domains.clone(),
        certificates: certificates.into(),
        sealing_key_file: None,
        takeover_socket: None,
        gateways: zones,
        node: node(&ca, dir.path(), Role::Edge, "edge-1"),
        bus: bastide_bus::Config {
            url: format!("tls://{}", free()),
            ca_file: at("ca.pem"),
            creds_file: Some(creds_file),
            jwt: None,
            seed_file: None,
            name: "edge-1".into(),
        },
        state_dir: dir.path().to_owned(),
        snapshot_key_file: at("snapshot.pub"),
        waf_rules: vec![crate::origin::rules(dir.path())],
        waf_versions: None,
        waf_status: None,
        waf_audit: None,
        access_log: Some(at("access.log")),
        body_bytes_max: 1000,
        upload_bytes_max: 4000,
        deadline_ms: 60_000,
        settings: bastide_edge::config::Settings::default(),
    };
    change(&mut config);
    let (https, http) = (config.https, config.http);
    let (stop, (sender, ready)) = (CancellationToken::new(), mpsc::channel());
    let stopping = stop.clone();
    let edge = std::thread::spawn(move || {
        run(config, Box::new(move || sender.send(()).unwrap()), stopping).unwrap();
    });
    ready.recv_timeout(LONG).unwrap();
    let trust = trusting(public.certificate_pem());
    World { dir, public, https, http, trust, count, stop, edge: Some(edge), gateways: Some(gateways) }
}

/// The last good Snapshot and facts, as an edge that ran before would have left them.
pub(crate) fn write_state(dir: &Path, snapshot: &Snapshot) {
    let key = bastide_bus::SigningKey::from_pkcs8(&bastide_bus::SigningKey::generate().unwrap()).unwrap();
    let signed = key.sign(snapshot).unwrap();
    write(dir.join("snapshot.json"), bastide_bus::snapshot::serialize(snapshot, &signed).unwrap().1);
    write(dir.join("snapshot.pub"), key.verify_key().to_base64url());
    let customer = snapshot.customers.values().next().unwrap();
    let apps = customer.stages[&StageName::production()].apps.values();
    let replicas = apps.flat_map(|app| app.replicas.keys()).map(|id| ReplicaFact {
        reach: Some(Reach::Address(([127, 0, 0, 1], 1).into())),
        ..ReplicaFact::new(*id, ReplicaState::Ready)
    });
    let facts = ReplicaFacts { boot: 1, sequence: 1, generation: 1, replicas: replicas.collect() };
    let facts = serde_json::json!({"accounts": {"DEMO": {"facts": facts, "retired": []}}});
    write(dir.join("facts.json"), facts.to_string());
}

impl World {
    pub(crate) fn get(&self, host: &str, target: &str) -> Answer {
        self.get_with(host, target, "")
    }
    pub(crate) fn get_with(&self, host: &str, target: &str, lines: &str) -> Answer {
        get_tls(self.https, &self.trust, host, host, target, lines).unwrap()
    }
    /// Requests that reached a gateway.
    pub(crate) fn passed(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
    pub(crate) fn access_log(self) -> String {
        self.log("access.log")
    }
    /// A log, whole: the edge has ended.
    fn log(mut self, name: &str) -> String {
        self.stop.cancel();
        self.edge.take().unwrap().join().unwrap();
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}

#[test]
fn it_serves_from_disk_and_alternates_between_zones() {
    let world = world([Role::Gateway; 2]);
    let zones: Vec<_> = (0..4).map(|_| world.get(APPS, "/shop/x").header(header::ZONE)).collect();
    assert_eq!(zones[..2], zones[2..]);
    assert_ne!(zones[0], zones[1]);
}

#[test]
fn every_site_gets_its_own_security_fields_and_no_names_of_ours() {
    let world = world([Role::Gateway; 2]);
    let app = world.get(APPS, "/shop/marked");
    assert_eq!(app.header("strict-transport-security"), "max-age=31536000");
    assert_eq!((app.header("server"), app.header(header::CACHEABLE)), (String::new(), String::new()));
    let platform = world.get(PLATFORM, "/api/v1/apps");
    assert_eq!(platform.header("strict-transport-security"), "max-age=31536000; includeSubDomains");
    assert!(platform.body.contains(&format!("x-request-id: {}\n", platform.header("x-request-id"))));
    for said in ["x-bastide-client-ip: 127.0.0.1\n", "x-bastide-deadline-ms: ", "x-forwarded-proto: https\n"]
    {
        assert!(platform.body.contains(said), "{said} in {}", platform.body);
    }
}

#[test]
fn nobody_outside_speaks_for_us() {
    let world = world([Role::Gateway; 2]);
    let spoofed = "X-Bastide-Client-Ip: 6.6.6.6\r\nx_bastide_client_ip: 6.6.6.6\r\nX-Bastide-User: evil\r\n";
    let answer = world.get_with(PLATFORM, "/api/v1/apps", spoofed);
    assert!(!answer.body.contains("6.6.6.6") && !answer.body.contains("evil"), "{}", answer.body);
}

#[test]
fn a_proxy_that_is_believed_says_who_the_client_is() {
    let world = world_with([Role::Gateway; 2], |config| {
        config.settings.forwarded_from = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let said = "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n";
    let answer = world.get_with(PLATFORM, "/api/v1/apps", said);
    for field in
        ["x-bastide-client-ip: 192.0.2.1\n", "x-forwarded-for: 192.0.2.1\n", "forwarded: for=192.0.2.1;"]
    {
        assert!(answer.body.contains(field), "{field} in {}", answer.body);
    }
    assert!(!answer.body.contains("6.6.6.6"), "{}", answer.body);
    assert!(world.access_log().contains("\"client\":\"192.0.2.1\""));
}

#[test]
fn an_upload_that_the_rules_wait_for_has_the_requests_time_and_no_more() {
    let world = world_with([Role::Gateway; 2], |config| config.deadline_ms = 300);
    let name = rustls::pki_types::ServerName::try_from(APPS.to_owned()).unwrap();
    let connection = rustls::ClientConnection::new(world.trust.clone(), name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, connect(world.https));
    use std::io::{Read, Write};
    write!(stream, "POST /shop/ HTTP/1.1\r\nHost: {APPS}\r\nContent-Length: 100\r\n\r\na").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
    assert_eq!(world.passed(), 0);
}

#[test]
fn only_a_gateway_may_stand_behind_it() {
    let world = world([Role::Runtime, Role::Platform]);
    assert_eq!(world.get(APPS, "/shop/").code(), "B-EDGE-0502");
    assert_eq!(world.passed(), 0);
}

#[test]
fn when_one_gateway_is_not_who_it_should_be_the_other_answers() {
    let world = world([Role::Runtime, Role::Gateway]);
    for _ in 0..4 {
        assert_eq!(world.get(APPS, "/shop/").header(header::ZONE), "b");
    }
}

#[test]
fn unknown_hosts_and_unknown_apps_are_refused_in_the_same_words() {
    let world = world([Role::Gateway; 2]);
    let refused = |host, target| {
        let answer = world.get(host, target);
        let mut problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        for own in ["request_id", "trace_id"] {
            problem.as_object_mut().unwrap().remove(own);
        }
        (answer.status, problem.to_string())
    };
    let unknown = refused("nobody.apps.localhost", "/shop/");
    assert_eq!(unknown.0, 404);
    for (host, target) in [
        (APPS, "/other/"),
        (APPS, "/"),
        (APPS, "/SHOP/"),
        ("demo--test.apps.localhost", "/shop/"),
        ("demo--production.apps.localhost", "/shop/"),
        ("nobody.platform.localhost", "/api/v1/apps"),
    ] {
        assert_eq!(refused(host, target), unknown, "{host}{target}");
    }
    assert_eq!(world.passed(), 0);
}

#[test]
fn a_host_outside_the_certificate_is_misdirected() {
    let world = world([Role::Gateway; 2]);
    let ask = |host| get_tls(world.https, &world.trust, APPS, host, "/shop/", "").unwrap();
    assert_eq!(ask(PLATFORM).code(), "B-EDGE-0421");
    assert_eq!(ask("example.com").code(), "B-EDGE-0421");
    assert_eq!(ask("demo.apps.localhost:8443").status, 200);
}

#[test]
fn an_unknown_name_gets_an_alert_and_no_certificate() {
    let world = world([Role::Gateway; 2]);
    let refused = get_tls(world.https, &world.trust, "demo.example", "demo.example", "/", "").unwrap_err();
    assert!(refused.to_string().contains("UnrecognisedName"), "{refused}");
}

#[test]
fn a_certificate_that_was_replaced_is_served_without_a_restart_and_no_request_is_lost() {
    let world = world([Role::Gateway; 2]);
    let served = || {
        let name = rustls::pki_types::ServerName::try_from(APPS).unwrap();
        // A client without memory: a session that is resumed shows the certificate it began with.
        let trust = trusting(world.public.certificate_pem());
        let mut connection = rustls::ClientConnection::new(trust, name).unwrap();
        connection.complete_io(&mut connect(world.https)).unwrap();
        connection.peer_certificates().unwrap()[0].clone()
    };
    let before = served();
    let at = |end: &str| world.dir.path().join(format!("apps.{end}"));
    let issued = world.public.issue_site(&["*.apps.localhost".into()], OffsetDateTime::now_utc()).unwrap();
    issued.write(&at("crt"), &at("k")).unwrap();
    let begun = std::time::Instant::now();
    while served() == before {
        assert!(begun.elapsed() < LONG, "the new certificate is never served");
        assert_eq!(world.get(APPS, "/shop/").status, 200);
    }
    assert_eq!(world.get(APPS, "/shop/").status, 200);
}

#[test]
fn plain_http_only_leads_to_https() {
    let world = world([Role::Gateway; 2]);
    let ask = |host| {
        send(world.http, format!("GET /shop/x?y=1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    let answer = ask(APPS);
    assert_eq!(
        (answer.status, answer.header("location").as_str()),
        (308, "https://demo.apps.localhost:8443/shop/x?y=1")
    );
    assert_eq!(send(world.http, "nonsense\r\n\r\n").status, 400);
    drop(connect(world.http));
    assert_eq!(world.passed(), 0);
}

#[test]
fn one_path_is_one_address_however_it_is_spelled() {
    let world = world([Role::Gateway; 2]);
    for target in ["/shop/b", "/shop/./b", "//shop//b", "/shop/x/../b", "/%73hop/%62", "/shop/x/%2e%2e/b"] {
        let answer = world.get(APPS, target);
        assert!(answer.body.contains(" /shop/b\n"), "{target}: {}", answer.body);
    }
    for target in ["/shop/%", "/shop/%zz", "/shop/%00", "/shop/%5c..%5c", "/shop/a%0d%0ab"] {
        assert_eq!(world.get(APPS, target).status, 400, "{target}");
    }
    for target in ["/../shop/b", "/shop/../../shop/b", "/shop/%2e%2e/%2e%2e/shop/b"] {
        assert_eq!(world.get(APPS, target).status, 400, "{target}");
    }
    assert_eq!(world.get(APPS, "/shop/%00<raw>").code(), "B-WAF-0403", "the rules see it first");
    assert_eq!(world.get(APPS, "/shop/../other/").status, 404);
    assert!(world.get(APPS, "/shop/a%2fb").body.contains(" /shop/a%2Fb\n"));
}

#[test]
fn what_the_office_allows_on_its_own_pages_opens_no_app() {
    let world = world([Role::Gateway; 2]);
    let attack = "?password=attack";
    assert_eq!(world.get(PLATFORM, &format!("/identity/login{attack}")).status, 200);
    assert_eq!(world.get(PLATFORM, "/identity/login?other=attack").status, 403);
    for path in ["/shop/", "/identity/../shop/", "/identity/%2e%2e/shop/", "/x/../identity/../shop/"] {
        assert_eq!(world.get(APPS, &format!("{path}{attack}")).status, 403, "{path}");
    }
    for path in ["/shop/..%2fidentity/", "/shop/%2fidentity/"] {
        assert_eq!(world.get(APPS, &format!("{path}{attack}")).status, 403, "{path}");
    }
    assert_eq!(world.passed(), 1);
}

#[test]
fn only_what_the_gateway_marks_for_this_revision_is_stored() {
    let world = world([Role::Gateway; 2]);
    let twice = |target: &str, lines: &str| {
        world.get_with(APPS, target, lines).body == world.get_with(APPS, target, lines).body
    };
    assert!(twice("/shop/marked", ""));
    assert!(!twice("/shop/unmarked", ""));
    assert!(!twice("/shop/of-another-revision", ""));
    assert!(!twice("/shop/me/marked", ""), "the rule of this path is not public");
    assert!(!twice("/shop/marked", "Authorization: Bearer x\r\n"));
    assert!(!twice("/shop/marked", "Cookie: a=b; __Host-bst=secret\r\n"));
    let hit = world.get(APPS, "/shop/./marked");
    assert!(hit.header("cache-status").starts_with("Bastide; hit"), "{}", hit.head);
}

#[test]
fn figures_by_app_are_served_where_the_operator_wants_them() {
    let metrics = free();
    let world = world_with([Role::Gateway; 2], |config| config.settings.metrics = Some(metrics));
    for target in ["/shop/marked", "/shop/marked", "/shop/me/marked"] {
        world.get(APPS, target);
    }
    let text = crate::client::get(metrics, "/metrics", "").body;
    for (name, count) in [("hits_total", 1), ("misses_total", 1), ("passed_total", 1), ("stores_total", 1)] {
        let line = format!(
            "\nbastide_cache_{name}{{customer=\"demo\",stage=\"production\",app=\"shop\"}} {count}\n"
        );
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    assert!(text.contains("\nbastide_cache_held_addresses 1\n"), "{text}");
    assert_eq!(crate::client::get(metrics, "/", "").status, 404);
}

#[test]
fn bodies_have_a_limit_by_site() {
    let world = world([Role::Gateway; 2]);
    let post = |host: &str, target: &str, length: usize| {
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).unwrap();
        let connection = rustls::ClientConnection::new(world.trust.clone(), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, connect(world.https));
        let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/gzip\r\n");
        let head = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
        let bytes = [head.as_bytes(), &vec![b'x'; length]].concat();
        use std::io::{Read, Write};
        // The edge may answer and close before it has read all.
        let _ = stream.write_all(&bytes);
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    assert_eq!(post(APPS, "/shop/x", 1000), "200");
    assert_eq!(post(APPS, "/shop/x", 1001), "413");
    assert_eq!(post(PLATFORM, "/api/v1/apps", 1001), "413");
    assert_eq!(post(PLATFORM, "/api/v1/apps/shop/publish", 4000), "200");
    assert_eq!(post(PLATFORM, "/api/v1/apps/shop/publish", 4001), "413");
}

#[test]
fn the_access_log_tells_the_site_and_no_secret() {
    let world = world([Role::Gateway; 2]);
    world.get_with(
        APPS,
        "/shop/x?token=secret1",
        "Cookie: session=secret2\r\nAuthorization: Bearer secret3\r\n",
    );
    world.get(PLATFORM, "/identity/invite/secret4");
    world.get(PLATFORM, "//identity/%69nvite/secret5");
    let log = world.access_log();
    assert!(!log.contains("secret"), "{log}");
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["path"], &lines[0]["status"]), (&"/shop/x".into(), &200.into()));
    assert_eq!(
        lines[0]["site"],
        serde_json::json!({"customer": "demo", "stage": "production", "app": "shop"})
    );
    assert_eq!((&lines[0]["waf"], &lines[0]["client"]), (&"pass".into(), &"127.0.0.1".into()));
}

#[test]
fn an_app_that_cannot_be_read_is_served_as_before_and_the_others_as_they_are_now() {
    let world = world_with([Role::Gateway; 2], |config| {
        config.snapshot_key_file = config.state_dir.join("snapshot.pub");
        let dir = &config.state_dir;
        let whole = snapshot();
        write_state(dir, &whole);
        let mut value = serde_json::to_value(Snapshot { revision: 2, ..whole.clone() }).unwrap();
        let apps = value.pointer_mut("/customers/demo/stages/production/apps").unwrap();
        apps["blog"] = apps["shop"].clone();
        apps["shop"]["routes"] = "none of this version".into();
        let key = bastide_bus::SigningKey::from_pkcs8(&bastide_bus::SigningKey::generate().unwrap()).unwrap();
        write(dir.join("snapshot.whole"), serde_json::to_vec(&key.sign(&whole).unwrap()).unwrap());
        write(dir.join("snapshot.json"), serde_json::to_vec(&key.sign(&value).unwrap()).unwrap());
        write(dir.join("snapshot.pub"), key.verify_key().to_base64url());
    });
    assert_eq!(world.get(APPS, "/shop/marked").status, 200);
    assert_eq!(world.get(APPS, "/blog/marked").status, 200);
    assert_eq!(world.get(APPS, "/other/").status, 404);
}

/// A Snapshot in which the shop has a policy of its own.
fn with_policy(policy: WafPolicy) -> Snapshot {
    let mut snapshot = snapshot();
    let id = Digest::from_sha256([7; 32]);
    snapshot.waf.insert(id, policy);
    let customer = snapshot.customers.values_mut().next().unwrap();
    let stage = customer.stages.get_mut(&StageName::production()).unwrap();
    stage.apps.values_mut().for_each(|app| app.waf = Some(id));
    snapshot
}

fn world_under(policy: WafPolicy) -> World {
    world_with([Role::Gateway; 2], |config| {
        config.snapshot_key_file = config.state_dir.join("snapshot.pub");
        config.waf_audit = Some(config.state_dir.join("audit.log"));
        config.waf_status = Some(config.state_dir.join("waf.json"));
        write_state(&config.state_dir, &with_policy(policy));
    })
}

#[test]
fn an_app_has_the_policy_that_its_snapshot_says_and_the_log_shows_no_values() {
    let excluded = serde_json::json!({"rules": "1", "target": "ARGS:comment", "path": "/shop/post"});
    let policy = WafPolicy {
        exclusions: vec![serde_json::from_value(excluded).unwrap()],
        request_body: BodyLimit { bytes_max: 1024, beyond: Beyond::Refuse },
        ..WafPolicy::default()
    };
    let world = world_under(policy);
    assert_eq!(world.get(APPS, "/shop/post?comment=attack").status, 200);
    assert_eq!(world.get(APPS, "/shop/post?other=attack").status, 403);
    assert_eq!(world.get(APPS, "/shop/elsewhere?comment=attack").status, 403);
    assert_eq!(world.get(PLATFORM, "/shop/post?comment=attack").status, 403, "only this app has it");
    let text = world.log("audit.log");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["customer"], &lines[0]["app"]), (&"demo".into(), &"shop".into()));
    assert_eq!((&lines[0]["policy"], &lines[0]["verdict"]), (&"070707070707".into(), &"block".into()));
    assert_eq!(lines[0]["request"]["uri"], "/shop/post?***");
    assert!(!text.contains("=attack"), "{text}");
}

#[test]
fn policies_of_the_waf_are_no_attack_at_exactly_their_address() {
    let world = world([Role::Gateway; 2]);
    assert_eq!(world.get(PLATFORM, "/api/v1/waf/policy?attack=attack").status, 200);
    for elsewhere in
        ["/api/v1/waf/../waf/policy", "/api/v1/waf/policy/", "/api/v1/waf/%70olicy/../policy", "/api/v1/waf"]
    {
        assert_eq!(world.get(PLATFORM, &format!("{elsewhere}?x=attack")).status, 403, "{elsewhere}");
    }
}

#[test]
fn a_policy_that_cannot_be_loaded_leaves_what_holds_above() {
    let excluded = serde_json::json!({"rules": "1", "target": "NOTHING:x"});
    let policy = WafPolicy {
        mode: bastide_types::waf::WafMode::Off,
        exclusions: vec![serde_json::from_value(excluded).unwrap()],
        ..WafPolicy::default()
    };
    let world = world_under(policy);
    assert_eq!(world.get(APPS, "/shop/?q=attack").status, 403);
    assert_eq!(world.get(APPS, "/shop/?q=harmless").status, 200);
    let status = world.dir.path().join("waf.json");
    let told = || std::fs::read_to_string(&status).is_ok_and(|text| text.contains("policy 070707070707: "));
    while !told() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
