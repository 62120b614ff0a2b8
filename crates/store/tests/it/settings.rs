//! Settings and secrets: in versions, sealed, and nobody else's.

use super::{World, begin, publish, shop};
use bastide_store::{NewOperation, SettingsChange, Store, StoreError, now_s};
use bastide_types::{AppId, AppName, CustomerId, ReplicaId, Secret, StageName, ZoneName};
use std::collections::BTreeMap;

const VALUE: &str = "a-value-that-nobody-finds-by-chance-0451";

async fn set(
    store: &Store,
    customer: CustomerId,
    stage: &StageName,
    app: AppId,
    pairs: &[(&str, &str)],
    secret: bool,
) -> Result<u32, StoreError> {
    let values: Vec<_> = pairs.iter().map(|(name, value)| (*name, Secret::new(*value))).collect();
    let set = values.iter().map(|(name, value)| (*name, value)).collect();
    let change = SettingsChange { set, unset: Vec::new(), secret, who: "ann" };
    let mut write = store.write().await?;
    let version = store.customer(customer).change_settings(&mut write, stage, app, &change).await?;
    write.commit().await?;
    Ok(version)
}

async fn values(
    store: &Store,
    customer: CustomerId,
    stage: &StageName,
    app: AppId,
    version: u32,
) -> BTreeMap<String, String> {
    let values = store.customer(customer).settings_at(stage, app, version).await.unwrap();
    values.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn each_change_is_a_version_and_secrets_are_never_listed() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let app = publish(&world.store, acme, &shop()).await.app;
    let (stage, own) = (StageName::development(), world.store.customer(acme));
    assert_eq!(own.settings_version(&stage, app).await.unwrap(), 0);
    begin(&world.store, acme, &publish(&world.store, acme, &shop()).await).await.unwrap();
    set(&world.store, acme, &stage, app, &[("LEVEL", "info"), ("COLOR", "red")], false).await.unwrap();
    let two = set(&world.store, acme, &stage, app, &[("KEY", VALUE)], true).await.unwrap();
    // Another process.
    let again = world.again().await;
    let rows = again.customer(acme).settings(&stage, app).await.unwrap();
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.name.as_str(), row.value.as_deref(), row.since, row.who.as_str()))
        .collect();
    assert_eq!(
        seen,
        [("COLOR", Some("red"), 1, "ann"), ("KEY", None, 2, "ann"), ("LEVEL", Some("info"), 1, "ann")]
    );
    assert!(!format!("{rows:?}").contains(VALUE));
    let key = rows.iter().find(|row| row.name == "KEY").unwrap();
    let print = |value: &str| own.setting_fingerprint(&stage, app, "KEY", &Secret::new(value));
    assert_eq!((key.bytes, &key.fingerprint), (3 + VALUE.len() as u64, &print(VALUE)));
    assert_ne!(print(VALUE), print("other"));
    assert_ne!(print(VALUE), own.setting_fingerprint(&stage, app, "OTHER", &Secret::new(VALUE)));

    let mut write = again.write().await.unwrap();
    let change = SettingsChange { unset: vec!["COLOR"], who: "bob", ..SettingsChange::default() };
    let three = again.customer(acme).change_settings(&mut write, &stage, app, &change).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!((two, three), (2, 3));
    assert_eq!(values(&again, acme, &stage, app, three).await, pairs(&[("KEY", VALUE), ("LEVEL", "info")]));
    assert_eq!(own.settings_changed_since(&stage, app, 1).await.unwrap(), ["COLOR", "KEY"]);
    assert!(own.settings_changed_since(&stage, app, 3).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_replaced_value_is_kept_as_long_as_a_replica_has_it() {
    let world = World::new().await;
    let acme = world.customer("acme").await;
    let revision = publish(&world.store, acme, &shop()).await;
    let (app, stage, own) = (revision.app, StageName::development(), world.store.customer(acme));
    set(&world.store, acme, &stage, app, &[("KEY", "one")], true).await.unwrap();
    let operation = begin(&world.store, acme, &revision).await.unwrap();
    let ids = async |version: u32| -> Vec<ReplicaId> {
        let all = own.replicas(&stage).await.unwrap();
        all.iter().filter(|replica| replica.settings == version).map(|replica| replica.id).collect()
    };
    let first = ids(1).await;
    assert_eq!(first.len(), 2, "replicas have the newest version when they are made");
    let mut write = world.store.write().await.unwrap();
    own.end_operation(&mut write, operation, None).await.unwrap();
    own.serve(&mut write, &stage, app, revision.number, &first, 0).await.unwrap();
    write.commit().await.unwrap();
    assert_eq!(own.settings_serving(&stage).await.unwrap(), [(app, 1)].into());

    set(&world.store, acme, &stage, app, &[("KEY", "two")], true).await.unwrap();
    assert_eq!(values(&world.store, acme, &stage, app, 1).await, pairs(&[("KEY", "one")]), "they still run");
    assert_eq!(values(&world.store, acme, &stage, app, 2).await, pairs(&[("KEY", "two")]));
    let new = NewOperation {
        kind: "settings",
        app,
        stage: &stage,
        revision: revision.number,
        deadline: now_s() + 60,
    };
    let mut write = world.store.write().await.unwrap();
    let zones = [ZoneName::new("a").unwrap()];
    let operation = own.begin_operation(&mut write, &new, &zones).await.unwrap();
    write.commit().await.unwrap();
    let second = ids(2).await;
    let mut write = world.store.write().await.unwrap();
    own.end_operation(&mut write, operation, None).await.unwrap();
    own.serve(&mut write, &stage, app, revision.number, &second, 0).await.unwrap();
    assert_eq!(own.give_up_settings(&mut write, &stage).await.unwrap(), 0, "they drain");
    for id in first {
        own.forget_replica(&mut write, &stage, id).await.unwrap();
    }
    assert_eq!(own.give_up_settings(&mut write, &stage).await.unwrap(), 1);
    write.commit().await.unwrap();
    assert_eq!(values(&world.store, acme, &stage, app, 1).await, pairs(&[]));
    assert_eq!(values(&world.store, acme, &stage, app, 2).await, pairs(&[("KEY", "two")]));
    let turns = own.served(&stage, app, 9).await.unwrap();
    assert_eq!(turns.iter().map(|turn| turn.settings).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(own.settings_changed_since(&stage, app, 1).await.unwrap(), ["KEY"], "names are remembered");
}

#[tokio::test]
async fn nobody_else_reaches_them_and_moved_or_in_the_file_they_say_nothing() {
    let world = World::new().await;
    let (acme, beta) = (world.customer("acme").await, world.customer("beta").await);
    let app = publish(&world.store, acme, &shop()).await.app;
    let other = publish(&world.store, acme, &AppName::new("blog").unwrap()).await.app;
    let (stage, test) = (StageName::development(), StageName::test());
    set(&world.store, acme, &stage, app, &[("KEY", VALUE)], true).await.unwrap();
    set(&world.store, acme, &stage, app, &[("OPEN", VALUE)], false).await.unwrap();

    for (customer, stage, app) in [(beta, &stage, app), (acme, &test, app), (acme, &stage, other)] {
        let own = world.store.customer(customer);
        assert_eq!(own.settings(stage, app).await.unwrap(), []);
        assert!(own.settings_at(stage, app, 2).await.unwrap().is_empty());
        assert_eq!(own.settings_version(stage, app).await.unwrap(), 0);
        assert!(own.settings_changed_since(stage, app, 0).await.unwrap().is_empty());
        assert!(own.settings_serving(stage).await.unwrap().is_empty());
    }
    let taken = set(&world.store, beta, &stage, app, &[("KEY", "x")], true).await;
    assert!(taken.is_err(), "an app of another customer");
    let nowhere = StageName::new("nowhere").unwrap();
    assert!(set(&world.store, acme, &nowhere, app, &[("KEY", "x")], true).await.is_err());

    // What lies in the database is sealed for its place, settings too.
    let mut sql = world.sql().await;
    let sealed = sql.find_bytes("SELECT value FROM setting WHERE name = 'OPEN'").await;
    assert!(!sealed.windows(8).any(|part| part == &VALUE.as_bytes()[..8]));
    if let Some(file) = world.file() {
        for end in ["", "-wal"] {
            let bytes = std::fs::read(format!("{}{end}", file.display())).unwrap_or_default();
            assert!(!bytes.windows(VALUE.len()).any(|part| part == VALUE.as_bytes()), "{end}");
        }
    }
    let moved = sql.bytes(&sealed);
    sql.run(&format!("UPDATE setting SET value = {moved} WHERE name = 'KEY'")).await.unwrap();
    let own = world.store.customer(acme);
    assert!(matches!(own.settings_at(&stage, app, 2).await, Err(StoreError::Seal(_))));
    let stranger = world.with_another_key().await;
    assert!(matches!(stranger.customer(acme).settings(&stage, app).await, Err(StoreError::Seal(_))));
}
