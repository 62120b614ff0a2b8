//! Topologies to plan for.

use bastide_isolation::{
    Caps, Direct, Failover, Installation, Ledger, Outside, Plan, ReplicaNet, StageNet, Topology, Uplink,
    ZoneNet, address, plan,
};
use bastide_types::{ReplicaId, ZoneName};
use std::net::Ipv4Addr;

pub const INTERNET: Ipv4Addr = Ipv4Addr::new(11, 1, 0, 80);

/// Zones `a`, `b`, …; `stages[i][j]` is the number of replicas of stage `i` in zone `j`.
pub fn topology(stages: &[Vec<u8>], host: bool, failover: bool) -> Topology {
    let zones = stages.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let zone = |ordinal: usize| ZoneName::new(((b'a' + ordinal as u8) as char).to_string()).unwrap();
    let mut ledger = Ledger::default();
    let mut number = 0_u128;
    let stages = stages.iter().enumerate().map(|(index, replicas)| {
        let account = format!("ACCOUNT{index}");
        let mut all = Vec::new();
        for (ordinal, count) in replicas.iter().enumerate() {
            for _ in 0..*count {
                number += 1;
                let id = ReplicaId(uuid_of(number));
                let address = ledger.replica(&account, id).unwrap();
                all.push(ReplicaNet { id, zone: zone(ordinal), address });
            }
        }
        let failover = (failover && zones > 1).then(|| Failover { from: zone(0), to: zone(1) });
        StageNet {
            block: ledger.stage(&account).unwrap(),
            account,
            replicas: all,
            failover: failover.into_iter().collect(),
            direct: Direct::default(),
        }
    });
    let stages = stages.collect();
    let zones = (0..zones).map(|ordinal| {
        let (outer, inner) = address::uplink(7, ordinal as u8);
        let given = Ipv4Addr::new(11, 1, 0, 11 + ordinal as u8);
        let uplink = if host {
            Uplink { inner, outer, public: None }
        } else {
            Uplink { inner: given, outer: Ipv4Addr::new(11, 1, 0, 1), public: None }
        };
        ZoneNet { zone: zone(ordinal), uplink }
    });
    Topology {
        installation: Installation::of("/test"),
        zones: zones.collect(),
        stages,
        outside: if host { Outside::Host { routes_already: false } } else { Outside::Given },
        blocked: vec!["11.2.0.0/16".parse().unwrap()],
        caps: Caps::default(),
        canary: None,
    }
}

fn uuid_of(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

pub fn planned(topology: &Topology) -> Plan {
    plan(topology).unwrap()
}
