//! Every rule is there for a path: taking it away (together with its twins, which say the same elsewhere)
//! opens one or closes one, and this test can name it.

use crate::town::{INTERNET, planned, topology};
use bastide_isolation::{
    Direct, Plan, Topology, address,
    walk::{End, Packet, Protocol, walk},
};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// What may be taken away alone, or only together, as (which kind of namespace, rule).
const GROUPS: &[&[(char, &str)]] = &[
    &[('s', "no-ipv6"), ('z', "no-ipv6"), ('o', "no-ipv6")],
    &[('s', "spoofed"), ('z', "spoofed"), ('o', "spoofed")],
    &[('s', "blocked"), ('z', "blocked"), ('o', "blocked")],
    &[('s', "mid-stream"), ('z', "mid-stream")],
    &[('s', "denied-tcp")],
    &[('s', "denied-udp")],
    &[('s', "only-by-name-tcp")],
    &[('s', "only-by-name-udp")],
    &[('s', "allow")],
    &[('z', "allow")],
    &[('z', "probe")],
    &[('z', "by-name")],
    &[('z', "translate")],
    &[('o', "translate")],
    &[('o', "host"), ('z', "blocked"), ('s', "blocked")],
    &[('o', "no-router")],
];

/// Rules about what a walk does not know: earlier connections and counts. Twins of a chain's policy, kept for
/// their counters. `bastide verify` tries these on real packets.
const NOT_WALKED: &[(char, &str)] = &[
    ('s', "known"),
    ('s', "answers"),
    ('z', "known"),
    ('z', "answers"),
    ('o', "known"),
    ('s', "self-in"),
    ('s', "self-out"),
    ('z', "self-in"),
    ('z', "self-out"),
    // Says again what the policy routing says, for the day when a route is wrong.
    ('s', "no-way"),
    ('s', "cap-tcp"),
    ('s', "cap-udp"),
    ('s', "rest"),
    ('z', "rest"),
    ('z', "inward"),
    ('o', "inward"),
    ('o', "probe"),
];

/// Where one stage may not send packets to, and where it may go by name only.
const DENIED: Ipv4Addr = Ipv4Addr::new(11, 1, 0, 81);
const BY_NAME: Ipv4Addr = Ipv4Addr::new(11, 1, 0, 82);

fn kind(topology: &Topology, name: &str) -> char {
    match name.strip_prefix(&topology.installation.prefix()) {
        Some(rest) => rest.chars().next().unwrap(),
        None => 'o',
    }
}

fn without(topology: &Topology, plan: &Plan, group: &[(char, &str)]) -> Plan {
    let mut plan = plan.clone();
    for (name, namespace) in &mut plan.namespaces {
        let kind = kind(topology, name);
        for chain in namespace.rules.iter_mut().flat_map(|rules| &mut rules.chains) {
            chain.rules.retain(|rule| !group.contains(&(kind, rule.id)));
        }
    }
    plan
}

fn ways(topology: &Topology, plan: &Plan) -> Vec<(String, Packet, End)> {
    let replicas: Vec<_> = topology.stages.iter().flat_map(|stage| &stage.replicas).collect();
    let mut all = Vec::new();
    let own_host_address = Ipv4Addr::new(11, 9, 9, 9);
    let mut targets: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    targets.extend([
        INTERNET,
        DENIED,
        BY_NAME,
        Ipv4Addr::new(10, 0, 0, 1),
        own_host_address,
        topology.zones[0].uplink.outer,
    ]);
    for replica in &replicas {
        for to in &targets {
            for from in [replica.address, replicas[0].address] {
                let protocols = [
                    Protocol::Tcp(80),
                    Protocol::MidStream(80),
                    Protocol::Udp(80),
                    Protocol::Other,
                    Protocol::Ipv6,
                ];
                for protocol in protocols {
                    all.push((topology.installation.replica(replica.id), Packet { from, to: *to, protocol }));
                }
            }
        }
    }
    for (ordinal, zone) in topology.zones.iter().enumerate() {
        let (from, to) = (address::in_block(0, ordinal as u8 + 1), zone.uplink.outer);
        let prober = topology.installation.probe(&zone.zone);
        all.push((prober.clone(), Packet { from, to, protocol: Protocol::Tcp(9) }));
        all.push((prober, Packet { from, to: INTERNET, protocol: Protocol::Tcp(443) }));
    }
    all.push((
        "elsewhere".into(),
        Packet { from: INTERNET, to: Ipv4Addr::new(11, 7, 7, 7), protocol: Protocol::Tcp(80) },
    ));
    all.into_iter().map(|(start, packet)| (start.clone(), packet, walk(plan, &start, packet).end)).collect()
}

#[test]
fn every_rule_is_there_for_a_path() {
    let mut topology = topology(&[vec![1, 1], vec![1, 1]], true, false);
    topology.stages[1].direct = Direct {
        allowed: vec![("11.1.0.80/31".parse().unwrap(), Some(80))],
        denied: vec![(Ipv4Net::from(DENIED), Some(80))],
    };
    let mut plan = planned(&topology);
    // Another machine behind the host, which must not become its router.
    let outside = plan.namespaces.get_mut(Plan::OUTSIDE).unwrap();
    outside.addresses.push(("eth0".into(), Ipv4Addr::new(11, 9, 9, 9)));
    let route = bastide_isolation::Route {
        to: "0.0.0.0/0".parse().unwrap(),
        via: None,
        link: "eth9".into(),
        table: bastide_isolation::MAIN,
    };
    let elsewhere = bastide_isolation::Namespace { routes: vec![route], ..Default::default() };
    plan.namespaces.insert("elsewhere".into(), elsewhere);
    plan.links.push(bastide_isolation::Link {
        near: ("elsewhere".into(), "eth9".into()),
        far: (Plan::OUTSIDE.into(), "eth0".into()),
    });
    let before = ways(&topology, &plan);
    for group in GROUPS {
        let after = ways(&topology, &without(&topology, &plan, group));
        let changed: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(!changed.is_empty(), "nothing depends on {group:?}");
    }
    for (name, namespace) in &plan.namespaces {
        let kind = kind(&topology, name);
        for rule in namespace.rules.iter().flat_map(|rules| &rules.chains).flat_map(|chain| &chain.rules) {
            let known = GROUPS.iter().flat_map(|group| *group).chain(NOT_WALKED);
            assert!(known.clone().any(|each| *each == (kind, rule.id)), "{kind} {} is in no group", rule.id);
        }
    }
}
