//! Passkeys: alone, as the second step, on one's own page, demanded, lost, and misused.

use super::{
    api,
    authenticator::{Authenticator, ORIGIN, Said, options},
    identity::{ACME, Answer, Browser, EMAIL, LOOPBACK, PASSWORD, World, cli, encode, filled, request},
    second::{codes, offered, signed_in},
};
use axum::http::Method;
use bastide_identity::claims::USER_LIFE_S;
use bastide_store::{Counter, MemberRow, SignInPolicy, now_s};
use bastide_types::{Acr, StageName, UserId};
use serde_json::{Value, json};

const PAGE: &str = "/identity/account/passkeys";
const ASK: &str = "/identity/passkey";
/// As if many failures came before: a wait long enough for the slowest machine.
const LOCKS: i64 = -9;

/// The form of a page with what was typed and what an authenticator said.
fn with(page: &Answer, typed: &[(&str, &str)], said: &Said) -> String {
    let mut pairs = typed.to_vec();
    pairs.extend(said.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    filled(&page.body, &pairs)
}

fn location(answer: &Answer) -> &str {
    answer.headers.get("location").map_or("", |to| to.to_str().unwrap())
}

impl World {
    async fn fills(
        &self,
        browser: &mut Browser,
        path: &str,
        page: &Answer,
        typed: &[(&str, &str)],
    ) -> Answer {
        self.browse(browser, Method::POST, path, &filled(&page.body, typed)).await
    }

    /// The form that asks for a passkey, from the page of the sign-in.
    async fn question(&self, browser: &mut Browser, base: &str, request: &str) -> Answer {
        let login = self.browse(browser, Method::GET, &format!("{base}/authorize?{request}"), "").await;
        assert_eq!(login.status, 200, "{}", login.body);
        assert!(login.body.contains(&format!("formaction=\"{base}/passkey\"")), "{}", login.body);
        let page = self.fills(browser, &format!("{base}/passkey"), &login, &[]).await;
        assert_eq!(page.status, 200, "{}", page.body);
        page
    }

    /// Sends what an authenticator said to a page of the sign-in.
    async fn says(&self, browser: &mut Browser, page: &Answer, said: &Said) -> Answer {
        self.browse(browser, Method::POST, ASK, &with(page, &[], said)).await
    }

    /// Sets a passkey up on the page of whoever is signed in with this browser.
    pub(super) async fn sets_up(
        &self,
        browser: &mut Browser,
        page: &str,
        typed: &[(&str, &str)],
        device: &mut Authenticator,
    ) -> Answer {
        let own = self.browse(browser, Method::GET, page, "").await;
        let mut all = vec![("action", "add")];
        all.extend(typed);
        let asked = self.fills(browser, page, &own, &all).await;
        assert_eq!(asked.status, 200, "{}", asked.body);
        let said = device.make(&asked.body);
        self.browse(browser, Method::POST, page, &with(&asked, &[], &said)).await
    }

    /// Ann has a passkey, and nothing else besides her password.
    async fn with_passkey() -> (Self, Authenticator) {
        let (world, mut browser) = (Self::with_ann().await, Browser::default());
        world.sign_in(&mut browser, &cli(), PASSWORD).await;
        let mut device = Authenticator::new();
        let typed = [("password", PASSWORD), ("name", "My phone")];
        let done = world.sets_up(&mut browser, PAGE, &typed, &mut device).await;
        assert_eq!((done.status.as_u16(), location(&done)), (303, PAGE), "{}", done.body);
        (world, device)
    }

    async fn ann_s_id(&self) -> UserId {
        self.store.customer(self.acme).member_with_email(EMAIL).await.unwrap().unwrap().id
    }

    /// Why the last passkey was refused.
    async fn why(&self) -> String {
        let rows = self.store.customer(self.acme).audit_trail(50).await.unwrap();
        let last = rows.into_iter().find(|row| row.what == "passkey.failed").unwrap();
        assert_eq!(last.outcome, "B-ID-0415");
        last.detail
    }

    async fn acr_of(&self, code: &str) -> Acr {
        let tokens = self.redeem(code, &[]).await;
        self.check_platform(&tokens.text("access_token"), USER_LIFE_S).await.unwrap().acr
    }
}

fn demand_refused(answer: &Answer, browser: &Browser) {
    assert_eq!(answer.status, 401, "{}", answer.body);
    assert!(answer.body.contains("B-ID-0415") && !signed_in(browser), "{}", answer.body);
}

#[tokio::test]
async fn a_member_sets_a_passkey_up_and_signs_in_with_it_alone() {
    let (world, mut browser) = (World::with_ann().await, Browser::default());
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    assert!(page.body.contains("name=\"password\"") && page.body.contains("value=\"passkeys\""));
    let typed = [("username", EMAIL), ("password", PASSWORD)];
    let entered = world.fills(&mut browser, PAGE, &page, &typed).await;
    assert_eq!((entered.status.as_u16(), location(&entered)), (303, PAGE));
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    for password in ["wrong", ""] {
        let refused =
            world.fills(&mut browser, PAGE, &page, &[("action", "add"), ("password", password)]).await;
        assert_eq!(refused.status, 401, "an open browser is not enough");
    }
    let typed = [("action", "add"), ("password", PASSWORD), ("name", "<My phone>")];
    let asked = world.fills(&mut browser, PAGE, &page, &typed).await;
    let wanted = options(&asked.body);
    assert_eq!(wanted["rp"]["id"], "acme.platform.localhost");
    assert_eq!((&wanted["user"]["name"], &wanted["user"]["displayName"]), (&json!(EMAIL), &json!("Ann")));
    let mut device = Authenticator::new();
    let said = device.make(&asked.body);
    let done = world.browse(&mut browser, Method::POST, PAGE, &with(&asked, &[], &said)).await;
    assert_eq!((done.status.as_u16(), location(&done)), (303, PAGE), "{}", done.body);
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    assert!(page.body.contains("&#60;My phone&#62;") && page.body.contains("not used yet"), "{}", page.body);
    // The same answer makes no second one.
    let again = world.browse(&mut browser, Method::POST, PAGE, &with(&asked, &[], &said)).await;
    assert_eq!(again.status, 401);

    let mut other = Browser::default();
    let scopes = request("bastide-cli", LOOPBACK, &[("scope", "openid")]);
    let asked = world.question(&mut other, "/identity", &scopes).await;
    assert_eq!(options(&asked.body)["allowCredentials"], json!([]), "nobody is named");
    let signed = world.says(&mut other, &asked, &device.show(&asked.body)).await;
    let tokens = world.redeem(&signed.redirected("code").unwrap(), &[]).await;
    let claims = world.check_platform(&tokens.text("access_token"), USER_LIFE_S).await.unwrap();
    assert_eq!((claims.acr, claims.sub), (Acr::Passkey, world.ann_s_id().await.to_string()));
    let id: Value = {
        use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
        let token = tokens.text("id_token");
        let middle = token.split('.').nth(1).unwrap().to_owned();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
    };
    assert_eq!((&id["acr"], &id["amr"]), (&json!("passkey"), &json!(["swk", "user", "mfa"])));
    let page = world.browse(&mut other, Method::GET, PAGE, "").await;
    assert!(page.body.contains(", used <time"), "{}", page.body);
    // Whoever showed a passkey just now is asked for nothing more: another one is set up, and one taken away.
    assert!(!page.body.contains("name=\"password\""));
    let mut second = Authenticator::new();
    let done = world.sets_up(&mut other, PAGE, &[("name", "Key")], &mut second).await;
    assert_eq!(done.status, 303, "{}", done.body);
    for what in ["passkey.added", "passkey.failed", "login"] {
        assert!(world.audited(what).await, "{what}");
    }
}

#[tokio::test]
async fn the_page_that_asks_has_one_script_and_no_other_page_has_any() {
    let (world, _) = World::with_passkey().await;
    let mut browser = Browser::default();
    let page = world.question(&mut browser, "/identity", &cli()).await;
    let script = "<script src=\"/identity/passkey.js\" defer></script>";
    assert_eq!((page.body.matches("<script").count(), page.body.matches(script).count()), (1, 1));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    let expected = format!(
        "default-src 'none'; style-src 'self'; script-src {ORIGIN}/identity/passkey.js; form-action 'self' http://127.0.0.1:4711; base-uri 'none'; frame-ancestors 'none'"
    );
    assert_eq!(policy, expected);
    assert_eq!(
        (page.headers["cache-control"].as_bytes(), page.headers["x-content-type-options"].as_bytes()),
        (&b"no-store"[..], &b"nosniff"[..])
    );
    let script = world.send(ACME, Method::GET, "/identity/passkey.js", "", &[]).await;
    assert_eq!(
        (script.status.as_u16(), &script.headers["content-type"]),
        (200, &"text/javascript; charset=utf-8".parse().unwrap())
    );
    for path in ["/identity/account/sessions", "/identity/account/second-factor", "/identity/device", PAGE] {
        let page = world.browse(&mut browser, Method::GET, path, "").await;
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(!page.body.contains("<script") && !policy.contains("script-src"), "{path}: {policy}");
        assert!(page.body.contains("formaction=\"/identity/passkey\""), "{path}: {}", page.body);
    }
}

#[tokio::test]
async fn a_passkey_is_the_second_step_after_the_password_which_alone_opens_nothing() {
    let (world, mut device) = World::with_passkey().await;
    let mut browser = Browser::default();
    let page = world.sign_in(&mut browser, &cli(), PASSWORD).await;
    assert!(
        page.status == 200 && !signed_in(&browser) && !page.body.contains("name=\"code\""),
        "{}",
        page.body
    );
    let asked = world.fills(&mut browser, ASK, &page, &[("step", "second")]).await;
    let allowed = options(&asked.body)["allowCredentials"].clone();
    assert_eq!(allowed.as_array().unwrap().len(), 1, "{allowed}");
    // Security keys say no name when they are asked for one credential.
    device.handle = None;
    let half = browser.0["__Host-bst-half"].clone();
    let said = device.show(&asked.body);
    let signed = world.says(&mut browser, &asked, &said).await;
    assert_eq!(world.acr_of(&signed.redirected("code").unwrap()).await, Acr::Passkey);
    assert!(signed_in(&browser));
    // Half a sign-in counts once, and so does the answer.
    browser.0.insert("__Host-bst-half".into(), half);
    browser.0.remove("__Host-bst-sso");
    let again = world.says(&mut browser, &asked, &said).await;
    assert!(again.status == 401 && !signed_in(&browser), "{}", again.body);
    // No code of an app takes the place, not even one that is offered.
    let (mut other, page) = {
        let mut other = Browser::default();
        let page = world.sign_in(&mut other, &cli(), PASSWORD).await;
        (other, page)
    };
    let secret = super::second::SECRET;
    let own = world.store.customer(world.acme);
    let offer = own.seal_offer(world.ann_s_id().await, secret, now_s() + 60).unwrap();
    let offer = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, offer);
    let answer =
        world.fills(&mut other, "/identity/second", &page, &[("code", &codes()[1]), ("offer", &offer)]).await;
    assert!(answer.redirected("code").is_none() && !signed_in(&other), "{}", answer.body);
}

#[tokio::test]
async fn whatever_is_wrong_with_an_answer_is_refused_and_written_down() {
    let (mut world, mut device) = World::with_passkey().await;
    let good_handle = device.handle.clone();
    type Twist = fn(&mut Authenticator);
    let twists: [(&str, Twist); 9] = [
        ("another origin", |device| device.origin = "https://evil.example".into()),
        ("another origin", |device| device.origin = "https://beta.platform.localhost:8443".into()),
        ("another origin", |device| device.origin = "https://acme.platform.localhost".into()),
        ("another origin", |device| device.framed = true),
        ("another relying party", |device| device.rp_id = "beta.platform.localhost".into()),
        ("not verified its user", |device| device.verifies = false),
        ("nobody has this passkey", |device| device.id = vec![7; 32]),
        ("says another one's name", |device| device.handle = None),
        ("says another one's name", |device| device.handle = Some(vec![7; 16])),
    ];
    for (why, twist) in twists {
        world.change_replica();
        let mut browser = Browser::default();
        let asked = world.question(&mut browser, "/identity", &cli()).await;
        let id = device.id.clone();
        twist(&mut device);
        let answer = world.says(&mut browser, &asked, &device.show(&asked.body)).await;
        demand_refused(&answer, &browser);
        let found = world.why().await;
        assert!(found.contains(why), "{why}: {found}");
        // The page asks anew, and waits for somebody to press the button.
        assert!(answer.body.contains("data-options") && !answer.body.contains("data-starts"));
        let fresh = Authenticator::new();
        (device.origin, device.rp_id, device.verifies, device.framed) =
            (fresh.origin, fresh.rp_id, fresh.verifies, fresh.framed);
        (device.id, device.handle) = (id, good_handle.clone());
        world.forget_tries().await;
    }
    // A key of one's own under the same id.
    let mut browser = Browser::default();
    let asked = world.question(&mut browser, "/identity", &cli()).await;
    let mut forged = Authenticator::new();
    (forged.id, forged.handle, forged.counter) = (device.id.clone(), device.handle.clone(), Some(99));
    let answer = world.says(&mut browser, &asked, &forged.show(&asked.body)).await;
    demand_refused(&answer, &browser);
    assert!(world.why().await.contains("signature is wrong"));
    // Another question's answer, also with both of one browser.
    let (first, second) = (
        world.question(&mut browser, "/identity", &cli()).await,
        world.question(&mut browser, "/identity", &cli()).await,
    );
    let answer = world.says(&mut browser, &second, &device.show(&first.body)).await;
    demand_refused(&answer, &browser);
    assert!(world.why().await.contains("another challenge"));
    // The good one still counts, once.
    let said = device.show(&first.body);
    assert!(world.says(&mut browser, &first, &said).await.redirected("code").is_some());
    let mut late = Browser(browser.0.clone());
    late.0.remove("__Host-bst-sso");
    demand_refused(&world.says(&mut late, &first, &said).await, &late);
    assert!(world.why().await.contains("its question is over"));
}

#[tokio::test]
async fn a_question_counts_for_its_browser_its_purpose_and_its_issuer_alone() {
    let (mut world, mut device) = World::with_passkey().await;
    let (mut asker, mut thief) = (Browser::default(), Browser::default());
    let asked = world.question(&mut asker, "/identity", &cli()).await;
    let thiefs = world.question(&mut thief, "/identity", &cli()).await;
    let said = device.show(&asked.body);
    let question = |page: &Answer| {
        let form = filled(&page.body, &[]);
        let pairs = url::form_urlencoded::parse(form.as_bytes()).into_owned();
        pairs.into_iter().find(|(name, _)| name == "question").unwrap().1
    };
    // The thief has both question and answer, but another browser.
    let form = with(&thiefs, &[], &said).replace(&question(&thiefs), &question(&asked));
    let answer = world.browse(&mut thief, Method::POST, ASK, &form).await;
    demand_refused(&answer, &thief);
    // A question for signing in makes no passkey and is no second step; one of a stage is none of the members'.
    let mut browser = Browser::default();
    let page = world.sign_in(&mut browser, &cli(), PASSWORD).await;
    let asked = world.fills(&mut browser, ASK, &page, &[]).await;
    let form = with(&asked, &[("step", "second")], &device.show(&asked.body));
    demand_refused(&world.browse(&mut browser, Method::POST, ASK, &form).await, &browser);
    world.change_replica();
    let mut browser = Browser::default();
    let asked = world.question(&mut browser, "/identity/s/test", &cli()).await;
    let form = with(&asked, &[], &device.show(&asked.body));
    demand_refused(&world.browse(&mut browser, Method::POST, ASK, &form).await, &browser);
    // At the stage's own issuer the member may.
    let asked = world.question(&mut browser, "/identity/s/test", &cli()).await;
    let form = with(&asked, &[], &device.show(&asked.body));
    let signed = world.browse(&mut browser, Method::POST, "/identity/s/test/passkey", &form).await;
    assert!(signed.redirected("code").is_some(), "{}", signed.body);
    // A question for a new passkey of one sign-in is worth nothing in the next.
    let own = world.browse(&mut browser, Method::GET, PAGE, "").await;
    let asked = world.fills(&mut browser, PAGE, &own, &[("action", "add")]).await;
    let said = Authenticator::new().make(&asked.body);
    let login = world
        .question(&mut browser, "/identity", &request("bastide-cli", LOOPBACK, &[("prompt", "login")]))
        .await;
    let again = device.show(&login.body);
    assert!(world.says(&mut browser, &login, &again).await.redirected("code").is_some());
    let answer = world.browse(&mut browser, Method::POST, PAGE, &with(&asked, &[], &said)).await;
    assert_eq!(answer.status, 401, "{}", answer.body);
    assert_eq!(world.store.customer(world.acme).count_passkeys(world.ann_s_id().await).await.unwrap(), 1);
}

#[tokio::test]
async fn an_authenticator_whose_counter_goes_back_is_refused() {
    let (world, mut device) = World::with_passkey().await;
    let show = async |device: &mut Authenticator| {
        let mut browser = Browser::default();
        let asked = world.question(&mut browser, "/identity", &cli()).await;
        let said = device.show(&asked.body);
        (world.says(&mut browser, &asked, &said).await, browser)
    };
    device.counter = Some(10);
    assert!(show(&mut device).await.0.redirected("code").is_some());
    for before in [Some(10), Some(3), None] {
        device.counter = before;
        let (answer, browser) = show(&mut device).await;
        demand_refused(&answer, &browser);
        assert!(world.why().await.contains("there may be a copy"));
    }
    device.counter = Some(11);
    assert!(show(&mut device).await.0.redirected("code").is_some());
    // Two copies at the same time: one of them counts.
    let (mut one, mut two) = (Browser::default(), Browser::default());
    let pages = (
        world.question(&mut one, "/identity", &cli()).await,
        world.question(&mut two, "/identity", &cli()).await,
    );
    device.counter = Some(20);
    let first = device.show(&pages.0.body);
    device.counter = Some(20);
    let second = device.show(&pages.1.body);
    let answers =
        tokio::join!(world.says(&mut one, &pages.0, &first), world.says(&mut two, &pages.1, &second));
    let good = [&answers.0, &answers.1].iter().filter(|answer| answer.redirected("code").is_some()).count();
    assert_eq!(good, 1);
    // One that does not count at all is as good as ever.
    let (world, mut synced) = World::with_uncounted().await;
    for _ in 0..2 {
        let mut browser = Browser::default();
        let asked = world.question(&mut browser, "/identity", &cli()).await;
        let said = synced.show(&asked.body);
        assert!(world.says(&mut browser, &asked, &said).await.redirected("code").is_some());
    }
}

impl World {
    async fn with_uncounted() -> (Self, Authenticator) {
        let (world, mut browser) = (Self::with_ann().await, Browser::default());
        world.sign_in(&mut browser, &cli(), PASSWORD).await;
        let mut device = Authenticator::new();
        device.counter = None;
        world.sets_up(&mut browser, PAGE, &[("password", PASSWORD)], &mut device).await;
        (world, device)
    }

    async fn forget_tries(&self) {
        let ann = self.ann_s_id().await;
        let own = self.store.customer(self.acme);
        self.changes(async |write| own.reset_tries(write, Counter::Passkey(ann)).await.unwrap()).await;
    }
}

#[tokio::test]
async fn passkeys_have_a_counter_of_their_own_and_a_lock_of_passwords_locks_no_passkey() {
    let (mut world, mut device) = World::with_passkey().await;
    let own = world.store.customer(world.acme);
    let ann = world.ann_s_id().await;
    // A stranger locks the address.
    let password = Counter::Password { stage: "", email: EMAIL };
    assert_eq!(own.count_try(password, LOCKS).await.unwrap(), Ok(()));
    let mut browser = Browser::default();
    let locked = world.sign_in(&mut browser, &cli(), PASSWORD).await;
    assert_eq!(locked.status, 429);
    let asked = world.fills(&mut browser, ASK, &locked, &[]).await;
    let said = device.show(&asked.body);
    assert!(world.says(&mut browser, &asked, &said).await.redirected("code").is_some());
    // Guesses at the passkey are counted, and then even the right one waits.
    let store = world.store.clone();
    let own = store.customer(world.acme);
    for _ in 0..20 {
        // As if they came with waits between.
        assert_eq!(own.count_try(Counter::Passkey(ann), 1000).await.unwrap(), Ok(()));
    }
    let mut guesser = Browser::default();
    let asked = world.question(&mut guesser, "/identity", &cli()).await;
    device.verifies = false;
    demand_refused(&world.says(&mut guesser, &asked, &device.show(&asked.body)).await, &guesser);
    device.verifies = true;
    world.change_replica();
    let mut browser = Browser::default();
    let asked = world.question(&mut browser, "/identity", &cli()).await;
    let said = device.show(&asked.body);
    let locked = world.says(&mut browser, &asked, &said).await;
    assert!(locked.status == 429 && locked.headers.contains_key("retry-after"), "{}", locked.body);
    world.forget_tries().await;
    let asked = world.question(&mut browser, "/identity", &cli()).await;
    let said = device.show(&asked.body);
    assert!(world.says(&mut browser, &asked, &said).await.redirected("code").is_some());
    // Whoever guesses with unknown ones is slowed down where they come from.
    let mut stranger = Authenticator::new();
    stranger.handle = Some(vec![1; 16]);
    let mut statuses = Vec::new();
    for _ in 0..12 {
        let mut browser = Browser::default();
        let asked = world.question(&mut browser, "/identity", &cli()).await;
        statuses.push(world.says(&mut browser, &asked, &stranger.show(&asked.body)).await.status.as_u16());
    }
    assert!(statuses.contains(&401) && statuses.last() == Some(&429), "{statuses:?}");
}

#[tokio::test]
async fn one_replica_asks_and_another_one_takes_the_answer() {
    let (mut world, mut device) = World::with_passkey().await;
    let mut browser = Browser::default();
    let asked = world.question(&mut browser, "/identity", &cli()).await;
    world.change_replica();
    let said = device.show(&asked.body);
    assert!(world.says(&mut browser, &asked, &said).await.redirected("code").is_some());
    // Of the same answer at both, one counts.
    let mut browser = Browser::default();
    let asked = world.question(&mut browser, "/identity", &cli()).await;
    let said = device.show(&asked.body);
    let mut other = Browser(browser.0.clone());
    let answers =
        tokio::join!(world.says(&mut browser, &asked, &said), world.says(&mut other, &asked, &said));
    let good = [&answers.0, &answers.1].iter().filter(|answer| answer.redirected("code").is_some()).count();
    assert_eq!(good, 1);
}

#[tokio::test]
async fn passkeys_of_others_of_other_stages_and_of_other_customers_open_nothing() {
    let (mut world, mut device) = World::with_passkey().await;
    let (eve_id, mut hers) = world.eve_with_passkey().await;
    // Eve signs in at her stage and nowhere else.
    let mut browser = Browser::default();
    let base = "/identity/s/development";
    let asked = world.question(&mut browser, base, &cli()).await;
    let form = with(&asked, &[], &hers.show(&asked.body));
    let signed = world.browse(&mut browser, Method::POST, &format!("{base}/passkey"), &form).await;
    assert!(signed.redirected("code").is_some(), "{}", signed.body);
    assert!(browser.0.contains_key("__Host-bst-sso-development") && !signed_in(&browser));
    for base in ["/identity", "/identity/s/test"] {
        let mut browser = Browser::default();
        let asked = world.question(&mut browser, base, &cli()).await;
        let form = with(&asked, &[], &hers.show(&asked.body));
        let answer = world.browse(&mut browser, Method::POST, &format!("{base}/passkey"), &form).await;
        demand_refused(&answer, &browser);
        assert!(world.why().await.contains("in another stage"));
    }
    // After Ann's password her passkey opens nothing, whatever name it says.
    for handle in [hers.handle.clone(), device.handle.clone(), None] {
        world.change_replica();
        let mut browser = Browser::default();
        let page = world.sign_in(&mut browser, &cli(), PASSWORD).await;
        let asked = world.fills(&mut browser, ASK, &page, &[("step", "second")]).await;
        hers.handle = handle;
        demand_refused(&world.says(&mut browser, &asked, &hers.show(&asked.body)).await, &browser);
        assert!(world.why().await.contains("somebody else's"));
    }
    world.forget_tries().await;
    // What Ann has, nobody gets a second time: neither she nor Eve.
    let before = world.store.customer(world.acme).count_passkeys(eve_id).await.unwrap();
    let mut browser = Browser::default();
    let asked = world.question(&mut browser, "/identity", &cli()).await;
    let said = device.show(&asked.body);
    world.says(&mut browser, &asked, &said).await;
    let again = world.sets_up(&mut browser, PAGE, &[], &mut device).await;
    assert_eq!(again.status, 401, "{}", again.body);
    let mut eves = Browser::default();
    let asked = world.question(&mut eves, base, &cli()).await;
    hers.handle = Some(eve_id.0.as_bytes().to_vec());
    let form = with(&asked, &[], &hers.show(&asked.body));
    world.browse(&mut eves, Method::POST, &format!("{base}/passkey"), &form).await;
    let page = format!("{base}/account/passkeys");
    let (counter, handle) = (device.counter, device.handle.clone());
    let stolen = world.sets_up(&mut eves, &page, &[], &mut device).await;
    assert_eq!(stolen.status, 401, "{}", stolen.body);
    assert!(world.why().await.contains("somebody has it already"));
    (device.counter, device.handle) = (counter, handle);
    assert_eq!(world.store.customer(world.acme).count_passkeys(eve_id).await.unwrap(), before);
    // Another customer's pages know nobody of ours, also when everything else is theirs.
    let host = "beta.platform.localhost:8443";
    let cookie = |answer: &Answer| {
        let set = answer.headers["set-cookie"].to_str().unwrap();
        set.split(';').next().unwrap().to_owned()
    };
    let get = [("accept", "text/html")];
    let login = world.send(host, Method::GET, &format!("/identity/authorize?{}", cli()), "", &get).await;
    let cookie = cookie(&login);
    let fields = [("accept", "text/html"), ("sec-fetch-site", "same-origin"), ("cookie", cookie.as_str())];
    let asked = world.send(host, Method::POST, ASK, &filled(&login.body, &[]), &fields).await;
    assert_eq!(options(&asked.body)["rpId"], "beta.platform.localhost");
    device.origin = "https://beta.platform.localhost:8443".into();
    device.rp_id = "beta.platform.localhost".into();
    let form = with(&asked, &[], &device.show(&asked.body));
    let answer = world.send(host, Method::POST, ASK, &form, &fields).await;
    assert!(answer.status == 401 && answer.body.contains("B-ID-0415"), "{}", answer.body);
}

#[tokio::test]
async fn whoever_is_suspended_is_not_let_in_and_what_is_taken_away_opens_nothing() {
    let (world, mut device) = World::with_passkey().await;
    let (own, ann) = (world.store.customer(world.acme), world.ann_s_id().await);
    let suspend = async |suspended: bool| {
        world.changes(async |write| assert!(own.suspend_member(write, ann, suspended).await.unwrap())).await;
    };
    let mut browser = Browser::default();
    let asked = world.question(&mut browser, "/identity", &cli()).await;
    suspend(true).await;
    demand_refused(&world.says(&mut browser, &asked, &device.show(&asked.body)).await, &browser);
    assert!(world.why().await.contains("not active"));
    suspend(false).await;
    let asked = world.question(&mut browser, "/identity", &cli()).await;
    let said = device.show(&asked.body);
    assert!(world.says(&mut browser, &asked, &said).await.redirected("code").is_some());
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    let id = own.passkeys_of(ann).await.unwrap()[0].id();
    // An old sign-in shows the passkey again first: it is all that she has besides the password.
    world.age(601).await;
    let late = world.fills(&mut browser, PAGE, &page, &[("remove", &id), ("password", PASSWORD)]).await;
    assert!(late.status == 401 && late.body.contains("Show a passkey"), "{}", late.body);
    let app = world.browse(&mut browser, Method::GET, "/identity/account/second-factor", "").await;
    let typed = [("action", "begin"), ("password", PASSWORD)];
    let app = world.fills(&mut browser, "/identity/account/second-factor", &app, &typed).await;
    assert!(app.status == 401 && app.body.contains("B-ID-0413"), "{}", app.body);
    let asked = world.fills(&mut browser, ASK, &late, &[("then", "passkeys")]).await;
    let said = device.show(&asked.body);
    let back = world.says(&mut browser, &asked, &said).await;
    assert_eq!((back.status.as_u16(), location(&back)), (303, PAGE));
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    for (id, status) in [("x".repeat(64), 404), ("0".repeat(64), 404), (id, 303)] {
        assert_eq!(world.fills(&mut browser, PAGE, &page, &[("remove", &id)]).await.status, status, "{id}");
    }
    let mut browser = Browser::default();
    let asked = world.question(&mut browser, "/identity", &cli()).await;
    demand_refused(&world.says(&mut browser, &asked, &device.show(&asked.body)).await, &browser);
    assert!(world.audited("passkey.removed").await);
    assert_eq!(world.sign_in(&mut Browser::default(), &cli(), PASSWORD).await.status, 303);
}

#[tokio::test]
async fn beside_an_app_both_are_taken_and_changes_want_password_and_code() {
    let world = World::with_factor().await;
    let mut browser = Browser::default();
    let page = world.sign_in(&mut browser, &cli(), PASSWORD).await;
    assert!(page.body.contains("name=\"code\"") && !page.body.contains("formaction"), "{}", page.body);
    world.show(&mut browser, &page, &codes()[0]).await;
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    for code in ["", "000000"] {
        let typed = [("action", "add"), ("password", PASSWORD), ("code", code)];
        let refused = world.fills(&mut browser, PAGE, &page, &typed).await;
        assert!(refused.status == 401 && refused.body.contains("B-ID-0412"), "{}", refused.body);
    }
    let mut device = Authenticator::new();
    let code = codes()[1].clone();
    let typed = [("password", PASSWORD), ("code", code.as_str())];
    assert_eq!(world.sets_up(&mut browser, PAGE, &typed, &mut device).await.status, 303);
    let mut other = Browser::default();
    let page = world.sign_in(&mut other, &cli(), PASSWORD).await;
    assert!(page.body.contains("name=\"code\"") && page.body.contains("Show a passkey"), "{}", page.body);
    let signed = world.show(&mut other, &page, &codes()[2]).await;
    assert_eq!(world.acr_of(&signed.redirected("code").unwrap()).await, Acr::Mfa);
}

#[tokio::test]
async fn a_passkey_may_be_demanded_and_a_code_is_not_enough_then() {
    let wanted = request("bastide-cli", LOOPBACK, &[("acr_values", "passkey"), ("max_age", "600")]);
    let path = format!("/identity/authorize?{wanted}");
    let world = World::with_factor().await;
    let mut browser = Browser::default();
    let page = world.sign_in(&mut browser, &cli(), PASSWORD).await;
    world.show(&mut browser, &page, &codes()[0]).await;
    let silent = format!("{path}&prompt=none");
    let refused = world.browse(&mut browser, Method::GET, &silent, "").await;
    assert_eq!(refused.redirected("error").as_deref(), Some("unmet_authentication_requirements"));
    let none = world.browse(&mut browser, Method::GET, &path, "").await;
    assert!(none.status == 200 && none.body.contains(&format!("href=\"{PAGE}\"")), "{}", none.body);
    let mut device = Authenticator::new();
    let code = codes()[1].clone();
    let typed = [("password", PASSWORD), ("code", code.as_str())];
    world.sets_up(&mut browser, PAGE, &typed, &mut device).await;
    // Whoever is signed in with a code owes the passkey alone, and gets a new secret.
    let secret = browser.0["__Host-bst-sso"].clone();
    let page = world.browse(&mut browser, Method::GET, &path, "").await;
    assert!(!page.body.contains("name=\"code\"") && page.body.contains("Show a passkey"), "{}", page.body);
    let typed = world.show(&mut browser, &page, &codes()[2]).await;
    assert!(typed.redirected("code").is_none() && typed.body.contains("B-ID-0413"), "{}", typed.body);
    let asked = world.fills(&mut browser, ASK, &page, &[("step", "second")]).await;
    let said = device.show(&asked.body);
    let signed = world.says(&mut browser, &asked, &said).await;
    assert_eq!(world.acr_of(&signed.redirected("code").unwrap()).await, Acr::Passkey);
    assert_ne!(browser.0["__Host-bst-sso"], secret);
    // Those who showed it lately are not asked; later they are.
    assert!(world.browse(&mut browser, Method::GET, &silent, "").await.redirected("code").is_some());
    world.age(601).await;
    let late = world.browse(&mut browser, Method::GET, &silent, "").await;
    assert_eq!(late.redirected("error").as_deref(), Some("login_required"));
    let asked = world.question(&mut browser, "/identity", &wanted).await;
    let said = device.show(&asked.body);
    let signed = world.says(&mut browser, &asked, &said).await;
    assert_eq!(world.acr_of(&signed.redirected("code").unwrap()).await, Acr::Passkey);
}

#[tokio::test]
async fn a_passkey_is_the_second_factor_that_an_organization_demands() {
    let (world, mut device) = World::with_passkey().await;
    let own = world.store.customer(world.acme);
    let policy = SignInPolicy { second_factor: true, ..SignInPolicy::default() };
    world.changes(async |write| own.set_sign_in_policy(write, &policy).await.unwrap()).await;
    let mut browser = Browser::default();
    let page = world.sign_in(&mut browser, &cli(), PASSWORD).await;
    assert!(!page.body.contains("class=\"secret\""), "nothing to set up: {}", page.body);
    let asked = world.fills(&mut browser, ASK, &page, &[("step", "second")]).await;
    let said = device.show(&asked.body);
    assert!(world.says(&mut browser, &asked, &said).await.redirected("code").is_some());
    // Nobody takes away what is demanded.
    let page = world.browse(&mut browser, Method::GET, PAGE, "").await;
    let id = own.passkeys_of(world.ann_s_id().await).await.unwrap()[0].id();
    let kept = world.fills(&mut browser, PAGE, &page, &[("remove", &id)]).await;
    assert_eq!(kept.status, 403, "{}", kept.body);
    let mut second = Authenticator::new();
    assert_eq!(world.sets_up(&mut browser, PAGE, &[], &mut second).await.status, 303);
    assert_eq!(world.fills(&mut browser, PAGE, &page, &[("remove", &id)]).await.status, 303);
    // An app beside it is set up as before.
    let app = world.browse(&mut browser, Method::GET, "/identity/account/second-factor", "").await;
    let typed = [("action", "begin"), ("password", PASSWORD)];
    let offer = world.fills(&mut browser, "/identity/account/second-factor", &app, &typed).await;
    assert!(!offered(&offer.body).bytes().is_empty());
}

#[tokio::test]
async fn an_administrator_takes_lost_passkeys_away() {
    let world = api::world().await;
    let acme = world.customer_with_stages("acme").await;
    let own = world.app.store.customer(acme);
    let person = |email: &str, stage: &str, role: Option<&str>| MemberRow {
        id: UserId::generate(),
        email: email.into(),
        name: "Ann".into(),
        state: "active".into(),
        roles: role.map(str::to_owned).into_iter().collect(),
        password: None,
        stage: stage.into(),
        verified: false,
    };
    let ann = person("ann@example.com", "", Some("developer"));
    let bob = person("bob@example.com", "", Some("administrator"));
    let eve = person("eve@example.com", "test", None);
    let mut write = world.app.store.write().await.unwrap();
    for (number, one) in [&ann, &bob, &eve].into_iter().enumerate() {
        own.add_member(&mut write, one).await.unwrap();
        let credential = [number as u8; 32];
        assert!(own.add_passkey(&mut write, one.id, &credential, "Key", b"{}").await.unwrap());
    }
    let keeper = ["members.read", "members.write"].map(str::to_owned).to_vec();
    let role = bastide_store::RoleRow { name: "keeper".into(), permissions: keeper };
    own.add_role(&mut write, &role).await.unwrap();
    write.commit().await.unwrap();
    let call = async |role: &str, method: Method, path: &str| {
        let who = world.assertion(acme, &[role]);
        let (status, text) = world.call("acme", method, path, Some(&who), String::new()).await;
        (status.as_u16(), text)
    };
    let of = |member: &MemberRow| format!("/api/v1/members/{}/passkeys", member.id);
    let user = format!("/api/v1/stages/test/users/{}", eve.id);
    assert_eq!(call("keeper", Method::DELETE, &of(&bob)).await.0, 403, "of the mightier");
    assert_eq!(call("keeper", Method::DELETE, &format!("{user}/passkeys")).await.0, 403);
    assert_eq!(call("administrator", Method::DELETE, &of(&eve)).await.0, 404, "she is no member");
    assert_eq!(call("administrator", Method::DELETE, &of(&ann)).await.0, 204);
    assert_eq!(call("administrator", Method::DELETE, &of(&ann)).await.0, 422);
    let members: Value =
        serde_json::from_str(&call("administrator", Method::GET, "/api/v1/members").await.1).unwrap();
    let counts: Vec<_> = members.as_array().unwrap().iter().map(|one| one["passkeys"].clone()).collect();
    assert_eq!(counts, [json!(0), json!(1)]);
    let shown: Value = serde_json::from_str(&call("administrator", Method::GET, &user).await.1).unwrap();
    assert_eq!(shown["passkeys"], 1);
    assert_eq!(call("administrator", Method::DELETE, &format!("{user}/passkeys")).await.0, 204);
    assert_eq!(call("administrator", Method::DELETE, &format!("{user}/passkeys")).await.0, 422);
    // Whoever goes takes them along.
    let mut write = world.app.store.write().await.unwrap();
    assert!(own.add_passkey(&mut write, eve.id, &[9; 32], "Key", b"{}").await.unwrap());
    write.commit().await.unwrap();
    assert_eq!(call("administrator", Method::DELETE, &user).await.0, 204);
    assert!(own.passkey(&[9; 32]).await.unwrap().is_none());
    let trail = own.audit_trail(10).await.unwrap();
    for detail in ["ann@example.com", "test: eve@example.com"] {
        assert!(trail.iter().any(|row| row.what == "passkeys.reset" && row.detail == detail), "{detail}");
    }
}

#[tokio::test]
async fn a_permission_may_demand_a_young_passkey() {
    let world = api::world().await;
    let acme = world.customer_with_stages("acme").await;
    let member = UserId::generate().to_string();
    let boss = world.assertion_of(&member, acme, &["administrator"]);
    let rules = json!({ "second_factor": false, "step_up": [
        { "permission": "apps.deploy", "stage": "production", "acr": "passkey", "max_age_s": 600 },
    ] });
    let path = "/api/v1/sign-in/policy";
    assert_eq!(world.call("acme", Method::PUT, path, Some(&boss), rules.to_string()).await.0, 204);
    let now = now_s().unsigned_abs();
    for (acr, age_s, needed) in
        [(Acr::Password, 0, true), (Acr::Mfa, 0, true), (Acr::Passkey, 601, true), (Acr::Passkey, 10, false)]
    {
        let who = world.assertion_with(&member, acme, &["administrator"], |said| {
            (said.acr, said.auth_time) = (acr, now - age_s);
        });
        for (stage, needed) in [(StageName::production(), needed), (StageName::test(), false)] {
            let body = json!({ "stage": stage }).to_string();
            let deploy = "/api/v1/apps/shop/deployments";
            let (_, text) = world.call("acme", Method::POST, deploy, Some(&who), body).await;
            assert_eq!(text.contains("B-ID-0413"), needed, "{acr} {age_s} {stage}: {text}");
        }
    }
}

#[tokio::test]
async fn no_bytes_of_a_browser_are_a_passkey_or_a_fault_of_ours() {
    let (mut world, mut device) = World::with_passkey().await;
    let mut seed = 1_u64;
    let mut dice = move |end: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % end
    };
    let mut members = Browser::default();
    let asked = world.question(&mut members, "/identity", &cli()).await;
    let said = device.show(&asked.body);
    world.says(&mut members, &asked, &said).await;
    for case in 0..120 {
        if case % 8 == 0 {
            world.change_replica();
            world.forget_tries().await;
        }
        let makes = case % 2 == 0;
        let mut browser = Browser::default();
        let (path, asked) = if makes {
            let own = world.browse(&mut members, Method::GET, PAGE, "").await;
            (PAGE, world.fills(&mut members, PAGE, &own, &[("action", "add")]).await)
        } else {
            (ASK, world.question(&mut browser, "/identity", &cli()).await)
        };
        let mut said = if makes { Authenticator::new().make(&asked.body) } else { device.show(&asked.body) };
        let at = dice(said.len());
        let value = &mut said[at].1;
        match dice(6) {
            0 => value.clear(),
            1 => value.truncate(dice(value.len())),
            2 => *value = "A".repeat(dice(4000)),
            3 => *value = "\u{0}ü=+/".repeat(dice(100)),
            4 => *value = (0..dice(300)).map(|_| char::from(b'A' + dice(26) as u8)).collect(),
            _ => {
                // One other letter; the last may hold bits that mean nothing.
                let place = dice(value.len() - 1);
                let other = if value.as_bytes()[place] == b'A' { "B" } else { "A" };
                value.replace_range(place..=place, other);
            }
        }
        let form = with(&asked, &[], &said);
        let browser = if makes { &mut members } else { &mut browser };
        let answer = world.browse(browser, Method::POST, path, &form).await;
        let code = answer.status.as_u16();
        // The name of the authenticator's make and the key of a new one are whatever it says: nothing attests them.
        let made = makes && code == 303;
        assert!(made || [400, 401, 429].contains(&code), "{case}: {code} {}", answer.body);
        assert!(answer.redirected("code").is_none(), "{case}");
    }
    let form = encode(&[("question", "x")]);
    assert_eq!(world.browse(&mut members, Method::POST, ASK, &form).await.status, 403, "no form of ours");
}

/// Run by `bench/passkeys/run`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Chromium: bench/passkeys/run"]
async fn chromium_makes_and_shows_passkeys() {
    let world = World::with_ann().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let served = tokio::spawn(axum::serve(listener, world.router()).into_future());
    let drive = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/passkeys/drive.py");
    let status =
        tokio::process::Command::new("python3").args([drive, &port, EMAIL, PASSWORD]).status().await.unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(world.store.customer(world.acme).count_passkeys(world.ann_s_id().await).await.unwrap(), 1);
    served.abort();
}
