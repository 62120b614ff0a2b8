//! The session feed: whatever ends sessions or takes rights writes it in the same transaction.

use super::World;
use bastide_store::{ClientRow, MemberRow, NewSession, RefreshBy, RefreshOutcome, SessionUse, Write, now_s};
use bastide_types::{
    CustomerId, UserId,
    feed::{ENTRIES_MAX, Entry, What},
};

async fn member(world: &World, customer: CustomerId) -> UserId {
    let id = UserId::generate();
    let row = MemberRow {
        id,
        email: format!("{id}@example.com"),
        name: "Ann".into(),
        state: "active".into(),
        roles: vec!["developer".into()],
        password: None,
        stage: String::new(),
        verified: false,
    };
    let mut write = world.store.write().await.unwrap();
    world.store.customer(customer).add_member(&mut write, &row).await.unwrap();
    write.commit().await.unwrap();
    id
}

async fn session(
    world: &World,
    customer: CustomerId,
    member: UserId,
    kind: &str,
    hash: u8,
    parent: Option<&str>,
) -> String {
    let new = NewSession { kind, hash: &[hash; 32], parent, member, until: now_s() + 600 };
    let mut write = world.store.write().await.unwrap();
    let id = world.store.customer(customer).add_session(&mut write, &new).await.unwrap();
    write.commit().await.unwrap();
    id
}

/// What was said since the last look.
async fn news(world: &World, seen: &mut u64) -> Vec<Entry> {
    let feed = world.store.session_feed(life(world).await, *seen).await.unwrap();
    assert!(feed.check().is_ok() && feed.after == *seen && !feed.more);
    *seen = feed.last;
    feed.entries
}

async fn life(world: &World) -> u64 {
    world.store.version().await.unwrap().0
}

fn said(entries: &[Entry]) -> Vec<(What, &str)> {
    entries.iter().map(|entry| (entry.what, entry.id.as_str())).collect()
}

#[tokio::test]
async fn every_end_of_a_session_is_told_with_all_that_came_of_it() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let ann = member(&world, acme).await;
    let own = world.store.customer(acme);
    let mut seen = 0;
    let commit = async |write: Write| write.commit().await.unwrap();
    let family = async |first: u8| {
        let sign_in = session(&world, acme, ann, "provider", first, None).await;
        let browser = session(&world, acme, ann, "browser", first + 1, Some(&sign_in)).await;
        (sign_in, browser)
    };

    let (sign_in, browser) = family(1).await;
    let apart = session(&world, acme, ann, "program", 9, None).await;
    let mut write = world.store.write().await.unwrap();
    assert_eq!(own.end_session(&mut write, &[2; 32]).await.unwrap(), Some(ann));
    assert!(news(&world, &mut 0).await.is_empty(), "not before it is true");
    commit(write).await;
    let entries = news(&world, &mut seen).await;
    assert_eq!(said(&entries), [(What::Session, sign_in.as_str()), (What::Session, browser.as_str())]);
    assert!(entries.iter().all(|entry| entry.customer == acme && entry.until_s > now_s() as u64 + 3600));

    let (sign_in, browser) = family(3).await;
    let mut write = world.store.write().await.unwrap();
    assert_eq!(own.end_sign_in_of(&mut write, &browser).await.unwrap(), Some(ann));
    commit(write).await;
    let entries = news(&world, &mut seen).await;
    assert_eq!(said(&entries), [(What::Session, sign_in.as_str()), (What::Session, browser.as_str())]);

    // A refresh token that comes twice.
    let used = SessionUse { client: "cli".into(), ..SessionUse::default() };
    let mut write = world.store.write().await.unwrap();
    own.describe_session(&mut write, &apart, &used).await.unwrap();
    own.add_refresh(&mut write, &[20; 32], &apart).await.unwrap();
    commit(write).await;
    let by = RefreshBy { client: "cli", stage: "", retry_s: None };
    let rotate = async |next: u8| own.rotate_refresh(&[20; 32], &[next; 32], &by).await.unwrap();
    assert!(matches!(rotate(21).await, RefreshOutcome::Rotated(..)));
    assert!(news(&world, &mut seen).await.is_empty());
    assert_eq!(rotate(22).await, RefreshOutcome::Reused);
    assert_eq!(said(&news(&world, &mut seen).await), [(What::Session, apart.as_str())]);

    // Nothing is said of what is not there.
    let mut write = world.store.write().await.unwrap();
    own.delete_session(&mut write, "none").await.unwrap();
    assert_eq!(own.end_session(&mut write, &[77; 32]).await.unwrap(), None);
    commit(write).await;
    assert!(news(&world, &mut seen).await.is_empty());
}

#[tokio::test]
async fn what_takes_rights_from_a_client_is_told() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let own = world.store.customer(acme);
    let mut seen = 0;
    let client = ClientRow::service("job", vec!["developer".into()]);
    let put = async |hash: u8| {
        let mut write = world.store.write().await.unwrap();
        own.put_client(&mut write, &client, &[hash; 32]).await.unwrap();
        write.commit().await.unwrap();
    };
    let grant = async |hash: u8| own.client("job", &[hash; 32]).await.unwrap().map(|(_, grant)| grant);
    put(1).await;
    let first = grant(1).await.unwrap();
    put(1).await;
    assert_eq!(grant(1).await.as_ref(), Some(&first), "the same secret is the same grant");
    assert!(news(&world, &mut seen).await.is_empty());
    put(2).await;
    assert_eq!(said(&news(&world, &mut seen).await), [(What::Session, first.as_str())]);
    assert_eq!(grant(1).await, None);
    assert!(!own.has_grant("job", &first).await.unwrap());

    let mut write = world.store.write().await.unwrap();
    let secret = own.add_client_secret(&mut write, "job", &[3; 32], None, 2).await.unwrap().unwrap();
    write.commit().await.unwrap();
    let (kept, second) = (grant(2).await.unwrap(), grant(3).await.unwrap());
    assert!(kept != second && own.has_grant("job", &second).await.unwrap());
    let mut write = world.store.write().await.unwrap();
    assert!(own.remove_client_secret(&mut write, "job", &secret).await.unwrap());
    assert!(!own.remove_client_secret(&mut write, "job", &"x".repeat(999)).await.unwrap());
    write.commit().await.unwrap();
    assert_eq!(said(&news(&world, &mut seen).await), [(What::Session, second.as_str())]);
    assert!(own.has_grant("job", &kept).await.unwrap());

    for suspended in [true, false] {
        let mut write = world.store.write().await.unwrap();
        assert!(own.suspend_client(&mut write, "job", suspended).await.unwrap());
        assert!(!own.suspend_client(&mut write, "none", suspended).await.unwrap());
        write.commit().await.unwrap();
    }
    assert_eq!(said(&news(&world, &mut seen).await), [(What::Client, "job")], "resuming revives no token");
    let mut write = world.store.write().await.unwrap();
    assert!(own.remove_client(&mut write, "job").await.unwrap());
    write.commit().await.unwrap();
    assert_eq!(said(&news(&world, &mut seen).await), [(What::Client, "job")]);
}

#[tokio::test]
async fn ending_everything_raises_the_epoch_of_that_customer_only() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let ann = member(&world, acme).await;
    session(&world, acme, ann, "provider", 1, None).await;
    let revision = world.revision().await;
    let mut write = world.store.write().await.unwrap();
    world.store.customer(acme).end_everything(&mut write).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(said(&news(&world, &mut 0).await), [(What::Customer, "")]);
    let epoch = world.store.token_epoch().await.unwrap();
    assert_eq!(world.store.customer(acme).token_floor().await.unwrap(), epoch);
    assert_eq!(world.store.customer(beta).token_floor().await.unwrap(), 0);
    assert!(world.revision().await > revision, "Snapshots carry it, too");
    assert_eq!(world.store.customer(acme).session("provider", &[1; 32]).await.unwrap(), None);
}

#[tokio::test]
async fn the_feed_is_told_in_parts_and_from_its_beginning_to_whoever_knows_another_life() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let ann = member(&world, acme).await;
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    let all = ENTRIES_MAX + 3;
    for _ in 0..all {
        own.revoke_member(&mut write, ann).await.unwrap();
    }
    write.commit().await.unwrap();
    let life = life(&world).await;
    let first = world.store.session_feed(life, 0).await.unwrap();
    assert!(first.more && first.entries.len() == ENTRIES_MAX && first.check().is_ok());
    let rest = world.store.session_feed(life, first.last).await.unwrap();
    assert!(!rest.more && rest.entries.len() == 3 && rest.last == all as u64);
    assert_eq!(world.store.token_epoch().await.unwrap(), rest.last);
    for (life, after) in [(life + 1, 5), (life, rest.last + 1)] {
        let feed = world.store.session_feed(life, after).await.unwrap();
        assert_eq!(
            (feed.after, feed.entries.len()),
            (0, ENTRIES_MAX),
            "what cannot be continued begins anew"
        );
    }
    // Numbers go on, although nobody needs the rows any more; another process sees the same.
    let mut sql = world.sql().await;
    sql.run("UPDATE session_feed SET until = 1").await.unwrap();
    let empty = world.store.session_feed(life, 0).await.unwrap();
    assert!(empty.entries.is_empty() && empty.last == rest.last);
    let mut write = world.store.write().await.unwrap();
    own.session_began(&mut write, "hash", Some("https://a/shop")).await.unwrap();
    write.commit().await.unwrap();
    let begun = world.again().await.session_feed(life, rest.last).await.unwrap();
    assert_eq!(said(&begun.entries), [(What::Began, "hash")]);
    assert_eq!(begun.entries[0].resource.as_deref(), Some("https://a/shop"));
    assert_eq!(begun.entries[0].number, rest.last + 1);
    assert_eq!(sql.find_numbers("SELECT number FROM session_feed").await.len(), 1, "what is over goes away");
}

#[tokio::test]
async fn a_session_that_idles_ends_and_one_that_a_gateway_saw_used_does_not() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let ann = member(&world, acme).await;
    let own = world.store.customer(acme);
    let id = session(&world, acme, ann, "browser", 1, None).await;
    let mut sql = world.sql().await;
    let mut seen_before = async |ago: i64| {
        let then = now_s() - ago;
        sql.run(&format!("UPDATE session SET seen = {then}")).await.unwrap();
    };
    assert!(own.use_session(&id, 0, 300).await.unwrap());
    seen_before(400).await;
    assert!(own.use_session(&id, now_s() - 100, 300).await.unwrap(), "its gateway knows better");
    assert!(own.use_session(&id, 0, 300).await.unwrap(), "and that was noted");
    seen_before(400).await;
    assert!(own.use_session(&id, now_s() + 9999, 300).await.unwrap(), "no use lies in the future");
    seen_before(400).await;
    let mut told = 0;
    news(&world, &mut told).await;
    assert!(!own.use_session(&id, now_s() - 380, 300).await.unwrap());
    assert_eq!(said(&news(&world, &mut told).await), [(What::Session, id.as_str())]);
    assert!(!own.use_session(&id, now_s(), 300).await.unwrap(), "it has ended");
}

#[tokio::test]
async fn a_sign_in_that_grows_old_does_not_end_what_may_live_longer() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let ann = member(&world, acme).await;
    let own = world.store.customer(acme);
    let sign_in = session(&world, acme, ann, "provider", 1, None).await;
    let browser = session(&world, acme, ann, "browser", 2, Some(&sign_in)).await;
    let mut sql = world.sql().await;
    sql.run(&format!("UPDATE session SET until = 1 WHERE id = '{sign_in}'")).await.unwrap();
    let other = session(&world, acme, ann, "provider", 3, None).await;
    let live: Vec<_> = own.sessions_of(ann).await.unwrap().into_iter().map(|one| one.id).collect();
    assert_eq!(live, [browser, other]);
}
