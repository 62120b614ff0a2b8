//! Secrets of browser sessions that others take the place of.

use super::World;
use bastide_store::{MemberRow, NewSession, Presented, now_s};
use bastide_types::{CustomerId, UserId};

async fn member(world: &World, customer: CustomerId, email: &str) -> UserId {
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
    let mut write = world.store.write().await.unwrap();
    world.store.customer(customer).add_member(&mut write, &member).await.unwrap();
    write.commit().await.unwrap();
    member.id
}

#[tokio::test]
async fn an_outdated_secret_serves_for_its_moment_once_another_took_its_place_and_is_dead_then() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let (ann, bob) =
        (member(&world, acme, "ann@example.com").await, member(&world, acme, "bob@example.com").await);
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    let new = |hash, member| NewSession { kind: "browser", hash, parent: None, member, until: now_s() + 600 };
    let session = own.add_session(&mut write, &new(&[1; 32], ann)).await.unwrap();
    own.add_session(&mut write, &new(&[9; 32], bob)).await.unwrap();
    let sign_in = NewSession { kind: "provider", ..new(&[8; 32], ann) };
    own.add_session(&mut write, &sign_in).await.unwrap();
    write.commit().await.unwrap();
    let presented = async |hash: u8| {
        // Another process knows the same.
        let found = world.again().await.customer(acme).browser_session(&[hash; 32]).await.unwrap();
        found.map(|(_, presented)| presented)
    };
    let renew = async |old: u8, new: u8, former_until: i64| {
        let mut write = world.store.write().await.unwrap();
        let (old, new) = (&[old; 32], &[new; 32]);
        let done = own.renew_secret(&mut write, &session, (old, new), former_until).await.unwrap();
        write.commit().await.unwrap();
        done
    };
    assert_eq!((presented(1).await, presented(8).await), (Some(Presented::Own), None));
    assert!(!renew(1, 2, now_s() + 60).await, "it is not outdated");
    let mut write = world.store.write().await.unwrap();
    own.revoke_member(&mut write, ann).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!((presented(1).await, presented(9).await), (Some(Presented::Outdated), Some(Presented::Own)));
    let until = now_s() + 60;
    assert!(renew(1, 2, until).await && !renew(1, 3, until).await, "once");
    assert_eq!(presented(1).await, Some(Presented::Former(until)));
    assert_eq!((presented(2).await, presented(3).await), (Some(Presented::Own), None));
    let mut write = world.store.write().await.unwrap();
    own.revoke_member(&mut write, ann).await.unwrap();
    write.commit().await.unwrap();
    assert!(!renew(1, 3, until).await, "a former one is not renewed");
    assert!(renew(2, 4, now_s() - 1).await);
    assert_eq!((presented(1).await, presented(2).await), (None, None), "their time is over");
    assert_eq!(presented(4).await, Some(Presented::Own));
    let mut write = world.store.write().await.unwrap();
    assert_eq!(own.end_session(&mut write, &[2; 32]).await.unwrap(), None, "it ends nothing any more");
    assert_eq!(own.end_session(&mut write, &[4; 32]).await.unwrap(), Some(ann));
    write.commit().await.unwrap();
    assert_eq!(presented(4).await, None);
}
