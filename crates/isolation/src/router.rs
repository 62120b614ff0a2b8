//! The router of a customer's stage: the only neighbour its replicas have.
//!
//! A replica's address is a /32 on a cable to the router: no subnet, no bridge, no neighbour to speak to. What
//! it sends goes to the gateway of its zone or nowhere.

use crate::direct::disjoint;
use crate::{
    Namespace, Packets, Plan, PlanError, Policy, Route, StageNet, Topology, address, name,
    plan::{LOCAL, Link, MAIN, anywhere, only},
    rules::{Chain, Hook, Match, Members, Rule, Ruleset, Set, Transport, Verdict},
};
use bastide_types::ZoneName;
use std::collections::BTreeSet;

/// Routing tables of the zones: this and the zone's ordinal.
const FIRST_TABLE: u32 = 101;

/// The table inside namespaces that are ours alone.
pub const TABLE: &str = "bastide";

pub(crate) fn plan(
    topology: &Topology,
    stage: &StageNet,
    plan: &mut Plan,
    add: impl Fn(&mut Plan, String, Namespace) -> Result<(), PlanError>,
) -> Result<(), PlanError> {
    let here = topology.installation.router(&stage.account);
    let mut router = Namespace {
        rules: Some(rules(topology, stage)),
        forwards: true,
        addresses: vec![("lo".into(), address::ROUTER)],
        // As in the gateways: what they have forgotten counts no more against the stage's cap.
        settings: vec![("netfilter/nf_conntrack_tcp_timeout_established", "3600")],
        ..Namespace::default()
    };
    for (ordinal, zone) in topology.zones.iter().enumerate() {
        let link = name::zone_link(&zone.zone);
        router.routes.push(Route {
            to: anywhere(),
            via: Some(address::GATEWAY),
            link: link.clone(),
            table: FIRST_TABLE + ordinal as u32,
        });
        plan.links.push(Link {
            near: (topology.installation.gateway(&zone.zone), name::stage_link(&stage.account)),
            far: (here.clone(), link),
        });
    }
    for replica in &stage.replicas {
        let (link, there) = (name::replica_link(replica.id), topology.installation.replica(replica.id));
        let exit = exit(stage, &replica.zone);
        let ordinal = topology.zones.iter().position(|zone| zone.zone == *exit).unwrap_or_default();
        router
            .policies
            .push(Policy { of: Packets::CameBy(link.clone()), table: FIRST_TABLE + ordinal as u32 });
        router.routes.push(Route { to: only(replica.address), via: None, link: link.clone(), table: MAIN });
        let namespace = Namespace {
            addresses: vec![("lo".into(), address::BROKER), ("eth0".into(), replica.address)],
            routes: vec![
                Route { to: anywhere(), via: Some(address::ROUTER), link: "eth0".into(), table: MAIN },
                Route { to: address::inside(), via: None, link: "lo".into(), table: LOCAL },
            ],
            ..Namespace::default()
        };
        add(plan, there.clone(), namespace)?;
        plan.links.push(Link { near: (here.clone(), link), far: (there, "eth0".into()) });
    }
    add(plan, here, router)
}

/// The zone whose gateway a replica of `zone` goes out by.
fn exit<'a>(stage: &'a StageNet, zone: &'a ZoneName) -> &'a ZoneName {
    stage.failover.iter().find(|failover| failover.from == *zone).map_or(zone, |failover| &failover.to)
}

fn rules(topology: &Topology, stage: &StageNet) -> Ruleset {
    let mut senders = BTreeSet::new();
    let mut ways = BTreeSet::new();
    for replica in &stage.replicas {
        let link = name::replica_link(replica.id);
        senders.insert((link.clone(), only(replica.address)));
        ways.insert((link, name::zone_link(exit(stage, &replica.zone))));
    }
    let direct =
        topology.canary.as_ref().map_or_else(|| stage.direct.clone(), |canary| stage.direct.with(canary));
    let from_replicas = || Match::In("r*".into());
    let pre = vec![
        Rule::no_ipv6(),
        Rule::new("spoofed", vec![from_replicas(), Match::SenderNotIn("senders")], Verdict::Drop),
    ];
    let forward = vec![
        Rule::known(),
        Rule::new("no-way", vec![Match::WayNotIn("ways")], Verdict::Drop),
        Rule::new("blocked", vec![Match::To("blocked")], Verdict::Drop),
        Rule::new("mid-stream", vec![Match::NotSyn], Verdict::Reset),
        Rule::new("denied-tcp", vec![Match::ServiceIn(Transport::Tcp, "denied")], Verdict::Reset),
        Rule::new("denied-udp", vec![Match::ServiceIn(Transport::Udp, "denied")], Verdict::Drop),
        Rule::new("only-by-name-tcp", vec![Match::ServiceNotIn(Transport::Tcp, "direct")], Verdict::Reset),
        Rule::new("only-by-name-udp", vec![Match::ServiceNotIn(Transport::Udp, "direct")], Verdict::Drop),
        Rule::new("cap-tcp", vec![Match::Tcp, Match::Over(topology.caps.tcp)], Verdict::Reset),
        Rule::new("cap-udp", vec![Match::Udp, Match::Over(topology.caps.udp)], Verdict::Drop),
        Rule::new("allow", vec![from_replicas(), Match::Out("z*".into()), Match::TcpOrUdp], Verdict::Accept),
        Rule::new("rest", vec![], Verdict::Drop),
    ];
    let mut chains = vec![
        Chain::filter(Hook::Prerouting, -300, false, pre),
        Chain::filter(Hook::Forward, 0, true, forward),
    ];
    chains.extend(Chain::closed());
    Ruleset {
        table: TABLE.into(),
        reports: true,
        sets: vec![
            Set { name: "blocked", members: Members::Ranges(topology.blocked_ranges()) },
            Set { name: "denied", members: Members::Services(disjoint(&direct.denied)) },
            Set { name: "direct", members: Members::Services(disjoint(&direct.allowed)) },
            Set { name: "senders", members: Members::Senders(senders) },
            Set { name: "ways", members: Members::Ways(ways) },
        ],
        chains,
    }
}
