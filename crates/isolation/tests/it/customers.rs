//! No plan has a path between customers, or to anything but the internet.

use crate::town::{INTERNET, planned, topology};
use bastide_isolation::{
    Canary, CanaryPorts, Direct, Outside, Plan, ReplicaNet, StageNet, Topology, address, blocked,
    plan as plan_of,
    walk::{End, Packet, Protocol, walk},
};
use bastide_types::egress::{EgressMode, EgressPolicy};
use ipnet::Ipv4Net;
use proptest::prelude::*;
use std::{collections::BTreeSet, net::Ipv4Addr};

const PROTOCOLS: [Protocol; 5] =
    [Protocol::Tcp(80), Protocol::MidStream(80), Protocol::Udp(80), Protocol::Other, Protocol::Ipv6];

/// An address of the host's own that is on the internet.
const HOST: Ipv4Addr = Ipv4Addr::new(11, 9, 9, 9);

fn with_host_address(mut plan: Plan) -> Plan {
    plan.namespaces.get_mut(Plan::OUTSIDE).unwrap().addresses.push(("eth0".into(), HOST));
    plan
}

/// Every address that exists, and some that are never the internet.
fn destinations(plan: &Plan, topology: &Topology) -> BTreeSet<Ipv4Addr> {
    let mut all: BTreeSet<_> =
        plan.namespaces.values().flat_map(|n| &n.addresses).map(|(_, address)| *address).collect();
    all.extend(blocked::ranges(&topology.blocked).iter().flat_map(|net| [net.network(), net.broadcast()]));
    all.extend([INTERNET, Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(11, 2, 3, 4)]);
    all
}

fn judge(topology: &Topology, plan: &Plan, stage: &StageNet, replica: &ReplicaNet, packet: Packet) {
    let own = topology.installation.replica(replica.id);
    let way = walk(plan, &own, packet);
    let exit = stage.failover.iter().find(|f| f.from == replica.zone).map_or(&replica.zone, |f| &f.to);
    let zone = topology.zones.iter().find(|zone| zone.zone == *exit).unwrap();
    let is_blocked = |to| blocked::ranges(&topology.blocked).iter().any(|net: &Ipv4Net| net.contains(&to));
    match &way.end {
        End::Delivered(namespace) if *namespace == own => {}
        End::Left { .. } | End::Delivered(_) => {
            let gateway = topology.installation.gateway(exit);
            assert!(!is_blocked(packet.to), "{packet:?} {way:?}");
            assert_eq!(packet.from, replica.address, "{way:?}");
            assert!(matches!(packet.protocol, Protocol::Tcp(_) | Protocol::Udp(_)), "{packet:?} {way:?}");
            let router = topology.installation.router(&stage.account);
            assert_eq!(way.passed, [own, router, gateway, Plan::OUTSIDE.into()]);
            match (&topology.outside, &way.end) {
                (Outside::Host { .. }, End::Left { source }) => assert_eq!(*source, None),
                (Outside::Given, End::Left { source }) => assert_eq!(*source, Some(zone.uplink.inner)),
                // In a given namespace its own addresses are part of the internet.
                (Outside::Given, End::Delivered(namespace)) => assert_eq!(namespace, Plan::OUTSIDE),
                other => panic!("{packet:?} reached {other:?}: {way:?}"),
            }
        }
        End::Stopped(..) | End::NoRoute(_) => {}
    }
    if packet.to == INTERNET
        && packet.from == replica.address
        && matches!(packet.protocol, Protocol::Tcp(_) | Protocol::Udp(_))
    {
        assert!(matches!(way.end, End::Left { .. }), "{way:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_has_a_path_between_customers(
        stages in prop::collection::vec(prop::collection::vec(0_u8..3, 1..4), 1..4),
        host: bool,
        failover: bool,
    ) {
        let topology = topology(&stages, host, failover);
        let plan = with_host_address(planned(&topology));
        let targets = destinations(&plan, &topology);
        let replicas: Vec<_> =
            topology.stages.iter().flat_map(|stage| stage.replicas.iter().map(move |one| (stage, one))).collect();
        for (stage, replica) in &replicas {
            let mut sources: Vec<_> = replicas.iter().map(|(_, other)| other.address).collect();
            sources.extend([address::BROKER, address::ROUTER, INTERNET, HOST, topology.zones[0].uplink.inner]);
            for from in sources {
                for to in &targets {
                    for protocol in PROTOCOLS {
                        judge(&topology, &plan, stage, replica, Packet { from, to: *to, protocol });
                    }
                }
            }
        }
    }

    #[test]
    fn a_canary_opens_one_address_and_no_more(
        stages in prop::collection::vec(prop::collection::vec(1_u8..3, 2..4), 1..4),
        host: bool,
    ) {
        let mut topology = topology(&stages, host, false);
        let closed = vec![Ipv4Addr::new(10, 9, 8, 7), Ipv4Addr::new(198, 18, 3, 5), Ipv4Addr::new(11, 2, 0, 9)];
        let canary = Canary { outer: address::canary_link(7).0, open: Ipv4Addr::new(198, 18, 3, 4),
        ports: CanaryPorts { allowed: 4001, denied: 4002, unnamed: 4003 }, closed, bystander: host.then(|| address::bystander_link(7)) };
        topology.canary = Some(canary.clone());
        let plan = planned(&topology);
        let machine = topology.installation.canary();
        for replica in topology.stages.iter().flat_map(|stage| &stage.replicas) {
            let start = topology.installation.replica(replica.id);
            let to = |to| Packet { from: replica.address, to, protocol: Protocol::Udp(80) };
            let open = walk(&plan, &start, to(canary.open)).end;
            prop_assert_eq!(open, End::Delivered(machine.clone()));
            for closed in &canary.closed {
                let end = walk(&plan, &start, to(*closed)).end;
                prop_assert!(matches!(end, End::Stopped(..)), "{end:?}");
            }
        }
        // What no gateway sent goes where it always went.
        for to in [canary.open, canary.closed[0]] {
            let end = walk(&plan, Plan::OUTSIDE, Packet { from: HOST, to, protocol: Protocol::Udp(80) }).end;
            let is_left = matches!(end, End::Left { .. });
            prop_assert!(is_left, "{end:?}");
        }
        if let Some((_, inner)) = canary.bystander {
            let packet = Packet { from: inner, to: canary.open, protocol: Protocol::Udp(80) };
            let end = walk(&plan, &topology.installation.bystander(), packet).end;
            prop_assert_eq!(end, End::Stopped(Plan::OUTSIDE.into(), "no-router".into()));
        }
        topology.canary = Some(Canary { open: Ipv4Addr::new(198, 20, 0, 1), ..canary.clone() });
        prop_assert!(plan_of(&topology).is_err());
        topology.canary = Some(Canary { closed: vec![INTERNET], ..canary });
        prop_assert!(plan_of(&topology).is_err());
    }

    #[test]
    fn a_canary_is_invented_for_every_topology(
        stages in prop::collection::vec(prop::collection::vec(0_u8..3, 1..3), 0..3),
        host: bool,
        mut seed: u32,
    ) {
        let mut topology = topology(&stages, host, false);
        // Any numbers will do, the worst ones too.
        let numbers = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed
        };
        let canary = Canary::invent(&topology, 7, &[Ipv4Addr::new(10, 0, 0, 1)], numbers);
        prop_assert!(canary.closed.len() > 12, "{canary:?}");
        prop_assert!(canary.closed.iter().any(|to| "11.2.0.0/16".parse::<Ipv4Net>().unwrap().contains(to)));
        topology.canary = Some(canary);
        prop_assert!(plan_of(&topology).is_ok());
    }

    #[test]
    fn nothing_from_outside_gets_in(
        stages in prop::collection::vec(prop::collection::vec(0_u8..3, 1..3), 1..4),
        host: bool,
    ) {
        let topology = topology(&stages, host, false);
        let plan = planned(&topology);
        for to in destinations(&plan, &topology) {
            for from in [INTERNET, topology.zones[0].uplink.outer, Ipv4Addr::new(100, 64, 1, 1)] {
                for protocol in PROTOCOLS {
                    let way = walk(&plan, Plan::OUTSIDE, Packet { from, to, protocol });
                    let inside = matches!(&way.end, End::Delivered(namespace) if namespace != Plan::OUTSIDE);
                    prop_assert!(!inside, "{way:?}");
                }
            }
        }
    }
}

#[test]
fn where_a_policy_enforces_packets_go_to_its_networks_only() {
    let mut topology = topology(&[vec![1], vec![1]], true, false);
    let rules = |all: &[&str]| all.iter().map(|rule| rule.parse().unwrap()).collect();
    let policy = EgressPolicy {
        mode: EgressMode::Enforce,
        allow: rules(&["api.example", "11.1.0.80:80", "11.1.0.96/28"]),
        deny: rules(&["11.1.0.97:25"]),
    };
    topology.stages[0].direct = Direct::of(&policy);
    let plan = planned(&topology);
    let left = |stage: usize, to: Ipv4Addr, protocol| {
        let replica = &topology.stages[stage].replicas[0];
        let packet = Packet { from: replica.address, to, protocol };
        matches!(walk(&plan, &topology.installation.replica(replica.id), packet).end, End::Left { .. })
    };
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for (to, port, may) in [
            (INTERNET, 80, true),
            (INTERNET, 443, false),
            (Ipv4Addr::new(11, 1, 0, 81), 80, false),
            (Ipv4Addr::new(11, 1, 0, 97), 80, true),
            (Ipv4Addr::new(11, 1, 0, 97), 25, false),
        ] {
            assert_eq!(left(0, to, protocol(port)), may, "{to}:{port}");
            assert!(left(1, to, protocol(port)), "the other stage has no policy");
        }
    }
    // Another policy changes members of sets and no rule.
    let before = plan.namespaces[&topology.installation.router(&topology.stages[0].account)].rules.clone();
    topology.stages[0].direct = Direct::default();
    let after =
        &planned(&topology).namespaces[&topology.installation.router(&topology.stages[0].account)].rules;
    assert!(before.unwrap().differs_in_sets_only(after.as_ref().unwrap()));
}
