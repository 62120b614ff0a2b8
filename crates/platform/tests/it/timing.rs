//! What the time of an answer tells about an address: nothing. `BASTIDE_BARS=1` measures; otherwise the ways are only
//! walked, for on a busy machine times mean nothing.

use super::identity::{ACME, Browser, EMAIL, LOOPBACK, World, filled, request};
use axum::http::Method;
use bastide_store::{Counter, MemberRow};
use bastide_types::UserId;
use std::time::{Duration, Instant};

const INACTIVE: &str = "gone@example.com";

impl World {
    async fn with_inactive() -> Self {
        let world = Self::with_ann().await;
        let own = world.store.customer(world.acme);
        let ann = own.member_with_email(EMAIL).await.unwrap().unwrap();
        let gone =
            MemberRow { id: UserId::generate(), email: INACTIVE.into(), state: "inactive".into(), ..ann };
        let mut write = world.store.write().await.unwrap();
        own.add_member(&mut write, &gone).await.unwrap();
        write.commit().await.unwrap();
        world
    }

    /// A wrong password for this address, from a source of its own; how long the answer took.
    async fn wrong_password(&self, form: &str, cookie: &str, number: usize) -> Duration {
        let source = format!("2001:db8:{number:x}::1");
        let fields = [
            ("accept", "text/html"),
            ("sec-fetch-site", "same-origin"),
            ("cookie", cookie),
            ("x-forwarded-for", source.as_str()),
        ];
        let began = Instant::now();
        let answer = self.send(ACME, Method::POST, "/identity/login", form, &fields).await;
        let took = began.elapsed();
        assert_eq!(answer.status, 401, "{}", answer.body);
        took
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn unknown_and_inactive_addresses_take_as_long_as_known_ones() {
    let bars = std::env::var_os("BASTIDE_BARS").is_some();
    let world = World::with_inactive().await;
    let mut browser = Browser::default();
    let path = format!("/identity/authorize?{}", request("bastide-cli", LOOPBACK, &[]));
    let page = world.browse(&mut browser, Method::GET, &path, "").await;
    let cookie = format!("__Host-bst-form={}", browser.0["__Host-bst-form"]);
    let emails = [EMAIL, INACTIVE, "nobody@example.com"];
    let forms =
        emails.map(|email| filled(&page.body, &[("username", email), ("password", "Wrong-password-1")]));
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..if bars { 61 } else { 2 } {
        // In turns, so that whatever the machine does meanwhile hits all of them alike.
        for turn in 0..3 {
            let who = (round + turn) % 3;
            times[who].push(world.wrong_password(&forms[who], &cookie, round * 3 + turn).await);
        }
        let mut write = world.store.write().await.unwrap();
        for email in emails {
            let own = world.store.customer(world.acme);
            own.reset_tries(&mut write, Counter::Password { stage: "", email: email }).await.unwrap();
        }
        write.commit().await.unwrap();
    }
    let [known, inactive, unknown] = times.map(median);
    println!("medians: known {known:?}, inactive {inactive:?}, unknown {unknown:?}");
    if !bars {
        return;
    }
    for other in [inactive, unknown] {
        let most = Duration::from_millis(5).max(known * 15 / 100);
        assert!(known.abs_diff(other) <= most, "{known:?} {other:?}");
    }
}
