//! What guessing costs whoever guesses, and does not cost anybody else.

use super::identity::{Answer, Browser, EMAIL, LOOPBACK, PASSWORD, World, filled, request};
use axum::http::{Method, header};
use bastide_identity::opaque;
use bastide_platform::identity::Breached;
use bastide_store::Counter;

const HOST: &str = "acme.platform.localhost:8443";
/// As if many failures came before: a wait long enough for the slowest machine.
const LOCKS: i64 = -9;

impl World {
    /// A try to sign in from this source.
    async fn try_from(&self, browser: &mut Browser, source: &str, email: &str, password: &str) -> Answer {
        browser.0.remove("__Host-bst-sso");
        let path = format!("/identity/authorize?{}", request("bastide-cli", LOOPBACK, &[]));
        let page = self.browse(browser, Method::GET, &path, "").await;
        let form = filled(&page.body, &[("username", email), ("password", password)]);
        let cookies: Vec<_> = browser.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let cookies = cookies.join("; ");
        let fields = [
            ("accept", "text/html"),
            ("sec-fetch-site", "same-origin"),
            ("cookie", cookies.as_str()),
            ("x-forwarded-for", source),
        ];
        self.send(HOST, Method::POST, "/identity/login", &form, &fields).await
    }

    async fn failures_of(&self, what: &str) -> usize {
        let rows = self.store.customer(self.acme).audit_trail(1000).await.unwrap();
        rows.iter().filter(|row| row.what == what).count()
    }
}

#[tokio::test]
async fn a_source_that_fails_ten_times_waits_and_others_do_not() {
    let world = World::with_ann().await;
    let mut known = Browser::default();
    world.sign_in(&mut known, &request("bastide-cli", LOOPBACK, &[]), PASSWORD).await;
    // One password over many accounts, from many addresses of one network.
    for number in 0..10 {
        let (source, email) = (format!("2001:db8:1:2::{number:x}"), format!("user{number}@example.com"));
        let answer = world.try_from(&mut Browser::default(), &source, &email, PASSWORD).await;
        assert_eq!(answer.status, 401, "{number}");
    }
    let own = "2001:db8:1:2:ffff::1";
    let refused = world.try_from(&mut Browser::default(), own, EMAIL, PASSWORD).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    let elsewhere = world.try_from(&mut Browser::default(), "2001:db8:1:3::1", EMAIL, PASSWORD).await;
    assert_eq!(elsewhere.status, 303, "{}", elsewhere.body);
    let at_home = world.try_from(&mut known, own, EMAIL, PASSWORD).await;
    assert_eq!(at_home.status, 303, "a device that is known: {}", at_home.body);
    assert_eq!(world.failures_of("login.failed").await, 10);
}

#[tokio::test]
async fn whoever_locks_an_address_does_not_lock_the_devices_of_its_member() {
    let world = World::with_ann().await;
    let mut known = Browser::default();
    world.sign_in(&mut known, &request("bastide-cli", LOOPBACK, &[]), PASSWORD).await;
    let device = known.0["__Host-bst-known"].clone();
    let own = world.store.customer(world.acme);
    for email in [EMAIL, "bob@example.com"] {
        assert_eq!(
            own.count_try(Counter::Password { stage: "", email: email }, LOCKS).await.unwrap(),
            Ok(())
        );
    }
    let check = async |browser: &mut Browser, email: &str, status: u16| {
        let answer = world.try_from(browser, "192.0.2.1", email, PASSWORD).await;
        assert_eq!(answer.status, status, "{email}: {}", answer.body);
    };
    check(&mut Browser::default(), EMAIL, 429).await;
    check(&mut known, EMAIL, 303).await;
    check(&mut Browser::default(), EMAIL, 429).await;
    check(&mut known, "bob@example.com", 429).await;
    let mut made_up = Browser::default();
    made_up.0.insert("__Host-bst-known".into(), "x".repeat(43));
    check(&mut made_up, EMAIL, 429).await;
    // The device is no way round the limit.
    let hash = opaque::hash(&device);
    assert_eq!(own.count_try(Counter::Device(&hash), LOCKS).await.unwrap(), Ok(()));
    check(&mut known, EMAIL, 429).await;
}

#[tokio::test]
async fn each_failure_leaves_an_audit_entry() {
    let world = World::with_ann().await;
    let long = format!("{}@example.com", "x".repeat(300));
    for (number, email) in [EMAIL, "nobody@example.com", "", &long].into_iter().enumerate() {
        let answer = world.try_from(&mut Browser::default(), "192.0.2.1", email, "wrong").await;
        assert_eq!(answer.status, 401, "{email}");
        assert_eq!(world.failures_of("login.failed").await, number + 1, "{email}");
    }
    let secret = [("grant_type", "client_credentials"), ("client_id", "web"), ("client_secret", "guess")];
    assert_eq!(world.token(HOST, &secret).await.status, 401);
    assert_eq!(world.failures_of("client.refused").await, 1);
    for (grant, field) in [("authorization_code", "code"), ("refresh_token", "refresh_token")] {
        let form = [
            ("grant_type", grant),
            ("client_id", "bastide-cli"),
            (field, "guess"),
            ("redirect_uri", LOOPBACK),
            ("code_verifier", super::identity::VERIFIER),
        ];
        let answer = world.token(HOST, &form).await;
        assert_eq!(answer.text("error"), "invalid_grant");
    }
    assert_eq!(world.failures_of("grant.refused").await, 2);
}

#[tokio::test]
async fn a_source_asks_for_thirty_device_codes_in_a_minute() {
    let world = World::with_ann().await;
    let (mut refused, began) = (0, std::time::Instant::now());
    for _ in 0..31 {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let form = "client_id=bastide-cli";
        let answer = world.send(HOST, Method::POST, "/identity/device_authorization", form, &[kind]).await;
        match answer.status.as_u16() {
            200 => {}
            503 => {
                assert!(answer.headers.contains_key(header::RETRY_AFTER));
                refused += 1;
            }
            other => panic!("{other}: {}", answer.body),
        }
    }
    // A machine so slow that the minute is over meanwhile has seen nothing.
    assert!(refused == 1 || began.elapsed().as_secs() >= 59, "{refused}");
    let limited = world.send(
        HOST,
        Method::POST,
        "/identity/device_authorization",
        "client_id=bastide-cli",
        &[("content-type", "application/x-www-form-urlencoded"), ("x-forwarded-for", "192.0.2.9")],
    );
    assert_eq!(limited.await.status, 200, "another source");
}

#[tokio::test]
async fn a_breached_password_is_refused_and_the_form_grades_what_was_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("list");
    // SHA-1 of the password of this test, between others.
    let hash = "A1216F1A86C52159C0E908C1A15F8F05D9F81B5A";
    std::fs::write(&file, format!("{}:1\n{hash}:7\n{}:2\n", "0".repeat(40), "F".repeat(40))).unwrap();
    let list = std::sync::Arc::new(Breached::open(&file).unwrap());
    let world = World::with_breached(Some(list)).await;
    let invitation = world.invitation.clone();
    let mut browser = Browser::default();
    let refused = world.accept(&mut browser, &invitation, "Kiesel7Wanderfisch").await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("stolen elsewhere") && refused.body.contains("B-ID-0422"));
    assert!(refused.body.contains("What you chose is very good"), "{}", refused.body);
    let weak = world.accept(&mut browser, &invitation, "Password1234").await;
    assert!(weak.body.contains("What you chose is too easy to guess"), "{}", weak.body);
    assert!(weak.body.contains("<meter") && !weak.body.contains("Password1234"));
    let taken = world.accept(&mut browser, &invitation, "Kiesel8Wanderfisch").await;
    assert_eq!(taken.status, 303, "{}", taken.body);
}
