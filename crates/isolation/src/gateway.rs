//! The NAT gateway of a zone: the only way out, with that zone's address as the source.

use crate::{
    Namespace, Plan, PlanError, Route, Topology, ZoneNet, address, name,
    plan::{Link, MAIN, anywhere, only},
    router::TABLE,
    rules::{Chain, Hook, Match, Members, Rule, Ruleset, Set, Verdict},
};
use std::collections::BTreeSet;

/// The gateway's link outwards.
pub(crate) const WAN: &str = "wan0";
/// Its link to the namespace from which it is probed.
pub(crate) const PROBE: &str = "probe";
/// Port of the probe on the other end of the link outwards (discard, RFC 863). Nothing listens there: the reset
/// that comes back is the proof that packets pass both ways and are translated.
pub const PROBE_PORT: u16 = 9;

pub(crate) fn plan(
    topology: &Topology,
    ordinal: u8,
    zone: &ZoneNet,
    plan: &mut Plan,
    add: impl Fn(&mut Plan, String, Namespace) -> Result<(), PlanError>,
) -> Result<(), PlanError> {
    let here = topology.installation.gateway(&zone.zone);
    let prober = address::in_block(0, ordinal + 1);
    let mut gateway = Namespace {
        rules: Some(rules(topology, zone, prober)),
        forwards: true,
        addresses: vec![("lo".into(), address::GATEWAY), (WAN.into(), zone.uplink.inner)],
        routes: vec![
            Route { to: anywhere(), via: Some(zone.uplink.outer), link: WAN.into(), table: MAIN },
            Route { to: only(prober), via: None, link: PROBE.into(), table: MAIN },
        ],
        // Bytes and times of each flow, for the flow log. An hour of silence ends a connection, not five days.
        settings: vec![
            ("netfilter/nf_conntrack_acct", "1"),
            ("netfilter/nf_conntrack_timestamp", "1"),
            ("netfilter/nf_conntrack_tcp_timeout_established", "3600"),
        ],
        ..Namespace::default()
    };
    for stage in &topology.stages {
        gateway.routes.push(Route {
            to: address::block(stage.block),
            via: Some(address::ROUTER),
            link: name::stage_link(&stage.account),
            table: MAIN,
        });
    }
    let probe = Namespace {
        addresses: vec![("eth0".into(), prober)],
        routes: vec![Route { to: anywhere(), via: Some(address::GATEWAY), link: "eth0".into(), table: MAIN }],
        ..Namespace::default()
    };
    let from = topology.installation.probe(&zone.zone);
    plan.links.push(Link {
        near: (here.clone(), WAN.into()),
        far: (Plan::OUTSIDE.into(), topology.installation.uplink(&zone.zone)),
    });
    plan.links.push(Link { near: (here.clone(), PROBE.into()), far: (from.clone(), "eth0".into()) });
    add(plan, from, probe)?;
    add(plan, here, gateway)
}

fn rules(topology: &Topology, zone: &ZoneNet, prober: std::net::Ipv4Addr) -> Ruleset {
    let mut senders = BTreeSet::from([(PROBE.to_owned(), only(prober))]);
    senders.extend(
        topology.stages.iter().map(|stage| (name::stage_link(&stage.account), address::block(stage.block))),
    );
    senders.extend([address::GATEWAY, zone.uplink.inner].map(|own| ("lo".to_owned(), only(own))));
    let from_stages = || Match::In("s*".into());
    let pre = vec![
        Rule::no_ipv6(),
        Rule::new("spoofed", vec![Match::NotIn(WAN.into()), Match::SenderNotIn("senders")], Verdict::Drop),
    ];
    let forward = vec![
        Rule::known(),
        Rule::new(
            "probe",
            vec![Match::In(PROBE.into()), Match::ToAddress(zone.uplink.outer), Match::TcpPort(PROBE_PORT)],
            Verdict::Accept,
        ),
        Rule::new("inward", vec![Match::NotOut(WAN.into())], Verdict::Drop),
        Rule::new("blocked", vec![Match::To("blocked")], Verdict::Drop),
        // After a repair nothing is known of older connections: say so at once instead of letting them hang.
        Rule::new("mid-stream", vec![from_stages(), Match::NotSyn], Verdict::Reset),
        Rule::new("allow", vec![from_stages(), Match::Out(WAN.into()), Match::TcpOrUdp], Verdict::Accept),
        // What the egress proxy dials for apps that call by name: its sockets are made beside the probe's.
        Rule::new(
            "by-name",
            vec![Match::In(PROBE.into()), Match::Out(WAN.into()), Match::TcpOrUdp],
            Verdict::Accept,
        ),
        Rule::new("rest", vec![], Verdict::Drop),
    ];
    let snat = Rule::new(
        "translate",
        vec![Match::Out(WAN.into())],
        Verdict::Snat(zone.uplink.inner, zone.uplink.inner),
    );
    let mut chains = vec![
        Chain::filter(Hook::Prerouting, -300, false, pre),
        Chain::filter(Hook::Forward, 0, true, forward),
    ];
    chains.extend(Chain::closed());
    chains.push(Chain::filter(Hook::Postrouting, 100, false, vec![snat]));
    Ruleset {
        table: TABLE.into(),
        reports: true,
        sets: vec![
            Set { name: "blocked", members: Members::Ranges(topology.blocked_ranges()) },
            Set { name: "senders", members: Members::Senders(senders) },
        ],
        chains,
    }
}
