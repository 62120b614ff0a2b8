//! The audit trail: one chain for each customer, and whatever was done to it is found.

use crate::World;
use bastide_store::{AuditFilter, NewEntry, Origin, Store};
use bastide_types::{AuditFault, AuditTip, CustomerId};

async fn note(store: &Store, customer: CustomerId, detail: &str) {
    let mut write = store.write().await.unwrap();
    store.customer(customer).audit(&mut write, "ann", "app.publish", detail).await.unwrap();
    write.commit().await.unwrap();
}

async fn fault(world: &World, customer: CustomerId) -> Option<AuditFault> {
    world.store.customer(customer).verify_audit().await.unwrap().err()
}

/// Somebody who may write to the file, but has no key.
async fn tamper(world: &World, statements: &[&str]) {
    let mut sql = world.sql().await;
    for trigger in ["audit_entry_stays", "audit_entry_is_kept"] {
        let on = if world.file().is_some() { "" } else { " ON audit_entry" };
        sql.run(&format!("DROP TRIGGER IF EXISTS {trigger}{on}")).await.unwrap();
    }
    for statement in statements {
        assert!(sql.run(statement).await.unwrap() > 0, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_of_two_processes_at_once_are_one_chain_for_each_customer() {
    let world = World::new().await;
    let other = world.again().await;
    let customers = [world.customer("acme").await, world.customer("beta").await];
    let mut tasks = tokio::task::JoinSet::new();
    for turn in 0..60_usize {
        let store = if turn % 2 == 0 { world.store.clone() } else { other.clone() };
        let customer = customers[turn / 2 % 2];
        tasks.spawn(async move { note(&store, customer, &turn.to_string()).await });
    }
    tasks.join_all().await;
    for customer in customers {
        let verdict = world.store.customer(customer).verify_audit().await.unwrap().unwrap();
        assert_eq!((verdict.before, verdict.last.sequence), (AuditTip::START, 30));
        let lines = other.customer(customer).audit_lines(0, 100).await.unwrap();
        assert!(lines.iter().all(|line| line.customer == customer));
        assert_eq!(lines.last().unwrap().hash, verdict.last.hash);
    }
}

#[tokio::test]
async fn entries_say_who_what_where_when_old_new_and_what_became_of_it() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let own = world.store.customer(acme);
    let origin = Origin { address: "192.0.2.7".into(), request: "r-1".into() };
    let long = "x".repeat(5000);
    let entry = NewEntry {
        who: "ann",
        what: "app.scale",
        detail: "shop in test",
        refused: Some("B-DEPLOY-0429"),
        old: Some("1"),
        new: Some(&long),
    };
    let work = async {
        let mut write = world.store.write().await.unwrap();
        own.audit_entry(&mut write, &entry).await.unwrap();
        write.commit().await.unwrap();
    };
    origin.of(work).await;
    note(&world.store, acme, "shop").await;
    let trail = own.audit_trail(10).await.unwrap();
    let (second, first) = (&trail[0], &trail[1]);
    assert_eq!((first.sequence, first.who.as_str(), first.what.as_str()), (1, "ann", "app.scale"));
    assert_eq!((first.address.as_str(), first.request.as_str()), ("192.0.2.7", "r-1"));
    assert_eq!((first.outcome.as_str(), first.old.as_deref()), ("B-DEPLOY-0429", Some("1")));
    assert!(first.new.as_ref().unwrap().len() < 2300, "long values are cut and keep their digest");
    assert!(first.at > 1_700_000_000);
    assert_eq!((second.outcome.as_str(), second.address.as_str(), &second.new), ("done", "", &None));

    let check = async |filter: AuditFilter, expected: &[u64]| {
        let found = own.audit_page(&filter, 10).await.unwrap();
        let found: Vec<_> = found.iter().map(|entry| entry.sequence).collect();
        assert_eq!(found, expected, "{filter:?}");
    };
    let none = AuditFilter::default;
    check(none(), &[2, 1]).await;
    check(AuditFilter { before: Some(2), ..none() }, &[1]).await;
    check(AuditFilter { who: Some("ann".into()), ..none() }, &[2, 1]).await;
    check(AuditFilter { who: Some("an".into()), ..none() }, &[]).await;
    check(AuditFilter { what: Some("app.p".into()), ..none() }, &[2]).await;
    check(AuditFilter { what: Some("%".into()), ..none() }, &[]).await;
    check(AuditFilter { refused: Some(true), ..none() }, &[1]).await;
    check(AuditFilter { refused: Some(false), ..none() }, &[2]).await;
    check(AuditFilter { since: Some(first.at), until: Some(second.at + 1), ..none() }, &[2, 1]).await;
    check(AuditFilter { until: Some(first.at), ..none() }, &[]).await;
    assert_eq!(world.store.customer(world.customer("beta").await).audit_trail(10).await.unwrap(), []);
}

#[tokio::test]
async fn entries_can_be_neither_changed_nor_removed() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    note(&world.store, acme, "one").await;
    let mut sql = world.sql().await;
    let truncate = world.file().is_none().then_some("TRUNCATE audit_entry");
    for statement in
        ["UPDATE audit_entry SET who = 'bob'", "DELETE FROM audit_entry"].into_iter().chain(truncate)
    {
        let error = sql.run(statement).await.unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn whatever_somebody_does_to_a_chain_in_sql_is_found_where_it_is() {
    let check = async |statements: &[&str], expected: AuditFault| {
        let world = World::new().await;
        let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
        for detail in ["one", "two", "three", "four"] {
            note(&world.store, acme, detail).await;
            note(&world.store, beta, detail).await;
        }
        assert_eq!(fault(&world, acme).await, None);
        let statements: Vec<_> =
            statements.iter().map(|one| one.replace("ACME", &format!("customer = '{acme}'"))).collect();
        tamper(&world, &statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(fault(&world, acme).await, Some(expected.clone()), "{statements:?}");
        assert_eq!(fault(&world, beta).await, None, "{statements:?}");
        // Work goes on, and the fault stays to be seen.
        note(&world.store, acme, "five").await;
        assert_eq!(fault(&world, acme).await, Some(expected), "{statements:?}");
    };
    check(&["UPDATE audit_entry SET who = 'bob' WHERE ACME AND sequence = 2"], AuditFault::Changed(2)).await;
    check(&["UPDATE audit_entry SET at = at - 60 WHERE ACME AND sequence = 1"], AuditFault::Changed(1)).await;
    check(&["UPDATE audit_entry SET old = '' WHERE ACME AND sequence = 4"], AuditFault::Changed(4)).await;
    check(
        &["UPDATE audit_entry SET hash = zeroblob(32) WHERE ACME AND sequence = 3"],
        AuditFault::Changed(3),
    )
    .await;
    check(&["DELETE FROM audit_entry WHERE ACME AND sequence = 1"], AuditFault::Missing(1)).await;
    check(&["DELETE FROM audit_entry WHERE ACME AND sequence = 3"], AuditFault::Missing(3)).await;
    check(&["DELETE FROM audit_entry WHERE ACME AND sequence = 4"], AuditFault::Missing(4)).await;
    check(&["UPDATE audit_entry SET sequence = 9 WHERE ACME AND sequence = 2"], AuditFault::Missing(2)).await;
    check(
        &[
            "DELETE FROM audit_entry WHERE ACME AND sequence = 4",
            "UPDATE audit_ends SET last = 3, last_hash = (SELECT hash FROM audit_entry WHERE ACME AND sequence = 3) WHERE ACME",
        ],
        AuditFault::Ends,
    )
    .await;
    check(&["UPDATE audit_ends SET mark = zeroblob(32) WHERE ACME"], AuditFault::Ends).await;
    check(&["DELETE FROM audit_ends WHERE ACME"], AuditFault::Ends).await;
    check(
        &[
            "UPDATE audit_ends SET before = 2, before_hash = (SELECT hash FROM audit_entry WHERE ACME AND sequence = 2) WHERE ACME",
            "DELETE FROM audit_entry WHERE ACME AND sequence <= 2",
        ],
        AuditFault::Ends,
    )
    .await;
}

#[tokio::test]
async fn old_entries_are_given_up_and_the_rest_is_still_one_chain() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let own = world.store.customer(acme);
    for detail in ["one", "two", "three"] {
        note(&world.store, acme, detail).await;
    }
    let give_up = async |at: i64| {
        let mut write = world.store.write().await.unwrap();
        let gone = own.give_up_audit(&mut write, at).await.unwrap();
        write.commit().await.unwrap();
        gone
    };
    let now = bastide_store::now_s();
    assert_eq!(give_up(now - 60).await, 0);
    assert_eq!(give_up(now + 60).await, 3);
    let trail = own.audit_trail(10).await.unwrap();
    assert_eq!(trail.len(), 1);
    assert_eq!((trail[0].sequence, trail[0].what.as_str()), (4, "audit.given-up"));
    note(&world.store, acme, "five").await;
    let verdict = own.verify_audit().await.unwrap().unwrap();
    assert_eq!((verdict.before.sequence, verdict.last.sequence), (3, 5));
}

#[tokio::test]
async fn entries_of_a_former_version_are_moved_into_the_chains_of_their_customers() {
    let world = World::new().await;
    // A database on a server has no former version.
    if world.file().is_none() {
        return;
    }
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let mut sql = world.sql().await;
    for (customer, detail) in [(acme, "one"), (beta, "two"), (acme, "three")] {
        // The hash is another than the former version would have written: the chain counts as broken at the first.
        let insert = format!(
            "INSERT INTO audit (customer, at, who, what, detail, previous, hash)
             VALUES ('{customer}', 7, 'ann', 'app.publish', '{detail}', zeroblob(32), zeroblob(32))"
        );
        sql.run(&insert).await.unwrap();
    }
    let store = world.again().await;
    let trail = store.customer(acme).audit_trail(10).await.unwrap();
    let seen: Vec<_> = trail.iter().rev().map(|entry| (entry.sequence, entry.what.as_str())).collect();
    assert_eq!(seen, [(1, "app.publish"), (2, "app.publish"), (3, "audit.moved")]);
    assert_eq!((trail[2].at, trail[2].detail.as_str()), (7, "one"));
    assert!(trail[0].detail.contains("broken at its entry 1"), "{}", trail[0].detail);
    for customer in [acme, beta] {
        store.customer(customer).verify_audit().await.unwrap().unwrap();
    }
    assert_eq!(sql.find_numbers("SELECT COUNT(*) FROM audit").await, [0]);
    // Once: the next start moves nothing.
    let again = world.again().await;
    assert_eq!(again.customer(acme).audit_trail(10).await.unwrap().len(), 3);
}
