//! Copies of a database that is in use, and the life that begins with one.

use super::*;
use bastide_store::{Kek, copy_database};
use std::path::Path;

async fn open(file: &Path) -> Store {
    Store::open(file, Kek::new(&[7; 32]).unwrap()).await.unwrap()
}

use bastide_types::feed::What;

#[tokio::test]
async fn a_copy_is_of_one_moment_and_whoever_writes_goes_on() {
    let world = World::new().await;
    // Servers have programs of their own for it.
    let Some(file) = world.file() else { return };
    world.customer("acme").await;
    // Somebody is in the middle of a change.
    let mut write = world.store.write().await.unwrap();
    let beta = CustomerName::new("beta").unwrap();
    world.store.create_customer(&mut write, CustomerId::generate(), &beta).await.unwrap();
    let copy = file.with_file_name("copy.db");
    copy_database(file, &copy).await.unwrap();
    write.commit().await.unwrap();
    assert!(copy_database(file, &copy).await.is_err(), "nothing is overwritten");
    assert!(copy_database(&file.with_file_name("none"), &file.with_file_name("x")).await.is_err());
    let copied = open(&copy).await;
    let names = |rows: Vec<bastide_store::CustomerRow>| {
        rows.iter().map(|row| row.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(copied.customers().await.unwrap()), ["acme"]);
    assert_eq!(names(world.store.customers().await.unwrap()), ["acme", "beta"]);
}

#[tokio::test]
async fn what_a_new_life_says_comes_after_all_that_the_life_before_said_and_nobody_is_signed_in() {
    let world = World::new().await;
    // Servers have programs of their own for it.
    let Some(file) = world.file() else { return };
    let acme = world.customer("acme").await;
    let copy = file.with_file_name("copy.db");
    copy_database(file, &copy).await.unwrap();
    // The life before goes on for a while.
    let account = format!("A-acme-{}", StageName::test());
    for _ in 0..3 {
        let mut write = world.store.write().await.unwrap();
        let own = world.store.customer(acme);
        own.session_began(&mut write, "hash", None).await.unwrap();
        own.raise_generation(&mut write, &StageName::test()).await.unwrap();
        write.commit().await.unwrap();
    }
    let (epoch, ..) = world.store.version().await.unwrap();
    let last = world.store.token_epoch().await.unwrap();
    let generation = world.store.stage_of_account(&account).await.unwrap().unwrap().generation;

    let copied = open(&copy).await;
    let mut before = copied.version().await.unwrap();
    for _ in 0..2 {
        let began = copied.begin_next_life().await.unwrap();
        let now = copied.version().await.unwrap();
        assert!(began > epoch && began > before.0 && now.1 > before.1, "{now:?} after {before:?}");
        before = now;
    }
    let stage = copied.stage_of_account(&account).await.unwrap().unwrap();
    assert!(stage.generation > generation);
    assert!(copied.token_epoch().await.unwrap() > last);
    assert!(
        copied.customer(acme).token_floor().await.unwrap() > last,
        "tokens of the life before are refused"
    );
    let told = copied.session_feed(epoch, last).await.unwrap();
    assert_eq!((told.life, told.after), (before.0, 0), "gateways begin anew");
    assert!(told.entries.iter().any(|entry| entry.what == What::Customer && entry.customer == acme));
}
