//! Snapshots for edges and gateways.

use crate::house::*;
use bastide_bus::{Bus, SigningKey, snapshot};
use bastide_types::{Digest, Domains, Role, Snapshot};
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
        move |snapshot: &Snapshot| {
            if snapshot.made_at == 666 {
                refused.fetch_add(1, Ordering::SeqCst);
                return Err("the golden requests fail".into());
            }
            Ok(())
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
        snapshot::follow(bus, house.dir.path(), key.verify_key(), |_| Ok(()), CancellationToken::new())
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
        snapshot::follow(&alone, house.dir.path(), key.verify_key(), |_| Ok(()), CancellationToken::new())
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
    let mut seen =
        snapshot::follow(&edge, house.dir.path(), key.verify_key(), |_| Ok(()), CancellationToken::new());
    assert!(seen.borrow().is_none());
    house.start();
    let fake = Arc::new(Fake::default());
    offer(&fake, &key, &sample(1, 1));
    let _platform = house.platform(&fake).await;
    reaches(&mut seen, 1, 1).await;
}
