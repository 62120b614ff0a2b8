//! Keys of issuers at rest: sealed, each in its place, moved there from databases of before.

use super::World;
use bastide_store::{Kek, KeyKind, KeyState, NewKey, StoreError, now_s};
use bastide_types::StageName;
use std::fmt::Write;

const PRIVATE: &[u8] = b"a private key that nobody finds in the file";

fn key(kid: &str) -> NewKey {
    NewKey {
        kind: KeyKind::Access,
        kid: kid.into(),
        public: "public-half-in-the-file".into(),
        private: PRIVATE.to_vec(),
    }
}

#[tokio::test]
async fn the_file_holds_no_private_key() {
    let world = World::new().await;
    let Some(file) = world.file() else { return };
    let acme = world.customer("acme").await;
    let mut write = world.store.write().await.unwrap();
    let own = world.store.customer(acme);
    own.add_key(&mut write, None, &key("k"), KeyState::Current, now_s()).await.unwrap();
    write.commit().await.unwrap();
    world.sql().await.run("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    assert_eq!(own.signing_key(None, KeyKind::Access).await.unwrap().as_deref(), Some(PRIVATE));
    let mut bytes = std::fs::read(file).unwrap();
    bytes.extend(std::fs::read(format!("{}-wal", file.display())).unwrap_or_default());
    let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    assert!(has(b"public-half-in-the-file"), "the test looks at the right bytes");
    // No part of it, and in no spelling.
    let hex = PRIVATE.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    for part in PRIVATE.chunks(8).chain(hex.as_bytes().chunks(16)).filter(|part| part.len() >= 8) {
        assert!(!has(part), "{:?}", String::from_utf8_lossy(part));
    }
    assert!(!has(hex.to_uppercase().as_bytes()));
}

#[tokio::test]
async fn a_key_that_was_moved_elsewhere_does_not_open() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let test: StageName = "test".parse().unwrap();
    let mut write = world.store.write().await.unwrap();
    let own = world.store.customer(acme);
    own.add_key(&mut write, None, &key("k"), KeyState::Current, now_s()).await.unwrap();
    write.commit().await.unwrap();
    let mut sql = world.sql().await;
    let check = async |what: &str, customer, stage: Option<&StageName>, kind| {
        let opened = world.store.customer(customer).signing_key(stage, kind).await;
        assert!(matches!(opened, Err(StoreError::Seal(_))), "{what}: {opened:?}");
    };
    for (change, customer, stage, kind) in [
        (format!("customer = '{beta}'"), beta, None, KeyKind::Access),
        ("stage = 'test'".to_owned(), acme, Some(&test), KeyKind::Access),
        ("kind = 'id'".to_owned(), acme, None, KeyKind::Id),
        ("kid = 'other'".to_owned(), acme, None, KeyKind::Access),
    ] {
        let statement = format!("UPDATE issuer_key SET {change}");
        sql.run(&statement).await.unwrap();
        check(&change, customer, stage, kind).await;
        let back =
            format!("UPDATE issuer_key SET customer = '{acme}', stage = '', kind = 'access', kid = 'k'");
        sql.run(&back).await.unwrap();
        assert!(own.signing_key(None, KeyKind::Access).await.unwrap().is_some(), "back in its place");
    }
}

#[tokio::test]
async fn keys_of_a_database_of_before_are_moved_and_sealed_for_their_stage() {
    let world = World::new().await;
    // A database on a server has no former version.
    if world.file().is_none() {
        return;
    }
    let acme = world.customer("acme").await;
    let test: StageName = "test".parse().unwrap();
    // As it was: sealed without the stage.
    let kek = Kek::new(&[7; 32]).unwrap();
    let mut sql = world.sql().await;
    for (table, public) in [("signing_key", "x"), ("id_key", "n")] {
        let create = format!(
            "CREATE TABLE {table} (customer TEXT, stage TEXT, kid TEXT, {public} TEXT, private BLOB)"
        );
        sql.run(&create).await.unwrap();
        let sealed = kek.seal(&format!("{table}/{acme}/k"), PRIVATE).unwrap();
        let sealed = sql.bytes(&sealed);
        sql.run(&format!("INSERT INTO {table} VALUES ('{acme}', 'test', 'k', 'p', {sealed})")).await.unwrap();
    }
    let again = world.again().await;
    for kind in [KeyKind::Access, KeyKind::Id] {
        let own = again.customer(acme);
        assert_eq!(own.signing_key(Some(&test), kind).await.unwrap().as_deref(), Some(PRIVATE));
        let keys = own.public_keys(Some(&test), kind).await.unwrap();
        assert_eq!((keys.len(), keys[0].state, keys[0].public.as_str()), (1, KeyState::Current, "p"));
    }
    let left = "SELECT COUNT(*) FROM sqlite_master WHERE name IN ('signing_key', 'id_key')";
    assert_eq!(sql.find_numbers(left).await, [0]);
    world.again().await;
}

#[tokio::test]
async fn an_issuer_has_one_key_that_signs_and_one_that_will() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let own = world.store.customer(acme);
    let mut write = world.store.write().await.unwrap();
    own.add_key(&mut write, None, &key("a"), KeyState::Current, 10).await.unwrap();
    own.add_key(&mut write, None, &key("b"), KeyState::Next, 10).await.unwrap();
    for state in [KeyState::Current, KeyState::Next] {
        let second = own.add_key(&mut write, None, &key("c"), state, 10).await;
        assert!(matches!(second, Err(StoreError::Taken)), "{state:?}");
    }
    assert!(!own.rotate_key(&mut write, None, KeyKind::Access, 9, 20).await.unwrap(), "too young");
    assert!(own.rotate_key(&mut write, None, KeyKind::Access, 10, 20).await.unwrap());
    assert!(!own.rotate_key(&mut write, None, KeyKind::Access, 10, 20).await.unwrap(), "no next");
    write.commit().await.unwrap();
    let states: Vec<_> = own
        .public_keys(None, KeyKind::Access)
        .await
        .unwrap()
        .into_iter()
        .map(|key| (key.kid, key.state, key.since))
        .collect();
    let expected = [("b".to_owned(), KeyState::Current, 20), ("a".to_owned(), KeyState::Previous, 20)];
    assert_eq!(states, expected);
}
