//! Snapshots that nobody should believe: over the real broker, and on disk.

use crate::house::*;
use bastide_bus::{SigningKey, snapshot};
use bastide_types::message::{Signed, SnapshotHead};
use bastide_types::snapshot::{App, BYTES_MAX, Customer, Issuer, Stage};
use bastide_types::{
    AppId, AppName, CustomerId, CustomerName, Digest, Domains, Purges, ReplicaId, Snapshot, StageName,
    ZoneName,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Bad Snapshots of each kind.
const EACH: usize = 220;

/// A Snapshot that serves one app of one customer.
pub fn serving(revision: u64) -> Snapshot {
    let issuer = || Issuer { url: "https://acme.platform.localhost".into(), keys: vec![], token_epoch: 0 };
    let app = App {
        id: AppId::generate(),
        revision: Digest::from_sha256([1; 32]),
        revision_number: 1,
        routes: vec![],
        replicas: [(ReplicaId::generate(), ZoneName::new("a").unwrap())].into(),
        waf: None,
        purges: Purges::default(),
    };
    let stage = Stage {
        account: "A".into(),
        issuer: issuer(),
        waf: Digest::from_sha256([0; 32]),
        site: None,
        apps: [(AppName::new("shop").unwrap(), app)].into(),
    };
    let stages = [(StageName::production(), stage)].into();
    let customer = Customer { id: CustomerId::generate(), issuer: issuer(), bans: Vec::new(), stages };
    Snapshot {
        epoch: 1,
        revision,
        made_at: 0,
        domains: Domains::default(),
        customers: [(CustomerName::new("acme").unwrap(), customer)].into(),
        hosts: BTreeMap::new(),
        waf: BTreeMap::new(),
        kept: Vec::new(),
        schema: bastide_types::snapshot::SCHEMA,
        platform_waf: Digest::from_sha256([0; 32]),
    }
}

fn encoded<T: serde::Serialize>(key: &SigningKey, content: &T) -> Vec<u8> {
    serde_json::to_vec(&key.sign(content).unwrap()).unwrap()
}

/// Another place each time, spread over the whole.
fn place(number: usize, length: usize) -> usize {
    (number * 7919 + 13) % length
}

/// Later than what is in force, as the Platform made it, with one bit changed.
fn flipped(key: &SigningKey, number: usize) -> Vec<u8> {
    let mut bytes = encoded(key, &serving(100 + number as u64));
    let at = place(number, bytes.len());
    bytes[at] ^= 1 << (number % 8);
    bytes
}

fn truncated(key: &SigningKey, number: usize) -> Vec<u8> {
    let mut bytes = encoded(key, &serving(100 + number as u64));
    bytes.truncate(place(number, bytes.len()));
    bytes
}

fn replayed(key: &SigningKey, number: usize) -> Vec<u8> {
    encoded(key, &Snapshot { epoch: (number % 2) as u64, ..serving(1 + (number % 10) as u64) })
}

fn forged(_: &SigningKey, number: usize) -> Vec<u8> {
    encoded(&signing_key(), &serving(100 + number as u64))
}

/// Signed as it should be, but no Snapshot: something in it is missing or of another kind.
fn misshapen(key: &SigningKey, number: usize) -> Vec<u8> {
    let mut content = serde_json::to_value(serving(100 + number as u64)).unwrap();
    let fields = content.as_object_mut().unwrap();
    let names: Vec<String> = ["epoch", "revision", "made_at", "domains", "customers", "waf", "platform_waf"]
        .map(Into::into)
        .into();
    let name = &names[number % names.len()];
    match number / names.len() % 3 {
        0 => drop(fields.remove(name)),
        1 => drop(fields.insert(name.clone(), Value::Bool(true))),
        _ => drop(fields.insert(name.clone(), Value::String("\u{0}".repeat(number)))),
    }
    encoded(key, &content)
}

/// The head says what will be in force, whatever the content is.
fn head(bytes: &[u8], number: usize) -> SnapshotHead {
    let length = bytes.len() as u64;
    SnapshotHead { epoch: 1, revision: 1000 + number as u64, digest: sha256(bytes), bytes: length }
}

/// Waits until the follower has asked twice: what the first answer brought is judged by then.
pub async fn judged(fake: &Fake, platform: &Platform) {
    let asked = || fake.asked.lock().unwrap().iter().filter(|what| *what == "snapshot").count();
    for _ in 0..2 {
        let before = asked();
        let wait = async {
            while asked() == before {
                platform.bus.hint_snapshot(1, 1).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap();
    }
}

#[tokio::test]
async fn of_a_thousand_bad_snapshots_none_is_taken_and_no_route_is_lost() {
    let house = House::new();
    let (fake, key) = (Arc::new(Fake::default()), signing_key());
    let platform = house.platform(&fake).await;
    let edge = house.edge("edge").await;
    let offer = |bytes: Vec<u8>, head: SnapshotHead| {
        fake.put(bytes, None);
        *fake.head.lock().unwrap() = Some(head);
    };
    let good = encoded(&key, &serving(50));
    offer(good.clone(), SnapshotHead { revision: 50, ..head(&good, 0) });
    let stop = CancellationToken::new();
    let mut seen =
        snapshot::follow(&edge, house.dir.path(), key.verify_key(), snapshot::as_it_is, stop.clone());
    let in_force = until(&mut seen, Option::is_some).await.unwrap();
    fake.offsets.lock().unwrap().clear();

    let mut number = 0;
    for make in [flipped, truncated, replayed, forged, misshapen] {
        for _ in 0..EACH {
            let bytes = make(&key, number);
            let head = head(&bytes, number);
            offer(bytes, head);
            judged(&fake, &platform).await;
            let now = seen.borrow().clone().unwrap();
            assert!(Arc::ptr_eq(&now, &in_force), "number {number}: {}/{}", now.epoch, now.revision);
            number += 1;
        }
    }
    let fetched = fake.offsets.lock().unwrap().len();
    assert!(fetched >= 1000, "only {fetched} were looked at");

    // One that is too large is not even fetched.
    let later = encoded(&key, &serving(5000));
    offer(later.clone(), SnapshotHead { bytes: BYTES_MAX as u64 + 1, ..head(&later, 5000) });
    judged(&fake, &platform).await;
    assert_eq!(fake.offsets.lock().unwrap().len(), fetched);
    assert!(Arc::ptr_eq(&seen.borrow().clone().unwrap(), &in_force));
    assert_eq!(std::fs::read(house.path("snapshot.json")).unwrap(), good, "nor did any reach the disk");

    // The follower is well: the same, said as it is, is taken.
    offer(later.clone(), head(&later, 5000));
    platform.bus.hint_snapshot(1, 5000).await.unwrap();
    until(&mut seen, |found| found.as_ref().is_some_and(|found| found.revision == 5000)).await;
    stop.cancel();
}

#[test]
fn whatever_became_of_the_file_on_disk_the_one_before_serves() {
    let (dir, key) = (tempfile::tempdir().unwrap(), signing_key());
    let before = serving(50);
    std::fs::write(dir.path().join("snapshot.previous"), encoded(&key, &before)).unwrap();
    for make in [flipped, truncated, forged, misshapen] {
        for number in 0..EACH {
            std::fs::write(dir.path().join("snapshot.json"), make(&key, number)).unwrap();
            let found = snapshot::last_good(dir.path(), key.verify_key()).unwrap();
            assert_eq!(*found, before, "number {number}");
        }
    }
    let file = std::fs::File::create(dir.path().join("snapshot.json")).unwrap();
    file.set_len(BYTES_MAX as u64 + 1).unwrap();
    assert_eq!(*snapshot::last_good(dir.path(), key.verify_key()).unwrap(), before);
}

#[test]
fn the_good_ones_that_the_bad_are_made_of_would_be_taken() {
    let (dir, key) = (tempfile::tempdir().unwrap(), signing_key());
    let later = serving(100);
    std::fs::write(dir.path().join("snapshot.json"), encoded(&key, &later)).unwrap();
    let signed: Signed = serde_json::from_slice(&encoded(&key, &later)).unwrap();
    assert_eq!(key.verify_key().verify::<Snapshot>(&signed).unwrap(), later);
    assert_eq!(*snapshot::last_good(dir.path(), key.verify_key()).unwrap(), later);
}
