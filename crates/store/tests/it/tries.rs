//! Counters of tries, and known devices.

use super::World;
use bastide_store::{Counter, MemberRow, now_s};
use bastide_types::UserId;

/// As if many failures came before: a wait long enough for the slowest machine.
const LOCKS: i64 = -9;

#[tokio::test]
async fn counters_are_apart_and_outlive_a_restart() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let member = UserId::generate();
    let (key, hash) = (member.to_string(), [7; 32]);
    let all = [
        Counter::Password { stage: "", email: &key },
        Counter::Device(&hash),
        Counter::UserCode(member),
        Counter::Totp(member),
        Counter::RecoveryCode(member),
    ];
    for (at, counter) in all.into_iter().enumerate() {
        assert_eq!(world.store.customer(acme).count_try(counter, LOCKS).await.unwrap(), Ok(()));
        let again = world.again().await;
        for (other, counter) in all.into_iter().enumerate() {
            let locked = again.customer(acme).count_try(counter, 5).await.unwrap().is_err();
            assert_eq!(locked, other <= at, "{counter:?} after {at}");
        }
    }
    let beta = world.customer("beta").await;
    assert_eq!(world.store.customer(beta).count_try(all[0], 5).await.unwrap(), Ok(()));
    let mut write = world.store.write().await.unwrap();
    world.store.customer(acme).reset_tries(&mut write, all[0]).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(world.store.customer(acme).count_try(all[0], 5).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_device_is_known_for_its_member_and_time_and_ten_are_kept() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    let mut ids = Vec::new();
    for email in ["ann@example.com", "bob@example.com"] {
        let member = MemberRow {
            id: UserId::generate(),
            email: email.into(),
            name: email.into(),
            state: "active".into(),
            roles: Vec::new(),
            password: None,
            stage: String::new(),
            verified: false,
        };
        own.add_member(&mut write, &member).await.unwrap();
        ids.push(member.id);
    }
    own.remember_device(&mut write, &[100; 32], ids[1], now_s() - 1).await.unwrap();
    for number in 0..12 {
        own.remember_device(&mut write, &[number; 32], ids[0], now_s() + 600 + i64::from(number))
            .await
            .unwrap();
    }
    write.commit().await.unwrap();
    let mut known = Vec::new();
    for number in 0..12 {
        if own.knows_device(&[number; 32], "", "ann@example.com").await.unwrap() {
            known.push(number);
        }
        assert!(!own.knows_device(&[number; 32], "", "bob@example.com").await.unwrap());
    }
    assert_eq!(known, (2..12).collect::<Vec<_>>());
    assert!(!own.knows_device(&[100; 32], "", "bob@example.com").await.unwrap(), "its time is over");
}
