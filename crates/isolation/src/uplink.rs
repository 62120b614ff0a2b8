//! The namespace that the gateways go out by. On a host it is the host's own, so the rules here say what the
//! host may never do for apps: answer them, or route them to anything but the internet.

use crate::{
    Namespace, Outside, Route, Topology,
    gateway::PROBE_PORT,
    plan::{MAIN, only},
    rules::{Chain, Hook, Match, Members, Rule, Ruleset, Set, Verdict},
};

/// Before the host's own rules, so that none of them can be the first to accept.
const EARLY: i32 = -10;

/// Keeps a host that did not forward packets from forwarding anybody's but ours. Whoever takes the last table
/// with this rule away switches the host's forwarding off again.
pub const NO_ROUTER: &str = "no-router";

pub(crate) fn plan(topology: &Topology) -> Namespace {
    let mut outside = Namespace::default();
    for zone in &topology.zones {
        let link = topology.installation.uplink(&zone.zone);
        outside.addresses.push((link.clone(), zone.uplink.outer));
        outside.routes.push(Route { to: only(zone.uplink.inner), via: None, link, table: MAIN });
    }
    if let Outside::Host { routes_already } = topology.outside {
        outside.rules = Some(rules(topology, routes_already));
    }
    outside
}

fn rules(topology: &Topology, routes_already: bool) -> Ruleset {
    let ours = format!("{}u*", topology.installation.prefix());
    let (from, to) = (|| Match::In(ours.clone()), || Match::Out(ours.clone()));
    let senders =
        topology.zones.iter().map(|zone| (topology.installation.uplink(&zone.zone), only(zone.uplink.inner)));
    let pre = vec![
        Rule::new("no-ipv6", vec![from(), Match::Ipv6], Verdict::Drop),
        Rule::new("spoofed", vec![from(), Match::SenderNotIn("senders")], Verdict::Drop),
    ];
    let input = vec![
        // The answer to the gateways' own probe; it opens no port.
        Rule::new("probe", vec![from(), Match::To("probes"), Match::TcpPort(PROBE_PORT)], Verdict::Reset),
        Rule::new("host", vec![from()], Verdict::Drop),
    ];
    let mut forward = Vec::new();
    if !routes_already {
        forward.push(Rule::new(NO_ROUTER, vec![Match::FromOthers, Match::ToOthers], Verdict::Drop));
    }
    forward.extend([
        Rule::known(),
        Rule::new("inward", vec![to()], Verdict::Drop),
        Rule::new("blocked", vec![from(), Match::To("blocked")], Verdict::Drop),
    ]);
    let translate = topology.zones.iter().map(|zone| {
        let when = vec![Match::FromAddress(zone.uplink.inner)];
        match zone.uplink.public {
            None => Rule::new("translate", when, Verdict::Masquerade),
            Some(public) => Rule::new("translate", when, Verdict::Snat(public, public)),
        }
    });
    Ruleset {
        table: topology.installation.table(),
        reports: false,
        sets: vec![
            Set { name: "blocked", members: Members::Ranges(topology.blocked_ranges()) },
            Set {
                name: "probes",
                members: Members::Ranges(ipnet::Ipv4Net::aggregate(
                    &topology.zones.iter().map(|zone| only(zone.uplink.outer)).collect::<Vec<_>>(),
                )),
            },
            Set { name: "senders", members: Members::Senders(senders.collect()) },
        ],
        chains: vec![
            Chain::filter(Hook::Prerouting, -310, false, pre),
            Chain::filter(Hook::Input, EARLY, false, input),
            Chain::filter(Hook::Forward, EARLY, false, forward),
            Chain::filter(Hook::Postrouting, 100, false, translate.collect()),
        ],
    }
}
