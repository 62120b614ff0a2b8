//! Snapshots for edges and gateways.

use crate::hostile::{judged, serving};
use crate::house::*;
use bastide_bus::{Bus, SigningKey, snapshot, snapshot::Unfit};
use bastide_types::{Digest, Domains, Role, Snapshot, message::SnapshotHead};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn sample(epoch: u64, revision: u64) -> Snapshot {
    Snapshot {
        epoch,
        revision,
        made_at: 0,
        domains: Domains::default(),
        customers: BTreeMap::new(),
        hosts: std::collections::BTreeMap::new(),
        waf: BTreeMap::new(),
        kept: Vec::new(),
        schema: bastide_types::snapshot::SCHEMA,
        platform_waf: Digest::from_sha256([0; 32]),
    }
}

/// Puts a Snapshot where followers pull it.
fn offer(fake: &Fake, key: &SigningKey, snapshot: &Snapshot) {
    let (head, bytes) = snapshot::serialize(snapshot, &key.sign(snapshot).unwrap()).unwrap();
    fake.put(bytes, None);
    *fake.head.lock().unwrap() = Some(head);
}

type Receiver = watch::Receiver<Option<Arc<Snapshot>>>;

async fn reaches(receiver: &mut Receiver, epoch: u64, revision: u64) {
    until(receiver, |found| {
        found.as_ref().is_some_and(|found| (found.epoch, found.revision) == (epoch, revision))
    })
    .await;
}

#[tokio::test]
async fn newer_snapshots_swap_in_and_bad_ones_leave_the_old_in_force() {
    let house = House::new();
    let (fake, key) = (Arc::new(Fake::default()), signing_key());
    let platform = house.platform(&fake).await;
    let edge = house.edge("edge").await;
    let refused = Arc::new(AtomicUsize::new(0));
    let check = {
        let refused = refused.clone();
        move |snapshot: &Arc<Snapshot>, before: Option<&Arc<Snapshot>>| {
            if snapshot.made_at == 666 {
                refused.fetch_add(1, Ordering::SeqCst);
                return Err(Unfit::Whole("the golden requests fail".into()));
            }
            assert!(before.is_none_or(|before| snapshot.is_newer_than(before)));
            Ok(snapshot.clone())
        }
    };
    offer(&fake, &key, &sample(1, 1));
    let stop = CancellationToken::new();
    let mut seen = snapshot::follow(&edge, house.dir.path(), key.verify_key(), check, stop.clone());
    reaches(&mut seen, 1, 1).await;

    // Forged, unfit, and older ones; then one that is in order, which shows that they were passed over.
    let asked = || fake.asked.lock().unwrap().len();
    for (signer, snapshot) in [
        (&signing_key(), sample(1, 5)),
        (&key, Snapshot { made_at: 666, ..sample(1, 6) }),
        (&key, sample(1, 0)),
    ] {
        let before = asked();
        offer(&fake, signer, &snapshot);
        while asked() == before {
            platform.bus.hint_snapshot(1, snapshot.revision).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let in_force = seen.borrow().clone().unwrap();
        assert_eq!((in_force.epoch, in_force.revision), (1, 1));
    }
    offer(&fake, &key, &sample(2, 1));
    platform.bus.hint_snapshot(2, 1).await.unwrap();
    reaches(&mut seen, 2, 1).await;
    assert!(refused.load(Ordering::SeqCst) <= 1, "what was refused is not fetched again and again");
    assert_eq!(mode(&house.path("snapshot.json")), 0o600);
    assert_eq!(edge.counters().violations, 0);
    stop.cancel();
}

#[tokio::test]
async fn the_last_good_snapshot_serves_at_once_with_no_broker_and_no_platform() {
    let mut house = House::new();
    let (fake, key) = (Arc::new(Fake::default()), signing_key());
    let platform = house.platform(&fake).await;
    let config = house.role(Role::Gateway, "gateway-a");
    let follow = |bus: &Bus, key: &SigningKey| {
        snapshot::follow(
            bus,
            house.dir.path(),
            key.verify_key(),
            snapshot::as_it_is,
            CancellationToken::new(),
        )
    };
    offer(&fake, &key, &sample(1, 3));
    let gateway = connected(&config).await;
    reaches(&mut follow(&gateway, &key), 1, 3).await;
    offer(&fake, &key, &sample(1, 4));
    let mut seen = follow(&gateway, &key);
    reaches(&mut seen, 1, 4).await;
    gateway.close().await;
    platform.stop.cancel();
    house.kill();

    let alone = Bus::connect(&config).await.unwrap();
    let follow = |key: &SigningKey| {
        snapshot::follow(
            &alone,
            house.dir.path(),
            key.verify_key(),
            snapshot::as_it_is,
            CancellationToken::new(),
        )
    };
    let revision = |receiver: Receiver| receiver.borrow().as_ref().map(|found| found.revision);
    assert!(!alone.is_connected());
    assert_eq!(revision(follow(&key)), Some(4), "at once, without waiting for anybody");
    assert_eq!(revision(follow(&signing_key())), None, "what is on disk is checked too");
    std::fs::write(house.path("snapshot.json"), "{ spoilt").unwrap();
    assert_eq!(revision(follow(&key)), Some(3), "the one before, when the last is spoilt");
}

#[tokio::test]
async fn a_follower_that_starts_before_the_broker_gets_its_snapshot_when_it_comes() {
    let mut house = House::silent();
    let key = signing_key();
    let edge = Bus::connect(&house.role(Role::Edge, "edge")).await.unwrap();
    let mut seen = snapshot::follow(
        &edge,
        house.dir.path(),
        key.verify_key(),
        snapshot::as_it_is,
        CancellationToken::new(),
    );
    assert!(seen.borrow().is_none());
    house.start();
    let fake = Arc::new(Fake::default());
    offer(&fake, &key, &sample(1, 1));
    let _platform = house.platform(&fake).await;
    reaches(&mut seen, 1, 1).await;
}

/// Two customers; what `change` makes of it is signed, and may be no Snapshot.
fn two(revision: u64, change: impl FnOnce(&mut serde_json::Value)) -> serde_json::Value {
    let mut snapshot = serving(revision);
    let mut beta = snapshot.customers.values().next().unwrap().clone();
    beta.id = "01a20de4-d54c-7659-9f5b-f4ec6569bb31".parse().unwrap();
    beta.stages.values_mut().for_each(|stage| stage.account = "B".into());
    snapshot.customers.insert(bastide_types::CustomerName::new("beta").unwrap(), beta);
    let mut value = serde_json::to_value(snapshot).unwrap();
    change(&mut value);
    value
}

fn offer_value(fake: &Fake, key: &SigningKey, revision: u64, value: &serde_json::Value) {
    let bytes = serde_json::to_vec(&key.sign(value).unwrap()).unwrap();
    let digest = fake.put(bytes.clone(), None);
    let bytes = bytes.len() as u64;
    *fake.head.lock().unwrap() = Some(SnapshotHead { epoch: 1, revision, digest, bytes });
}

const NUMBER: &str = "/customers/acme/stages/production/apps/shop/revision_number";
const OTHERS: &str = "/customers/beta/stages/production/apps/shop/revision_number";

fn numbers(snapshot: &Snapshot) -> [Option<u32>; 2] {
    let value = serde_json::to_value(snapshot).unwrap();
    [NUMBER, OTHERS].map(|at| value.pointer(at).and_then(|number| Some(number.as_u64()? as u32)))
}

#[tokio::test]
async fn one_bad_object_stays_as_it_was_also_after_a_restart_and_the_platform_hears_of_it() {
    let mut house = House::new();
    let (fake, key) = (Arc::new(Fake::default()), signing_key());
    let platform = house.platform(&fake).await;
    let config = house.role(Role::Edge, "edge");
    let edge = connected(&config).await;
    offer_value(&fake, &key, 1, &two(1, |_| ()));
    let dir = house.dir.path().to_owned();
    let follow = |bus: &Bus| {
        let stop = CancellationToken::new();
        snapshot::follow(bus, &dir, key.verify_key(), snapshot::as_it_is, stop)
    };
    let mut seen = follow(&edge);
    reaches(&mut seen, 1, 1).await;
    // Twice, so that the Snapshot before is no help either.
    for revision in [2, 3] {
        let bad = two(revision, |value| {
            *value.pointer_mut(NUMBER).unwrap() = "many".into();
            *value.pointer_mut(OTHERS).unwrap() = revision.into();
        });
        offer_value(&fake, &key, revision, &bad);
        platform.bus.hint_snapshot(1, revision).await.unwrap();
        reaches(&mut seen, 1, revision).await;
        assert_eq!(numbers(&seen.borrow().clone().unwrap()), [Some(1), Some(revision as u32)]);
    }
    judged(&fake, &platform).await;
    let told = fake.troubles.lock().unwrap().clone();
    assert!(told.len() == 1 && told[0].starts_with("app acme/production/shop: "), "{told:?}");
    edge.close().await;
    platform.stop.cancel();
    house.kill();

    let alone = Bus::connect(&config).await.unwrap();
    let kept = follow(&alone).borrow().clone().unwrap();
    assert_eq!((kept.revision, numbers(&kept)), (3, [Some(1), Some(3)]));
    alone.close().await;

    house.start();
    let platform = house.platform(&fake).await;
    let edge = connected(&config).await;
    let mut seen = follow(&edge);
    offer_value(&fake, &key, 4, &two(4, |value| *value.pointer_mut(NUMBER).unwrap() = 9.into()));
    platform.bus.hint_snapshot(1, 4).await.unwrap();
    reaches(&mut seen, 1, 4).await;
    assert_eq!(numbers(&seen.borrow().clone().unwrap()), [Some(9), Some(1)]);
    judged(&fake, &platform).await;
    assert_eq!(*fake.troubles.lock().unwrap(), Vec::<String>::new());
    assert!(!house.path("snapshot.whole").exists(), "it is needed no more");
}

#[tokio::test]
async fn a_customer_that_a_station_cannot_serve_stays_as_it_was_and_the_rest_is_new() {
    let house = House::new();
    let (fake, key) = (Arc::new(Fake::default()), signing_key());
    let platform = house.platform(&fake).await;
    let edge = house.edge("edge").await;
    let acme = || bastide_types::CustomerName::new("acme").unwrap();
    let build = move |snapshot: &Arc<Snapshot>, _: Option<&Arc<Snapshot>>| match numbers(snapshot) {
        [Some(13), _] => Err(Unfit::Customers([(acme(), "it leads elsewhere".to_owned())].into())),
        [_, Some(13)] => panic!("a fault of ours"),
        _ => Ok(snapshot.clone()),
    };
    let stop = CancellationToken::new();
    let mut seen = snapshot::follow(&edge, house.dir.path(), key.verify_key(), build, stop.clone());
    offer_value(&fake, &key, 1, &two(1, |_| ()));
    reaches(&mut seen, 1, 1).await;
    let bad = two(2, |value| {
        *value.pointer_mut(NUMBER).unwrap() = 13.into();
        *value.pointer_mut(OTHERS).unwrap() = 2.into();
    });
    offer_value(&fake, &key, 2, &bad);
    platform.bus.hint_snapshot(1, 2).await.unwrap();
    reaches(&mut seen, 1, 2).await;
    assert_eq!(numbers(&seen.borrow().clone().unwrap()), [Some(1), Some(2)]);
    // Where building itself fails, all stays as it was.
    offer_value(&fake, &key, 3, &two(3, |value| *value.pointer_mut(OTHERS).unwrap() = 13.into()));
    judged(&fake, &platform).await;
    assert_eq!(seen.borrow().as_ref().unwrap().revision, 2);
    judged(&fake, &platform).await;
    let told = fake.troubles.lock().unwrap().clone();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("refused: ") && told[1] == "customer acme: it leads elsewhere", "{told:?}");
    offer_value(&fake, &key, 4, &two(4, |_| ()));
    platform.bus.hint_snapshot(1, 4).await.unwrap();
    reaches(&mut seen, 1, 4).await;
    stop.cancel();
}
