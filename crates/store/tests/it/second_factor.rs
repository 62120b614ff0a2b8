//! Second factors at rest.

use super::World;
use bastide_store::{MemberRow, SignInPolicy, StoreError, now_s};
use bastide_types::{CustomerId, UserId};

const SECRET: &[u8] = b"12345678901234567890";

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
async fn a_secret_is_sealed_for_its_customer_and_member() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let (ann, bob) =
        (member(&world, acme, "ann@example.com").await, member(&world, acme, "bob@example.com").await);
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    own.add_second_factor(&mut write, ann, SECRET, 7, &[[1; 32]]).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(own.second_factor(ann).await.unwrap().as_deref(), Some(SECRET));
    assert_eq!(own.second_factor(bob).await.unwrap(), None);
    let beside = own.beside("", "a", "z").await.unwrap();
    assert_eq!((beside.len(), beside[&ann].second_factor), (1, true));
    let mut sql = world.sql().await;
    let sealed = sql.find_bytes("SELECT secret FROM second_factor").await;
    assert!(!sealed.windows(SECRET.len()).any(|part| part == SECRET));
    // Whoever can write rows but has no key makes no factor of somebody else's.
    sql.run("DELETE FROM recovery_code").await.unwrap();
    sql.run(&format!("UPDATE second_factor SET member = '{bob}'")).await.unwrap();
    assert!(matches!(own.second_factor(bob).await, Err(StoreError::Seal(_))));
}

#[tokio::test]
async fn an_offer_opens_for_its_member_and_in_its_time() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let (ann, bob) = (UserId::generate(), UserId::generate());
    let own = world.store.customer(acme);
    let offer = own.seal_offer(ann, SECRET, now_s() + 60).unwrap();
    assert_eq!(own.open_offer(ann, &offer).as_deref(), Some(SECRET));
    assert_eq!(own.open_offer(bob, &offer), None);
    assert_eq!(world.store.customer(beta).open_offer(ann, &offer), None);
    assert_eq!(own.open_offer(ann, &own.seal_offer(ann, SECRET, now_s()).unwrap()), None);
    assert_eq!(own.open_offer(ann, b""), None);
}

#[tokio::test]
async fn steps_and_recovery_codes_are_taken_once() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let ann = member(&world, acme, "ann@example.com").await;
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    own.add_second_factor(&mut write, ann, SECRET, 7, &[[1; 32], [2; 32]]).await.unwrap();
    for (step, expected) in [(7, false), (6, false), (8, true), (8, false), (7, false), (9, true)] {
        assert_eq!(own.take_step(&mut write, ann, step).await.unwrap(), expected, "{step}");
    }
    let foreign = world.store.customer(beta);
    assert!(!foreign.take_recovery_code(&mut write, ann, &[1; 32]).await.unwrap());
    assert!(!foreign.remove_second_factor(&mut write, ann).await.unwrap());
    for (byte, expected) in [(3, false), (1, true), (1, false)] {
        let taken = own.take_recovery_code(&mut write, ann, &[byte; 32]).await.unwrap();
        assert_eq!(taken, expected, "{byte}");
    }
    let again = own.add_second_factor(&mut write, ann, SECRET, 0, &[]).await;
    assert!(matches!(again, Err(StoreError::Taken)));
    write.commit().await.unwrap();
    assert_eq!(own.recovery_codes_left(ann).await.unwrap(), 1);
    let mut write = world.store.write().await.unwrap();
    assert!(own.remove_second_factor(&mut write, ann).await.unwrap());
    write.commit().await.unwrap();
    assert_eq!(own.recovery_codes_left(ann).await.unwrap(), 0);
}

#[tokio::test]
async fn a_half_sign_in_ends_once_and_in_its_time() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let ann = member(&world, acme, "ann@example.com").await;
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    own.add_half_sign_in(&mut write, &[1; 32], ann, now_s() + 60).await.unwrap();
    own.add_half_sign_in(&mut write, &[2; 32], ann, now_s()).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(own.half_sign_in(&[1; 32]).await.unwrap(), Some(ann));
    assert_eq!(own.half_sign_in(&[2; 32]).await.unwrap(), None);
    assert_eq!(world.store.customer(beta).half_sign_in(&[1; 32]).await.unwrap(), None);
    let mut write = world.store.write().await.unwrap();
    for (byte, expected) in [(2, false), (1, true), (1, false)] {
        assert_eq!(own.end_half_sign_in(&mut write, &[byte; 32]).await.unwrap(), expected, "{byte}");
    }
}

#[tokio::test]
async fn a_policy_is_one_customer_s_and_lax_at_first() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let own = world.store.customer(acme);
    assert_eq!(own.sign_in_policy().await.unwrap(), SignInPolicy::default());
    let strict = SignInPolicy { second_factor: true, ..SignInPolicy::default() };
    let mut write = world.store.write().await.unwrap();
    own.set_sign_in_policy(&mut write, &strict).await.unwrap();
    own.set_sign_in_policy(&mut write, &strict).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(own.sign_in_policy().await.unwrap(), strict);
    assert!(!world.store.customer(beta).sign_in_policy().await.unwrap().second_factor);
}
