//! Keys of clients, and words that count once.

use super::World;
use bastide_store::{ClientKeyRow, ClientRow, KeysAdded, now_s};

fn key(kid: &str) -> ClientKeyRow {
    ClientKeyRow { kid: kid.to_owned(), jwk: "{}".to_owned(), since: 1 }
}

#[tokio::test]
async fn a_word_counts_once_over_all_replicas_and_a_restart() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let other = world.again().await;
    let until = now_s() + 60;
    let take = async |store: &bastide_store::Store, customer, client: &str, hash: u8| {
        let mut write = store.write().await.unwrap();
        let own = store.customer(customer);
        let first = own.take_client_assertion(&mut write, client, &[hash; 32], until).await.unwrap();
        write.commit().await.unwrap();
        first
    };
    let both = tokio::join!(take(&world.store, acme, "robot", 1), take(&other, acme, "robot", 1));
    assert!(both.0 != both.1, "{both:?}");
    assert!(!take(&world.again().await, acme, "robot", 1).await);
    assert!(take(&other, acme, "robot", 2).await, "another word");
    assert!(take(&other, acme, "droid", 1).await, "of another client");
    assert!(take(&other, beta, "robot", 1).await, "of another customer");
    let mut write = world.store.write().await.unwrap();
    let own = world.store.customer(acme);
    assert!(own.take_client_assertion(&mut write, "robot", &[3; 32], now_s() - 1).await.unwrap());
    write.commit().await.unwrap();
    assert!(take(&world.store, acme, "robot", 3).await, "what is over is not kept");
}

#[tokio::test]
async fn keys_belong_to_one_client_and_end_with_it() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    for id in ["robot", "droid"] {
        own.add_client(&mut write, &ClientRow::service(id, Vec::new())).await.unwrap();
        let added = own.add_client_keys(&mut write, id, &[key("a"), key("b")], 3).await.unwrap();
        assert_eq!(added, KeysAdded::Done);
    }
    assert_eq!(own.add_client_keys(&mut write, "robot", &[key("a")], 3).await.unwrap(), KeysAdded::Known);
    let two = [key("c"), key("d")];
    assert_eq!(own.add_client_keys(&mut write, "robot", &two, 3).await.unwrap(), KeysAdded::TooMany);
    write.commit().await.unwrap();
    let again = world.again().await;
    let own = again.customer(acme);
    assert_eq!(own.client_keys("robot").await.unwrap(), [key("a"), key("b")]);
    let grant =
        async |client: &str, kid: &str| own.client_by_key(client, kid).await.unwrap().map(|found| found.1);
    let (robot, droid) = (grant("robot", "a").await.unwrap(), grant("droid", "a").await.unwrap());
    assert!(robot != droid && robot != grant("robot", "b").await.unwrap());
    assert_eq!((grant("robot", "c").await, grant("none", "a").await), (None, None));
    assert!(own.has_grant("robot", &robot).await.unwrap() && !own.has_grant("droid", &robot).await.unwrap());
    let mut write = again.write().await.unwrap();
    own.suspend_client(&mut write, "robot", true).await.unwrap();
    own.remove_client(&mut write, "droid").await.unwrap();
    write.commit().await.unwrap();
    assert_eq!((grant("robot", "a").await, grant("droid", "a").await), (None, None));
    assert!(own.client_keys("droid").await.unwrap().is_empty());
}
