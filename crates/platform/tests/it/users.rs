//! End users of a stage: apart from members, at home in one stage, with roles of their own and of their groups.

use super::{
    api,
    authenticator::Authenticator,
    identity::{
        ACME, Answer, Browser, EMAIL, PASSWORD, SHOP, VERIFIER, World, cli, encode, filled, hashed, request,
    },
};
use axum::http::Method;
use bastide_identity::{Claims, Revoked, claims::USER_LIFE_S, opaque::Opaque};
use bastide_store::{Counter, MemberRow, Write, now_s};
use bastide_types::{AppId, StageName, UserId};
use serde_json::{Value, json};

const STAGE: &str = "/identity/s/development";
const EVE: &str = "eve@example.com";
const HERS: &str = "Wander-falke-77";
const LOOPBACK: &str = super::identity::LOOPBACK;

impl World {
    pub(super) async fn changes(&self, change: impl AsyncFnOnce(&mut Write)) {
        let mut write = self.store.write().await.unwrap();
        change(&mut write).await;
        write.commit().await.unwrap();
    }

    /// Invites an end user; the token of the link.
    async fn invites(&self, stage: &str, email: &str) -> String {
        let own = self.store.customer(self.acme);
        let row = MemberRow::invited(stage, email, "Eve", Vec::new());
        let token = Opaque::generate().unwrap();
        self.changes(async |write| {
            let id = own.renew_invited(write, &row).await.unwrap().unwrap();
            own.add_invitation(write, &token.hash, id, now_s() + 60).await.unwrap();
        })
        .await;
        token.secret.expose().to_owned()
    }

    /// Opens the sign-in page below `base` and sends its form.
    pub(super) async fn signs_in(
        &self,
        browser: &mut Browser,
        base: &str,
        asked: &str,
        who: (&str, &str),
    ) -> Answer {
        let page = self.browse(browser, Method::GET, &format!("{base}/authorize?{asked}"), "").await;
        assert_eq!(page.status, 200, "{}", page.body);
        let form = filled(&page.body, &[("username", who.0), ("password", who.1)]);
        self.browse(browser, Method::POST, &format!("{base}/login"), &form).await
    }

    /// The tokens that a code of `base` gives, for the shop.
    async fn tokens_of(&self, base: &str, code: &str) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "bastide-cli"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", LOOPBACK),
            ("resource", SHOP),
        ];
        self.posts(&format!("{base}/token"), &form).await
    }

    async fn posts(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        self.send(ACME, Method::POST, path, &encode(form), &[kind]).await
    }

    async fn eve_s_token(&self) -> (String, Claims) {
        let (eve, mut browser) = ((EVE, HERS), Browser::default());
        let code = self.signs_in(&mut browser, STAGE, &cli(), eve).await.redirected("code").unwrap();
        let tokens = self.tokens_of(STAGE, &code).await;
        let claims = self.check_shop(&tokens.text("access_token")).await.unwrap();
        (tokens.text("refresh_token"), claims)
    }

    async fn is_alive(&self, claims: &Claims) -> bool {
        let life = self.store.version().await.unwrap().0;
        let mut revoked = Revoked::default();
        revoked.replace(&[self.store.session_feed(life, 0).await.unwrap()], now_s() as u64);
        revoked.check(claims).is_ok()
    }

    async fn shop(&self) -> AppId {
        let shop = "shop".parse().unwrap();
        self.store.customer(self.acme).app_named(&shop).await.unwrap().unwrap().id
    }
}

/// A world in which Eve is a user of Development; in the browser in which she accepted.
impl World {
    /// Eve joins and sets a passkey up.
    pub(super) async fn eve_with_passkey(&self) -> (UserId, Authenticator) {
        let (token, mut browser) = (self.invites("development", EVE).await, Browser::default());
        let path = format!("{STAGE}/invite/{token}");
        let page = self.browse(&mut browser, Method::GET, &path, "").await;
        let form = filled(&page.body, &[("password", HERS), ("password_again", HERS)]);
        self.browse(&mut browser, Method::POST, &path, &form).await;
        let mut device = Authenticator::new();
        let page = format!("{STAGE}/account/passkeys");
        let done = self.sets_up(&mut browser, &page, &[("password", HERS)], &mut device).await;
        assert_eq!(done.status, 303, "{}", done.body);
        let own = self.store.customer(self.acme);
        (own.user_with_email("development", EVE).await.unwrap().unwrap().id, device)
    }
}

async fn with_eve() -> (World, Browser) {
    let world = World::with_ann().await;
    let token = world.invites("development", EVE).await;
    let mut browser = Browser::default();
    // The link is one of her stage's issuer: elsewhere it opens nothing.
    for base in ["/identity", "/identity/s/test"] {
        let path = format!("{base}/invite/{token}");
        assert_eq!(world.browse(&mut browser, Method::GET, &path, "").await.status, 410, "{base}");
    }
    let path = format!("{STAGE}/invite/{token}");
    let page = world.browse(&mut browser, Method::GET, &path, "").await;
    let form = filled(&page.body, &[("password", HERS), ("password_again", HERS)]);
    let done = world.browse(&mut browser, Method::POST, &path, &form).await;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(world.browse(&mut browser, Method::GET, &path, "").await.status, 410, "it counts once");
    (world, browser)
}

#[tokio::test]
async fn an_end_user_signs_in_at_the_own_stage_and_nowhere_else() {
    let (world, mut browser) = with_eve().await;
    // She is signed in since she accepted, at her stage only.
    let at =
        |base: &str| format!("{base}/authorize?{}", request("bastide-cli", LOOPBACK, &[("prompt", "none")]));
    let answer = world.browse(&mut browser, Method::GET, &at(STAGE), "").await;
    let code = answer.redirected("code").unwrap();
    assert_eq!(
        answer.redirected("iss").unwrap(),
        "https://acme.platform.localhost:8443/identity/s/development"
    );
    for base in ["/identity", "/identity/s/test"] {
        let answer = world.browse(&mut browser, Method::GET, &at(base), "").await;
        assert_eq!(answer.redirected("error").as_deref(), Some("login_required"), "{base}");
    }
    // Nor when a cookie is renamed.
    let secret = browser.0["__Host-bst-sso-development"].clone();
    browser.0.insert("__Host-bst-sso".into(), secret.clone());
    browser.0.insert("__Host-bst-sso-test".into(), secret);
    for base in ["/identity", "/identity/s/test"] {
        let answer = world.browse(&mut browser, Method::GET, &at(base), "").await;
        assert_eq!(answer.redirected("error").as_deref(), Some("login_required"), "{base}");
    }
    // Her code is worth nothing at another issuer, and her token names only what she has in the app.
    assert_eq!(world.tokens_of("/identity", &code).await.text("error"), "invalid_grant");
    let (refresh, claims) = world.eve_s_token().await;
    assert_eq!((claims.stage.as_str(), claims.roles.len()), ("development", 0));
    for base in ["/identity", "/identity/s/test"] {
        let form =
            [("grant_type", "refresh_token"), ("client_id", "bastide-cli"), ("refresh_token", &refresh)];
        assert_eq!(world.posts(&format!("{base}/token"), &form).await.text("error"), "invalid_grant");
    }
    // Her password opens nothing elsewhere.
    for base in ["/identity", "/identity/s/test"] {
        let answer = world.signs_in(&mut Browser::default(), base, &cli(), (EVE, HERS)).await;
        assert_eq!(answer.status, 401, "{base}: {}", answer.body);
    }
    // Her pages are her stage's.
    let mut fresh = Browser::default();
    world.signs_in(&mut fresh, STAGE, &cli(), (EVE, HERS)).await;
    let page = world.browse(&mut fresh, Method::GET, &format!("{STAGE}/account/sessions"), "").await;
    assert!(page.body.contains(EVE), "{}", page.body);
    let page = world.browse(&mut fresh, Method::GET, "/identity/account/sessions", "").await;
    assert!(!page.body.contains(EVE) && page.body.contains("name=\"username\""), "{}", page.body);
}

#[tokio::test]
async fn a_member_signs_in_at_stages_too_and_each_account_has_its_own_password_and_count() {
    let (world, mut browser) = with_eve().await;
    let ann = world.signs_in(&mut Browser::default(), STAGE, &cli(), (EMAIL, PASSWORD)).await;
    let code = ann.redirected("code").unwrap();
    let claims = world.check_shop(&world.tokens_of(STAGE, &code).await.text("access_token")).await.unwrap();
    let own = world.store.customer(world.acme);
    let ann = own.member_with_email(EMAIL).await.unwrap().unwrap().id;
    assert_eq!(claims.sub, ann.to_string());

    // Somebody has Ann's address as an end user: at the stage, it is that account's.
    let token = world.invites("development", EMAIL).await;
    let path = format!("{STAGE}/invite/{token}");
    let page = world.browse(&mut browser, Method::GET, &path, "").await;
    let form = filled(&page.body, &[("password", HERS), ("password_again", HERS)]);
    assert_eq!(world.browse(&mut browser, Method::POST, &path, &form).await.status, 200);
    let check = async |base: &str, password: &str, good: bool| {
        let answer = world.signs_in(&mut Browser::default(), base, &cli(), (EMAIL, password)).await;
        assert_eq!(answer.redirected("code").is_some(), good, "{base} {password}: {}", answer.body);
    };
    check(STAGE, HERS, true).await;
    check(STAGE, PASSWORD, false).await;
    check("/identity", HERS, false).await;
    // Three failures so far were the member's: signing in at the stage takes none of them back.
    check(STAGE, HERS, true).await;
    let member = Counter::Password { stage: "", email: EMAIL };
    let left = async || own.count_try(member, 4).await.unwrap();
    assert_eq!((left().await, left().await), (Ok(()), Ok(())));
    assert!(left().await.is_err(), "two of the four were counted before");
    // Who locked the member locks that address everywhere, and learns nothing from it.
    let answer = world.signs_in(&mut Browser::default(), STAGE, &cli(), (EMAIL, HERS)).await;
    assert_eq!(answer.status, 429, "{}", answer.body);
}

#[tokio::test]
async fn signing_in_as_an_end_user_leaves_the_member_signed_in_on_the_platform() {
    let (world, _) = with_eve().await;
    let mut browser = Browser::default();
    world.signs_in(&mut browser, "/identity", &cli(), (EMAIL, PASSWORD)).await;
    // At the stage Ann would go on as herself; she signs in as Eve instead.
    let other = request("bastide-cli", LOOPBACK, &[("prompt", "login")]);
    world.signs_in(&mut browser, STAGE, &other, (EVE, HERS)).await;
    let who = async |browser: &mut Browser, base: &str| {
        let page = world.browse(browser, Method::GET, &format!("{base}/account/sessions"), "").await;
        [EMAIL, EVE].into_iter().find(|who| page.body.contains(&format!("<strong>{who}"))).map(str::to_owned)
    };
    assert_eq!(who(&mut browser, "/identity").await.as_deref(), Some(EMAIL));
    assert_eq!(who(&mut browser, STAGE).await.as_deref(), Some(EVE));
    assert_eq!(who(&mut browser, "/identity/s/test").await.as_deref(), Some(EMAIL));
    // Signing out there signs Eve out, and Ann not.
    let page = world.browse(&mut browser, Method::GET, &format!("{STAGE}/logout"), "").await;
    world.browse(&mut browser, Method::POST, &format!("{STAGE}/logout"), &filled(&page.body, &[])).await;
    assert_eq!(who(&mut browser, STAGE).await.as_deref(), Some(EMAIL));
    // The other way round, the member takes the end user's place at that stage.
    world.signs_in(&mut browser, STAGE, &other, (EVE, HERS)).await;
    world.signs_in(&mut browser, STAGE, &other, (EMAIL, PASSWORD)).await;
    assert_eq!(who(&mut browser, STAGE).await.as_deref(), Some(EMAIL));
}

#[tokio::test]
async fn whatever_takes_rights_from_an_end_user_hits_tokens_at_once() {
    let (world, _) = with_eve().await;
    let (own, shop, stage) = (world.store.customer(world.acme), world.shop().await, StageName::development());
    let eve = own.user_with_email("development", EVE).await.unwrap().unwrap().id;
    world
        .changes(async |write| {
            assert!(own.add_group(write, &stage, "buyers", 9).await.unwrap());
            own.grant_group_role(write, &stage, "buyers", shop, "buyer").await.unwrap();
            own.grant_group_role(write, &stage, "buyers", shop, "guest").await.unwrap();
            own.grant_app_role(write, &stage, shop, "guest", eve).await.unwrap();
            own.join_group(write, &stage, "buyers", eve).await.unwrap();
        })
        .await;
    let roles = async |expected: &[&str]| {
        let claims = world.eve_s_token().await.1;
        assert_eq!(claims.roles, expected);
        assert!(world.is_alive(&claims).await);
        claims
    };
    let dead = async |claims: &Claims, what: &str| assert!(!world.is_alive(claims).await, "{what}");
    let before = roles(&["buyer", "guest"]).await;
    world
        .changes(async |write| {
            assert!(own.revoke_group_role(write, &stage, "buyers", shop, "buyer").await.unwrap());
            assert!(!own.revoke_group_role(write, &stage, "buyers", shop, "buyer").await.unwrap());
        })
        .await;
    dead(&before, "the group lost a role").await;
    let before = roles(&["guest"]).await;
    world.changes(async |write| assert!(own.leave_group(write, &stage, "buyers", eve).await.unwrap())).await;
    dead(&before, "she left the group").await;
    world.changes(async |write| own.join_group(write, &stage, "buyers", eve).await.unwrap()).await;
    let before = roles(&["guest"]).await;
    world.changes(async |write| assert!(own.remove_group(write, &stage, "buyers").await.unwrap())).await;
    dead(&before, "the group is gone").await;
    let before = roles(&["guest"]).await;
    world
        .changes(async |write| {
            assert!(own.revoke_app_role(write, &stage, shop, "guest", eve).await.unwrap());
        })
        .await;
    dead(&before, "she lost a role").await;
    let before = roles(&[]).await;
    world.changes(async |write| assert!(own.suspend_member(write, eve, true).await.unwrap())).await;
    dead(&before, "she was suspended").await;
    let refused = world.signs_in(&mut Browser::default(), STAGE, &cli(), (EVE, HERS)).await;
    assert_eq!(refused.status, 401);
    world.changes(async |write| assert!(own.suspend_member(write, eve, false).await.unwrap())).await;
    let before = roles(&[]).await;
    world
        .changes(async |write| {
            assert!(own.remove_user(write, eve).await.unwrap());
            let ann = own.member_with_email(EMAIL).await.unwrap().unwrap().id;
            assert!(!own.remove_user(write, ann).await.unwrap(), "members stay");
        })
        .await;
    dead(&before, "she was removed").await;
    assert!(own.member(eve).await.unwrap().is_none());
}

#[tokio::test]
async fn a_large_group_that_changes_revokes_the_tokens_of_all() {
    let (world, _) = with_eve().await;
    let (own, stage, shop) = (world.store.customer(world.acme), StageName::development(), world.shop().await);
    let before = world.eve_s_token().await.1;
    world
        .changes(async |write| {
            own.add_group(write, &stage, "all", 9).await.unwrap();
            own.grant_group_role(write, &stage, "all", shop, "guest").await.unwrap();
            for number in 0..501 {
                let row = MemberRow::invited("development", &format!("{number}@example.com"), "x", vec![]);
                own.add_member(write, &row).await.unwrap();
                own.join_group(write, &stage, "all", row.id).await.unwrap();
            }
        })
        .await;
    assert!(world.is_alive(&before).await);
    world
        .changes(async |write| {
            assert!(own.revoke_group_role(write, &stage, "all", shop, "guest").await.unwrap());
        })
        .await;
    assert!(!world.is_alive(&before).await);
    let (_, after) = world.eve_s_token().await;
    assert!(world.is_alive(&after).await, "sessions go on with new tokens");
}

#[tokio::test]
async fn a_gateway_opens_a_session_of_an_end_user_for_the_own_stage_only() {
    let (world, _) = with_eve().await;
    let callback = "https://acme--development.apps.localhost:8443/.bastide/callback";
    let asked = request("bastide-gateway", callback, &[("resource", SHOP)]);
    // The host decides the issuer: the members' knows nothing of this callback, nor the other stage's.
    for base in ["/identity", "/identity/s/test"] {
        let path = format!("{base}/authorize?{asked}");
        let answer = world.browse(&mut Browser::default(), Method::GET, &path, "").await;
        assert_eq!(answer.status, 400, "{base}");
    }
    let platform = request("bastide-gateway", super::identity::CALLBACK, &[]);
    let path = format!("{STAGE}/authorize?{platform}");
    assert_eq!(world.browse(&mut Browser::default(), Method::GET, &path, "").await.status, 400);
    let code = world.signs_in(&mut Browser::default(), STAGE, &asked, (EVE, HERS)).await;
    let code = code.redirected("code").unwrap();
    let open =
        json!({ "customer": "acme", "code": code, "code_verifier": VERIFIER, "redirect_uri": callback });
    let opened = world.internal("open", open).await;
    assert_eq!(opened.status, 200, "{}", opened.body);
    let session = opened.text("session");
    let ask = |resource: Option<&str>| json!({ "customer": "acme", "hash": hashed(&session), "resource": resource });
    let given = world.internal("token", ask(Some(SHOP))).await;
    assert_eq!(world.check_shop(&given.text("access_token")).await.unwrap().name, "Eve");
    // For the Platform there is none, whoever asks.
    let given = world.internal("token", ask(None)).await;
    assert_eq!((given.status.as_u16(), given.text("error")), (400, "invalid_target".into()));
    assert!(world.check_platform(&given.body, USER_LIFE_S).await.is_err());
}

#[tokio::test]
async fn administrators_look_after_end_users_and_groups() {
    let world = api::world().await;
    let acme = world.customer("acme").await;
    let boss = world.assertion(acme, &["administrator"]);
    let call = async |method: Method, path: &str, body: Value| {
        let path = format!("/api/v1/stages/development{path}");
        let (status, text) = world.call("acme", method, &path, Some(&boss), body.to_string()).await;
        (status.as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    for stage in StageName::defaults() {
        let new = bastide_store::NewStage {
            name: &stage,
            account: &format!("A-{stage}"),
            seed: &bastide_types::Secret::new("s"),
        };
        let mut write = world.app.store.write().await.unwrap();
        world.app.store.customer(acme).create_stage(&mut write, &new).await.unwrap();
        write.commit().await.unwrap();
    }
    for name in ["", "-x", "a b", "a/b", &"x".repeat(64)] {
        assert_eq!(call(Method::POST, "/groups", json!({ "name": name })).await.0, 422, "{name}");
    }
    assert_eq!(call(Method::POST, "/groups", json!({ "name": "buyers" })).await.0, 204);
    assert_eq!(call(Method::POST, "/groups", json!({ "name": "buyers" })).await.0, 409);
    let invite = |email: &str, groups: &[&str]| json!({ "email": email, "groups": groups });
    assert_eq!(call(Method::POST, "/users", invite("nobody", &[])).await.0, 422);
    assert_eq!(call(Method::POST, "/users", invite(EVE, &["none"])).await.0, 422);
    let (status, made) = call(Method::POST, "/users", invite(" Eve@Example.com ", &["buyers"])).await;
    assert_eq!(status, 201, "{made}");
    let link = made["link"].as_str().unwrap();
    assert!(
        link.starts_with("https://acme.platform.localhost:8443/identity/s/development/invite/"),
        "{link}"
    );
    let token = link.rsplit_once('/').unwrap().1;
    let own = world.app.store.customer(acme);
    let (_, until) = own.invitation(&bastide_identity::opaque::hash(token)).await.unwrap().unwrap();
    assert!((until - now_s() - 7 * 86_400).abs() < 600, "{until}");
    // Nobody of the organization, and of no other stage.
    let (_, members) = {
        let (status, text) = world.call("acme", Method::GET, "/api/v1/members", Some(&boss), "").await;
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    assert_eq!(members, json!([]));
    let (_, users) = call(Method::GET, "/users", json!({})).await;
    assert_eq!((users[0]["email"].as_str(), users[0]["groups"][0].as_str()), (Some(EVE), Some("buyers")));
    let id: UserId = users[0]["id"].as_str().unwrap().parse().unwrap();
    let elsewhere = format!("/api/v1/stages/test/users/{id}");
    for (method, path) in [(Method::GET, elsewhere.clone()), (Method::DELETE, elsewhere)] {
        assert_eq!(world.call("acme", method, &path, Some(&boss), "").await.0.as_u16(), 404, "{path}");
    }
    for path in [format!("/api/v1/members/{id}/roles"), format!("/api/v1/members/{id}/suspension")] {
        let body = r#"{"roles":["administrator"],"suspended":true}"#;
        let answer = world.call("acme", Method::PUT, &path, Some(&boss), body).await;
        assert_ne!(answer.0.as_u16(), 204, "an end user is no member: {path}");
    }
    let (_, found) = call(Method::GET, "/users?email=EVE@example.com", json!({})).await;
    assert_eq!(found[0]["id"], users[0]["id"]);
    let (_, groups) = call(Method::GET, "/groups", json!({})).await;
    assert_eq!(groups, json!([{ "name": "buyers", "users": 1 }]));
    assert_eq!(
        call(Method::PUT, &format!("/users/{id}/suspension"), json!({ "suspended": true })).await.0,
        422
    );
    assert_eq!(call(Method::DELETE, &format!("/groups/buyers/users/{id}"), json!({})).await.0, 204);
    assert_eq!(call(Method::DELETE, &format!("/groups/buyers/users/{id}"), json!({})).await.0, 404);
    assert_eq!(call(Method::PUT, &format!("/groups/none/users/{id}"), json!({})).await.0, 404);
    assert_eq!(call(Method::PUT, &format!("/groups/buyers/users/{id}"), json!({})).await.0, 204);
    let (_, inside) = call(Method::GET, "/groups/buyers/users", json!({})).await;
    assert_eq!(inside[0]["email"], EVE);
    for (path, status) in [("/users/junk", 404), ("/groups/none", 404)] {
        assert_eq!(call(Method::DELETE, path, json!({})).await.0, status, "{path}");
    }
    assert_eq!(call(Method::DELETE, &format!("/users/{id}"), json!({})).await.0, 204);
    assert_eq!(call(Method::DELETE, "/groups/buyers", json!({})).await.0, 204);
    assert_eq!(call(Method::GET, "/users", json!({})).await.1, json!([]));
    let trail = own.audit_trail(100).await.unwrap();
    for what in
        ["user.invited", "user.removed", "group.created", "group.joined", "group.left", "group.removed"]
    {
        assert!(trail.iter().any(|row| row.what == what), "{what}");
    }
}

#[tokio::test]
async fn users_come_in_pages_and_groups_get_roles_of_apps() {
    let world = api::world().await;
    let acme = world.customer("acme").await;
    let (own, stage) = (world.app.store.customer(acme), StageName::development());
    let mut write = world.app.store.write().await.unwrap();
    let new = bastide_store::NewStage { name: &stage, account: "A", seed: &bastide_types::Secret::new("s") };
    own.create_stage(&mut write, &new).await.unwrap();
    own.ensure_app(&mut write, &"shop".parse().unwrap()).await.unwrap();
    own.add_group(&mut write, &stage, "buyers", 9).await.unwrap();
    for number in 0..5 {
        let row = MemberRow::invited("development", &format!("u{number}@example.com"), "x", vec![]);
        own.add_member(&mut write, &row).await.unwrap();
    }
    write.commit().await.unwrap();
    let boss = world.assertion(acme, &["administrator"]);
    let call = async |method: Method, path: &str, body: Value| {
        let (status, text) = world.call("acme", method, path, Some(&boss), body.to_string()).await;
        (status.as_u16(), serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let page = async |query: &str| {
        let (_, users) =
            call(Method::GET, &format!("/api/v1/stages/development/users?{query}"), json!({})).await;
        let emails = users.as_array().unwrap().iter().map(|user| user["email"].as_str().unwrap().to_owned());
        emails.collect::<Vec<_>>()
    };
    assert_eq!(page("limit=2").await, ["u0@example.com", "u1@example.com"]);
    assert_eq!(page("limit=2&after=u3@example.com").await, ["u4@example.com"]);
    let path = "/api/v1/stages/development/users?limit=0";
    assert_eq!(call(Method::GET, path, json!({})).await.0, 422);
    let roles = "/api/v1/apps/shop/roles";
    let grant = |who: Value| {
        let mut body = json!({ "stage": "development", "role": "buyer" });
        body.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
        body
    };
    for wrong in [
        json!({}),
        json!({ "user": "u0@example.com", "group": "buyers" }),
        json!({ "email": "u0@example.com" }),
        json!({ "user": "nobody@example.com" }),
        json!({ "group": "none" }),
    ] {
        assert_eq!(call(Method::PUT, roles, grant(wrong.clone())).await.0, 422, "{wrong}");
    }
    assert_eq!(call(Method::PUT, roles, grant(json!({ "user": "u0@example.com" }))).await.0, 204);
    assert_eq!(call(Method::PUT, roles, grant(json!({ "group": "buyers" }))).await.0, 204);
    let (_, listed) = call(Method::GET, roles, json!({})).await;
    assert_eq!(
        listed,
        json!([
            { "stage": "development", "role": "buyer", "user": "u0@example.com" },
            { "stage": "development", "role": "buyer", "group": "buyers" },
        ])
    );
    let of_group = format!("{roles}/development/buyer/groups/buyers");
    assert_eq!(call(Method::DELETE, &of_group, json!({})).await.0, 204);
    assert_eq!(call(Method::DELETE, &of_group, json!({})).await.0, 404);
    let id = own.user_with_email("development", "u0@example.com").await.unwrap().unwrap().id;
    let of_user = format!("{roles}/development/buyer/{id}");
    assert_eq!(call(Method::DELETE, &of_user, json!({})).await.0, 204);
    assert_eq!(call(Method::GET, roles, json!({})).await.1, json!([]));
}
