//! The Identity Service as browsers, the command line and gateways use it; routes and store are real.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::{
    Claims, Expect, SigningKey, TokenFault,
    claims::{CLIENT_LIFE_S, USER_LIFE_S},
    opaque::{self, Opaque},
    pkce, verify,
};
use bastide_platform::{
    identity::{Breached, Identity, Means},
    outbound::Outbound,
};
use bastide_store::{
    ClientRow, Counter, Kek, KeyState, MemberRow, NewKey, NewStage, RevisionRow, Store, now_s,
};
use bastide_types::{
    AppName, CustomerId, CustomerName, Digest, Domains, Manifest, Secret, StageName, UserId, snapshot,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use tower::ServiceExt;

pub(super) const PASSWORD: &str = "Correct-horse-1";
pub(super) const EMAIL: &str = "ann@example.com";
pub(super) const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub(super) const LOOPBACK: &str = "http://127.0.0.1:4711/callback";
pub(super) const CALLBACK: &str = "https://acme.platform.localhost:8443/.bastide/callback";
pub(super) const SHOP: &str = "https://acme--development.apps.localhost:8443/shop";

pub(super) struct World {
    pub(super) store: Store,
    domains: Domains,
    router: Router,
    pub(super) acme: CustomerId,
    pub(super) invitation: String,
    _dir: tempfile::TempDir,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }
    pub(super) fn text(&self, key: &str) -> String {
        self.json()[key].as_str().unwrap_or_else(|| panic!("{key} in {}", self.body)).to_owned()
    }
    /// A value in the query of the redirect.
    pub(super) fn redirected(&self, key: &str) -> Option<String> {
        let to: url::Url = self.headers.get(header::LOCATION)?.to_str().ok()?.parse().ok()?;
        to.query_pairs().find(|(k, _)| k == key).map(|(_, v)| v.into_owned())
    }
}

/// A browser: keeps cookies and sends forms back as the page gave them.
#[derive(Default)]
pub(super) struct Browser(pub(super) BTreeMap<String, String>);

impl World {
    async fn new() -> Self {
        Self::with_breached(None).await
    }

    /// A world in which nobody may choose a password of this list.
    pub(super) async fn with_breached(breached: Option<Arc<Breached>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), Kek::new(&[7; 32]).unwrap()).await.unwrap();
        let domains = Domains::default();
        let acme = customer(&store, CustomerName::new("acme").unwrap()).await;
        customer(&store, CustomerName::new("beta").unwrap()).await;
        customer(&store, CustomerName::operator()).await;
        publish(&store, acme).await;
        let invitation = invite(&store, acme, EMAIL, now_s() + 60).await;
        let identity = Identity::new(store.clone(), domains.clone(), means(breached));
        let router = identity.routes().merge(identity.internal_routes());
        Self { store, domains, router, acme, invitation, _dir: dir }
    }

    /// Requests go to another replica at the same database from now on: nothing else is shared.
    pub(super) fn change_replica(&mut self) {
        let identity = Identity::new(self.store.clone(), self.domains.clone(), means(None));
        self.router = identity.routes().merge(identity.internal_routes());
    }

    pub(super) fn router(&self) -> Router {
        self.router.clone()
    }

    /// A world in which Ann has accepted her invitation, in another browser.
    pub(super) async fn with_ann() -> Self {
        let world = Self::new().await;
        let accepted = world.accept(&mut Browser::default(), &world.invitation, PASSWORD).await;
        assert_eq!(accepted.status, 303, "{}", accepted.body);
        world
    }

    pub(super) async fn send(
        &self,
        host: &str,
        method: Method,
        path: &str,
        body: &str,
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(super) async fn browse(
        &self,
        browser: &mut Browser,
        method: Method,
        path: &str,
        form: &str,
    ) -> Answer {
        let cookies: Vec<_> = browser.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let cookies = cookies.join("; ");
        let fields = [
            ("accept", "text/html"),
            ("sec-fetch-site", "same-origin"),
            ("cookie", cookies.as_str()),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let answer = self.send("acme.platform.localhost:8443", method, path, form, &fields).await;
        for cookie in answer.headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            assert!(cookie.contains("; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            browser.0.insert(name.to_owned(), value.to_owned());
        }
        answer
    }

    pub(super) async fn accept(&self, browser: &mut Browser, token: &str, password: &str) -> Answer {
        let path = format!("/identity/invite/{token}");
        let page = self.browse(browser, Method::GET, &path, "").await;
        let form = filled(&page.body, &[("password", password), ("password_again", password)]);
        self.browse(browser, Method::POST, &path, &form).await
    }

    /// Opens the sign-in page of a request and sends its form.
    pub(super) async fn sign_in(&self, browser: &mut Browser, request: &str, password: &str) -> Answer {
        let page = self.browse(browser, Method::GET, &format!("/identity/authorize?{request}"), "").await;
        assert_eq!(page.status, 200, "{}", page.body);
        let form = filled(&page.body, &[("username", EMAIL), ("password", password)]);
        self.browse(browser, Method::POST, "/identity/login", &form).await
    }

    pub(super) async fn code(&self, request: &str) -> String {
        let answer = self.sign_in(&mut Browser::default(), request, PASSWORD).await;
        assert_eq!(answer.redirected("state").as_deref(), Some("xyz"));
        let issuer = "https://acme.platform.localhost:8443/identity";
        assert_eq!(answer.redirected("iss").as_deref(), Some(issuer));
        answer.redirected("code").unwrap()
    }

    pub(super) async fn token(&self, host: &str, form: &[(&str, &str)]) -> Answer {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        self.send(host, Method::POST, "/identity/token", &encode(form), &[kind]).await
    }

    pub(super) async fn redeem(&self, code: &str, change: &[(&str, &str)]) -> Answer {
        let mut form = BTreeMap::from([
            ("grant_type", "authorization_code"),
            ("client_id", "bastide-cli"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", LOOPBACK),
        ]);
        form.extend(change.iter().copied());
        self.token(ACME, &form.into_iter().collect::<Vec<_>>()).await
    }

    pub(super) async fn refresh(&self, token: &str, resource: Option<&str>) -> Answer {
        let mut form =
            vec![("grant_type", "refresh_token"), ("client_id", "bastide-cli"), ("refresh_token", token)];
        form.extend(resource.map(|resource| ("resource", resource)));
        self.token(ACME, &form).await
    }

    pub(super) async fn internal(&self, path: &str, body: Value) -> Answer {
        let kind = ("content-type", "application/json");
        self.send(ACME, Method::POST, &format!("/internal/session/{path}"), &body.to_string(), &[kind]).await
    }

    /// The issuer in the form of the Snapshot.
    async fn issuer(&self, stage: Option<&StageName>) -> snapshot::Issuer {
        let name = CustomerName::new("acme").unwrap();
        let url = match stage {
            Some(stage) => self.domains.stage_issuer(&name, stage),
            None => self.domains.member_issuer(&name),
        };
        let keys = self.store.customer(self.acme).verifying_keys(stage).await.unwrap();
        snapshot::Issuer { url, keys, token_epoch: 0 }
    }

    pub(super) async fn check_platform(&self, token: &str, life_max_s: u64) -> Result<Claims, TokenFault> {
        let org = self.acme.to_string();
        let audience = self.domains.platform_audience(&CustomerName::new("acme").unwrap());
        let expect = Expect { audience: &audience, org: &org, stage: "platform", life_max_s };
        verify(token, &self.issuer(None).await, &expect, now_s() as u64)
    }

    pub(super) async fn check_shop(&self, token: &str) -> Result<Claims, TokenFault> {
        let (org, stage) = (self.acme.to_string(), StageName::development());
        let expect = Expect { audience: SHOP, org: &org, stage: stage.as_str(), life_max_s: USER_LIFE_S };
        verify(token, &self.issuer(Some(&stage)).await, &expect, now_s() as u64)
    }

    pub(super) async fn audited(&self, what: &str) -> bool {
        let rows = self.store.customer(self.acme).audit_trail(100).await.unwrap();
        rows.iter().any(|row| row.what == what)
    }
}

pub(super) const ACME: &str = "acme.platform.localhost:8443";

fn means(breached: Option<Arc<Breached>>) -> Means {
    let outbound = Arc::new(Outbound::open(&[]).unwrap());
    Means { breached, has_mail: true, outbound, providers: Arc::default() }
}

fn access_key() -> NewKey {
    let key = SigningKey::generate().unwrap();
    NewKey::access(key.verifying_key(), key.to_pkcs8())
}

async fn customer(store: &Store, name: CustomerName) -> CustomerId {
    let id = CustomerId::generate();
    let mut write = store.write().await.unwrap();
    store.create_customer(&mut write, id, &name).await.unwrap();
    let own = store.customer(id);
    own.add_key(&mut write, None, &access_key(), KeyState::Current, now_s()).await.unwrap();
    if !name.is_operator() {
        for stage in StageName::defaults() {
            let (account, seed) = (format!("A-{name}-{stage}"), Secret::new("seed"));
            let new = NewStage { name: &stage, account: &account, seed: &seed };
            own.create_stage(&mut write, &new).await.unwrap();
            own.add_key(&mut write, Some(&stage), &access_key(), KeyState::Current, now_s()).await.unwrap();
        }
    }
    let client = ClientRow::service("automation", vec!["developer".into()]);
    own.put_client(&mut write, &client, &opaque::hash("the:secret+%")).await.unwrap();
    write.commit().await.unwrap();
    id
}

/// `shop` serves in Development.
async fn publish(store: &Store, customer: CustomerId) {
    let own = store.customer(customer);
    let mut write = store.write().await.unwrap();
    let app = own.ensure_app(&mut write, &AppName::new("shop").unwrap()).await.unwrap();
    let manifest: Manifest =
        serde_json::from_value(json!({ "app": { "name": "shop", "kind": "static" } })).unwrap();
    let digest = Digest::from_sha256([1; 32]);
    let revision = RevisionRow::new(app, digest, digest, manifest, vec![]);
    let number = own.add_revision(&mut write, &revision).await.unwrap();
    own.serve(&mut write, &StageName::development(), app, number, &[], 0).await.unwrap();
    write.commit().await.unwrap();
}

async fn invite(store: &Store, customer: CustomerId, email: &str, until: i64) -> String {
    let own = store.customer(customer);
    let member = MemberRow {
        id: UserId::generate(),
        email: email.into(),
        name: "Ann".into(),
        state: "invited".into(),
        roles: vec!["administrator".into()],
        password: None,
        stage: String::new(),
        verified: false,
    };
    let token = Opaque::generate().unwrap();
    let mut write = store.write().await.unwrap();
    let id = own.renew_invited(&mut write, &member).await.unwrap().unwrap();
    own.add_invitation(&mut write, &token.hash, id, until).await.unwrap();
    write.commit().await.unwrap();
    token.secret.expose().to_owned()
}

pub(super) fn encode(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

pub(super) fn request(client: &str, redirect: &str, change: &[(&str, &str)]) -> String {
    let challenge = pkce::challenge(VERIFIER);
    let mut pairs = BTreeMap::from([
        ("response_type", "code"),
        ("client_id", client),
        ("redirect_uri", redirect),
        ("state", "xyz"),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ]);
    pairs.extend(change.iter().copied());
    encode(&pairs.into_iter().collect::<Vec<_>>())
}

pub(super) fn cli() -> String {
    request("bastide-cli", LOOPBACK, &[])
}

/// The form of a page with its own hidden fields and what a person types.
pub(super) fn filled(page: &str, typed: &[(&str, &str)]) -> String {
    let part = |tag: &str, name: &str| {
        let from = tag.split_once(&format!("{name}=\""))?.1;
        Some(from.split_once('"')?.0.replace("&#38;", "&").replace("&amp;", "&"))
    };
    let mut pairs: Vec<(String, String)> = page
        .split("<input type=\"hidden\"")
        .skip(1)
        .filter_map(|tag| {
            let tag = tag.split('>').next()?;
            Some((part(tag, "name")?, part(tag, "value")?))
        })
        .collect();
    pairs.extend(typed.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[tokio::test]
async fn a_member_signs_in_with_code_and_verifier() {
    let world = World::with_ann().await;
    let answer = world.redeem(&world.code(&cli()).await, &[]).await;
    assert_eq!((answer.status, answer.json()["expires_in"].as_u64()), (StatusCode::OK, Some(300)));
    assert_eq!(answer.headers["cache-control"], "no-store");
    let claims = world.check_platform(&answer.text("access_token"), USER_LIFE_S).await.unwrap();
    assert_eq!((claims.name.as_str(), claims.roles.as_slice()), ("Ann", &["administrator".to_owned()][..]));
    assert_eq!(claims.client_id, "bastide-cli");
    assert!(world.audited("login").await && world.audited("session.begun").await);
    world.store.customer(world.acme).verify_audit().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_code_counts_once_and_its_second_use_ends_what_came_of_it() {
    let world = World::with_ann().await;
    let code = world.code(&cli()).await;
    let first = world.redeem(&code, &[]).await;
    let second = world.redeem(&code, &[]).await;
    assert_eq!((second.status, second.text("error")), (StatusCode::BAD_REQUEST, "invalid_grant".into()));
    let refreshed = world.refresh(&first.text("refresh_token"), None).await;
    assert_eq!(refreshed.text("error"), "invalid_grant");
    assert!(world.audited("session.ended").await);
}

#[tokio::test]
async fn of_parallel_redemptions_at_most_one_wins() {
    let world = World::with_ann().await;
    let code = world.code(&cli()).await;
    let (a, b, c) =
        tokio::join!(world.redeem(&code, &[]), world.redeem(&code, &[]), world.redeem(&code, &[]));
    assert!([a, b, c].iter().filter(|answer| answer.status == 200).count() <= 1);
}

#[tokio::test]
async fn a_code_belongs_to_its_verifier_redirect_client_and_customer() {
    let world = World::with_ann().await;
    let other = "x".repeat(43);
    for (change, error) in [
        (("code_verifier", other.as_str()), "invalid_grant"),
        (("redirect_uri", "http://127.0.0.1:1/callback"), "invalid_grant"),
        (("client_id", "bastide-gateway"), "unauthorized_client"),
        (("client_id", "other"), "invalid_client"),
        (("grant_type", "password"), "unsupported_grant_type"),
        (("code", "guess"), "invalid_grant"),
    ] {
        let answer = world.redeem(&world.code(&cli()).await, &[change]).await;
        assert_eq!(answer.text("error"), error, "{change:?}");
        assert_eq!(answer.text("code"), "B-ID-0400");
    }
    let code = world.code(&cli()).await;
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "bastide-cli"),
        ("code", &code),
        ("code_verifier", VERIFIER),
        ("redirect_uri", LOOPBACK),
    ];
    let foreign = world.token("beta.platform.localhost:8443", &form).await;
    assert_eq!(foreign.text("error"), "invalid_grant");
}

#[tokio::test]
async fn nobody_is_sent_to_a_foreign_redirect() {
    let world = World::with_ann().await;
    for (client, redirect) in [
        ("bastide-cli", "https://evil.example/callback"),
        ("bastide-cli", "http://127.0.0.1:1/other"),
        ("bastide-cli", CALLBACK),
        ("bastide-gateway", LOOPBACK),
        ("bastide-gateway", "https://beta.platform.localhost:8443/.bastide/callback"),
        ("bastide-gateway", "https://acme--other.apps.localhost:8443/.bastide/callback"),
        ("bastide-gateway", "https://acme.platform.localhost:8443/.bastide/callback?x"),
        ("other", LOOPBACK),
    ] {
        let path = format!("/identity/authorize?{}", request(client, redirect, &[("response_type", "x")]));
        let answer = world.browse(&mut Browser::default(), Method::GET, &path, "").await;
        assert_eq!(answer.status, 400, "{client} {redirect}");
        assert!(!answer.headers.contains_key(header::LOCATION) && answer.body.contains("B-ID-0400"));
    }
}

#[tokio::test]
async fn a_trusted_redirect_hears_what_is_wrong() {
    let world = World::with_ann().await;
    for (change, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("resource", "https://evil.example/x"), "invalid_target"),
        (("prompt", "none"), "login_required"),
    ] {
        let path = format!("/identity/authorize?{}", request("bastide-cli", LOOPBACK, &[change]));
        let answer = world.browse(&mut Browser::default(), Method::GET, &path, "").await;
        assert_eq!(answer.redirected("error").as_deref(), Some(error), "{change:?}");
        assert!(answer.redirected("iss").is_some() && answer.redirected("state").is_some());
    }
}

#[tokio::test]
async fn five_failures_lock_the_address_even_for_the_right_password() {
    let world = World::with_ann().await;
    for _ in 0..4 {
        let answer = world.sign_in(&mut Browser::default(), &cli(), "wrong").await;
        assert_eq!(answer.status, 401);
        assert!(answer.body.contains("B-ID-0411"));
    }
    // The fifth, counted as if many came before it: a wait long enough for the slowest machine.
    assert_eq!(
        world
            .store
            .customer(world.acme)
            .count_try(Counter::Password { stage: "", email: EMAIL }, -9)
            .await
            .unwrap(),
        Ok(())
    );
    let answer = world.sign_in(&mut Browser::default(), &cli(), PASSWORD).await;
    assert_eq!(answer.status, 429);
    assert!(answer.body.contains("B-ID-0429"));
    let wait: i64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=300).contains(&wait), "{wait}");
    // What the next service sees after a restart.
    let identity = Identity::new(world.store.clone(), world.domains.clone(), means(None));
    let again = World { router: identity.routes(), ..world };
    assert_eq!(again.sign_in(&mut Browser::default(), &cli(), PASSWORD).await.status, 429);
}

#[tokio::test]
async fn parallel_guesses_cannot_pass_the_limit() {
    let world = World::new().await;
    let own = world.store.customer(world.acme);
    let tries = (0..20).map(|_| own.count_try(Counter::Password { stage: "", email: "x@y.z" }, 5));
    let mut free = 0;
    for one in futures_util::future::join_all(tries).await {
        free += i32::from(one.unwrap().is_ok());
    }
    assert_eq!(free, 5);
    let wait = own.count_try(Counter::Password { stage: "", email: "x@y.z" }, 5).await.unwrap();
    assert!(matches!(wait, Ok(()) | Err(1..=2)), "the first wait is two seconds: {wait:?}");
}

#[tokio::test]
async fn unknown_and_inactive_members_get_the_answer_of_a_wrong_password() {
    let world = World::new().await;
    // Ann is invited, not active.
    let invited = world.sign_in(&mut Browser::default(), &cli(), PASSWORD).await;
    assert_eq!(invited.status, 401);
    assert!(invited.body.contains("B-ID-0411"));
}

#[tokio::test]
async fn a_login_form_counts_only_from_our_own_page_in_this_browser() {
    let world = World::with_ann().await;
    let mut browser = Browser::default();
    let path = format!("/identity/authorize?{}", cli());
    let page = world.browse(&mut browser, Method::GET, &path, "").await;
    let form = filled(&page.body, &[("username", EMAIL), ("password", PASSWORD)]);
    let without_cookie = world.browse(&mut Browser::default(), Method::POST, "/identity/login", &form).await;
    assert_eq!(without_cookie.status, 403);
    let cookie = format!("__Host-bst-form={}", browser.0["__Host-bst-form"]);
    for site in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let fields = [("cookie", cookie.as_str()), site];
        let answer = world.send(ACME, Method::POST, "/identity/login", &form, &fields).await;
        assert_eq!((answer.status, answer.text("code")), (StatusCode::FORBIDDEN, "B-ID-0406".into()));
    }
    assert_eq!(world.browse(&mut browser, Method::POST, "/identity/login", &form).await.status, 303);
}

#[tokio::test]
async fn pages_cannot_be_framed_stored_or_filled_with_script() {
    let world = World::with_ann().await;
    let hostile = request("bastide-cli", LOOPBACK, &[("state", "\"><script>alert(1)</script>")]);
    let path = format!("/identity/authorize?{hostile}");
    let page = world.browse(&mut Browser::default(), Method::GET, &path, "").await;
    assert!(!page.body.contains("<script"), "{}", page.body);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"));
    assert!(policy.contains("form-action 'self' http://127.0.0.1:4711;"), "{policy}");
    assert_eq!(page.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn a_sign_in_serves_the_next_request_and_gets_a_new_secret_each_time() {
    let world = World::with_ann().await;
    let mut browser = Browser::default();
    world.sign_in(&mut browser, &cli(), PASSWORD).await;
    let first = browser.0["__Host-bst-sso"].clone();
    let path = format!("/identity/authorize?{}", cli());
    assert!(world.browse(&mut browser, Method::GET, &path, "").await.redirected("code").is_some());
    world.sign_in(&mut browser, &request("bastide-cli", LOOPBACK, &[("prompt", "login")]), PASSWORD).await;
    assert_ne!(browser.0["__Host-bst-sso"], first);
    let mut old = Browser(BTreeMap::from([("__Host-bst-sso".to_owned(), first)]));
    assert_eq!(world.browse(&mut old, Method::GET, &path, "").await.status, 200, "the old one is dead");
}

#[tokio::test]
async fn a_refresh_token_rotates_and_its_reuse_ends_the_session() {
    let world = World::with_ann().await;
    let first = world.redeem(&world.code(&cli()).await, &[]).await.text("refresh_token");
    let second = world.refresh(&first, None).await;
    assert!(world.check_platform(&second.text("access_token"), USER_LIFE_S).await.is_ok());
    assert_eq!(world.refresh(&first, None).await.text("error"), "invalid_grant");
    // The successor died with it.
    assert_eq!(world.refresh(&second.text("refresh_token"), None).await.text("error"), "invalid_grant");
    assert!(world.audited("session.ended").await);
}

#[tokio::test]
async fn an_invitation_works_once_and_not_after_its_time() {
    let world = World::with_ann().await;
    let path = format!("/identity/invite/{}", world.invitation);
    let again = world.browse(&mut Browser::default(), Method::GET, &path, "").await;
    assert_eq!(again.status, 410);
    assert!(again.body.contains("B-ID-0410"));
    let late = invite(&world.store, world.acme, "bob@example.com", now_s() - 1).await;
    let path = format!("/identity/invite/{late}");
    assert_eq!(world.browse(&mut Browser::default(), Method::GET, &path, "").await.status, 410);
}

#[tokio::test]
async fn a_new_invitation_replaces_the_old_one() {
    let world = World::new().await;
    let new = invite(&world.store, world.acme, EMAIL, now_s() + 60).await;
    let mut browser = Browser::default();
    let old =
        world.browse(&mut browser, Method::GET, &format!("/identity/invite/{}", world.invitation), "").await;
    assert_eq!(old.status, 410);
    assert_eq!(world.accept(&mut browser, &new, PASSWORD).await.status, 303);
}

#[tokio::test]
async fn a_weak_password_is_refused_and_leaves_the_invitation_good() {
    let world = World::new().await;
    let mut browser = Browser::default();
    let weak = world.accept(&mut browser, &world.invitation, "password").await;
    assert_eq!(weak.status, 422);
    assert!(weak.body.contains("B-ID-0422"));
    assert_eq!(world.accept(&mut browser, &world.invitation, PASSWORD).await.status, 303);
    assert!(browser.0.contains_key("__Host-bst-sso"), "accepting signs in");
}

#[tokio::test]
async fn an_app_token_is_of_its_stage_s_issuer_with_the_roles_given_there() {
    let world = World::with_ann().await;
    let own = world.store.customer(world.acme);
    let app = own.app_named(&AppName::new("shop").unwrap()).await.unwrap().unwrap();
    let ann = own.member_with_email(EMAIL).await.unwrap().unwrap();
    let mut write = world.store.write().await.unwrap();
    for stage in [StageName::development(), StageName::test()] {
        own.grant_app_role(&mut write, &stage, app.id, &format!("clerk-{stage}"), ann.id).await.unwrap();
    }
    write.commit().await.unwrap();
    let refresh = world.redeem(&world.code(&cli()).await, &[]).await.text("refresh_token");
    let answer = world.refresh(&refresh, Some(SHOP)).await;
    let token = answer.text("access_token");
    let claims = world.check_shop(&token).await.unwrap();
    assert_eq!(claims.roles, ["clerk-development"]);
    assert!(world.check_platform(&token, USER_LIFE_S).await.is_err(), "not for the Platform");
}

#[tokio::test]
async fn tokens_are_made_only_for_apps_that_serve_there() {
    let world = World::with_ann().await;
    let mut refresh = world.redeem(&world.code(&cli()).await, &[]).await.text("refresh_token");
    for resource in [
        "https://acme.apps.localhost:8443/shop",
        "https://acme--development.apps.localhost:8443/other",
        "https://acme--development.apps.localhost/shop",
        "https://beta--development.apps.localhost:8443/shop",
        "https://acme--development.apps.localhost:8443/shop?x",
        "https://u@acme--development.apps.localhost:8443/shop",
        "http://acme--development.apps.localhost:8443/shop",
        "https://beta.platform.localhost:8443/api",
        "shop",
    ] {
        assert_eq!(
            world.refresh(&refresh, Some(resource)).await.text("error"),
            "invalid_target",
            "{resource}"
        );
    }
    // None of the refusals has spent the token.
    let good = world.refresh(&refresh, Some(&format!("{SHOP}/"))).await;
    assert!(world.check_shop(&good.text("access_token")).await.is_ok());
    refresh = good.text("refresh_token");
    let platform = world.refresh(&refresh, Some("https://acme.platform.localhost:8443/api")).await;
    assert!(world.check_platform(&platform.text("access_token"), USER_LIFE_S).await.is_ok());
    assert_eq!(world.refresh(&platform.text("refresh_token"), None).await.status, 200);
}

#[tokio::test]
async fn a_code_bound_to_a_resource_serves_no_other() {
    let world = World::with_ann().await;
    let bound = request("bastide-cli", LOOPBACK, &[("resource", SHOP)]);
    let other = [("resource", "https://acme.apps.localhost:8443/shop")];
    assert_eq!(world.redeem(&world.code(&bound).await, &other).await.text("error"), "invalid_target");
    let answer = world.redeem(&world.code(&bound).await, &[]).await;
    assert!(world.check_shop(&answer.text("access_token")).await.is_ok());
}

#[tokio::test]
async fn an_api_client_authenticates_by_header_or_form_but_not_by_both() {
    let world = World::new().await;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "automation"),
        ("client_secret", "the:secret+%"),
    ];
    let answer = world.token(ACME, &form).await;
    let claims = world.check_platform(&answer.text("access_token"), CLIENT_LIFE_S).await.unwrap();
    assert_eq!((claims.sub.as_str(), claims.roles.as_slice()), ("automation", &["developer".to_owned()][..]));
    assert_eq!(claims.exp - claims.iat, 3600);
    // `automation` and `the%3Asecret%2B%25`, joined and encoded.
    let basic = ("authorization", "Basic YXV0b21hdGlvbjp0aGUlM0FzZWNyZXQlMkIlMjU=");
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let send =
        async |body: &str| world.send(ACME, Method::POST, "/identity/token", body, &[kind, basic]).await;
    assert_eq!(send("grant_type=client_credentials").await.status, 200);
    assert_eq!(send(&encode(&form)).await.text("error"), "invalid_request");
    let wrong = [form[0], form[1], ("client_secret", "guess")];
    let answer = world.token(ACME, &wrong).await;
    assert_eq!((answer.status, answer.text("error")), (StatusCode::UNAUTHORIZED, "invalid_client".into()));
    assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
}

#[tokio::test]
async fn a_token_of_another_customer_is_refused() {
    let world = World::new().await;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "automation"),
        ("client_secret", "the:secret+%"),
    ];
    for host in ["beta.platform.localhost", "operator.platform.localhost"] {
        let foreign = world.token(host, &form).await.text("access_token");
        assert_eq!(
            world.check_platform(&foreign, CLIENT_LIFE_S).await,
            Err(TokenFault::UnknownKey),
            "{host}"
        );
    }
}

#[tokio::test]
async fn parameters_that_come_twice_are_refused() {
    let world = World::with_ann().await;
    let path = format!("/identity/authorize?{}&client_id=bastide-cli", cli());
    assert_eq!(world.browse(&mut Browser::default(), Method::GET, &path, "").await.status, 400);
}

#[tokio::test]
async fn discovery_and_keys_are_those_of_the_snapshot() {
    let world = World::new().await;
    let get = async |path: &str| world.send(ACME, Method::GET, path, "", &[]).await;
    let document = get("/identity/.well-known/openid-configuration").await;
    assert_eq!(document.text("issuer"), "https://acme.platform.localhost:8443/identity");
    let stage = StageName::development();
    for (path, stage) in [("/identity/jwks", None), ("/identity/s/development/jwks", Some(&stage))] {
        let issuer = world.issuer(stage).await;
        let keys = get(path).await.json();
        assert_eq!(
            (&keys["keys"][0]["kid"], &keys["keys"][0]["x"]),
            (&json!(issuer.keys[0].kid), &json!(issuer.keys[0].x))
        );
        assert!(keys["keys"][0].get("d").is_none());
    }
    for path in ["/identity/s/nowhere/jwks", "/identity/s/state/jwks", "/identity/other"] {
        assert_eq!(get(path).await.status, 404, "{path}");
    }
    let unknown = world.send("nobody.platform.localhost", Method::GET, "/identity/jwks", "", &[]).await;
    assert_eq!(unknown.status, 404);
}

/// The hash by which gateways and Platform name a session to each other.
pub(super) fn hashed(secret: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(opaque::hash(secret))
}

pub(super) async fn opened(world: &World, browser: &mut Browser) -> String {
    let asked = request("bastide-gateway", CALLBACK, &[]);
    let code = world.sign_in(browser, &asked, PASSWORD).await.redirected("code").unwrap();
    let ask =
        json!({ "customer": "acme", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK });
    let answer = world.internal("open", ask.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let life = answer.json()["max_age_s"].as_i64().unwrap();
    assert!((43_000..=43_200).contains(&life), "{life}");
    answer.text("session")
}

#[tokio::test]
async fn a_gateway_opens_uses_and_closes_a_browser_session() {
    let world = World::with_ann().await;
    let mut browser = Browser::default();
    let session = opened(&world, &mut browser).await;
    let ask = |resource: Option<&str>| json!({ "customer": "acme", "hash": hashed(&session), "resource": resource });
    let given = world.internal("token", ask(None)).await;
    assert!(world.check_platform(&given.text("access_token"), USER_LIFE_S).await.is_ok());
    assert!(given.json()["expires_at"].as_i64().unwrap() > now_s());
    let given = world.internal("token", ask(Some(SHOP))).await;
    assert!(world.check_shop(&given.text("access_token")).await.is_ok());
    let foreign = json!({ "customer": "beta", "hash": hashed(&session) });
    assert_eq!(world.internal("token", foreign).await.status, 404);
    assert_eq!(world.internal("close", ask(None)).await.status, 200);
    assert_eq!(world.internal("token", ask(None)).await.status, 404);
    // The sign-in that it came from has ended too: no silent way back in.
    let path = format!("/identity/authorize?{}", cli());
    assert_eq!(world.browse(&mut browser, Method::GET, &path, "").await.status, 200);
    assert!(world.audited("logout").await);
}

#[tokio::test]
async fn a_gateway_s_code_used_twice_ends_the_session() {
    let world = World::with_ann().await;
    let asked = request("bastide-gateway", CALLBACK, &[]);
    let answer = world.sign_in(&mut Browser::default(), &asked, PASSWORD).await;
    let code = answer.redirected("code").unwrap();
    let ask =
        json!({ "customer": "acme", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK });
    let session = world.internal("open", ask.clone()).await.text("session");
    assert_eq!(world.internal("open", ask).await.status, 400);
    let dead = world.internal("token", json!({ "customer": "acme", "hash": hashed(&session) })).await;
    assert_eq!(dead.status, 404);
}

#[tokio::test]
async fn a_code_of_the_command_line_opens_no_browser_session() {
    let world = World::with_ann().await;
    let code = world.code(&cli()).await;
    let ask =
        json!({ "customer": "acme", "code": code, "code_verifier": VERIFIER, "redirect_uri": LOOPBACK });
    assert_eq!(world.internal("open", ask).await.status, 400);
}

#[tokio::test]
async fn signing_out_asks_first_and_then_ends_the_sign_in() {
    let world = World::with_ann().await;
    let mut browser = Browser::default();
    let session = opened(&world, &mut browser).await;
    let page = world.browse(&mut browser, Method::GET, "/identity/logout", "").await;
    let ask = json!({ "customer": "acme", "hash": hashed(&session) });
    assert_eq!(world.internal("token", ask.clone()).await.status, 200, "asking changes nothing");
    let form = filled(&page.body, &[]);
    assert_eq!(world.browse(&mut browser, Method::POST, "/identity/logout", &form).await.status, 200);
    assert_eq!(world.internal("token", ask).await.status, 404);
}
