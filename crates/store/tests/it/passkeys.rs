//! Passkeys and questions at rest.

use super::World;
use bastide_store::{MemberRow, PASSKEYS_MAX, StoreError, now_s};
use bastide_types::{CustomerId, UserId};

const DATA: &[u8] = b"what the engine wrote";

async fn member(world: &World, customer: CustomerId, email: &str) -> UserId {
    let member = MemberRow {
        id: UserId::generate(),
        email: email.into(),
        name: "Ann".into(),
        state: "active".into(),
        roles: vec![],
        password: None,
        stage: String::new(),
        verified: false,
    };
    let mut write = world.store.write().await.unwrap();
    world.store.customer(customer).add_member(&mut write, &member).await.unwrap();
    write.commit().await.unwrap();
    member.id
}

#[tokio::test]
async fn a_passkey_is_sealed_for_its_customer_its_owner_and_its_credential() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let (ann, bob) =
        (member(&world, acme, "ann@example.com").await, member(&world, acme, "bob@example.com").await);
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    assert!(own.add_passkey(&mut write, ann, &[1; 32], "Phone", DATA).await.unwrap());
    let again = own.add_passkey(&mut write, bob, &[1; 32], "Phone", DATA).await;
    assert!(matches!(again, Err(StoreError::Taken)), "a credential is one account's");
    assert!(own.add_passkey(&mut write, bob, &[2; 32], "Key", DATA).await.unwrap());
    write.commit().await.unwrap();
    // Another process finds it.
    let later = world.again().await;
    let row = later.customer(acme).passkey(&[1; 32]).await.unwrap().unwrap();
    assert_eq!((row.member, row.name.as_str(), row.data.as_slice(), row.used), (ann, "Phone", DATA, None));
    assert_eq!(later.customer(beta).passkey(&[1; 32]).await.unwrap(), None);
    assert_eq!(own.passkeys_of(ann).await.unwrap(), [row]);
    assert_eq!(
        own.beside("", "a", "z").await.unwrap().into_values().map(|one| one.passkeys).collect::<Vec<_>>(),
        [1, 1]
    );
    // Whoever can write rows but has no key makes no passkey somebody else's.
    let mut sql = world.sql().await;
    sql.run(&format!("UPDATE passkey SET member = '{ann}' WHERE member = '{bob}'")).await.unwrap();
    assert!(matches!(own.passkey(&[2; 32]).await, Err(StoreError::Seal(_))));
}

#[tokio::test]
async fn the_counter_of_a_passkey_goes_up_or_stays_zero() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let ann = member(&world, acme, "ann@example.com").await;
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    own.add_passkey(&mut write, ann, &[1; 32], "Phone", DATA).await.unwrap();
    write.commit().await.unwrap();
    let mut row = own.passkey(&[1; 32]).await.unwrap().unwrap();
    row.data = b"changed".to_vec();
    let mut write = world.store.write().await.unwrap();
    for (counter, expected) in
        [(0, true), (0, true), (5, true), (5, false), (0, false), (4, false), (u32::MAX, true)]
    {
        assert_eq!(own.use_passkey(&mut write, &row, counter).await.unwrap(), expected, "{counter}");
    }
    assert!(!world.store.customer(beta).use_passkey(&mut write, &row, u32::MAX).await.unwrap());
    write.commit().await.unwrap();
    let kept = own.passkey(&[1; 32]).await.unwrap().unwrap();
    assert_eq!(kept.data, b"changed");
    assert!(kept.used.is_some());
}

#[tokio::test]
async fn passkeys_are_taken_away_by_their_owner_or_all_at_once_and_there_are_not_too_many() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let (ann, bob) =
        (member(&world, acme, "ann@example.com").await, member(&world, acme, "bob@example.com").await);
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    for number in 0..=PASSKEYS_MAX {
        let added = own.add_passkey(&mut write, ann, &[number as u8; 32], "Key", DATA).await.unwrap();
        assert_eq!(added, number < PASSKEYS_MAX, "{number}");
    }
    write.commit().await.unwrap();
    let id = own.passkeys_of(ann).await.unwrap()[0].id();
    let mut write = world.store.write().await.unwrap();
    assert_eq!(own.remove_passkey(&mut write, bob, &id).await.unwrap(), None);
    assert_eq!(own.remove_passkey(&mut write, ann, "nonsense").await.unwrap(), None);
    assert_eq!(own.remove_passkey(&mut write, ann, &id).await.unwrap().as_deref(), Some("Key"));
    assert_eq!(own.remove_passkey(&mut write, ann, &id).await.unwrap(), None);
    assert_eq!(own.remove_passkeys(&mut write, ann).await.unwrap(), PASSKEYS_MAX.unsigned_abs() - 1);
    write.commit().await.unwrap();
    assert_eq!(own.count_passkeys(ann).await.unwrap(), 0);
}

#[tokio::test]
async fn a_question_is_answered_once_in_its_browser_and_in_its_time() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let (own, browser) = (world.store.customer(acme), [9; 32]);
    let mut write = world.store.write().await.unwrap();
    own.add_passkey_challenge(&mut write, &[1; 32], &browser, DATA, now_s() + 60).await.unwrap();
    own.add_passkey_challenge(&mut write, &[2; 32], &browser, DATA, now_s()).await.unwrap();
    write.commit().await.unwrap();
    let mut sql = world.sql().await;
    let sealed = sql
        .find_bytes("SELECT state FROM passkey_challenge WHERE until > 0 ORDER BY until DESC LIMIT 1")
        .await;
    assert!(!sealed.windows(DATA.len()).any(|part| part == DATA));
    // Another process takes it.
    let later = world.again().await;
    let mut write = later.write().await.unwrap();
    let taken = async |write: &mut bastide_store::Write, customer, hash: u8, browser: u8| {
        later.customer(customer).take_passkey_challenge(write, &[hash; 32], &[browser; 32]).await.unwrap()
    };
    assert_eq!(taken(&mut write, acme, 2, 9).await, None, "too late");
    assert_eq!(taken(&mut write, acme, 1, 8).await, None, "another browser");
    assert_eq!(taken(&mut write, beta, 1, 9).await, None, "another customer");
    assert_eq!(taken(&mut write, acme, 1, 9).await.as_deref(), Some(DATA));
    assert_eq!(taken(&mut write, acme, 1, 9).await, None, "once");
    write.commit().await.unwrap();
    // What is over goes away with the next question.
    let mut write = world.store.write().await.unwrap();
    own.add_passkey_challenge(&mut write, &[3; 32], &browser, DATA, now_s() + 60).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(sql.find_numbers("SELECT COUNT(*) FROM passkey_challenge").await, [1]);
}
