//! Providers of identity outside: whom they send, who that is here, and what goes wrong.

use super::{
    api::{World, world, world_of},
    identity::{Browser, LOOPBACK, VERIFIER, encode, request},
};
use axum::{
    Form, Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, Request, StatusCode, header},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bastide_identity::{
    IdKey, SigningKey, Upstream, UpstreamKeys, id_token::RSA_EXPONENT, pkce, upstream::LOGOUT_EVENT,
};
use bastide_platform::{config::OutboundHost, router};
use bastide_store::{ClientRow, CustomerStore, KeyState, MemberRow, NewKey, NewStage, now_s};
use bastide_types::{CustomerId, Secret, StageName};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tower::ServiceExt;

const STAGE: &str = "/identity/s/development";
const EVE: &str = "eve@example.com";
const CLIENT: &str = "web";

/// A provider on loopback.
struct Op {
    issuer: String,
    key: IdKey,
    /// Codes that it gives out: the challenge of each, and the claims of its token.
    codes: Mutex<HashMap<String, (String, Value)>>,
    /// What came to its token endpoint last: head and form.
    asked: Mutex<(String, HashMap<String, String>)>,
    /// What it says instead of its issuer.
    alias: Mutex<Option<String>>,
}

impl Op {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let op = Arc::new(Self {
            issuer,
            key: IdKey::generate().unwrap().0,
            codes: Mutex::default(),
            asked: Mutex::default(),
            alias: Mutex::default(),
        });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(description))
            .route("/jwks", get(keys))
            .route("/token", post(token))
            .with_state(op.clone());
        tokio::spawn(axum::serve(listener, routes).into_future());
        op
    }

    fn host(&self) -> OutboundHost {
        let host = self.issuer.strip_prefix("http://").unwrap().to_owned();
        OutboundHost { host, ca_file: None, plain_http: true }
    }

    /// Lets somebody in who was sent here; the path of the way back.
    fn sends(&self, to: &str, claims: Value) -> String {
        let asked: HashMap<_, _> = url::Url::parse(to).unwrap().query_pairs().into_owned().collect();
        assert_eq!(
            (asked["code_challenge_method"].as_str(), asked["response_type"].as_str()),
            ("S256", "code")
        );
        let mut all = json!({
            "iss": self.issuer, "aud": asked["client_id"], "nonce": asked["nonce"],
            "iat": now_s(), "exp": now_s() + 300, "sub": "eve-there",
        });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let code = format!("code-{}", asked["state"]);
        self.codes.lock().unwrap().insert(code.clone(), (asked["code_challenge"].clone(), all));
        let mut back = url::Url::parse(&asked["redirect_uri"]).unwrap();
        back.query_pairs_mut().append_pair("code", &code).append_pair("state", &asked["state"]);
        format!("{}?{}", back.path(), back.query().unwrap())
    }

    fn logout(&self, claims: Value) -> String {
        let mut all = json!({
            "iss": self.issuer, "aud": "us", "iat": now_s(), "exp": now_s() + 120, "jti": uuid::Uuid::new_v4().to_string(),
            "events": { LOGOUT_EVENT: {} },
        });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        self.key.sign("logout+jwt", &all).unwrap()
    }
}

async fn description(State(op): State<Arc<Op>>) -> Json<Value> {
    let at = |path: &str| format!("{}/{path}", op.issuer);
    let issuer = op.alias.lock().unwrap().clone().unwrap_or_else(|| op.issuer.clone());
    Json(json!({
        "issuer": issuer, "authorization_endpoint": at("authorize"), "token_endpoint": at("token"),
        "jwks_uri": at("jwks"),
    }))
}

async fn keys(State(op): State<Arc<Op>>) -> Json<Value> {
    let key = json!({ "kty": "RSA", "kid": op.key.kid, "n": op.key.n, "e": RSA_EXPONENT, "alg": "RS256" });
    Json(json!({ "keys": [key] }))
}

async fn token(
    State(op): State<Arc<Op>>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    let word = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    *op.asked.lock().unwrap() = (word.unwrap_or_default(), form.clone());
    let found = op.codes.lock().unwrap().remove(&form["code"]);
    match found {
        Some((challenge, claims)) if pkce::matches(&form["code_verifier"], &challenge) => {
            let token = op.key.sign("JWT", &claims).unwrap();
            (StatusCode::OK, Json(json!({ "id_token": token, "access_token": "x", "token_type": "Bearer" })))
        }
        _ => (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))),
    }
}

/// The customer acme with Development, and a provider that it may ask.
struct Town {
    world: World,
    op: Arc<Op>,
    acme: CustomerId,
    boss: String,
}

impl Town {
    async fn new() -> Self {
        let op = Op::start().await;
        let named = op.host();
        let world = world_of(|config| config.outbound = vec![named]).await;
        let acme = world.customer("acme").await;
        let (own, stage) = (world.app.store.customer(acme), StageName::development());
        let mut write = world.app.store.write().await.unwrap();
        let new = NewStage { name: &stage, account: "A", seed: &Secret::new("s") };
        own.create_stage(&mut write, &new).await.unwrap();
        own.add_group(&mut write, &stage, "buyers", 9).await.unwrap();
        own.add_group(&mut write, &stage, "staff", 9).await.unwrap();
        for stage in [None, Some(&stage)] {
            let key = SigningKey::generate().unwrap();
            let key = NewKey::access(key.verifying_key(), key.to_pkcs8());
            own.add_key(&mut write, stage, &key, KeyState::Current, now_s()).await.unwrap();
        }
        let client = ClientRow {
            kind: "public".into(),
            redirect_uris: vec!["http://127.0.0.1/callback".into()],
            ..ClientRow::service(CLIENT, vec![])
        };
        own.add_client(&mut write, &client).await.unwrap();
        write.commit().await.unwrap();
        let boss = world.assertion(acme, &["administrator"]);
        Self { world, op, acme, boss }
    }

    fn own(&self) -> CustomerStore<'_> {
        self.world.app.store.customer(self.acme)
    }

    fn config(&self, change: Value) -> Value {
        let mut all =
            json!({ "name": "The office", "issuer": self.op.issuer, "client_id": "us", "create": true });
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        all
    }

    async fn call(&self, who: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
        let path = format!("/api/v1{path}");
        let (status, text) = self.world.call("acme", method, &path, Some(who), body.to_string()).await;
        (status.as_u16(), serde_json::from_str(&text).unwrap_or_default())
    }

    /// Sets the provider up for Development, or changes it.
    async fn set(&self, change: Value) -> Value {
        let body = json!({ "id": "office", "secret": "s3cret:+", "config": self.config(change.clone()) });
        let (status, made) = self.call(&self.boss, Method::POST, "/idps?stage=development", body).await;
        if status == 201 {
            return made;
        }
        let body = json!({ "config": self.config(change) });
        let (status, made) = self.call(&self.boss, Method::PUT, "/idps/office?stage=development", body).await;
        assert_eq!(status, 200, "{made}");
        made
    }

    async fn browse(
        &self,
        browser: &mut Browser,
        method: Method,
        path: &str,
        form: &str,
    ) -> (u16, HeaderMap, String) {
        let cookies: Vec<_> = browser.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "acme.platform.localhost:8443")
            .header("accept", "text/html")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", cookies.join("; "))
            .body(Body::from(form.to_owned()))
            .unwrap();
        let answer = router(self.world.app.clone(), |_| Router::new()).oneshot(request).await.unwrap();
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            browser.0.insert(name.to_owned(), value.to_owned());
        }
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// From the sign-in page below `base` to the provider: where the browser is sent.
    async fn leaves(&self, browser: &mut Browser, base: &str) -> String {
        let asked = request(CLIENT, LOOPBACK, &[("scope", "openid email")]);
        let (_, _, page) = self.browse(browser, Method::GET, &format!("{base}/authorize?{asked}"), "").await;
        let link =
            page.split("href=\"").find(|part| part.contains("/broker/")).unwrap_or_else(|| panic!("{page}"));
        let link = link.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&");
        let (status, headers, body) = self.browse(browser, Method::GET, &link, "").await;
        assert_eq!(status, 303, "{body}");
        headers[header::LOCATION].to_str().unwrap().to_owned()
    }

    /// A whole sign-in with these claims: the code for the client, or the page that says why not.
    async fn comes(&self, browser: &mut Browser, base: &str, claims: Value) -> Result<String, String> {
        let to = self.leaves(browser, base).await;
        let (status, headers, body) =
            self.browse(browser, Method::GET, &self.op.sends(&to, claims), "").await;
        let Some(location) = headers.get(header::LOCATION).filter(|_| status == 303) else {
            return Err(body);
        };
        let location = url::Url::parse(location.to_str().unwrap()).unwrap();
        assert!(location.as_str().starts_with(LOOPBACK), "{location}");
        Ok(location.query_pairs().find(|(key, _)| key == "code").unwrap().1.into_owned())
    }

    /// The refresh token that a code gives.
    async fn redeem(&self, base: &str, code: &str) -> Value {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", CLIENT),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", LOOPBACK),
        ];
        let path = format!("{base}/token");
        let (_, _, body) = self.browse(&mut Browser::default(), Method::POST, &path, &encode(&form)).await;
        serde_json::from_str(&body).unwrap()
    }

    async fn eve(&self) -> Option<MemberRow> {
        self.own().user_with_email("development", EVE).await.unwrap()
    }

    async fn add(&self, member: &MemberRow) {
        let mut write = self.world.app.store.write().await.unwrap();
        self.own().add_member(&mut write, member).await.unwrap();
        write.commit().await.unwrap();
    }
}

fn verified() -> Value {
    json!({ "email": "Eve@Example.com", "email_verified": true, "name": "Eve", "sid": "there-1" })
}

#[tokio::test]
async fn a_provider_signs_somebody_in_who_is_the_same_ever_after() {
    let town = Town::new().await;
    let made = town.set(json!({})).await;
    assert_eq!(
        made["redirect_uri"],
        "https://acme.platform.localhost:8443/identity/s/development/broker/office/callback"
    );
    assert!(made["has_secret"] == true && !made.to_string().contains("s3cret"), "{made}");
    let code = town.comes(&mut Browser::default(), STAGE, verified()).await.unwrap();
    let tokens = town.redeem(STAGE, &code).await;
    assert!(tokens["access_token"].is_string() && tokens["id_token"].is_string(), "{tokens}");
    let (word, form) = town.op.asked.lock().unwrap().clone();
    assert_eq!(word, format!("Basic {}", BASE64_STANDARD.encode("us:s3cret%3A%2B")));
    assert_eq!(form["redirect_uri"], made["redirect_uri"]);
    let eve = town.eve().await.unwrap();
    assert!(eve.verified && eve.name == "Eve" && eve.password.is_none() && eve.roles.is_empty());
    // Known by the provider's id, whatever address it says now.
    let other = json!({ "email": "other@example.com", "email_verified": true });
    town.comes(&mut Browser::default(), STAGE, other).await.unwrap();
    assert!(town.own().user_with_email("development", "other@example.com").await.unwrap().is_none());
    // She is nobody among the members, and the provider is not offered there.
    assert!(town.own().member_with_email(EVE).await.unwrap().is_none());
    let page = format!("/identity/authorize?{}", request(CLIENT, LOOPBACK, &[]));
    let (_, _, page) = town.browse(&mut Browser::default(), Method::GET, &page, "").await;
    assert!(!page.contains("/broker/") && page.contains("name=\"password\""), "{page}");
    // Suspended here is suspended, whatever the provider says.
    let mut write = town.world.app.store.write().await.unwrap();
    town.own().suspend_member(&mut write, eve.id, true).await.unwrap();
    write.commit().await.unwrap();
    let refused = town.comes(&mut Browser::default(), STAGE, verified()).await.unwrap_err();
    assert!(refused.contains("B-ID-0414"), "{refused}");
}

#[tokio::test]
async fn an_answer_counts_once_in_its_browser_for_its_provider() {
    let town = Town::new().await;
    town.set(json!({})).await;
    let mut browser = Browser::default();
    let to = town.leaves(&mut browser, STAGE).await;
    let back = town.op.sends(&to, verified());
    let elsewhere = back.replace("/s/development/", "/s/test/");
    let tries: [(&str, Browser); 3] = [
        // Nobody's browser: the request is used up by it.
        (&back, Browser::default()),
        (&back, Browser(browser.0.clone())),
        (&elsewhere, Browser(browser.0.clone())),
    ];
    for (path, mut other) in tries {
        let (status, _, body) = town.browse(&mut other, Method::GET, path, "").await;
        assert!(status == 400 || status == 404, "{path}: {body}");
    }
    let to = town.leaves(&mut browser, STAGE).await;
    let back = town.op.sends(&to, verified());
    let mixed = format!("{back}&iss=https%3A%2F%2Fother");
    let (status, _, body) = town.browse(&mut browser, Method::GET, &mixed, "").await;
    assert!(status == 400 && body.contains("another provider"), "{body}");
    for claims in [
        json!({ "nonce": "other" }),
        json!({ "aud": "them" }),
        json!({ "iss": "https://other" }),
        json!({ "exp": now_s() - 60 }),
        json!({ "sub": null }),
    ] {
        let mut all = verified();
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let refused = town.comes(&mut Browser::default(), STAGE, all).await.unwrap_err();
        assert!(refused.contains("B-ID-0502"), "{claims}: {refused}");
    }
    assert!(town.eve().await.is_none());
    // The user said no there.
    let to = town.leaves(&mut browser, STAGE).await;
    let state =
        url::Url::parse(&to).unwrap().query_pairs().find(|(k, _)| k == "state").unwrap().1.into_owned();
    let no = format!("{STAGE}/broker/office/callback?error=access_denied&state={state}");
    let (status, _, body) = town.browse(&mut browser, Method::GET, &no, "").await;
    assert!(status == 401 && body.contains("B-ID-0414"), "{body}");
}

#[tokio::test]
async fn an_address_makes_nobody_an_account_that_is_there_unless_both_have_proven_it() {
    let town = Town::new().await;
    let there = |state: &str, verified: bool| MemberRow {
        state: state.into(),
        verified,
        ..MemberRow::invited("development", EVE, "Eve", vec![])
    };
    for (existing, claimed, state, proven, expected) in [
        ("verified", true, "active", true, true),
        ("verified", true, "active", false, false),
        ("verified", false, "active", true, false),
        ("verified", true, "invited", false, true),
        ("verified", false, "invited", false, false),
        ("verified", true, "inactive", true, false),
        ("provider", true, "active", false, true),
        ("provider", false, "active", false, false),
        ("never", true, "active", true, false),
    ] {
        town.set(json!({ "existing": existing })).await;
        let row = there(state, proven);
        town.add(&row).await;
        let claims = json!({ "email": EVE, "email_verified": claimed });
        let came = town.comes(&mut Browser::default(), STAGE, claims).await;
        let case = format!("{existing} {claimed} {state} {proven}");
        assert_eq!(came.is_ok(), expected, "{case}: {came:?}");
        let linked = town.own().idp_link("development", "office", "eve-there").await.unwrap();
        assert_eq!(linked, expected.then_some(row.id), "{case}");
        let mut write = town.world.app.store.write().await.unwrap();
        assert!(town.own().remove_user(&mut write, row.id).await.unwrap());
        write.commit().await.unwrap();
    }
    town.set(json!({ "create": false })).await;
    let refused = town.comes(&mut Browser::default(), STAGE, verified()).await.unwrap_err();
    assert!(refused.contains("no account here"), "{refused}");
    let trail = town.own().audit_trail(100).await.unwrap();
    assert!(trail.iter().any(|row| row.what == "login.failed" && row.detail.contains("has an account")));
}

#[tokio::test]
async fn groups_follow_the_provider_at_each_sign_in() {
    let town = Town::new().await;
    let rules = json!([
        { "value": "sales", "group": "buyers" },
        { "value": "shop", "group": "buyers" },
        { "value": "it", "group": "gone" },
    ]);
    town.set(json!({ "claims": { "groups": "departments" }, "groups": rules })).await;
    let comes = async |departments: Value| {
        let mut claims = verified();
        claims["departments"] = departments;
        town.comes(&mut Browser::default(), STAGE, claims).await.unwrap();
        let eve = town.eve().await.unwrap();
        town.own().groups_of(eve.id).await.unwrap()
    };
    assert_eq!(comes(json!(["shop", "it"])).await, ["buyers"]);
    let eve = town.eve().await.unwrap();
    let mut write = town.world.app.store.write().await.unwrap();
    town.own().join_group(&mut write, &StageName::development(), "staff", eve.id).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(comes(json!("sales")).await, ["buyers", "staff"]);
    assert_eq!(comes(json!([])).await, ["staff"], "only groups that it speaks of");
}

#[tokio::test]
async fn a_sign_out_at_the_provider_ends_what_came_of_the_sign_in_there() {
    let town = Town::new().await;
    town.set(json!({})).await;
    let code = town.comes(&mut Browser::default(), STAGE, verified()).await.unwrap();
    let first = town.redeem(STAGE, &code).await;
    let mut other = verified();
    other["sid"] = "there-2".into();
    town.comes(&mut Browser::default(), STAGE, other).await.unwrap();
    let eve = town.eve().await.unwrap();
    let sessions = async || town.own().sessions_of(eve.id).await.unwrap().len();
    assert_eq!(sessions().await, 3);
    let tell = async |token: &str| {
        let path = format!("{STAGE}/broker/office/backchannel_logout");
        let form = encode(&[("logout_token", token)]);
        town.browse(&mut Browser::default(), Method::POST, &path, &form).await.0
    };
    for wrong in [
        json!({ "aud": "them", "sid": "there-1" }),
        json!({ "iss": "https://other", "sid": "there-1" }),
        json!({ "nonce": "n", "sid": "there-1" }),
        json!({ "events": {}, "sid": "there-1" }),
        json!({ "iat": now_s() - 900, "sid": "there-1" }),
        json!({}),
    ] {
        assert_eq!(tell(&town.op.logout(wrong.clone())).await, 400, "{wrong}");
    }
    assert_eq!(sessions().await, 3);
    let token = town.op.logout(json!({ "sid": "there-1", "sub": "eve-there" }));
    assert_eq!(
        (tell(&token).await, sessions().await),
        (200, 1),
        "the sign-in, and the program's session of it"
    );
    assert_eq!(tell(&token).await, 400, "it counts once");
    let form = encode(&[
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT),
        ("refresh_token", first["refresh_token"].as_str().unwrap_or_default()),
    ]);
    let (status, _, body) =
        town.browse(&mut Browser::default(), Method::POST, &format!("{STAGE}/token"), &form).await;
    assert_eq!(status, 400, "{body}");
    assert_eq!((tell(&town.op.logout(json!({ "sub": "eve-there" }))).await, sessions().await), (200, 0));
}

#[tokio::test]
async fn we_prove_ourselves_with_a_key_that_only_we_have_and_providers_read_its_public_half() {
    let town = Town::new().await;
    let made = town.set(json!({ "auth": "private_key_jwt" })).await;
    assert_eq!(made["has_secret"], false);
    let jwks =
        made["jwks_uri"].as_str().unwrap().strip_prefix("https://acme.platform.localhost:8443").unwrap();
    let (_, _, keys) = town.browse(&mut Browser::default(), Method::GET, jwks, "").await;
    let keys = UpstreamKeys::read(keys.as_bytes()).unwrap();
    town.comes(&mut Browser::default(), STAGE, verified()).await.unwrap();
    let (word, form) = town.op.asked.lock().unwrap().clone();
    assert!(word.is_empty() && !form.contains_key("client_secret"));
    assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let audience = format!("{}/token", town.op.issuer);
    let us = Upstream { issuer: "us", client_id: &audience, keys: &keys };
    // It is signed by that key, by us, for their token endpoint, and short-lived.
    let claims = form["client_assertion"].split('.').nth(1).unwrap();
    let claims: Value =
        serde_json::from_slice(&base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(
        (claims["iss"].as_str(), claims["sub"].as_str(), claims["aud"].as_str()),
        (Some("us"), Some("us"), Some(audience.as_str()))
    );
    assert_eq!(
        us.id_token(&form["client_assertion"], "n", now_s() as u64),
        Err(bastide_identity::UpstreamFault::Nonce)
    );
    town.set(json!({ "auth": "none" })).await;
    town.comes(&mut Browser::default(), STAGE, verified()).await.unwrap();
    assert_eq!(town.op.asked.lock().unwrap().1["client_id"], "us");
}

#[tokio::test]
async fn members_come_by_a_provider_of_theirs_also_at_stages_and_passwords_stay_a_way_in() {
    let town = Town::new().await;
    let (member, developer) = (
        |change: Value| json!({ "id": "office", "secret": "s", "config": town.config(change) }),
        ["developer"],
    );
    let create =
        async |who: &str, change: Value| town.call(who, Method::POST, "/idps", member(change)).await.0;
    assert_eq!(create(&town.boss, json!({})).await, 422, "new members need roles");
    // Whoever sets such a provider up could be any member: a role of one's own that holds less will not do.
    let mut write = town.world.app.store.write().await.unwrap();
    let row = bastide_store::RoleRow { name: "keeper".into(), permissions: vec!["idps.write".into()] };
    town.own().add_role(&mut write, &row).await.unwrap();
    write.commit().await.unwrap();
    let keeper = town.world.assertion(town.acme, &["keeper"]);
    assert_eq!(create(&keeper, json!({ "create": false })).await, 403);
    assert_eq!(create(&town.boss, json!({ "roles": developer })).await, 201);
    let unproven = json!({ "email": "bob@example.com", "email_verified": false });
    let refused = town.comes(&mut Browser::default(), "/identity", unproven).await.unwrap_err();
    assert!(refused.contains("not proven"), "{refused}");
    let bob = json!({ "email": "bob@example.com", "email_verified": true });
    for base in ["/identity", STAGE] {
        let code = town.comes(&mut Browser::default(), base, bob.clone()).await.unwrap();
        assert!(town.redeem(base, &code).await["access_token"].is_string(), "{base}");
    }
    let bob = town.own().member_with_email("bob@example.com").await.unwrap().unwrap();
    assert_eq!((bob.stage.as_str(), &bob.roles[..]), ("", &["developer".to_owned()][..]));
    assert!(town.own().user_with_email("development", "bob@example.com").await.unwrap().is_none());
    // The provider calls itself something else: nobody comes by it, and it can still be taken out of the way.
    *town.op.alias.lock().unwrap() = Some("https://other".into());
    let broken = json!({ "config": town.config(json!({ "roles": developer })) });
    let (status, said) = town.call(&town.boss, Method::PUT, "/idps/office", broken).await;
    assert!(status == 422 && said.to_string().contains("it calls itself"), "{said}");
    let off = json!({ "config": town.config(json!({ "roles": developer, "enabled": false })) });
    assert_eq!(town.call(&town.boss, Method::PUT, "/idps/office", off).await.0, 200);
    let page = format!("/identity/authorize?{}", request(CLIENT, LOOPBACK, &[]));
    let (_, _, page) = town.browse(&mut Browser::default(), Method::GET, &page, "").await;
    assert!(!page.contains("/broker/") && page.contains("name=\"password\""), "{page}");
    assert_eq!(town.call(&town.boss, Method::DELETE, "/idps/office", json!({})).await.0, 204);
    assert_eq!(town.call(&town.boss, Method::GET, "/idps", json!({})).await.1, json!([]));
}

#[tokio::test]
async fn a_provider_where_customers_have_no_business_is_refused() {
    let world = world().await;
    let acme = world.customer("acme").await;
    let boss = world.assertion(acme, &["administrator"]);
    for issuer in [
        "https://169.254.169.254",
        "https://127.0.0.1:8443",
        "https://localhost",
        "https://10.0.0.1/x",
        "https://[::1]",
        "http://op.example",
        "https://u:p@op.example",
        "https://op.example/?x=1",
        "nowhere",
    ] {
        let config = json!({ "name": "x", "issuer": issuer, "client_id": "us" });
        let body = json!({ "id": "office", "secret": "s", "config": config });
        let (status, text) =
            world.call("acme", Method::POST, "/api/v1/idps", Some(&boss), body.to_string()).await;
        assert!(status == 422 && text.contains("issuer"), "{issuer}: {text}");
    }
}
