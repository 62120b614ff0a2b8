//! Fairness and boundaries, for all spreads of replicas.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod scale;

use bastide_balancer::{AppKey, Directory, Rotation};
use bastide_types::{
    AppId, AppName, CustomerId, CustomerName, Digest, Domains, Purges, ReplicaId, Snapshot, StageName,
    ZoneName,
    message::{Reach, ReplicaFact, ReplicaFacts, ReplicaState},
    snapshot::{App, Customer, Issuer, Stage},
};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

fn zone(name: &str) -> ZoneName {
    ZoneName::new(name).unwrap()
}

fn issuer() -> Issuer {
    Issuer { url: String::new(), keys: vec![], token_epoch: 0 }
}

/// A Snapshot with one app whose replicas lie in these zones, and facts that say all are ready.
fn world(zones: &[&str]) -> (Snapshot, HashMap<String, ReplicaFacts>, AppKey) {
    let replicas: BTreeMap<ReplicaId, ZoneName> =
        zones.iter().map(|name| (ReplicaId::generate(), zone(name))).collect();
    let facts = replicas.keys().map(|id| ReplicaFact {
        reach: Some(Reach::Address(([127, 0, 0, 1], 1).into())),
        ..ReplicaFact::new(*id, ReplicaState::Ready)
    });
    let facts = ReplicaFacts { boot: 1, sequence: 1, generation: 1, replicas: facts.collect() };
    let app = App {
        id: AppId::generate(),
        revision: Digest::from_sha256([0; 32]),
        revision_number: 1,
        routes: vec![],
        replicas,
        waf: None,
        purges: Purges::default(),
    };
    let customer_id = CustomerId::generate();
    let key = AppKey { customer: customer_id, stage: StageName::production(), app: app.id };
    let stage = Stage {
        account: "ACC".into(),
        issuer: issuer(),
        waf: Digest::from_sha256([0; 32]),
        site: None,
        apps: [(AppName::new("shop").unwrap(), app)].into(),
    };
    let customer = Customer {
        id: customer_id,
        issuer: issuer(),
        bans: Vec::new(),
        stages: [(StageName::production(), stage)].into(),
    };
    let snapshot = Snapshot {
        epoch: 1,
        revision: 1,
        made_at: 0,
        domains: Domains::default(),
        customers: [(CustomerName::new("acme").unwrap(), customer)].into(),
        hosts: std::collections::BTreeMap::new(),
        waf: BTreeMap::new(),
        kept: Vec::new(),
        schema: bastide_types::snapshot::SCHEMA,
        platform_waf: Digest::from_sha256([0; 32]),
    };
    (snapshot, [("ACC".to_owned(), facts)].into(), key)
}

fn picks(rotation: &Rotation, directory: &Directory, key: &AppKey, n: usize) -> Vec<ReplicaId> {
    (0..n)
        .map(|_| {
            let zone = rotation.pick_zone(key, directory, &[]).unwrap();
            rotation.pick_replica(key, &zone, directory, &[]).unwrap().replica
        })
        .collect()
}

#[test]
fn zones_and_replicas_alternate_strictly() {
    let (snapshot, facts, key) = world(&["a", "a", "b", "b"]);
    let directory = Directory::build(&snapshot, &facts);
    let picks = picks(&Rotation::new(), &directory, &key, 8);
    assert_eq!(picks[..4], picks[4..]);
    let zones: Vec<_> = picks
        .iter()
        .map(|id| directory.ready(&key, &zone("a")).iter().any(|endpoint| endpoint.replica == *id))
        .collect();
    assert_eq!(zones, [true, false, true, false, true, false, true, false]);
}

#[test]
fn a_zone_without_ready_replicas_spills_to_the_other() {
    let (snapshot, mut facts, key) = world(&["a", "b"]);
    let gone = *snapshot.customers.values().next().unwrap().stages[&StageName::production()].apps
        [&AppName::new("shop").unwrap()]
        .replicas
        .iter()
        .find(|(_, z)| **z == zone("a"))
        .unwrap()
        .0;
    for fact in &mut facts.get_mut("ACC").unwrap().replicas {
        if fact.id == gone {
            fact.state = ReplicaState::Draining;
        }
    }
    let directory = Directory::build(&snapshot, &facts);
    let rotation = Rotation::new();
    assert_eq!(rotation.pick_zone(&key, &directory, &[]), Some(zone("b")));
    let endpoint = rotation.pick_replica(&key, &zone("a"), &directory, &[]).unwrap();
    assert_ne!(endpoint.replica, gone);
    assert_eq!(rotation.pick_replica(&key, &zone("a"), &directory, &[endpoint.replica]), None);
}

#[test]
fn facts_of_another_account_do_not_count() {
    let (snapshot, facts, key) = world(&["a"]);
    let foreign = [("OTHER".to_owned(), facts["ACC"].clone())].into();
    let directory = Directory::build(&snapshot, &foreign);
    assert_eq!(Rotation::new().pick_zone(&key, &directory, &[]), None);
}

proptest! {
    #[test]
    fn every_replica_gets_the_same_share_for_any_spread(spread in proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..9), rounds in 1_usize..5) {
        let (snapshot, facts, key) = world(&spread);
        let directory = Directory::build(&snapshot, &facts);
        let picks = picks(&Rotation::new(), &directory, &key, spread.len() * rounds);
        let mut counts = HashMap::new();
        for pick in picks {
            *counts.entry(pick).or_insert(0) += 1;
        }
        prop_assert_eq!(counts.len(), spread.len());
        prop_assert!(counts.values().all(|count| *count == rounds), "{:?}", counts);
    }
}
