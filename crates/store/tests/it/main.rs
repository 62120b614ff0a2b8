//! The store as two processes and two customers use it.

use bastide_store::{Kek, NewOperation, NewStage, RevisionRow, Store, StoreError, raise_revision};
use bastide_types::{
    AppName, CustomerId, CustomerName, Digest, Manifest, Secret, StageName, ZoneName,
    message::{ReplicaFact, ReplicaFacts, ReplicaState},
};
use std::path::Path;

async fn open(dir: &Path) -> Store {
    Store::open(&dir.join("db"), Kek::new(&[1; 32]).unwrap()).await.unwrap()
}

async fn customer(store: &Store, name: &str) -> CustomerId {
    let id = CustomerId::generate();
    let mut write = store.write().await.unwrap();
    store.create_customer(&mut write, id, &CustomerName::new(name).unwrap()).await.unwrap();
    let seed = Secret::new("SEED");
    let account = format!("A{name}");
    let stage = NewStage { name: &StageName::test(), account: &account, seed: &seed };
    store.customer(id).create_stage(&mut write, &stage).await.unwrap();
    write.commit().await.unwrap();
    id
}

async fn revision(store: &Store, customer: CustomerId, name: &str) -> RevisionRow {
    let manifest: Manifest =
        serde_json::from_str(&format!(r#"{{"app":{{"name":"{name}","kind":"static"}}}}"#)).unwrap();
    let mut write = store.write().await.unwrap();
    let own = store.customer(customer);
    let app = own.ensure_app(&mut write, &AppName::new(name).unwrap()).await.unwrap();
    let digest = Digest::from_sha256([9; 32]);
    let mut row = RevisionRow { app, number: 0, digest, image: digest, manifest, blobs: vec![digest] };
    row.number = own.add_revision(&mut write, &row).await.unwrap();
    write.commit().await.unwrap();
    row
}

#[tokio::test]
async fn two_processes_open_the_same_file_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = tokio::join!(open(dir.path()), open(dir.path()));
    let id = customer(&one, "acme").await;
    assert_eq!(two.customers().await.unwrap()[0].id, id);
    assert!(one.lease("x", "one", 60).await.unwrap());
    assert!(!two.lease("x", "two", 60).await.unwrap(), "a lease has one holder");
    assert!(one.lease("x", "one", 60).await.unwrap());
}

#[tokio::test]
async fn a_customer_sees_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let (acme, beta) = (customer(&store, "acme").await, customer(&store, "beta").await);
    let row = revision(&store, acme, "shop").await;
    let (own, other) = (store.customer(acme), store.customer(beta));
    assert_eq!(own.apps().await.unwrap().len(), 1);
    assert!(other.apps().await.unwrap().is_empty());
    assert!(other.app_named(&AppName::new("shop").unwrap()).await.unwrap().is_none());
    assert!(other.revision(row.app, row.number).await.unwrap().is_none());
    let new =
        NewOperation { kind: "publish", app: row.app, stage: &StageName::test(), revision: 1, deadline: 0 };
    let mut write = store.write().await.unwrap();
    let zones = [ZoneName::new("a").unwrap()];
    let operation = own.begin_operation(&mut write, &new, &zones).await.unwrap();
    assert!(
        matches!(own.begin_operation(&mut write, &new, &zones).await, Err(StoreError::Taken)),
        "one at a time"
    );
    write.commit().await.unwrap();
    assert!(own.operation(operation).await.unwrap().is_some());
    assert!(other.operation(operation).await.unwrap().is_none());
    let mut write = store.write().await.unwrap();
    assert!(other.begin_operation(&mut write, &new, &zones).await.is_err(), "another customer's app");
}

#[tokio::test]
async fn a_change_that_is_not_committed_did_not_happen() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let before = store.version().await.unwrap();
    let mut write = store.write().await.unwrap();
    store
        .create_customer(&mut write, CustomerId::generate(), &CustomerName::new("acme").unwrap())
        .await
        .unwrap();
    raise_revision(&mut write).await.unwrap();
    drop(write);
    assert_eq!(store.version().await.unwrap(), before);
    assert!(store.customers().await.unwrap().is_empty());
    customer(&store, "acme").await;
    assert!(store.version().await.unwrap().1 > before.1, "what the data plane must know raises the revision");
    let mut write = store.write().await.unwrap();
    let again =
        store.create_customer(&mut write, CustomerId::generate(), &CustomerName::new("acme").unwrap()).await;
    assert!(matches!(again, Err(StoreError::Taken)));
}

#[tokio::test]
async fn facts_change_only_replicas_that_should_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let acme = customer(&store, "acme").await;
    let row = revision(&store, acme, "shop").await;
    let own = store.customer(acme);
    let mut write = store.write().await.unwrap();
    let new =
        NewOperation { kind: "publish", app: row.app, stage: &StageName::test(), revision: 1, deadline: 0 };
    own.begin_operation(&mut write, &new, &[ZoneName::new("a").unwrap()]).await.unwrap();
    write.commit().await.unwrap();
    let replica = own.replicas(&StageName::test()).await.unwrap()[0].clone();
    let fact = |id| ReplicaFact { id, state: ReplicaState::Ready, addr: None, reason: None };
    let facts = |replicas| ReplicaFacts { boot: 1, sequence: 1, generation: 1, replicas };
    let foreign = facts(vec![fact(bastide_types::ReplicaId::generate())]);
    assert!(!own.record_facts(&StageName::test(), &foreign).await.unwrap());
    assert!(own.record_facts(&StageName::test(), &facts(vec![fact(replica.id)])).await.unwrap());
    assert_eq!(own.replicas(&StageName::test()).await.unwrap()[0].state, "ready");
    assert!(own.record_facts(&StageName::test(), &facts(vec![])).await.unwrap());
    assert_eq!(own.replicas(&StageName::test()).await.unwrap()[0].state, "gone");
}

#[tokio::test]
async fn a_touched_audit_trail_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await;
    let acme = customer(&store, "acme").await;
    for n in 0..3 {
        let mut write = store.write().await.unwrap();
        store.customer(acme).audit(&mut write, "ann", "thing.done", &n.to_string()).await.unwrap();
        write.commit().await.unwrap();
    }
    assert_eq!(store.audit_break().await.unwrap(), None);
    assert_eq!(store.customer(acme).audit_trail(10).await.unwrap().len(), 3);
    let raw =
        sqlx::SqlitePool::connect(&format!("sqlite:{}", dir.path().join("db").display())).await.unwrap();
    sqlx::query("UPDATE audit SET detail = 'x' WHERE sequence = 2").execute(&raw).await.unwrap();
    assert_eq!(store.audit_break().await.unwrap(), Some(2));
}
