//! The second step of a sign-in, as members see it.

use super::{
    api::world,
    identity::{ACME, Answer, Browser, EMAIL, LOOPBACK, PASSWORD, World, cli, filled, request},
};
use axum::http::{Method, StatusCode};
use bastide_identity::{TotpSecret, opaque, totp};
use bastide_store::{Counter, MemberRow, SignInPolicy, now_s};
use bastide_types::UserId;
use data_encoding::BASE32_NOPAD;
use serde_json::json;

const PAGE: &str = "/identity/account/second-factor";
pub(super) const SECRET: &[u8] = b"12345678901234567890";
const RECOVERY: &str = "ABCD-EFGH-IJKL-MNOP";
/// As if many failures came before: a wait long enough for the slowest machine.
const LOCKS: i64 = -9;

/// Codes of before, of now and of after: three that count, in this order.
pub(super) fn codes() -> [String; 3] {
    let secret = TotpSecret::from_bytes(SECRET).unwrap();
    let now = now_s() as u64;
    [now - 30, now, now + 30].map(|at| secret.code_at(at))
}

/// The secret that a page offers.
pub(super) fn offered(page: &str) -> TotpSecret {
    let text = page.split_once("<code class=\"secret\">").unwrap_or_else(|| panic!("{page}")).1;
    let text = text.split_once("</code>").unwrap().0;
    TotpSecret::from_bytes(&BASE32_NOPAD.decode(text.as_bytes()).unwrap()).unwrap()
}

fn shown_codes(page: &str) -> Vec<String> {
    page.split("<li><code>").skip(1).map(|rest| rest.split_once('<').unwrap().0.to_owned()).collect()
}

pub(super) fn signed_in(browser: &Browser) -> bool {
    browser.0.contains_key("__Host-bst-sso")
}

impl World {
    async fn ann(&self) -> UserId {
        self.store.customer(self.acme).member_with_email(EMAIL).await.unwrap().unwrap().id
    }

    /// Ann has an app with [`SECRET`] and one recovery code.
    pub(super) async fn with_factor() -> Self {
        let world = Self::with_ann().await;
        let ann = world.ann().await;
        let own = world.store.customer(world.acme);
        let hash = opaque::hash(&totp::typed_recovery_code(RECOVERY));
        let mut write = world.store.write().await.unwrap();
        own.add_second_factor(&mut write, ann, SECRET, 0, &[hash]).await.unwrap();
        write.commit().await.unwrap();
        world
    }

    async fn demand_factor(&self) {
        let mut write = self.store.write().await.unwrap();
        let policy = SignInPolicy { second_factor: true, ..SignInPolicy::default() };
        self.store.customer(self.acme).set_sign_in_policy(&mut write, &policy).await.unwrap();
        write.commit().await.unwrap();
    }

    /// A browser that has shown the password, and the page that it sees.
    async fn half(&self) -> (Browser, Answer) {
        let mut browser = Browser::default();
        let page = self.sign_in(&mut browser, &cli(), PASSWORD).await;
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(page.body.contains("name=\"code\"") && !signed_in(&browser), "{}", page.body);
        (browser, page)
    }

    pub(super) async fn show(&self, browser: &mut Browser, page: &Answer, code: &str) -> Answer {
        let form = filled(&page.body, &[("code", code)]);
        self.browse(browser, Method::POST, "/identity/second", &form).await
    }

    async fn act(&self, browser: &mut Browser, page: &str, typed: &[(&str, &str)]) -> Answer {
        self.browse(browser, Method::POST, PAGE, &filled(page, typed)).await
    }
}

#[tokio::test]
async fn a_member_sets_an_app_up_and_the_password_alone_opens_nothing_any_more() {
    let world = World::with_ann().await;
    let mut browser = Browser::default();
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    assert!(page.body.contains("name=\"password\""), "{}", page.body);
    let entered = world.act(&mut browser, &page.body, &[("username", EMAIL), ("password", PASSWORD)]).await;
    assert_eq!(
        (entered.status, entered.headers["location"].to_str().unwrap()),
        (StatusCode::SEE_OTHER, PAGE)
    );
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    let refused = world.act(&mut browser, &page.body, &[("action", "begin"), ("password", "wrong")]).await;
    assert_eq!(refused.status, 401, "an open browser is not enough");
    let offer = world.act(&mut browser, &page.body, &[("action", "begin"), ("password", PASSWORD)]).await;
    assert!(offer.body.contains("<svg") && !offer.body.contains("<script"), "{}", offer.body);
    let policy = offer.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{policy}");
    let secret = offered(&offer.body);
    let wrong = world.act(&mut browser, &offer.body, &[("action", "confirm"), ("code", "000")]).await;
    assert_eq!(wrong.status, 401);
    assert_eq!(offered(&wrong.body).bytes(), secret.bytes(), "the same secret again");
    let code = secret.code_at(now_s() as u64);
    let done = world.act(&mut browser, &wrong.body, &[("action", "confirm"), ("code", &code)]).await;
    let recovery = shown_codes(&done.body);
    assert_eq!((done.status, recovery.len()), (StatusCode::OK, 10), "{}", done.body);
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    assert!(page.body.contains("10 recovery codes") && !page.body.contains(&recovery[0]), "{}", page.body);

    let (mut other, page) = world.half().await;
    let again = world.show(&mut other, &page, &code).await;
    assert_eq!(again.status, 401, "the code that confirmed has counted");
    let signed = world.show(&mut other, &again, &secret.code_at(now_s() as u64 + 30)).await;
    assert!(signed.redirected("code").is_some() && signed_in(&other), "{}", signed.body);
    let (mut third, page) = world.half().await;
    let signed = world.show(&mut third, &page, &recovery[3].to_lowercase()).await;
    let tokens = world.redeem(&signed.redirected("code").unwrap(), &[]).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    for what in ["second-factor.added", "second-factor.failed", "recovery-code.used"] {
        assert!(world.audited(what).await, "{what}");
    }
}

#[tokio::test]
async fn a_code_counts_once_also_when_it_comes_many_times_at_once() {
    let world = World::with_factor().await;
    let code = codes()[1].clone();
    let mut pages = Vec::new();
    for _ in 0..4 {
        pages.push(world.half().await);
    }
    let tries = pages.iter_mut().map(|(browser, page)| world.show(browser, page, &code));
    let answers = futures_util::future::join_all(tries).await;
    let good = answers.iter().filter(|answer| answer.redirected("code").is_some()).count();
    assert_eq!(good, 1);
    let (mut late, page) = world.half().await;
    assert_eq!(world.show(&mut late, &page, &codes()[0]).await.status, 401, "an earlier one");
    assert_eq!(world.show(&mut late, &page, RECOVERY).await.status, 303);
    let (mut late, page) = world.half().await;
    assert_eq!(world.show(&mut late, &page, RECOVERY).await.status, 401, "each recovery code once");
}

#[tokio::test]
async fn codes_have_counters_of_their_own_and_parallel_guesses_do_not_pass_them() {
    let world = World::with_factor().await;
    let (mut browser, page) = world.half().await;
    let form = filled(&page.body, &[("code", "000000")]);
    let cookies: Vec<_> = browser.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let cookies = cookies.join("; ");
    let fields = [("accept", "text/html"), ("sec-fetch-site", "same-origin"), ("cookie", cookies.as_str())];
    let tries = (0..20).map(|_| world.send(ACME, Method::POST, "/identity/second", &form, &fields));
    let answers = futures_util::future::join_all(tries).await;
    let tried = answers.iter().filter(|answer| answer.status == 401).count();
    // Five at once; a slow machine gets further ones after waits of 2, 4, 8 s.
    assert!((5..20).contains(&tried), "{tried}");
    assert!(answers.iter().all(|answer| answer.status == 401 || answer.status == 429));
    let own = world.store.customer(world.acme);
    let ann = world.ann().await;
    let mut write = world.store.write().await.unwrap();
    own.reset_tries(&mut write, Counter::Totp(ann)).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(own.count_try(Counter::Totp(ann), LOCKS).await.unwrap(), Ok(()));
    let locked = world.show(&mut browser, &page, &codes()[1]).await;
    assert_eq!(locked.status, 429, "the right one, too");
    assert!(locked.headers.contains_key("retry-after"));
    // The password and recovery codes are not locked with it.
    let (mut other, page) = world.half().await;
    assert_eq!(world.show(&mut other, &page, RECOVERY).await.status, 303);
}

#[tokio::test]
async fn half_a_sign_in_opens_nothing_and_counts_once() {
    let world = World::with_factor().await;
    let (mut browser, page) = world.half().await;
    let asked = world.browse(&mut browser, Method::GET, &format!("/identity/authorize?{}", cli()), "").await;
    assert!(asked.body.contains("name=\"password\""), "{}", asked.body);
    let sessions = world.browse(&mut browser, Method::GET, "/identity/account/sessions", "").await;
    assert!(sessions.body.contains("name=\"password\""));
    let go_on =
        world.browse(&mut browser, Method::POST, "/identity/continue", &filled(&page.body, &[])).await;
    assert!(go_on.body.contains("name=\"password\"") && go_on.redirected("code").is_none());
    // Without it, or with a made-up one, a good code is worth nothing.
    for half in [None, Some("x".repeat(43))] {
        let mut stranger = Browser::default();
        stranger.0.insert("__Host-bst-form".into(), browser.0["__Host-bst-form"].clone());
        stranger.0.extend(half.map(|half| ("__Host-bst-half".to_owned(), half)));
        let answer = world.show(&mut stranger, &page, &codes()[1]).await;
        assert!(answer.status == 401 && !signed_in(&stranger), "{}", answer.body);
    }
    let half = browser.0["__Host-bst-half"].clone();
    assert_eq!(world.show(&mut browser, &page, &codes()[1]).await.status, 303);
    browser.0.insert("__Host-bst-half".into(), half);
    browser.0.remove("__Host-bst-sso");
    let again = world.show(&mut browser, &page, &codes()[2]).await;
    assert!(again.status == 401 && !signed_in(&browser), "{}", again.body);
    // No offer of one's own passes for a code.
    let (mut other, page) = world.half().await;
    let offer = world.store.customer(world.acme).seal_offer(world.ann().await, SECRET, now_s() + 60).unwrap();
    let offer = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, offer);
    let form = filled(&page.body, &[("code", &codes()[2]), ("offer", &offer)]);
    let answer = world.browse(&mut other, Method::POST, "/identity/second", &form).await;
    assert!(answer.redirected("code").is_none() && !signed_in(&other), "{}", answer.body);
}

#[tokio::test]
async fn an_organization_may_demand_it_and_members_set_it_up_at_their_next_sign_in() {
    let world = World::with_ann().await;
    let mut before = Browser::default();
    world.sign_in(&mut before, &cli(), PASSWORD).await;
    world.demand_factor().await;
    let (mut browser, page) = world.half().await;
    assert!(page.body.contains("Your organization demands"), "{}", page.body);
    let secret = offered(&page.body);
    let wrong = world.show(&mut browser, &page, "1").await;
    assert_eq!(wrong.status, 401);
    assert_eq!(offered(&wrong.body).bytes(), secret.bytes());
    let done = world.show(&mut browser, &wrong, &secret.code_at(now_s() as u64)).await;
    assert_eq!((done.status, shown_codes(&done.body).len()), (StatusCode::OK, 10), "{}", done.body);
    let go_on =
        world.browse(&mut browser, Method::POST, "/identity/continue", &filled(&done.body, &[])).await;
    let tokens = world.redeem(&go_on.redirected("code").unwrap(), &[]).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    // Nobody takes away what is demanded.
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    assert!(!page.body.contains("value=\"remove\""));
    let code = secret.code_at(now_s() as u64 + 30);
    let typed = [("action", "remove"), ("password", PASSWORD), ("code", code.as_str())];
    assert_eq!(world.act(&mut browser, &page.body, &typed).await.status, 403);
    assert!(world.store.customer(world.acme).second_factor(world.ann().await).await.unwrap().is_some());
}

#[tokio::test]
async fn taking_it_away_needs_password_and_code() {
    let world = World::with_factor().await;
    let (mut browser, page) = world.half().await;
    world.show(&mut browser, &page, &codes()[1]).await;
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    let check = async |browser: &mut Browser, action: &str, password: &str, code: &str, status: u16| {
        let typed = [("action", action), ("password", password), ("code", code)];
        let answer = world.act(browser, &page.body, &typed).await;
        assert_eq!(answer.status, status, "{action} {password} {code}: {}", answer.body);
        answer
    };
    check(&mut browser, "remove", "wrong", &codes()[1], 401).await;
    check(&mut browser, "remove", PASSWORD, "wrong", 401).await;
    check(&mut browser, "renew", PASSWORD, "", 401).await;
    let renewed = check(&mut browser, "renew", PASSWORD, RECOVERY, 200).await;
    let recovery = shown_codes(&renewed.body);
    assert_eq!(recovery.len(), 10);
    check(&mut browser, "remove", PASSWORD, &recovery[0], 303).await;
    let mut other = Browser::default();
    assert_eq!(world.sign_in(&mut other, &cli(), PASSWORD).await.status, 303);
    assert!(world.audited("second-factor.removed").await && world.audited("recovery-codes.renewed").await);
}

#[tokio::test]
async fn every_page_with_a_password_asks_for_the_code() {
    let world = World::with_factor().await;
    let password = [("username", EMAIL), ("password", PASSWORD), ("user_code", "BCDF")];
    let ways = [
        ("/identity/account/sessions", "/identity/account/sessions"),
        (PAGE, PAGE),
        ("/identity/device", "/identity/device?user_code=BCDF"),
    ];
    for (number, (from, to)) in ways.into_iter().enumerate() {
        let mut browser = Browser::default();
        let page = world.browse(&mut browser, Method::GET, from, "").await;
        let page = world.browse(&mut browser, Method::POST, from, &filled(&page.body, &password)).await;
        assert!(page.status == 200 && !signed_in(&browser), "{from}: {}", page.body);
        // Each later than the one before, also when a step ends meanwhile.
        let [_, now, after] = codes();
        let code = [now.as_str(), after.as_str(), RECOVERY][number];
        let done = world.show(&mut browser, &page, code).await;
        assert_eq!((done.status, done.headers["location"].to_str().unwrap()), (StatusCode::SEE_OTHER, to));
        assert!(signed_in(&browser));
    }
    let mut browser = Browser::default();
    let stage = request("bastide-cli", LOOPBACK, &[]);
    let page =
        world.browse(&mut browser, Method::GET, &format!("/identity/s/test/authorize?{stage}"), "").await;
    let form = filled(&page.body, &password[..2]);
    let page = world.browse(&mut browser, Method::POST, "/identity/s/test/login", &form).await;
    assert!(page.body.contains("/identity/s/test/second") && !signed_in(&browser), "{}", page.body);
}

#[tokio::test]
async fn an_administrator_resets_what_a_member_has_lost_and_decides_whether_it_is_demanded() {
    let world = world().await;
    let acme = world.customer("acme").await;
    let own = world.app.store.customer(acme);
    let member = |email: &str, role: &str| MemberRow {
        id: UserId::generate(),
        email: email.into(),
        name: "Ann".into(),
        state: "active".into(),
        roles: vec![role.into()],
        password: None,
        stage: String::new(),
        verified: false,
    };
    let (ann, bob) = (member("ann@example.com", "developer"), member("bob@example.com", "administrator"));
    let mut write = world.app.store.write().await.unwrap();
    for one in [&ann, &bob] {
        own.add_member(&mut write, one).await.unwrap();
        own.add_second_factor(&mut write, one.id, SECRET, 0, &[]).await.unwrap();
    }
    let keeper = ["members.read", "members.write", "sign-in.read"].map(str::to_owned).to_vec();
    let role = bastide_store::RoleRow { name: "keeper".into(), permissions: keeper };
    own.add_role(&mut write, &role).await.unwrap();
    write.commit().await.unwrap();
    let call = async |role: &str, method: Method, path: &str, body: &str| {
        let who = world.assertion(acme, &[role]);
        let (status, text) = world.call("acme", method, path, Some(&who), body.to_owned()).await;
        (status.as_u16(), text)
    };
    let of = |member: &MemberRow| format!("/api/v1/members/{}/second-factor", member.id);
    assert_eq!(call("keeper", Method::DELETE, &of(&bob), "").await.0, 403, "of the mightier");
    assert_eq!(call("administrator", Method::DELETE, &of(&ann), "").await.0, 204);
    assert_eq!(call("administrator", Method::DELETE, &of(&ann), "").await.0, 422);
    let members = call("administrator", Method::GET, "/api/v1/members", "").await.1;
    let members: serde_json::Value = serde_json::from_str(&members).unwrap();
    let with: Vec<_> =
        members.as_array().unwrap().iter().map(|member| member["second_factor"].clone()).collect();
    assert_eq!(with, [json!(false), json!(true)]);
    let policy = "/api/v1/sign-in/policy";
    assert_eq!(call("keeper", Method::PUT, policy, r#"{"second_factor":true}"#).await.0, 403);
    assert_eq!(call("administrator", Method::PUT, policy, r#"{"second":true}"#).await.0, 422);
    assert_eq!(call("administrator", Method::PUT, policy, r#"{"second_factor":true}"#).await.0, 204);
    let (_, text) = call("keeper", Method::GET, policy, "").await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["second_factor"], true);
    let trail = own.audit_trail(10).await.unwrap();
    for (what, detail) in
        [("second-factor.reset", "ann@example.com"), ("sign-in.policy", "second factor demanded")]
    {
        assert!(trail.iter().any(|row| row.what == what && row.detail == detail), "{what}");
    }
}
