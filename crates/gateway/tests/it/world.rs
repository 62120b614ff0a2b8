//! What the tests stand in: certificates, keys, a Snapshot on disk, apps, platform replicas, one gateway.

use crate::{
    broker::Broker,
    nats::{Nats, Told},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_gateway::{Config, run_on};
use bastide_identity::{
    Claims, SigningKey, mint,
    opaque::{self, Opaque},
    pkce,
};
use bastide_proxy::{
    Body, BodyError, Limits, Listener, Place, Pool, PoolLimits, RefusedHead, Request, Response, Service,
    Upstream, UpstreamTls, accept_tls, serve,
};
use bastide_tls::{LocalCa, NodeTls};
use bastide_types::{
    AccessRule, AppId, AppName, CustomerId, CustomerName, Digest, Domains, Purges, ReplicaId, Role, Route,
    Snapshot, StageName, ZoneName,
    message::{Reach, ReplicaFact, ReplicaFacts, ReplicaState},
    snapshot::{App, Customer, Issuer, Stage},
};
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use time::OffsetDateTime;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes on a slow machine; only a failure waits for it.
pub const LONG: Duration = Duration::from_secs(90);
pub const SHOP: &str = "https://demo.apps.localhost:8443/shop";
pub const API: &str = "https://demo.platform.localhost:8443/api";

pub fn now_s() -> u64 {
    OffsetDateTime::now_utc().unix_timestamp() as u64
}

/// Something that serves and can be killed.
pub struct Server {
    pub addr: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<std::io::Result<()>>>,
}

impl Server {
    pub fn start<S: Service>(service: S, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), service, tls)
    }

    pub fn start_at<S: Service>(
        addr: SocketAddr,
        service: S,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let tcp = TcpListener::bind(addr).unwrap();
        let (addr, stop) = (tcp.local_addr().unwrap(), CancellationToken::new());
        let listener = Listener::new(tcp, tls.map(accept_tls), Limits::default());
        let task = tokio::spawn(serve(listener, Arc::new(service), stop.clone()));
        Self { addr, stop, task: Some(task) }
    }

    pub async fn kill(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.unwrap().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Answers with what it got, as JSON.
async fn echo(name: &str, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let fields: Vec<_> =
        head.headers.iter().map(|(k, v)| (k.as_str(), String::from_utf8_lossy(v.as_bytes()))).collect();
    let uri = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let body = body.collect_up_to(1 << 20).await.unwrap();
    let seen = json!({
        "by": name, "method": head.method.as_str(), "uri": uri, "headers": fields,
        "body": String::from_utf8_lossy(&body),
    });
    http::Response::new(Body::from(seen.to_string()))
}

/// An app. `/evil` answers with every field that an app may not set.
struct AppReplica(String);

impl Service for AppReplica {
    async fn call(&self, request: Request) -> Response {
        if request.uri().path().ends_with("/endless") {
            let first: Result<_, BodyError> = Ok(http_body::Frame::data(bytes::Bytes::from_static(b"first")));
            let rest = futures_util::stream::once(async { first }).chain(futures_util::stream::pending());
            return Response::new(Body::stream(http_body_util::StreamBody::new(rest)));
        }
        let evil = request.uri().path().ends_with("/evil");
        let mut response = echo(&self.0, request).await;
        if evil {
            let headers = response.headers_mut();
            for (name, value) in [
                ("x-bastide-cacheable", "sha256:evil"),
                ("x_bastide_cacheable", "sha256:evil"),
                ("x-bastide-replica", "evil"),
                ("x-bastide-zone", "evil"),
                ("x-request-id", "evil"),
                ("set-cookie", "__Host-bst=evil; Path=/; Secure"),
                ("set-cookie", "=__Host-bst=evil; Path=/; Secure"),
                ("set-cookie", "own=1"),
                ("location", "https://elsewhere/x"),
            ] {
                headers.append(name, http::HeaderValue::from_static(value));
            }
        }
        response
    }
    async fn refuse(&self, _: RefusedHead) -> Response {
        panic!("the gateway sends only valid requests")
    }
}

/// What all platform replicas share.
#[derive(Default)]
pub struct PlatformState {
    /// Code → challenge and redirect URI.
    pub codes: Mutex<HashMap<String, (String, String)>>,
    /// Living sessions.
    pub sessions: Mutex<HashMap<String, String>>,
    /// How often a token was asked for.
    pub asked: AtomicUsize,
    /// Life of the tokens that are given, in seconds.
    pub life_s: AtomicUsize,
    /// Time for which a session may be unused, in seconds.
    pub idle_s: AtomicUsize,
    /// How long a session may last, from the next token on.
    pub max_s: AtomicUsize,
    /// Epoch of the tokens that are given, when it is not 0.
    pub epoch: AtomicUsize,
    /// Whether the tokens that are given say that a code was shown just now.
    pub mfa: AtomicBool,
    /// Whether the rights of users have changed: the next who can be given another secret gets one.
    pub renew: AtomicBool,
    /// Secrets that serve although another took their place.
    pub former: Mutex<HashMap<String, String>>,
}

impl PlatformState {
    /// Secret and subject of the session whose hash is asked about.
    fn session(&self, ask: &Value) -> Option<(String, String)> {
        let hash = ask["hash"].as_str()?;
        let (sessions, former) = (self.sessions.lock().unwrap(), self.former.lock().unwrap());
        let hashed = |secret: &str| BASE64_URL_SAFE_NO_PAD.encode(opaque::hash(secret));
        let found = sessions.iter().chain(former.iter()).find(|(secret, _)| hashed(secret) == hash);
        found.map(|(secret, subject)| (secret.clone(), subject.clone()))
    }
}

struct PlatformReplica {
    name: String,
    state: Arc<PlatformState>,
    keys: Arc<Keys>,
}

impl PlatformReplica {
    fn open(&self, ask: &Value) -> Option<Value> {
        let (challenge, redirect) = self.state.codes.lock().unwrap().remove(ask["code"].as_str()?)?;
        let fits =
            ask["redirect_uri"] == redirect && pkce::matches(ask["code_verifier"].as_str()?, &challenge);
        let session = Opaque::generate().unwrap().secret.expose().to_owned();
        self.state.sessions.lock().unwrap().insert(session.clone(), "ann".into());
        fits.then(|| json!({"session": session, "max_age_s": 3600}))
    }

    fn token(&self, ask: &Value) -> Option<Value> {
        self.state.asked.fetch_add(1, Ordering::SeqCst);
        let (old, subject) = self.state.session(ask)?;
        let renewed = (ask["renew"] == true && self.state.renew.swap(false, Ordering::SeqCst)).then(|| {
            let secret = Opaque::generate().unwrap().secret.expose().to_owned();
            self.state.sessions.lock().unwrap().remove(&old);
            self.state.sessions.lock().unwrap().insert(secret.clone(), subject.clone());
            self.state.former.lock().unwrap().insert(old, subject.clone());
            json!({"session": secret, "max_age_s": 3600})
        });
        let mut claims = match ask["resource"].as_str() {
            None => self.keys.member(),
            Some(resource) => Claims { aud: resource.into(), ..self.keys.shop() },
        };
        let life = self.state.life_s.load(Ordering::SeqCst) as u64;
        (claims.sub, claims.exp) = (subject, claims.iat + life);
        if self.state.mfa.load(Ordering::SeqCst) {
            claims.acr = bastide_types::Acr::Mfa;
        }
        claims.epoch = claims.epoch.max(self.state.epoch.load(Ordering::SeqCst) as u64);
        let key = if claims.stage == "platform" { &self.keys.members } else { &self.keys.production };
        let token = mint(key, &claims).unwrap();
        let until_s = claims.iat + self.state.max_s.load(Ordering::SeqCst) as u64;
        let idle_s = self.state.idle_s.load(Ordering::SeqCst);
        let mut given =
            json!({"access_token": token, "expires_at": claims.exp, "until_s": until_s, "idle_s": idle_s});
        if let Some(renewed) = renewed {
            given["renewed"] = renewed;
        }
        Some(given)
    }
}

impl Service for PlatformReplica {
    async fn call(&self, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        if !path.starts_with("/internal/") {
            return echo(&self.name, request).await;
        }
        let body = request.into_body().collect_up_to(1 << 20).await.unwrap();
        let ask: Value = serde_json::from_slice(&body).unwrap();
        let answer = match path.as_str() {
            "/internal/session/open" => self.open(&ask),
            "/internal/session/token" => self.token(&ask),
            "/internal/session/close" => {
                if let Some((secret, _)) = self.state.session(&ask) {
                    self.state.sessions.lock().unwrap().remove(&secret);
                }
                Some(json!({}))
            }
            _ => None,
        };
        let mut response = Response::new(Body::from(answer.as_ref().map_or(String::new(), Value::to_string)));
        *response.status_mut() = if answer.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        response
    }
    async fn refuse(&self, _: RefusedHead) -> Response {
        panic!("the gateway sends only valid requests")
    }
}

/// Keys of the issuers, and good claims of each.
pub struct Keys {
    pub demo: CustomerId,
    pub other: CustomerId,
    pub members: SigningKey,
    pub production: SigningKey,
    pub test: SigningKey,
    pub others: SigningKey,
}

impl Keys {
    fn new() -> Self {
        let key = || SigningKey::generate().unwrap();
        let id = CustomerId::generate;
        Self { demo: id(), other: id(), members: key(), production: key(), test: key(), others: key() }
    }

    /// Claims of a user of the app `shop` in Production.
    pub fn shop(&self) -> Claims {
        let now = now_s();
        Claims {
            iss: "https://demo.platform.localhost:8443/identity/s/production".into(),
            sub: "ann".into(),
            aud: SHOP.into(),
            exp: now + 300,
            nbf: now,
            iat: now,
            jti: ReplicaId::generate().to_string(),
            sid: "s".into(),
            org: self.demo.to_string(),
            stage: "production".into(),
            client_id: "bastide-cli".into(),
            epoch: 1,
            name: "Änn".into(),
            roles: vec!["buyer".into()],
            acr: bastide_types::Acr::Password,
            auth_time: now,
        }
    }

    /// Claims of a member on the Platform.
    pub fn member(&self) -> Claims {
        Claims {
            iss: "https://demo.platform.localhost:8443/identity".into(),
            aud: API.into(),
            stage: "platform".into(),
            roles: vec!["developer".into()],
            ..self.shop()
        }
    }

    /// A good token for `shop`, changed.
    pub fn shop_token(&self, change: impl FnOnce(&mut Claims)) -> String {
        let mut claims = self.shop();
        change(&mut claims);
        mint(&self.production, &claims).unwrap()
    }

    pub fn member_token(&self) -> String {
        mint(&self.members, &self.member()).unwrap()
    }
}

pub struct World {
    dir: tempfile::TempDir,
    ca: LocalCa,
    pub keys: Arc<Keys>,
    pub assertion_key: SigningKey,
    pub state: Arc<PlatformState>,
    pub platform: Vec<Server>,
    /// Replicas of `shop`: two in zone a, then one in zone b.
    pub shop: Vec<(ReplicaId, Server)>,
    /// An app that only tunnels.
    live: (ReplicaId, SocketAddr),
    pub revision: Digest,
    /// Reaches the replicas, where that is not done by address.
    pub broker: Option<Broker>,
    /// The bus, and who speaks there; else its broker is an address where nobody listens.
    pub bus: Option<(Nats, Told)>,
    silence_max_s: u64,
    gateway: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<Result<(), bastide_gateway::Error>>>,
    pool: Pool,
}

/// An answer as the edge sees it.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{} {}", self.status, self.body))
    }
    /// Code of a refusal.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    /// Values of a field that the app or the Platform got.
    pub fn got(&self, name: &str) -> Vec<String> {
        let seen = self.json();
        let fields = seen["headers"].as_array().unwrap().iter();
        fields.filter(|f| f[0] == name).map(|f| f[1].as_str().unwrap().to_owned()).collect()
    }
    /// Value of a cookie that is set.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let set = self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        set.filter_map(|text| text.split(';').next()?.split_once('='))
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.to_owned())
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(false, None).await
    }

    /// Its replicas have no address; a broker reaches them.
    pub async fn by_broker() -> Self {
        Self::with(true, None).await
    }

    /// With a bus; members are refused after so many seconds without a word.
    pub async fn by_bus(silence_max_s: u64) -> Self {
        Self::with(false, Some(silence_max_s)).await
    }

    async fn with(broker: bool, bus: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = LocalCa::create_internal(OffsetDateTime::now_utc()).unwrap();
        ca.write(&dir.path().join("ca.pem"), &dir.path().join("ca.key")).unwrap();
        let mut world = Self {
            dir,
            ca,
            keys: Arc::new(Keys::new()),
            assertion_key: SigningKey::generate().unwrap(),
            state: Arc::default(),
            platform: Vec::new(),
            shop: Vec::new(),
            live: (ReplicaId::generate(), crate::sockets::app().await),
            revision: Digest::from_sha256([7; 32]),
            broker: None,
            bus: None,
            silence_max_s: u64::MAX,
            gateway: ([127, 0, 0, 1], 0).into(),
            stop: CancellationToken::new(),
            task: None,
            pool: Pool::new(PoolLimits::default()),
        };
        world.state.life_s.store(300, Ordering::SeqCst);
        world.state.idle_s.store(1800, Ordering::SeqCst);
        world.state.max_s.store(3600, Ordering::SeqCst);
        for name in ["one", "two", "three"] {
            world.shop.push((ReplicaId::generate(), Server::start(AppReplica(name.into()), None)));
        }
        for name in ["platform-1", "platform-2"] {
            let server = world.platform_replica(name, "127.0.0.1:0".parse().unwrap());
            world.platform.push(server);
        }
        if broker {
            let replicas = world.shop.iter().map(|(id, server)| (*id, server.addr)).collect();
            world.broker = Some(Broker::start(&world.dir.path().join("broker.sock"), replicas));
        }
        let signer = bastide_bus::SigningKey::generate().unwrap();
        if let Some(silence_max_s) = bus {
            let hosts = ["127.0.0.1".to_owned()];
            let issued = world.ca.issue_role(Role::Bus, "bus", &hosts, OffsetDateTime::now_utc()).unwrap();
            issued.write(&world.dir.path().join("bus.pem"), &world.dir.path().join("bus.key")).unwrap();
            let nats = Nats::start(world.dir.path());
            let told = nats.platform(bastide_bus::SigningKey::from_pkcs8(&signer).unwrap()).await;
            (world.bus, world.silence_max_s) = (Some((nats, told)), silence_max_s);
        }
        world.start(&signer).await;
        world
    }

    pub fn platform_replica(&self, name: &str, addr: SocketAddr) -> Server {
        let tls = self.node(Role::Platform, name).server_config(&[Role::Gateway], &[b"h2"]).unwrap();
        let (state, keys) = (self.state.clone(), self.keys.clone());
        Server::start_at(addr, PlatformReplica { name: name.into(), state, keys }, Some(tls))
    }

    pub fn node(&self, role: Role, name: &str) -> NodeTls {
        let path = |end: &str| self.dir.path().join(format!("{name}.{end}"));
        let issued = self.ca.issue_role(role, name, &[], OffsetDateTime::now_utc()).unwrap();
        issued.write(&path("pem"), &path("key")).unwrap();
        NodeTls { ca_file: self.dir.path().join("ca.pem"), cert_file: path("pem"), key_file: path("key") }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// What it serves from.
    pub fn snapshot(&self) -> Snapshot {
        let domains = Domains::default();
        let name = |text: &str| CustomerName::new(text).unwrap();
        let issuer = |url: String, key: &SigningKey| Issuer {
            url,
            keys: vec![key.verifying_key().clone()],
            token_epoch: 1,
        };
        let route = |path: &str, access| Route { path: path.into(), access, acr: None, max_age_s: None };
        let zones = ["a", "a", "b"];
        let replicas = self.shop.iter().zip(zones).map(|((id, _), zone)| (*id, ZoneName::new(zone).unwrap()));
        let shop = App {
            id: AppId::generate(),
            revision: self.revision,
            revision_number: 1,
            routes: vec![
                route("/", AccessRule::Public),
                route("/me", AccessRule::Authenticated),
                route("/admin", AccessRule::Roles(vec!["boss".into()])),
                Route {
                    acr: Some(bastide_types::Acr::Mfa),
                    max_age_s: Some(600),
                    ..route("/vault", AccessRule::Authenticated)
                },
                Route {
                    acr: Some(bastide_types::Acr::Passkey),
                    max_age_s: Some(600),
                    ..route("/treasury", AccessRule::Authenticated)
                },
                route("/buy", AccessRule::Roles(vec!["buyer".into(), "boss".into()])),
            ],
            replicas: replicas.collect(),
            waf: None,
            purges: Purges::default(),
        };
        let idle = App { id: AppId::generate(), replicas: BTreeMap::new(), ..shop.clone() };
        let stage = |customer: &CustomerName, stage: StageName, key: &SigningKey, account: &str, apps| {
            let issuer = issuer(domains.stage_issuer(customer, &stage), key);
            (
                stage,
                Stage {
                    account: account.into(),
                    issuer,
                    waf: Digest::from_sha256([0; 32]),
                    site: None,
                    apps,
                },
            )
        };
        let (demo, other) = (name("demo"), name("other"));
        let app = |text: &str| AppName::new(text).unwrap();
        let live = BTreeMap::from([(self.live.0, ZoneName::new("a").unwrap())]);
        let live = App { id: AppId::generate(), replicas: live, ..shop.clone() };
        let apps = BTreeMap::from([(app("shop"), shop.clone()), (app("idle"), idle), (app("live"), live)]);
        let production = stage(&demo, StageName::production(), &self.keys.production, "DEMO", apps.clone());
        let test = stage(&demo, StageName::test(), &self.keys.test, "TEST", apps.clone());
        let others = stage(&other, StageName::production(), &self.keys.others, "OTHER", apps);
        let customer = |id, name: &CustomerName, key: &SigningKey, stages| {
            let issuer = issuer(domains.member_issuer(name), key);
            (name.clone(), Customer { id, issuer, bans: Vec::new(), stages })
        };
        let customers = BTreeMap::from([
            customer(self.keys.demo, &demo, &self.keys.members, BTreeMap::from([production, test])),
            customer(self.keys.other, &other, &self.keys.others, BTreeMap::from([others])),
        ]);
        Snapshot {
            epoch: 1,
            revision: 1,
            made_at: now_s(),
            domains: domains.clone(),
            customers,
            hosts: std::collections::BTreeMap::new(),
            waf: BTreeMap::new(),
            kept: Vec::new(),
            schema: bastide_types::snapshot::SCHEMA,
            platform_waf: Digest::from_sha256([0; 32]),
        }
    }

    /// Starts the gateway of zone a.
    async fn start(&mut self, signer: &[u8]) {
        let signer = bastide_bus::SigningKey::from_pkcs8(signer).unwrap();
        let snapshot = self.snapshot();
        let signed = signer.sign(&snapshot).unwrap();
        self.write("snapshot.json", bastide_bus::snapshot::serialize(&snapshot, &signed).unwrap().1);
        let replicas = self.shop.iter().map(|(id, server)| (*id, server.addr)).chain([self.live]);
        let replicas = replicas.map(|(id, addr)| ReplicaFact {
            reach: Some(if self.broker.is_some() { Reach::Broker } else { Reach::Address(addr) }),
            ..ReplicaFact::new(id, ReplicaState::Ready)
        });
        let facts = ReplicaFacts { boot: 1, sequence: 1, generation: 1, replicas: replicas.collect() };
        let facts = json!({"accounts": {"DEMO": {"facts": facts, "retired": []}}});
        self.write("facts.json", facts.to_string());
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let (issuers, url) = match &self.bus {
            Some((nats, _)) => (nats.material.issuers.clone(), nats.url()),
            None => {
                let issuers = bastide_bus::bootstrap::generate(now_s()).unwrap().issuers;
                (issuers, format!("tls://{}", nobody.local_addr().unwrap()))
            }
        };
        let creds = issuers.creds(Role::Gateway, "gateway-a", now_s()).unwrap();
        let config = Config {
            zone: ZoneName::new("a").unwrap(),
            listen: ([127, 0, 0, 1], 0).into(),
            node: self.node(Role::Gateway, "gateway-a"),
            bus: bastide_bus::Config {
                url,
                ca_file: self.dir.path().join("ca.pem"),
                creds_file: Some(self.write("bus.creds", creds["gateway-a.creds"].expose())),
                jwt: None,
                seed_file: None,
                name: "gateway-a".into(),
            },
            state_dir: self.dir.path().to_owned(),
            snapshot_verify_key_file: self.write("snapshot.pub", signer.verify_key().to_base64url()),
            assertion_key_file: self.write("assertion.key", self.assertion_key.to_pkcs8()),
            cookie_key_file: self.write("cookie.key", [9; 32]),
            broker: self.dir.path().join("broker.sock"),
            platform: self.platform.iter().map(|server| server.addr).collect(),
            deadline_ms: 60_000,
            platform_deadline_ms: 60_000,
            tokens_max: 1000,
            silence_max_s: self.silence_max_s,
        };
        drop(nobody);
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        self.gateway = tcp.local_addr().unwrap();
        let (sender, ready) = tokio::sync::oneshot::channel();
        let announce = Box::new(move || sender.send(()).unwrap());
        self.task = Some(tokio::spawn(run_on(tcp, config, announce, self.stop.clone())));
        tokio::time::timeout(LONG, ready).await.unwrap().unwrap();
    }

    /// Ends the gateway and says how it ended.
    pub async fn end(mut self) {
        self.stop.cancel();
        tokio::time::timeout(LONG, self.task.take().unwrap()).await.unwrap().unwrap().unwrap();
    }

    pub fn upstream(&self, role: Role, name: &str) -> Upstream {
        let config = self.node(role, name).client_config(Role::Gateway, &[b"h2"]).unwrap();
        let server_name = bastide_tls::server_name(Role::Gateway).try_into().unwrap();
        Upstream {
            place: Place::Address(self.gateway),
            tls: Some(UpstreamTls { config, server_name }),
            http2: true,
        }
    }

    /// What tells the session feed.
    pub fn told(&self) -> &Told {
        &self.bus.as_ref().unwrap().1
    }

    /// Sends a request as the edge.
    pub async fn send(&self, method: Method, url: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let response = self.begin(method, url, fields, body).await;
        let (head, body) = response.into_parts();
        let body = body.collect_up_to(1 << 20).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let answer = Answer { status: head.status.as_u16(), headers: head.headers, body };
        assert_ne!(answer.header("x-request-id"), "", "every answer names its request");
        answer
    }

    /// Sends a request as the edge; the answer may still be on its way.
    pub async fn begin(&self, method: Method, url: &str, fields: &[(&str, &str)], body: &str) -> Response {
        let rest = url.strip_prefix("https://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let mut request = Request::new(Body::from(body.to_owned()));
        *request.method_mut() = method;
        *request.uri_mut() = format!("/{path}").parse().unwrap();
        request.headers_mut().insert("host", host.parse().unwrap());
        for (name, value) in fields {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let edge = self.upstream(Role::Edge, "edge");
        self.pool.send(&edge, request, Instant::now() + LONG).await.unwrap()
    }

    pub async fn get(&self, url: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, url, fields, "").await
    }

    /// Gets with a bearer token.
    pub async fn get_as(&self, url: &str, token: &str) -> Answer {
        self.get(url, &[("authorization", &format!("Bearer {token}"))]).await
    }

    pub fn keys_of_assertions(&self) -> [bastide_types::snapshot::VerifyingKey; 1] {
        [self.assertion_key.verifying_key().clone()]
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
