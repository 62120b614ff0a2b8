//! The OpenID Provider as relying parties use it: registered clients, ID tokens, what becomes of tokens, sign-out.

use super::identity::{
    ACME, Answer, Browser, EMAIL, PASSWORD, SHOP, VERIFIER, World, encode, filled, request,
};
use aws_lc_rs::{digest, signature};
use axum::http::{Method, StatusCode, header};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::{claims::USER_LIFE_S, opaque};
use bastide_store::{
    ClientRow, CodeOutcome, Counter, DeviceOutcome, DeviceRow, KeyKind, Logo, RefreshBy, RefreshOutcome,
    now_s,
};
use bastide_types::{
    Digest, StageName,
    picture::{Picture, PictureKind},
};
use serde_json::Value;

const SECRET: &str = "a-secret-of-the-web-client";
const WEB: &str = "https://web.example/callback?tenant=1";
const AFTER: &str = "https://web.example/bye";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const ISSUER: &str = "https://acme.platform.localhost:8443/identity";

/// A world with Ann, a client of each kind, and a suspended one.
async fn world() -> World {
    let world = World::with_ann().await;
    let own = world.store.customer(world.acme);
    let row = |id: &str, kind: &str, redirects: &[&str]| ClientRow {
        kind: kind.into(),
        redirect_uris: redirects.iter().map(|uri| (*uri).to_owned()).collect(),
        post_logout_redirect_uris: vec![AFTER.into()],
        ..ClientRow::service(id, Vec::new())
    };
    let native = ["http://127.0.0.1/cb", "com.example.app:/cb"];
    let mut write = world.store.write().await.unwrap();
    own.put_client(&mut write, &row("web", "confidential", &[WEB]), &opaque::hash(SECRET)).await.unwrap();
    own.put_client(&mut write, &row("other", "confidential", &[WEB]), &opaque::hash("other")).await.unwrap();
    own.put_client(&mut write, &row("gone", "confidential", &[WEB]), &opaque::hash("gone")).await.unwrap();
    own.suspend_client(&mut write, "gone", true).await.unwrap();
    own.add_client(&mut write, &row("native", "public", &native)).await.unwrap();
    own.add_client(&mut write, &row("tv", "device", &[])).await.unwrap();
    own.add_client(&mut write, &row("car", "device", &[])).await.unwrap();
    write.commit().await.unwrap();
    world
}

fn web(change: &[(&str, &str)]) -> String {
    let mut pairs = vec![("scope", "openid profile email"), ("nonce", "n-0S6")];
    pairs.retain(|(name, _)| !change.iter().any(|(other, _)| other == name));
    pairs.extend(change.iter().copied());
    request("web", WEB, &pairs)
}

impl World {
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send(ACME, Method::POST, path, &encode(form), &[FORM]).await
    }

    /// A code for the web client at the issuer of this path.
    async fn web_code(&self, base: &str, browser: &mut Browser, change: &[(&str, &str)]) -> String {
        let page = self.browse(browser, Method::GET, &format!("{base}/authorize?{}", web(change)), "").await;
        let answer = if page.status == 303 {
            page
        } else {
            let form = filled(&page.body, &[("username", EMAIL), ("password", PASSWORD)]);
            self.browse(browser, Method::POST, &format!("{base}/login"), &form).await
        };
        answer.redirected("code").unwrap_or_else(|| panic!("{:?} {}", answer.headers, answer.body))
    }

    async fn web_redeem(&self, base: &str, code: &str) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "web"),
            ("client_secret", SECRET),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", WEB),
        ];
        self.post(&format!("{base}/token"), &form).await
    }

    async fn web_tokens(&self, browser: &mut Browser, change: &[(&str, &str)]) -> Answer {
        let code = self.web_code("/identity", browser, change).await;
        let answer = self.web_redeem("/identity", &code).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    async fn refreshed(&self, client: &[(&str, &str)], token: &str) -> Answer {
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
        form.extend(client.iter().copied());
        self.post("/identity/token", &form).await
    }

    async fn userinfo(&self, token: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.send(ACME, Method::GET, "/identity/userinfo", "", &[("authorization", &bearer)]).await
    }

    async fn introspected(&self, token: &str) -> Value {
        let form = [("client_id", "web"), ("client_secret", SECRET), ("token", token)];
        let answer = self.post("/identity/introspect", &form).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Checks an ID token as a relying party does, with the published keys alone.
    async fn checked(&self, base: &str, token: &str) -> Value {
        let mut parts = token.split('.');
        let mut part = || BASE64_URL_SAFE_NO_PAD.decode(parts.next().unwrap()).unwrap();
        let (head, claims, sign) = (part(), part(), part());
        let head: Value = serde_json::from_slice(&head).unwrap();
        assert_eq!(head["alg"], "RS256");
        let keys = self.send(ACME, Method::GET, &format!("{base}/jwks"), "", &[]).await.json();
        let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == head["kid"]).unwrap();
        assert_eq!((&key["kty"], &key["alg"]), (&"RSA".into(), &"RS256".into()));
        assert!(key.get("d").is_none());
        let number = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
        let signed = token.rsplit_once('.').unwrap().0;
        signature::RsaPublicKeyComponents { n: number("n"), e: number("e") }
            .verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &sign)
            .unwrap();
        serde_json::from_slice(&claims).unwrap()
    }
}

#[tokio::test]
async fn every_issuer_describes_itself_and_everything_described_is_there() {
    let world = world().await;
    let get = async |path: &str| world.send(ACME, Method::GET, path, "", &[]).await;
    for base in ["/identity", "/identity/s/development"] {
        let document = get(&format!("{base}/.well-known/openid-configuration")).await.json();
        let above = get(&format!("/.well-known/oauth-authorization-server{base}")).await.json();
        assert_eq!(document, above, "RFC 8414 says the same");
        let origin = "https://acme.platform.localhost:8443";
        assert_eq!(document["issuer"], format!("{origin}{base}"));
        let mut walked = 0;
        for (name, value) in document.as_object().unwrap() {
            let Some(url) = value.as_str().filter(|_| name != "issuer") else { continue };
            let path = url.strip_prefix(origin).unwrap();
            assert!(path.starts_with(base), "{name}: {url}");
            let (got, posted) = (get(path).await.status, world.post(path, &[]).await.status);
            assert_ne!((got.as_u16(), posted.as_u16()), (404, 404), "{name}");
            walked += 1;
        }
        assert_eq!(walked, 8);
        for absent in ["registration_endpoint", "frontchannel_logout_supported", "check_session_iframe"] {
            assert!(document.get(absent).is_none());
        }
        assert_eq!(document["backchannel_logout_supported"], true);
    }
    for path in ["/identity/s/nowhere", "/identity/s/x%2Fy"] {
        assert_eq!(get(&format!("{path}/.well-known/openid-configuration")).await.status, 404);
        assert_eq!(get(&format!("/.well-known/oauth-authorization-server{path}")).await.status, 404);
    }
}

#[tokio::test]
async fn an_id_token_says_who_signed_in_when_and_for_which_request() {
    let world = world().await;
    let tokens = world.web_tokens(&mut Browser::default(), &[]).await;
    assert_eq!(tokens.text("scope"), "openid profile email");
    let claims = world.checked("/identity", &tokens.text("id_token")).await;
    let access = tokens.text("access_token");
    let hash = digest::digest(&digest::SHA256, access.as_bytes());
    let expected = [
        ("iss", ISSUER),
        ("aud", "web"),
        ("nonce", "n-0S6"),
        ("acr", "password"),
        ("at_hash", &BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16])),
        ("name", "Ann"),
        ("email", EMAIL),
    ];
    for (name, value) in expected {
        assert_eq!(claims[name], value, "{name}");
    }
    assert_eq!((&claims["amr"], &claims["email_verified"]), (&serde_json::json!(["pwd"]), &false.into()));
    let at = |name: &str| claims[name].as_i64().unwrap();
    assert!(at("auth_time") <= at("iat") && at("iat") <= now_s() && at("exp") - at("iat") == 300);
    let access = world.check_platform(&access, USER_LIFE_S).await.unwrap();
    assert_eq!((claims["sub"].as_str(), claims["sid"].as_str()), (Some(&*access.sub), Some(&*access.sid)));
    assert!(access.roles.is_empty(), "a registered client gets none of the member's rights by itself");
}

#[tokio::test]
async fn scopes_decide_what_is_said_and_without_openid_there_is_no_id_token() {
    let world = world().await;
    let only = world.web_tokens(&mut Browser::default(), &[("scope", "openid nonsense")]).await;
    assert_eq!(only.text("scope"), "openid");
    let claims = world.checked("/identity", &only.text("id_token")).await;
    assert!(claims.get("email").is_none() && claims.get("name").is_none());
    assert_eq!(world.userinfo(&only.text("access_token")).await.json().as_object().unwrap().len(), 1);
    let plain = world.web_tokens(&mut Browser::default(), &[("scope", "email")]).await;
    assert!(plain.json().get("id_token").is_none());
    let refused = world.userinfo(&plain.text("access_token")).await;
    assert_eq!((refused.status, refused.text("error")), (StatusCode::FORBIDDEN, "insufficient_scope".into()));
}

#[tokio::test]
async fn a_sign_in_that_is_too_old_unwanted_or_somebody_elses_is_asked_for_again() {
    let world = world().await;
    let mut browser = Browser::default();
    let hint = world.web_tokens(&mut browser, &[]).await.text("id_token");
    let other = format!("{}x", &hint[..hint.len() - 1]);
    let check = async |browser: &mut Browser, change: &[(&str, &str)], expected: &str| {
        let path = format!("/identity/authorize?{}", web(change));
        let answer = world.browse(browser, Method::GET, &path, "").await;
        let said = match answer.redirected("error") {
            Some(error) => error,
            None if answer.redirected("code").is_some() => "code".into(),
            None if answer.body.contains("type=\"password\"") => "login".into(),
            None => answer.body.clone(),
        };
        assert!(said.contains(expected) || answer.body.contains(expected), "{change:?}: {said}");
        assert_eq!(answer.status == 303, answer.redirected("iss").as_deref() == Some(ISSUER), "{change:?}");
    };
    check(&mut browser, &[], "code").await;
    check(&mut browser, &[("prompt", "none")], "code").await;
    check(&mut browser, &[("prompt", "login")], "login").await;
    check(&mut browser, &[("prompt", "consent")], "Continue to web?").await;
    check(&mut browser, &[("prompt", "select_account")], "Use another account").await;
    check(&mut browser, &[("max_age", "3600")], "code").await;
    check(&mut browser, &[("id_token_hint", &hint)], "code").await;
    check(&mut browser, &[("id_token_hint", &other)], "login").await;
    check(&mut browser, &[("id_token_hint", &other), ("prompt", "none")], "login_required").await;
    check(&mut Browser::default(), &[("prompt", "none")], "login_required").await;
    check(&mut Browser::default(), &[("login_hint", "ann@hint.example")], "value=\"ann@hint.example\"").await;
    for (change, error) in [
        (("prompt", "none login"), "invalid_request"),
        (("prompt", "create"), "invalid_request"),
        (("max_age", "-1"), "invalid_request"),
        (("max_age", "soon"), "invalid_request"),
        (("request", "e30"), "request_not_supported"),
        (("request_uri", "https://x"), "request_uri_not_supported"),
        (("registration", "{}"), "registration_not_supported"),
        (("response_mode", "fragment"), "invalid_request"),
        (("response_type", "code id_token"), "unsupported_response_type"),
        (("response_type", "id_token"), "unsupported_response_type"),
        (("response_type", ""), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("nonce", &"n".repeat(600)), "invalid_request"),
        (("resource", "https://evil.example/x"), "invalid_target"),
    ] {
        check(&mut browser, &[change], error).await;
    }
}

#[tokio::test]
async fn an_old_sign_in_does_not_pass_max_age_and_a_confirmed_one_goes_on() {
    let world = world().await;
    let mut browser = Browser::default();
    world.web_code("/identity", &mut browser, &[]).await;
    let sso = browser.0["__Host-bst-sso"].clone();
    let own = world.store.customer(world.acme);
    let session = own.session("provider", &opaque::hash(&sso)).await.unwrap().unwrap();
    let (_, mut used) = own.session_with_id(&session.id).await.unwrap().unwrap();
    used.auth_time -= 100;
    let mut write = world.store.write().await.unwrap();
    own.describe_session(&mut write, &session.id, &used).await.unwrap();
    write.commit().await.unwrap();
    let path = format!("/identity/authorize?{}", web(&[("max_age", "50"), ("prompt", "none")]));
    let refused = world.browse(&mut browser, Method::GET, &path, "").await;
    assert_eq!(refused.redirected("error").as_deref(), Some("login_required"));
    let path = format!("/identity/authorize?{}", web(&[("prompt", "consent")]));
    let page = world.browse(&mut browser, Method::GET, &path, "").await;
    let first = page.body.split("</form>").next().unwrap();
    let sent = filled(first, &[]);
    let foreign = world.browse(&mut Browser::default(), Method::POST, "/identity/continue", &sent).await;
    assert_eq!(foreign.status, 403, "only from our own page");
    let code = world.browse(&mut browser, Method::POST, "/identity/continue", &sent).await;
    let tokens = world.web_redeem("/identity", &code.redirected("code").unwrap()).await;
    let claims = world.checked("/identity", &tokens.text("id_token")).await;
    assert_eq!(claims["auth_time"].as_i64(), Some(used.auth_time));
}

#[tokio::test]
async fn redirects_of_registered_clients_match_exactly() {
    let world = world().await;
    for (client, redirect, good) in [
        ("web", WEB, true),
        ("web", "https://web.example/callback", false),
        ("web", "https://web.example/callback?tenant=1&x=2", false),
        ("web", "https://web.example/callback?tenant=1#x", false),
        ("web", "https://WEB.example/callback?tenant=1", false),
        ("web", "https://web.example:443/callback?tenant=1", false),
        ("web", "https://web.example/./callback?tenant=1", false),
        ("web", "https://web.example.evil/callback?tenant=1", false),
        ("web", "https://web.example@evil/callback?tenant=1", false),
        ("web", "", false),
        ("native", "http://127.0.0.1/cb", true),
        ("native", "http://127.0.0.1:50123/cb", true),
        ("native", "com.example.app:/cb", true),
        ("native", "http://127.0.0.1:50123/cb/x", false),
        ("native", "http://localhost:50123/cb", false),
        ("gone", WEB, false),
        ("automation", WEB, false),
        ("tv", WEB, false),
        ("nobody", WEB, false),
    ] {
        let path = format!("/identity/authorize?{}", request(client, redirect, &[("prompt", "none")]));
        let answer = world.browse(&mut Browser::default(), Method::GET, &path, "").await;
        assert_eq!(answer.redirected("error").is_some(), good, "{client} {redirect}");
        assert_eq!(answer.status.as_u16(), if good { 303 } else { 400 }, "{client} {redirect}");
    }
    let path = format!("/identity/authorize?{}", web(&[("prompt", "none")]));
    let answer = world.browse(&mut Browser::default(), Method::GET, &path, "").await;
    let to = answer.headers[header::LOCATION].to_str().unwrap();
    assert!(to.starts_with("https://web.example/callback?tenant=1&error="), "{to}");
}

#[tokio::test]
async fn a_code_lives_sixty_seconds() {
    let world = world().await;
    let own = world.store.customer(world.acme);
    let code = world.web_code("/identity", &mut Browser::default(), &[]).await;
    let before = now_s();
    let mut write = world.store.write().await.unwrap();
    let CodeOutcome::Taken(mut row) = own.take_code(&mut write, &opaque::hash(&code)).await.unwrap() else {
        panic!("the code is good")
    };
    assert!(row.until - before <= 60 && row.until > before - 600, "{}", row.until - before);
    row.until = now_s();
    own.add_code(&mut write, &opaque::hash("late"), &row).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(world.web_redeem("/identity", "late").await.text("error"), "invalid_grant");
}

#[tokio::test]
async fn the_token_endpoint_says_what_is_wrong() {
    let world = world().await;
    let by_web = [("client_id", "web"), ("client_secret", SECRET)];
    let check = async |form: &[(&str, &str)], status: u16, error: &str| {
        let answer = world.post("/identity/token", form).await;
        assert_eq!((answer.status.as_u16(), &*answer.text("error")), (status, error), "{form:?}");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.headers.contains_key(header::WWW_AUTHENTICATE), status == 401, "{form:?}");
    };
    let code = [
        ("grant_type", "authorization_code"),
        ("code", "x"),
        ("code_verifier", VERIFIER),
        ("redirect_uri", WEB),
    ];
    let with = |client: &[(&'static str, &'static str)]| [&code[..], client].concat();
    check(&[], 400, "invalid_request").await;
    check(&[("grant_type", "password")], 400, "unsupported_grant_type").await;
    check(&[("grant_type", "implicit")], 400, "unsupported_grant_type").await;
    check(&with(&by_web), 400, "invalid_grant").await;
    check(&with(&[("client_id", "web")]), 401, "invalid_client").await;
    check(&with(&[("client_id", "web"), ("client_secret", "wrong")]), 401, "invalid_client").await;
    check(&with(&[("client_id", "gone"), ("client_secret", "gone")]), 401, "invalid_client").await;
    check(&with(&[("client_id", "native"), ("client_secret", "x")]), 401, "invalid_client").await;
    check(&with(&[("client_id", "nobody")]), 401, "invalid_client").await;
    check(&with(&[]), 401, "invalid_client").await;
    check(&with(&[("client_assertion", "x"), ("client_id", "web")]), 401, "invalid_client").await;
    let service = [("client_id", "automation"), ("client_secret", "the:secret+%")];
    check(&with(&service), 400, "unauthorized_client").await;
    check(&[by_web[0], by_web[1], ("grant_type", "authorization_code")], 400, "invalid_request").await;
    check(&[by_web[0], by_web[1], ("grant_type", "refresh_token")], 400, "invalid_request").await;
    let native = [("client_id", "native"), ("grant_type", "client_credentials")];
    check(&native, 401, "invalid_client").await;
    let json = world
        .send(ACME, Method::POST, "/identity/token", "{}", &[("content-type", "application/json")])
        .await;
    assert_eq!(json.text("error"), "invalid_request");
    let twice = [FORM, ("authorization", "Basic d2ViOng="), ("authorization", "Basic d2ViOng=")];
    let twice = world.send(ACME, Method::POST, "/identity/token", "grant_type=refresh_token", &twice).await;
    assert_eq!(twice.text("error"), "invalid_request");
    assert_eq!(world.send(ACME, Method::GET, "/identity/token", "", &[]).await.status, 405);
    // What a confidential client gets for itself carries no roles.
    let own =
        world.post("/identity/token", &[by_web[0], by_web[1], ("grant_type", "client_credentials")]).await;
    let claims = world.check_platform(&own.text("access_token"), 3600).await.unwrap();
    assert!(claims.roles.is_empty() && claims.is_client());
}

#[tokio::test]
async fn a_refresh_token_serves_only_the_client_that_it_was_given_to() {
    let world = world().await;
    let refresh = world.web_tokens(&mut Browser::default(), &[]).await.text("refresh_token");
    for client in [&[("client_id", "bastide-cli")][..], &[("client_id", "other"), ("client_secret", "other")]]
    {
        assert_eq!(world.refreshed(client, &refresh).await.text("error"), "invalid_grant");
    }
    let by_web = [("client_id", "web"), ("client_secret", SECRET)];
    let more = [by_web[0], by_web[1], ("scope", "openid offline_access")];
    assert_eq!(world.refreshed(&more, &refresh).await.text("error"), "invalid_scope");
    let less = [by_web[0], by_web[1], ("scope", "openid")];
    let good = world.refreshed(&less, &refresh).await;
    assert_eq!(
        (good.status, good.text("scope")),
        (StatusCode::OK, "openid".into()),
        "nothing above has spent it"
    );
    let claims = world.checked("/identity", &good.text("id_token")).await;
    assert!(claims.get("nonce").is_none() && claims.get("email").is_none());
}

#[tokio::test]
async fn a_confidential_client_may_ask_once_more_within_ten_seconds() {
    let world = world().await;
    let by_web = [("client_id", "web"), ("client_secret", SECRET)];
    let first = world.web_tokens(&mut Browser::default(), &[]).await.text("refresh_token");
    let lost = world.refreshed(&by_web, &first).await.text("refresh_token");
    let again = world.refreshed(&by_web, &first).await;
    assert_eq!(again.status, 200, "{}", again.body);
    // The successor whose answer was lost is worth nothing; the new one is.
    assert_eq!(world.refreshed(&by_web, &lost).await.text("error"), "invalid_grant");
    let third = world.refreshed(&by_web, &again.text("refresh_token")).await;
    assert_eq!(third.status, 200);
    // Its successor is used now: the first is no lost answer any more.
    assert_eq!(world.refreshed(&by_web, &first).await.text("error"), "invalid_grant");
    assert_eq!(world.refreshed(&by_web, &third.text("refresh_token")).await.text("error"), "invalid_grant");
    // Later than it may be.
    let own = world.store.customer(world.acme);
    let late = world.web_tokens(&mut Browser::default(), &[]).await.text("refresh_token");
    world.refreshed(&by_web, &late).await;
    let by = RefreshBy { client: "web", stage: "", retry_s: Some(-1) };
    let outcome = own.rotate_refresh(&opaque::hash(&late), &opaque::hash("next"), &by).await.unwrap();
    assert_eq!(outcome, RefreshOutcome::Reused);
}

#[tokio::test]
async fn userinfo_wants_a_live_token_in_header_or_form() {
    let world = world().await;
    let tokens = world.web_tokens(&mut Browser::default(), &[]).await;
    let access = tokens.text("access_token");
    let said = world.userinfo(&access).await;
    let claims = world.checked("/identity", &tokens.text("id_token")).await;
    assert_eq!((&said.json()["sub"], said.text("email")), (&claims["sub"], EMAIL.into()));
    let bearer = format!("bearer {access}");
    let posted =
        world.send(ACME, Method::POST, "/identity/userinfo", "", &[("authorization", &bearer)]).await;
    assert_eq!(posted.status, 200);
    let service = [
        ("grant_type", "client_credentials"),
        ("client_id", "automation"),
        ("client_secret", "the:secret+%"),
    ];
    let service = world.token(ACME, &service).await.text("access_token");
    let forged = format!("{}AAAA", &access[..access.len() - 4]);
    for token in [&service, &forged, &tokens.text("id_token"), &tokens.text("refresh_token"), "junk", ""] {
        let refused = world.userinfo(token).await;
        assert_eq!(refused.status, 401, "{token}");
        assert!(refused.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
    }
    let path = format!("/identity/userinfo?access_token={access}");
    assert_eq!(world.send(ACME, Method::GET, &path, "", &[]).await.status, 401, "not in the query");
    // RFC 6750 §2.2: in a form, but not in two places.
    let form = encode(&[("access_token", &access)]);
    let formed = world.send(ACME, Method::POST, "/identity/userinfo", &form, &[FORM]).await;
    assert_eq!(formed.text("email"), EMAIL);
    let both = [FORM, ("authorization", bearer.as_str())];
    let both = world.send(ACME, Method::POST, "/identity/userinfo", &form, &both).await;
    assert_eq!((both.status, both.text("error")), (StatusCode::BAD_REQUEST, "invalid_request".into()));
    let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    assert_eq!(world.send(ACME, Method::GET, "/identity/userinfo", "", &twice).await.status, 401);
    for path in ["/identity/s/development/userinfo", "/identity/s/production/userinfo"] {
        let elsewhere = world.send(ACME, Method::GET, path, "", &[("authorization", &bearer)]).await;
        assert_eq!(elsewhere.status, 401, "{path}");
    }
}

#[tokio::test]
async fn introspection_and_revocation_know_each_token_and_its_session() {
    let world = world().await;
    let tokens = world.web_tokens(&mut Browser::default(), &[]).await;
    let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
    let said = world.introspected(&access).await;
    assert_eq!((&said["active"], &said["client_id"]), (&true.into(), &"web".into()));
    assert_eq!((&said["iss"], &said["scope"]), (&ISSUER.into(), &"openid profile email".into()));
    assert_eq!(world.introspected(&refresh).await["active"], true);
    for junk in ["junk", "a.b.c", &tokens.text("id_token"), &format!("{access}x")] {
        assert_eq!(world.introspected(junk).await, serde_json::json!({ "active": false }), "{junk}");
    }
    // Who may not ask, and what is missing.
    let by_web = [("client_id", "web"), ("client_secret", SECRET)];
    for path in ["/identity/introspect", "/identity/revoke"] {
        let check = async |form: &[(&str, &str)], status: u16, error: &str| {
            let answer = world.post(path, form).await;
            assert_eq!((answer.status.as_u16(), &*answer.text("error")), (status, error), "{path} {form:?}");
        };
        check(&by_web, 400, "invalid_request").await;
        check(&[("token", &access)], 401, "invalid_client").await;
        check(&[("token", &access), ("client_id", "web")], 401, "invalid_client").await;
        check(&[("token", &access), ("client_id", "gone"), ("client_secret", "gone")], 401, "invalid_client")
            .await;
    }
    let public = world.post("/identity/introspect", &[("token", &access), ("client_id", "native")]).await;
    assert_eq!(public.text("error"), "invalid_client");
    // Another client revokes nothing of this one, and is not told.
    let other = [("client_id", "other"), ("client_secret", "other")];
    for token in [&refresh, &access] {
        let answer = world.post("/identity/revoke", &[other[0], other[1], ("token", token)]).await;
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, ""));
    }
    assert_eq!(world.introspected(&refresh).await["active"], true);
    let junk = world.post("/identity/revoke", &[by_web[0], by_web[1], ("token", "junk")]).await;
    assert_eq!(junk.status, 200);
    let done = world.post("/identity/revoke", &[by_web[0], by_web[1], ("token", &refresh)]).await;
    assert_eq!(done.status, 200);
    for token in [&access, &refresh] {
        assert_eq!(world.introspected(token).await["active"], false, "with its session");
    }
    assert_eq!(world.userinfo(&access).await.status, 401);
    assert!(world.audited("session.ended").await);
    // By the access token, too.
    let tokens = world.web_tokens(&mut Browser::default(), &[]).await;
    let access = tokens.text("access_token");
    world.post("/identity/revoke", &[by_web[0], by_web[1], ("token", &access)]).await;
    assert_eq!(world.refreshed(&by_web, &tokens.text("refresh_token")).await.text("error"), "invalid_grant");
}

#[tokio::test]
async fn a_client_s_sign_out_needs_its_id_token_or_a_yes() {
    let world = world().await;
    let mut browser = Browser::default();
    let tokens = world.web_tokens(&mut browser, &[]).await;
    let hint = tokens.text("id_token");
    let path = |pairs: &[(&str, &str)]| format!("/identity/logout?{}", encode(pairs));
    let after = ("post_logout_redirect_uri", AFTER);
    for wrong in [
        &[("id_token_hint", "junk")][..],
        &[("id_token_hint", &*hint), ("client_id", "other")],
        &[("id_token_hint", &*hint), ("post_logout_redirect_uri", "https://web.example/bye?x")],
        &[("id_token_hint", &*hint), ("post_logout_redirect_uri", WEB)],
        &[after],
        &[after, ("client_id", "nobody")],
    ] {
        let answer = world.browse(&mut browser, Method::GET, &path(wrong), "").await;
        assert_eq!((answer.status.as_u16(), answer.headers.get(header::LOCATION)), (400, None), "{wrong:?}");
    }
    let asked = path(&[after, ("client_id", "web"), ("state", "s&1")]);
    let page = world.browse(&mut browser, Method::GET, &asked, "").await;
    assert_eq!(page.status, 200, "without a hint it asks");
    let access = tokens.text("access_token");
    assert_eq!(world.userinfo(&access).await.status, 200, "asking changes nothing");
    let answer = world.browse(&mut browser, Method::POST, "/identity/logout", &filled(&page.body, &[])).await;
    assert_eq!(answer.headers[header::LOCATION], "https://web.example/bye?state=s%261");
    assert_eq!(world.userinfo(&access).await.status, 401);
    // With a hint it does not ask, and ends everything of the sign-in; by a form as well.
    for method in [Method::GET, Method::POST] {
        let mut browser = Browser::default();
        let tokens = world.web_tokens(&mut browser, &[]).await;
        let hint = tokens.text("id_token");
        let form = encode(&[("id_token_hint", &hint), after, ("state", "s")]);
        let answer = match method {
            Method::GET => {
                world.browse(&mut browser, Method::GET, &format!("/identity/logout?{form}"), "").await
            }
            _ => world.send(ACME, Method::POST, "/identity/logout", &form, &[FORM]).await,
        };
        assert_eq!(answer.headers[header::LOCATION], "https://web.example/bye?state=s", "{method}");
        assert_eq!(world.userinfo(&tokens.text("access_token")).await.status, 401, "{method}");
        let again =
            world.browse(&mut browser, Method::GET, &format!("/identity/authorize?{}", web(&[])), "").await;
        assert_eq!(again.status, 200, "{method}: the sign-in has ended");
        // Shown again, it leads back all the same.
        let again = world.send(ACME, Method::GET, &format!("/identity/logout?{form}"), "", &[]).await;
        assert_eq!(again.status, 303);
    }
    assert!(world.audited("logout").await);
}

#[tokio::test]
async fn what_an_issuer_makes_is_worth_nothing_at_another() {
    let world = world().await;
    let stage = "/identity/s/development";
    let code = world.web_code(stage, &mut Browser::default(), &[]).await;
    assert_eq!(world.web_redeem("/identity", &code).await.text("error"), "invalid_grant");
    let code = world.web_code(stage, &mut Browser::default(), &[]).await;
    let tokens = world.web_redeem(stage, &code).await;
    let claims = world.checked(stage, &tokens.text("id_token")).await;
    assert_eq!(claims["iss"], format!("{ISSUER}/s/development"));
    let (access, refresh) = (tokens.text("access_token"), tokens.text("refresh_token"));
    assert!(world.check_platform(&access, USER_LIFE_S).await.is_err(), "not for the Platform");
    assert!(world.check_shop(&access).await.is_err(), "nor for an app that was not asked for");
    assert_eq!(world.userinfo(&access).await.status, 401);
    let bearer = format!("Bearer {access}");
    let own =
        world.send(ACME, Method::GET, &format!("{stage}/userinfo"), "", &[("authorization", &bearer)]).await;
    assert_eq!(own.text("email"), EMAIL);
    let by_web = [("client_id", "web"), ("client_secret", SECRET)];
    assert_eq!(world.refreshed(&by_web, &refresh).await.text("error"), "invalid_grant");
    assert_eq!(world.introspected(&refresh).await["active"], false);
    assert_eq!(world.introspected(&access).await["active"], false);
    let form = [
        by_web[0],
        by_web[1],
        ("grant_type", "refresh_token"),
        ("refresh_token", &refresh),
        ("resource", SHOP),
    ];
    let shop = world.post(&format!("{stage}/token"), &form).await;
    assert!(world.check_shop(&shop.text("access_token")).await.is_ok(), "{}", shop.body);
    let hint = format!("/identity/logout?{}", encode(&[("id_token_hint", &tokens.text("id_token"))]));
    assert_eq!(world.send(ACME, Method::GET, &hint, "", &[]).await.status, 400);
    let own = world.store.customer(world.acme);
    let keys = own.public_keys(Some(&StageName::development()), KeyKind::Id).await.unwrap();
    assert_eq!(keys.len(), 1);
}

#[tokio::test]
async fn suspending_a_client_ends_its_sessions() {
    let world = world().await;
    let tokens = world.web_tokens(&mut Browser::default(), &[]).await;
    let own = world.store.customer(world.acme);
    let mut write = world.store.write().await.unwrap();
    assert!(own.suspend_client(&mut write, "web", true).await.unwrap());
    write.commit().await.unwrap();
    assert_eq!(world.userinfo(&tokens.text("access_token")).await.status, 401);
    let by_web = [("client_id", "web"), ("client_secret", SECRET)];
    assert_eq!(world.refreshed(&by_web, &tokens.text("refresh_token")).await.text("error"), "invalid_client");
    let mut write = world.store.write().await.unwrap();
    own.suspend_client(&mut write, "web", false).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(world.refreshed(&by_web, &tokens.text("refresh_token")).await.text("error"), "invalid_grant");
}

impl World {
    async fn device(&self) -> Answer {
        let form = [("client_id", "tv"), ("scope", "openid email")];
        let answer = self.post("/identity/device_authorization", &form).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    async fn asked(&self, base: &str, client: &str, device_code: &str) -> Answer {
        let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
        let form = [grant, ("client_id", client), ("device_code", device_code)];
        self.post(&format!("{base}/token"), &form).await
    }

    /// Opens the page for codes, types, and sends its form.
    async fn typed(&self, browser: &mut Browser, typed: &[(&str, &str)]) -> Answer {
        let page = self.browse(browser, Method::GET, "/identity/device", "").await;
        self.browse(browser, Method::POST, "/identity/device", &filled(&page.body, typed)).await
    }
}

const ANN: [(&str, &str); 2] = [("username", EMAIL), ("password", PASSWORD)];

#[tokio::test]
async fn a_device_waits_for_a_member_s_word_and_hears_it_once() {
    let world = world().await;
    let begun = world.device().await;
    let (device_code, user_code) = (begun.text("device_code"), begun.text("user_code"));
    assert_eq!(begun.text("verification_uri"), format!("{ISSUER}/device"));
    assert_eq!(begun.text("verification_uri_complete"), format!("{ISSUER}/device?user_code={user_code}"));
    assert_eq!(
        (begun.json()["interval"].as_i64(), begun.json()["expires_in"].as_i64()),
        (Some(5), Some(600))
    );
    let waiting = world.asked("/identity", "tv", &device_code).await;
    assert_eq!(
        (waiting.status, waiting.text("error")),
        (StatusCode::BAD_REQUEST, "authorization_pending".into())
    );
    let mut browser = Browser::default();
    let page = format!("/identity/device?user_code={user_code}&decision=allow");
    let page = world.browse(&mut browser, Method::GET, &page, "").await;
    assert!(page.body.contains(&user_code) && page.body.contains("name=\"password\""));
    // However it is typed; and a yes in the form that signs in is none: nobody has seen who asks.
    let lower = user_code.to_lowercase().replace('-', " ");
    let eager = [ANN[0], ANN[1], ("user_code", lower.as_str()), ("decision", "allow")];
    let question = world.typed(&mut browser, &eager).await;
    assert!(
        question.body.contains("<strong>tv</strong>") && question.body.contains(EMAIL),
        "{}",
        question.body
    );
    assert_ne!(world.asked("/identity", "tv", &device_code).await.status, 200);
    let yes = filled(&question.body, &[("decision", "allow")]);
    let foreign = world.browse(&mut Browser::default(), Method::POST, "/identity/device", &yes).await;
    assert_eq!(foreign.status, 403, "only from our own page in this browser");
    assert_eq!(world.browse(&mut browser, Method::POST, "/identity/device", &yes).await.status, 200);
    let tokens = world.asked("/identity", "tv", &device_code).await;
    let claims = world.checked("/identity", &tokens.text("id_token")).await;
    assert_eq!((&claims["aud"], &claims["email"]), (&"tv".into(), &EMAIL.into()));
    assert_eq!(world.asked("/identity", "tv", &device_code).await.text("error"), "invalid_grant", "once");
    let refreshed = world.refreshed(&[("client_id", "tv")], &tokens.text("refresh_token")).await;
    assert_eq!(world.userinfo(&refreshed.text("access_token")).await.text("email"), EMAIL);
    assert!(world.audited("device.allowed").await);
    // A code that has been decided takes no second word.
    let again = world.browse(&mut browser, Method::POST, "/identity/device", &yes).await;
    assert_eq!(again.status, 400);
}

#[tokio::test]
async fn a_device_hears_no_and_every_other_refusal() {
    let world = world().await;
    let form = |client: &'static str| [("client_id", client)];
    for (client, error) in
        [("web", "invalid_client"), ("native", "unauthorized_client"), ("x", "invalid_client")]
    {
        let answer = world.post("/identity/device_authorization", &form(client)).await;
        assert_eq!(answer.text("error"), error, "{client}");
    }
    let begun = world.device().await;
    let (device_code, user_code) = (begun.text("device_code"), begun.text("user_code"));
    for (base, client, code, error) in [
        ("/identity", "car", &*device_code, "invalid_grant"),
        ("/identity", "native", &device_code, "unauthorized_client"),
        ("/identity", "nobody", &device_code, "invalid_client"),
        ("/identity/s/development", "tv", &device_code, "invalid_grant"),
        ("/identity", "tv", "guess", "invalid_grant"),
        ("/identity", "tv", "", "invalid_request"),
    ] {
        assert_eq!(world.asked(base, client, code).await.text("error"), error, "{base} {client} {code}");
    }
    let mut browser = Browser::default();
    let question = world.typed(&mut browser, &[ANN[0], ANN[1], ("user_code", &user_code)]).await;
    let no = filled(&question.body, &[("decision", "deny")]);
    assert_eq!(world.browse(&mut browser, Method::POST, "/identity/device", &no).await.status, 200);
    assert_eq!(world.asked("/identity", "tv", &device_code).await.text("error"), "access_denied");
    // One whose time is over, and one that asks too often.
    let own = world.store.customer(world.acme);
    let row = |user_code: &str, until: i64| DeviceRow {
        user_code: user_code.into(),
        client: "tv".into(),
        stage: String::new(),
        scope: String::new(),
        until,
        every_s: 3600,
    };
    let mut write = world.store.write().await.unwrap();
    own.add_device(&mut write, &opaque::hash("late"), &row("BBBBBCCCCC", now_s() - 1), 9).await.unwrap();
    own.add_device(&mut write, &opaque::hash("eager"), &row("DDDDDFFFFF", now_s() + 600), 9).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(world.asked("/identity", "tv", "late").await.text("error"), "expired_token");
    assert_eq!(world.asked("/identity", "tv", "eager").await.text("error"), "authorization_pending");
    assert_eq!(world.asked("/identity", "tv", "eager").await.text("error"), "slow_down");
    let mut write = world.store.write().await.unwrap();
    let asked = own.ask_device(&mut write, &opaque::hash("eager"), "tv", "").await.unwrap();
    assert_eq!(asked, DeviceOutcome::TooOften);
    // Anybody may ask for codes, so that only so many wait.
    let one = row("GGGGGHHHHH", now_s() + 600);
    assert!(!own.add_device(&mut write, &opaque::hash("more"), &one, 1).await.unwrap());
}

#[tokio::test]
async fn guesses_of_a_user_code_are_limited() {
    let world = world().await;
    let user_code = world.device().await.text("user_code");
    let mut browser = Browser::default();
    let refused = world.typed(&mut browser, &[("user_code", user_code.as_str())]).await;
    assert_eq!(refused.status, 401, "a code alone is worth nothing");
    let wrong = world.typed(&mut browser, &[ANN[0], ANN[1], ("user_code", "BBBBB-BBBBB")]).await;
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    world.sign_in(&mut browser, &request("bastide-cli", super::identity::LOOPBACK, &[]), PASSWORD).await;
    // As if many came before: a wait long enough for the slowest machine.
    let own = world.store.customer(world.acme);
    let ann = own.member_with_email(EMAIL).await.unwrap().unwrap();
    assert_eq!(own.count_try(Counter::UserCode(ann.id), -9).await.unwrap(), Ok(()));
    let locked = world.typed(&mut browser, &[("user_code", &user_code)]).await;
    assert_eq!(locked.status, 429, "even the right one");
    assert!(locked.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn scripts_of_other_sites_reach_what_knows_no_cookies_and_nothing_else() {
    let world = world().await;
    let asks = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    for (endpoint, open) in [
        ("token", true),
        ("userinfo", true),
        ("revoke", true),
        ("jwks", true),
        ("device_authorization", true),
        (".well-known/openid-configuration", true),
        ("authorize", false),
        ("login", false),
        ("continue", false),
        ("device", false),
        ("logout", false),
        ("introspect", false),
    ] {
        let path = format!("/identity/{endpoint}");
        let before = world.send(ACME, Method::OPTIONS, &path, "", &asks).await;
        let itself = world.send(ACME, Method::POST, &path, "", &[FORM, asks[0]]).await;
        for answer in [&before, &itself] {
            let origin = answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(origin.is_some_and(|origin| origin == "*"), open, "{endpoint} {}", answer.status);
            assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
        }
        assert_eq!(before.status == 204, open, "{endpoint}");
    }
}

#[tokio::test]
async fn no_page_can_be_framed_stored_or_filled_with_script() {
    let world = world().await;
    let hostile = "\"><script>alert(1)</script>";
    let own = world.store.customer(world.acme);
    let picture = Picture { kind: PictureKind::Png, width: 64, height: 48 };
    let logo = Logo { picture, digest: Digest::from_sha256([7; 32]) };
    let mut write = world.store.write().await.unwrap();
    own.set_title(&mut write, Some(hostile)).await.unwrap();
    own.set_logo(&mut write, Some((&logo, b"x"))).await.unwrap();
    write.commit().await.unwrap();
    let mut browser = Browser::default();
    world.web_code("/identity", &mut browser, &[]).await;
    let consent = web(&[("prompt", "consent"), ("state", hostile), ("nonce", hostile)]);
    let login = web(&[("prompt", "login"), ("state", hostile), ("login_hint", hostile)]);
    let back = [("client_id", "web"), ("post_logout_redirect_uri", AFTER), ("state", hostile)];
    for path in [
        format!("/identity/authorize?{consent}"),
        format!("/identity/authorize?{login}"),
        format!("/identity/s/development/authorize?{login}"),
        format!("/identity/logout?{}", encode(&back)),
        format!("/identity/device?{}", encode(&[("user_code", hostile)])),
        "/identity/account/sessions".to_owned(),
    ] {
        let page = world.browse(&mut browser, Method::GET, &path, "").await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.body.contains("<form") && !page.body.contains("<script"), "{}", page.body);
        assert!(page.body.contains("<img class=\"logo\" src=\"/identity/logo/0707"), "{}", page.body);
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'self'; img-src 'self'; form-action ")
                && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert_eq!(page.headers["cache-control"], "no-store", "{path}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff", "{path}");
    }
}
