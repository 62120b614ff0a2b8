//! Better sign-ins where they are demanded: at the provider, and by permissions of the API.

use super::{
    api,
    identity::{Browser, CALLBACK, LOOPBACK, PASSWORD, VERIFIER, World, cli, filled, hashed, request},
    second::{codes, offered, signed_in},
};
use axum::http::Method;
use bastide_identity::{Claims, claims::USER_LIFE_S};
use bastide_store::now_s;
use bastide_types::{Acr, Secret, UserId};
use serde_json::{Value, json};

fn authorize(change: &[(&str, &str)]) -> String {
    format!("/identity/authorize?{}", request("bastide-cli", LOOPBACK, change))
}

impl World {
    async fn claims(&self, code: &str) -> Claims {
        let tokens = self.redeem(code, &[]).await;
        self.check_platform(&tokens.text("access_token"), USER_LIFE_S).await.unwrap()
    }

    /// Makes Ann's sign-ins look older.
    pub(super) async fn age(&self, seconds: i64) {
        let own = self.store.customer(self.acme);
        let ann = own.member_with_email(super::identity::EMAIL).await.unwrap().unwrap().id;
        let mut write = self.store.write().await.unwrap();
        for info in own.sessions_of(ann).await.unwrap() {
            let (_, mut used) = own.session_with_id(&info.id).await.unwrap().unwrap();
            used.auth_time -= seconds;
            own.describe_session(&mut write, &info.id, &used).await.unwrap();
        }
        write.commit().await.unwrap();
    }
}

#[tokio::test]
async fn tokens_say_how_and_when_somebody_signed_in_and_renewing_makes_neither_better() {
    let world = World::with_factor().await;
    let before = now_s();
    let mut browser = Browser::default();
    let scopes = request("bastide-cli", LOOPBACK, &[("scope", "openid")]);
    let page = world.sign_in(&mut browser, &scopes, PASSWORD).await;
    let signed = world.show(&mut browser, &page, &codes()[1]).await;
    let tokens = world.redeem(&signed.redirected("code").unwrap(), &[]).await;
    let claims = world.check_platform(&tokens.text("access_token"), USER_LIFE_S).await.unwrap();
    assert_eq!(claims.acr, Acr::Mfa);
    assert!((before..=now_s()).contains(&claims.auth_time.cast_signed()));
    let id: Value = {
        use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
        let token = tokens.text("id_token");
        let middle = token.split('.').nth(1).unwrap().to_owned();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
    };
    assert_eq!((&id["acr"], &id["amr"]), (&json!("mfa"), &json!(["pwd", "otp", "mfa"])));
    world.age(1000).await;
    let renewed = world.refresh(&tokens.text("refresh_token"), None).await;
    let renewed = world.check_platform(&renewed.text("access_token"), USER_LIFE_S).await.unwrap();
    assert_eq!((renewed.acr, renewed.auth_time), (Acr::Mfa, claims.auth_time - 1000));
    let plain = World::with_ann().await;
    assert_eq!(plain.claims(&plain.code(&cli()).await).await.acr, Acr::Password);
}

#[tokio::test]
async fn who_signed_in_with_a_password_owes_only_the_code_and_gets_a_new_secret() {
    let world = World::with_ann().await;
    let mut browser = Browser::default();
    let first = world.sign_in(&mut browser, &cli(), PASSWORD).await;
    assert_eq!(first.status, 303);
    let secret = browser.0["__Host-bst-sso"].clone();
    let silent = authorize(&[("acr_values", "mfa"), ("prompt", "none")]);
    let refused = world.browse(&mut browser, Method::GET, &silent, "").await;
    assert_eq!(refused.redirected("error").as_deref(), Some("unmet_authentication_requirements"));
    // Whoever has no second factor sets one up.
    let page = world.browse(&mut browser, Method::GET, &authorize(&[("acr_values", "mfa")]), "").await;
    assert!(page.status == 200 && !page.body.contains("type=\"password\""), "{}", page.body);
    let code = offered(&page.body).code_at(now_s() as u64);
    let done = world.show(&mut browser, &page, &code).await;
    let go_on =
        world.browse(&mut browser, Method::POST, "/identity/continue", &filled(&done.body, &[])).await;
    assert_eq!(world.claims(&go_on.redirected("code").unwrap()).await.acr, Acr::Mfa);
    assert_ne!(browser.0["__Host-bst-sso"], secret);
    // The one of before opens nothing any more.
    let mut old = Browser::default();
    old.0.insert("__Host-bst-sso".into(), secret);
    let page = world.browse(&mut old, Method::GET, &authorize(&[]), "").await;
    assert!(page.body.contains("type=\"password\""), "{}", page.body);
    // Those who are signed in well enough are not asked.
    let again = world.browse(&mut browser, Method::GET, &silent, "").await;
    assert!(again.redirected("code").is_some(), "{:?}", again.headers);
}

#[tokio::test]
async fn a_sign_in_that_is_too_old_is_made_again_with_password_and_code() {
    let world = World::with_factor().await;
    let mut browser = Browser::default();
    let page = world.sign_in(&mut browser, &cli(), PASSWORD).await;
    world.show(&mut browser, &page, &codes()[1]).await;
    let wanted = authorize(&[("acr_values", "mfa"), ("max_age", "600")]);
    let young = world.browse(&mut browser, Method::GET, &wanted, "").await;
    assert!(young.redirected("code").is_some());
    world.age(601).await;
    let page = world.browse(&mut browser, Method::GET, &wanted, "").await;
    assert!(page.body.contains("type=\"password\""), "{}", page.body);
    let typed = [("username", super::identity::EMAIL), ("password", PASSWORD)];
    let page = world.browse(&mut browser, Method::POST, "/identity/login", &filled(&page.body, &typed)).await;
    let signed = world.show(&mut browser, &page, &codes()[2]).await;
    let claims = world.claims(&signed.redirected("code").unwrap()).await;
    assert!(now_s() - claims.auth_time.cast_signed() < 600 && signed_in(&browser));
}

#[tokio::test]
async fn a_browser_session_says_how_its_sign_in_was() {
    let world = World::with_factor().await;
    let mut browser = Browser::default();
    let gateway = request("bastide-gateway", CALLBACK, &[]);
    let page = world.sign_in(&mut browser, &gateway, PASSWORD).await;
    let signed = world.show(&mut browser, &page, &codes()[1]).await;
    let code = signed.redirected("code").unwrap();
    let open = json!({
        "customer": "acme", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK,
    });
    let session = world.internal("open", open).await.text("session");
    world.age(100).await;
    let ask = json!({ "customer": "acme", "hash": hashed(&session) });
    let token = world.internal("token", ask).await.text("access_token");
    let claims = world.check_platform(&token, USER_LIFE_S).await.unwrap();
    assert_eq!(claims.acr, Acr::Mfa);
    assert!(now_s() - claims.auth_time.cast_signed() >= 100, "not when the gateway opened it");
}

#[tokio::test]
async fn a_permission_may_demand_a_young_second_factor_of_members() {
    let world = api::world().await;
    let acme = world.customer("acme").await;
    let own = world.app.store.customer(acme);
    let mut write = world.app.store.write().await.unwrap();
    for stage in bastide_types::StageName::defaults() {
        let new = bastide_store::NewStage { name: &stage, account: stage.as_str(), seed: &Secret::new("s") };
        own.create_stage(&mut write, &new).await.unwrap();
    }
    write.commit().await.unwrap();
    let member = UserId::generate().to_string();
    let call = async |who: &str, method: Method, path: &str, body: &Value| {
        let (status, text) = world.call("acme", method, path, Some(who), body.to_string()).await;
        (status.as_u16(), text)
    };
    let boss = world.assertion_of(&member, acme, &["administrator"]);
    let policy = |rule: Value| json!({ "second_factor": false, "step_up": [rule] });
    for wrong in [
        json!({ "permission": "apps.fly", "acr": "mfa" }),
        json!({ "permission": "account", "acr": "mfa" }),
        json!({ "permission": "apps.read", "acr": "client" }),
        json!({ "permission": "apps.read", "acr": "mfa", "max_age_s": 5 }),
        json!({ "permission": "apps.read", "acr": "mfa", "stage": "production" }),
        json!({ "permission": "apps.deploy", "acr": "mfa", "stage": "moon" }),
    ] {
        let (status, text) = call(&boss, Method::PUT, "/api/v1/sign-in/policy", &policy(wrong.clone())).await;
        assert_eq!(status, 422, "{wrong}: {text}");
    }
    let rules = json!({ "second_factor": false, "step_up": [
        { "permission": "apps.deploy", "stage": "production", "acr": "mfa", "max_age_s": 600 },
        { "permission": "members.read", "acr": "mfa" },
    ] });
    assert_eq!(call(&boss, Method::PUT, "/api/v1/sign-in/policy", &rules).await.0, 204);
    let (_, shown) = call(&boss, Method::GET, "/api/v1/sign-in/policy", &json!({})).await;
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), rules);
    let now = now_s().unsigned_abs();
    let signed = |sub: &str, acr: Acr, age_s: u64| {
        world.assertion_with(sub, acme, &["administrator"], |said| {
            (said.acr, said.auth_time) = (acr, now - age_s);
        })
    };
    let check = async |who: &str, method: Method, path: &str, body: Value, needed: bool| {
        let (_, text) = call(who, method, path, &body).await;
        assert_eq!(text.contains("B-ID-0413"), needed, "{path} {body}: {text}");
    };
    let deploy = "/api/v1/apps/shop/deployments";
    for (acr, age_s, needed) in [(Acr::Password, 0, true), (Acr::Mfa, 601, true), (Acr::Mfa, 10, false)] {
        let who = signed(&member, acr, age_s);
        check(&who, Method::POST, deploy, json!({ "stage": "production" }), needed).await;
        check(&who, Method::POST, deploy, json!({ "stage": "test" }), false).await;
        check(&who, Method::GET, "/api/v1/members", json!({}), acr == Acr::Password).await;
        check(&who, Method::GET, "/api/v1/apps", json!({}), false).await;
    }
    // Clients have no other sign-in.
    let client = signed("robot", Acr::Client, 0);
    check(&client, Method::POST, deploy, json!({ "stage": "production" }), false).await;
    // A member's word of an earlier version is the weakest.
    let old = signed(&member, Acr::Client, 0);
    check(&old, Method::GET, "/api/v1/members", json!({}), true).await;
    let who = signed(&member, Acr::Password, 0);
    let answer = world.answer("acme", Method::GET, "/api/v1/members", Some(&who), "").await;
    assert_eq!(
        answer.headers()["www-authenticate"],
        "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\""
    );
}
