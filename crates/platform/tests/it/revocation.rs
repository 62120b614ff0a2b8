//! What takes rights away, and what tokens say so that it hits them.

use super::{
    api,
    identity::{
        ACME, Browser, CALLBACK, EMAIL, PASSWORD, SHOP, VERIFIER, World, filled, hashed, opened, request,
    },
    road::Road,
};
use axum::http::{Method, StatusCode};
use bastide_identity::{
    Claims, Revoked,
    claims::{CLIENT_LIFE_S, USER_LIFE_S},
};
use bastide_store::{MemberRow, NewSession, SessionLimits, Store, Write, now_s};
use bastide_types::{CustomerId, CustomerName, StageName, UserId, feed::What};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a gateway knows that has heard everything.
async fn known(store: &Store) -> Revoked {
    let life = store.version().await.unwrap().0;
    let mut revoked = Revoked::default();
    revoked.replace(&[store.session_feed(life, 0).await.unwrap()], now_s() as u64);
    revoked
}

async fn changed(world: &World, change: impl AsyncFnOnce(&mut Write)) {
    let mut write = world.store.write().await.unwrap();
    change(&mut write).await;
    write.commit().await.unwrap();
}

async fn is_alive(world: &World, claims: &Claims) -> bool {
    known(&world.store).await.check(claims).is_ok()
}

#[tokio::test]
async fn a_member_s_lost_role_hits_tokens_made_before_and_none_made_after() {
    let world = World::with_ann().await;
    let tokens = world.redeem(&world.code(&super::identity::cli()).await, &[]).await;
    let before = world.check_platform(&tokens.text("access_token"), USER_LIFE_S).await.unwrap();
    assert!(is_alive(&world, &before).await);
    let ann: UserId = before.sub.parse().unwrap();
    let own = world.store.customer(world.acme);
    changed(&world, async |write| {
        assert!(own.set_member_roles(write, ann, &["developer".to_owned()]).await.unwrap());
    })
    .await;
    assert!(!is_alive(&world, &before).await);
    // In the same second: numbers decide, no clock does.
    let tokens = world.refresh(&tokens.text("refresh_token"), None).await;
    let after = world.check_platform(&tokens.text("access_token"), USER_LIFE_S).await.unwrap();
    assert_eq!((is_alive(&world, &after).await, &after.roles[..]), (true, &["developer".to_owned()][..]));

    let app = own.app_named(&"shop".parse().unwrap()).await.unwrap().unwrap().id;
    let stage = StageName::development();
    changed(&world, async |write| own.grant_app_role(write, &stage, app, "buyer", ann).await.unwrap()).await;
    let tokens = world.refresh(&tokens.text("refresh_token"), Some(SHOP)).await;
    let buyer = world.check_shop(&tokens.text("access_token")).await.unwrap();
    assert_eq!((is_alive(&world, &buyer).await, &buyer.roles[..]), (true, &["buyer".to_owned()][..]));
    changed(&world, async |write| {
        assert!(own.revoke_app_role(write, &stage, app, "buyer", ann).await.unwrap());
        assert!(!own.revoke_app_role(write, &stage, app, "buyer", ann).await.unwrap());
    })
    .await;
    assert!(!is_alive(&world, &buyer).await);

    changed(&world, async |write| assert!(own.suspend_member(write, ann, true).await.unwrap())).await;
    assert_eq!(world.refresh(&tokens.text("refresh_token"), None).await.text("error"), "invalid_grant");
    assert!(!is_alive(&world, &after).await);
    changed(&world, async |write| assert!(own.suspend_member(write, ann, false).await.unwrap())).await;
    assert!(!is_alive(&world, &after).await, "who comes back begins anew");
    let tokens = world.redeem(&world.code(&super::identity::cli()).await, &[]).await;
    let again = world.check_platform(&tokens.text("access_token"), USER_LIFE_S).await.unwrap();
    assert!(is_alive(&world, &again).await);
}

#[tokio::test]
async fn a_client_s_token_names_the_grant_of_its_secret_and_dies_with_it() {
    let world = World::with_ann().await;
    let own = world.store.customer(world.acme);
    let by = async |secret: &str| {
        let form =
            [("grant_type", "client_credentials"), ("client_id", "automation"), ("client_secret", secret)];
        world.token(ACME, &form).await
    };
    let claims = async |secret: &str| {
        world.check_platform(&by(secret).await.text("access_token"), CLIENT_LIFE_S).await.unwrap()
    };
    let first = claims("the:secret+%").await;
    assert!(first.sid.starts_with("automation.") && first.sid != first.sub, "{}", first.sid);
    let hash = bastide_identity::opaque::hash("second");
    let mut second_id = String::new();
    changed(&world, async |write| {
        second_id = own.add_client_secret(write, "automation", &hash, None, 2).await.unwrap().unwrap();
    })
    .await;
    let second = claims("second").await;
    assert_ne!(first.sid, second.sid);
    changed(&world, async |write| {
        assert!(own.remove_client_secret(write, "automation", &second_id).await.unwrap());
    })
    .await;
    assert!(is_alive(&world, &first).await && !is_alive(&world, &second).await);

    changed(&world, async |write| assert!(own.suspend_client(write, "automation", true).await.unwrap()))
        .await;
    assert!(!is_alive(&world, &first).await);
    assert_eq!(by("the:secret+%").await.text("error"), "invalid_client");
    changed(&world, async |write| assert!(own.suspend_client(write, "automation", false).await.unwrap()))
        .await;
    assert!(!is_alive(&world, &first).await, "resuming revives nothing");
    let third = claims("the:secret+%").await;
    assert!(is_alive(&world, &third).await);

    changed(&world, async |write| own.end_everything(write).await.unwrap()).await;
    assert!(!is_alive(&world, &third).await);
    assert!(is_alive(&world, &claims("the:secret+%").await).await);
}

#[tokio::test]
async fn a_session_that_began_is_told_by_its_hash_and_one_that_ended_by_its_id() {
    let world = World::with_ann().await;
    let mut browser = Browser::default();
    let secret = opened(&world, &mut browser).await;
    let life = world.store.version().await.unwrap().0;
    let feed = world.store.session_feed(life, 0).await.unwrap();
    let began = feed.entries.iter().find(|entry| entry.what == What::Began).unwrap();
    assert_eq!((began.customer, &began.id), (world.acme, &hashed(&secret)));
    assert!(!format!("{feed:?}").contains(&secret));
    let ask = json!({ "customer": "acme", "hash": hashed(&secret) });
    let given = world.internal("token", ask.clone()).await;
    let claims = world.check_platform(&given.text("access_token"), USER_LIFE_S).await.unwrap();
    assert!(is_alive(&world, &claims).await);
    world.internal("close", ask).await;
    assert!(!is_alive(&world, &claims).await);
}

#[tokio::test]
async fn introspection_and_userinfo_know_what_was_revoked() {
    let world = World::with_ann().await;
    let own = world.store.customer(world.acme);
    let asked = format!("{}&scope=openid", super::identity::cli());
    let tokens = world.redeem(&world.code(&asked).await, &[]).await;
    let token = tokens.text("access_token");
    let userinfo = async || {
        let bearer = format!("Bearer {token}");
        world.send(ACME, Method::GET, "/identity/userinfo", "", &[("authorization", &bearer)]).await.status
    };
    assert_eq!(userinfo().await, 200);
    let ann: UserId = world.check_platform(&token, USER_LIFE_S).await.unwrap().sub.parse().unwrap();
    changed(&world, async |write| own.revoke_member(write, ann).await.unwrap()).await;
    assert_eq!(userinfo().await, 401);
}

#[tokio::test]
async fn many_sign_ins_at_once_do_not_wait_for_each_other_s_connections() {
    let world = World::with_ann().await;
    let mut codes = Vec::new();
    for _ in 0..12 {
        let asked = request("bastide-gateway", CALLBACK, &[]);
        let answer = world.sign_in(&mut Browser::default(), &asked, PASSWORD).await;
        codes.push(answer.redirected("code").unwrap());
    }
    let open = async |code: &String| {
        let ask =
            json!({ "customer": "acme", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK });
        world.internal("open", ask).await.status
    };
    let opened = futures_util::future::join_all(codes.iter().map(open)).await;
    assert!(opened.iter().all(|status| *status == 200), "{opened:?}");
}

/// Opens a session at an app's host, as its gateway does.
async fn at_shop(world: &World) -> (String, i64) {
    let callback = "https://acme--development.apps.localhost:8443/.bastide/callback";
    let asked = request("bastide-gateway", callback, &[("resource", SHOP)]);
    let (mut browser, ann) = (Browser::default(), (EMAIL, PASSWORD));
    let signed = world.signs_in(&mut browser, "/identity/s/development", &asked, ann).await;
    let code = signed.redirected("code").unwrap();
    let ask =
        json!({ "customer": "acme", "code": code, "code_verifier": VERIFIER, "redirect_uri": callback });
    let answer = world.internal("open", ask).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    (answer.text("session"), answer.json()["max_age_s"].as_i64().unwrap())
}

#[tokio::test]
async fn sessions_at_apps_last_as_long_as_their_stage_says() {
    let world = World::with_ann().await;
    let own = world.store.customer(world.acme);
    let set = async |max_s, idle_s| {
        let limits = SessionLimits { max_s, idle_s };
        changed(&world, async |write| own.set_session_limits(write, "development", limits).await.unwrap())
            .await;
    };
    let ask = async |secret: &str, used_s: i64| {
        let ask = json!({ "customer": "acme", "hash": hashed(secret), "resource": SHOP, "used_s": used_s });
        world.internal("token", ask).await
    };
    let (secret, life) = at_shop(&world).await;
    assert!((43_190..=43_200).contains(&life), "{life}");
    let given = ask(&secret, 0).await.json();
    assert_eq!(given["idle_s"], 43_200);
    // Longer than the sign-in that it came from.
    set(30 * 86_400, 300).await;
    let (long, life) = at_shop(&world).await;
    assert!(life > 29 * 86_400, "{life}");
    let given = ask(&long, 0).await.json();
    let life = given["expires_at"].as_i64().unwrap() - now_s();
    assert!((55..=60).contains(&life), "asked for often enough to notice that it idles: {life}");
    // A shorter time holds for sessions that live, too.
    set(3600, 300).await;
    let until = ask(&long, now_s()).await.json()["until_s"].as_i64().unwrap() - now_s();
    assert!(until <= 3600, "{until}");
}

/// A member of acme with sessions, in a world with the API.
struct Api {
    world: api::World,
    acme: CustomerId,
    ann: UserId,
    bob: UserId,
}

impl Api {
    async fn new() -> Self {
        let world = api::world_with(60).await;
        let acme = world.customer("acme").await;
        let own = world.app.store.customer(acme);
        let mut write = world.app.store.write().await.unwrap();
        let mut members = Vec::new();
        for (name, role) in [("ann", "administrator"), ("bob", "developer")] {
            let id = UserId::generate();
            let row = MemberRow {
                id,
                email: format!("{name}@acme.example"),
                name: name.into(),
                state: "active".into(),
                roles: vec![role.into()],
                password: None,
                stage: String::new(),
                verified: false,
            };
            own.add_member(&mut write, &row).await.unwrap();
            members.push(id);
        }
        write.commit().await.unwrap();
        Self { world, acme, ann: members[0], bob: members[1] }
    }

    async fn session(&self, member: UserId, hash: u8, parent: Option<&str>) -> String {
        let kind = if parent.is_some() { "browser" } else { "provider" };
        let new = NewSession { kind, hash: &[hash; 32], parent, member, until: now_s() + 600 };
        let mut write = self.world.app.store.write().await.unwrap();
        let id = self.world.app.store.customer(self.acme).add_session(&mut write, &new).await.unwrap();
        write.commit().await.unwrap();
        id
    }

    async fn call(&self, who: UserId, role: &str, method: Method, path: &str, body: &str) -> (u16, Value) {
        let assertion = self.world.assertion_of(&who.to_string(), self.acme, &[role]);
        let (status, text) = self.world.call("acme", method, path, Some(&assertion), body.to_owned()).await;
        (status.as_u16(), serde_json::from_str(&text).unwrap_or_default())
    }

    async fn listed(&self, who: UserId) -> Vec<String> {
        let (status, list) = self.call(who, "developer", Method::GET, "/api/v1/sessions", "").await;
        assert_eq!(status, 200);
        list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn everybody_lists_and_ends_own_sessions_and_administrators_those_of_others() {
    let api = Api::new().await;
    let sign_in = api.session(api.bob, 1, None).await;
    let browser = api.session(api.bob, 2, Some(&sign_in)).await;
    let other = api.session(api.bob, 3, None).await;
    let anns = api.session(api.ann, 4, None).await;
    assert_eq!(api.listed(api.bob).await, [sign_in.as_str(), &browser, &other]);
    let delete = async |who, role, path: String| api.call(who, role, Method::DELETE, &path, "").await.0;
    let foreign = delete(api.bob, "developer", format!("/api/v1/sessions/{anns}")).await;
    assert_eq!(foreign, 404, "not even that it exists");
    assert_eq!(delete(api.bob, "developer", format!("/api/v1/sessions/{browser}")).await, 204);
    assert_eq!(api.listed(api.bob).await, [other.as_str()], "with the sign-in that it came from");
    assert_eq!(delete(api.bob, "developer", "/api/v1/sessions?of=everybody".into()).await, 403);
    assert_eq!(delete(api.bob, "developer", "/api/v1/sessions?of=x".into()).await, 422);
    assert_eq!(delete(api.bob, "developer", "/api/v1/sessions".into()).await, 204);
    assert!(api.listed(api.bob).await.is_empty());

    api.session(api.bob, 5, None).await;
    let of_bob = format!("/api/v1/members/{}/sessions", api.bob);
    assert_eq!(api.call(api.bob, "developer", Method::GET, &of_bob, "").await.0, 403);
    let (_, list) = api.call(api.ann, "administrator", Method::GET, &of_bob, "").await;
    assert_eq!((list.as_array().unwrap().len(), list[0]["kind"].as_str()), (1, Some("sign-in")));
    assert_eq!(delete(api.ann, "administrator", of_bob).await, 204);
    assert!(api.listed(api.bob).await.is_empty());
    assert_eq!(delete(api.ann, "administrator", "/api/v1/sessions?of=everybody".into()).await, 204);
    assert!(api.listed(api.ann).await.is_empty());
    let trail = api.world.app.store.customer(api.acme).audit_trail(50).await.unwrap();
    assert_eq!(trail.iter().filter(|row| row.what == "session.ended").count(), 4);
}

#[tokio::test]
async fn administrators_suspend_members_and_change_roles_but_one_administrator_stays() {
    let api = Api::new().await;
    let (ann, bob) = (api.ann, api.bob);
    let put = async |who, role, path: &str, body: &str| api.call(who, role, Method::PUT, path, body).await.0;
    let of = |member: UserId, what: &str| format!("/api/v1/members/{member}/{what}");
    let on = r#"{"suspended":true}"#;
    assert_eq!(put(bob, "developer", &of(ann, "suspension"), on).await, 403);
    assert_eq!(put(ann, "administrator", &of(UserId::generate(), "suspension"), on).await, 404);
    assert_eq!(put(ann, "administrator", &of(ann, "suspension"), on).await, 422, "the last one");
    let developer = r#"{"roles":["developer"]}"#;
    assert_eq!(put(ann, "administrator", &of(ann, "roles"), developer).await, 422, "the last one");
    for roles in [r#"{"roles":[]}"#, r#"{"roles":["operator"]}"#, r#"{"roles":["king"]}"#] {
        assert_eq!(put(ann, "administrator", &of(bob, "roles"), roles).await, 422, "{roles}");
    }
    api.session(bob, 1, None).await;
    assert_eq!(put(ann, "administrator", &of(bob, "suspension"), on).await, 204);
    assert!(api.listed(bob).await.is_empty());
    let both = r#"{"roles":["administrator","developer"]}"#;
    assert_eq!(put(ann, "administrator", &of(bob, "roles"), both).await, 204);
    assert_eq!(put(ann, "administrator", &of(ann, "suspension"), on).await, 422, "bob cannot act now");
    assert_eq!(put(ann, "administrator", &of(bob, "suspension"), r#"{"suspended":false}"#).await, 204);
    assert_eq!(put(ann, "administrator", &of(ann, "roles"), developer).await, 204);
}

#[tokio::test]
async fn two_administrators_cannot_suspend_each_other_at_once() {
    let api = Api::new().await;
    let (ann, bob) = (api.ann, api.bob);
    let put = async |member: UserId, what: &str, body: &str| {
        let path = format!("/api/v1/members/{member}/{what}");
        api.call(ann, "administrator", Method::PUT, &path, body).await.0
    };
    assert_eq!(put(bob, "roles", r#"{"roles":["administrator"]}"#).await, 204);
    for _ in 0..10 {
        let on = r#"{"suspended":true}"#;
        let (one, two) = tokio::join!(put(ann, "suspension", on), put(bob, "suspension", on));
        assert!(matches!((one, two), (204, 422) | (422, 204)), "{one} {two}");
        for member in [ann, bob] {
            assert_eq!(put(member, "suspension", r#"{"suspended":false}"#).await, 204);
        }
    }
}

#[tokio::test]
async fn limits_of_sessions_stay_within_one_hour_and_forty_five_days() {
    let api = Api::new().await;
    let own = api.world.app.store.customer(api.acme);
    let mut write = api.world.app.store.write().await.unwrap();
    let (stage, seed) = (StageName::test(), bastide_types::Secret::new("seed"));
    let new = bastide_store::NewStage { name: &stage, account: "A", seed: &seed };
    own.create_stage(&mut write, &new).await.unwrap();
    write.commit().await.unwrap();
    let path = "/api/v1/stages/test/sessions";
    let put = async |role: &str, body: &str| api.call(api.ann, role, Method::PUT, path, body).await.0;
    for (max_s, idle_s, status) in [
        (3600, 300, 204),
        (3_888_000, 3_888_000, 204),
        (3599, 300, 422),
        (3_888_001, 300, 422),
        (3600, 299, 422),
        (3600, 3601, 422),
    ] {
        let body = format!(r#"{{"max_s":{max_s},"idle_s":{idle_s}}}"#);
        assert_eq!(put("administrator", &body).await, status, "{body}");
    }
    assert_eq!(put("developer", r#"{"max_s":3600,"idle_s":300}"#).await, 403);
    let (_, shown) = api.call(api.bob, "developer", Method::GET, path, "").await;
    assert_eq!(shown, json!({ "max_s": 3_888_000, "idle_s": 3_888_000 }));
    let none = api.call(api.ann, "administrator", Method::GET, "/api/v1/stages/none/sessions", "").await;
    assert_eq!(none.0, StatusCode::NOT_FOUND.as_u16());
}

#[tokio::test]
async fn snapshots_carry_the_epoch_of_a_customer_that_ended_everything() {
    let road = Road::in_world(api::world_with(60).await).await;
    let name = |text: &str| CustomerName::new(text).unwrap();
    let store = &road.world.app.store;
    let acme = store.customer_named(&name("acme")).await.unwrap().unwrap();
    let epochs = async |customer: &str| {
        let snapshot = road.snapshot().await;
        let customer = &snapshot.customers[&name(customer)];
        let stages = customer.stages.values().map(|stage| stage.issuer.token_epoch);
        stages.chain([customer.issuer.token_epoch]).collect::<BTreeSet<_>>()
    };
    assert_eq!(epochs("acme").await, BTreeSet::from([0]));
    let admin = road.world.assertion(acme.id, &["administrator"]);
    let ended =
        road.world.call("acme", Method::DELETE, "/api/v1/sessions?of=everybody", Some(&admin), "").await;
    assert_eq!(ended.0, StatusCode::NO_CONTENT, "{}", ended.1);
    let floor = store.customer(acme.id).token_floor().await.unwrap();
    assert!(floor > 0);
    assert_eq!(epochs("acme").await, BTreeSet::from([floor]));
    assert_eq!(epochs("beta").await, BTreeSet::from([0]));
}

#[tokio::test]
async fn members_see_and_end_their_sessions_on_a_page() {
    const PAGE: &str = "/identity/account/sessions";
    let world = World::with_ann().await;
    let tokens = world.redeem(&world.code(&super::identity::cli()).await, &[]).await;
    let alive = async || {
        let asked = world.refresh(&tokens.text("refresh_token"), None).await;
        asked.json()["error"] != "invalid_grant"
    };
    let mut browser = Browser::default();
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    assert!(page.body.contains("name=\"password\"") && !page.body.contains("Program"), "{}", page.body);
    let wrong = filled(&page.body, &[("username", EMAIL), ("password", "wrong")]);
    let refused = world.browse(&mut browser, Method::POST, PAGE, &wrong).await;
    assert!(refused.status == 401 && refused.body.contains("B-ID-0411"), "{}", refused.body);
    let good = filled(&page.body, &[("username", EMAIL), ("password", PASSWORD)]);
    assert_eq!(world.browse(&mut browser, Method::POST, PAGE, &good).await.status, 303);
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    assert!(
        page.body.contains("Program bastide-cli") && page.body.contains("(this browser)"),
        "{}",
        page.body
    );
    // Each session has its button.
    let program = page.body.split("Program bastide-cli").nth(1).unwrap();
    let program = program.split_once("value=\"").unwrap().1.split('"').next().unwrap();
    let end = |which: &str| filled(&page.body, &[("session", which)]);
    // Of a page of another site, and of somebody else's, nothing comes.
    let foreign = world.browse(&mut Browser::default(), Method::POST, PAGE, &end(program)).await;
    assert_eq!(foreign.status, 403);
    let unknown = world.browse(&mut browser, Method::POST, PAGE, &end(&UserId::generate().to_string())).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(world.browse(&mut browser, Method::POST, PAGE, &end(program)).await.status, 303);
    assert!(!alive().await);
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    assert!(!page.body.contains("Program") && page.body.contains("(this browser)"), "{}", page.body);
    assert_eq!(world.browse(&mut browser, Method::POST, PAGE, &end("all")).await.status, 303);
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    assert!(page.body.contains("name=\"password\""), "signed out here, too: {}", page.body);
}
