//! What can go wrong besides a rule. Some rules are there for the day on which it has.

use crate::town::Town;
use bastide_isolation::{
    Plan, address,
    checks::{Check, Content, Crafted, Expected, How, Listener, Medium, Place, Port, Target, Trials, trials},
    name,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is wrong in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Situation {
    /// Nothing.
    Usual,
    /// Somebody switched IPv6 on everywhere, with addresses, routes and forwarding.
    Ipv6,
    /// A router sends a replica's packets to another zone's gateway.
    WrongGateway,
    /// A router sends packets of siblings to each other.
    Siblings,
    /// A gateway sends packets for the outside to a stage's router, which sends them to another gateway.
    Detour,
    /// The host sends packets of other machines to a gateway, which is to send them on.
    Hairpin,
    /// The host would send what comes untranslated to where it is to go.
    Untranslated,
}

/// Priority of routing rules that come before those of the plan.
const BEFORE: u32 = 50;
const TABLE: u32 = 777;
/// Canary of the IPv6 situation, and the ends of the links on the way there.
const V6: [Ipv6Addr; 8] = {
    const fn at(link: u16, end: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, link, 0, 0, 0, end)
    }
    [at(1, 2), at(1, 1), at(2, 1), at(2, 2), at(3, 1), at(3, 2), at(4, 1), at(4, 2)]
};

/// Names of what the first replica of the first stage meets on its way out.
struct Way {
    replica: Place,
    address: Ipv4Addr,
    app: String,
    router: String,
    gateways: [String; 2],
    replica_link: String,
    zone_links: [String; 2],
    stage_link: String,
    uplinks: [String; 2],
    canary: String,
}

impl Way {
    fn of(town: &Town) -> Self {
        let here = &town.topology.installation;
        let (stage, zones) = (&town.topology.stages[0], &town.topology.zones);
        let replica = &stage.replicas[0];
        Self {
            replica: Place::Replica(replica.id),
            address: replica.address,
            app: here.replica(replica.id),
            router: here.router(&stage.account),
            gateways: [0, 1].map(|ordinal| here.gateway(&zones[ordinal].zone)),
            replica_link: name::replica_link(replica.id),
            zone_links: [0, 1].map(|ordinal| name::zone_link(&zones[ordinal].zone)),
            stage_link: name::stage_link(&stage.account),
            uplinks: [0, 1].map(|ordinal| here.uplink(&zones[ordinal].zone)),
            canary: here.canary(),
        }
    }
}

impl Situation {
    /// Makes it so.
    pub fn make(self, town: &Town) {
        let way = Way::of(town);
        match self {
            Self::Usual => {}
            Self::Untranslated => {
                let (from, table) = (way.address, town.topology.installation.canary_table());
                town.ip(Plan::OUTSIDE, &format!("rule add pref {BEFORE} from {from} lookup {table}"));
            }
            Self::Ipv6 => ipv6(town, &way),
            Self::WrongGateway => {
                let iif = &way.replica_link;
                town.ip(&way.router, &format!("rule add pref {BEFORE} iif {iif} lookup 102"));
            }
            Self::Siblings => {
                let block = address::block(town.topology.stages[0].block);
                town.ip(&way.router, &format!("rule add pref {BEFORE} to {block} lookup main"));
            }
            Self::Detour => {
                let open = town.open();
                let (link, router) = (&way.stage_link, address::ROUTER);
                town.ip(&way.gateways[1], &format!("rule add pref {BEFORE} to {open} lookup {TABLE}"));
                town.ip(
                    &way.gateways[1],
                    &format!("route add default via {router} dev {link} onlink table {TABLE}"),
                );
                let iif = &way.zone_links[1];
                town.ip(&way.router, &format!("rule add pref {BEFORE} iif {iif} lookup 101"));
            }
            Self::Hairpin => {
                let (open, (_, bystander)) = (town.open(), address::bystander_link(crate::town::SLOT));
                let (gateway, link) = (town.topology.zones[0].uplink.inner, &way.uplinks[0]);
                let rule = format!("rule add pref {BEFORE} from {bystander} to {open} lookup {TABLE}");
                town.ip(Plan::OUTSIDE, &rule);
                let route = format!("route add default via {gateway} dev {link} onlink table {TABLE}");
                town.ip(Plan::OUTSIDE, &route);
            }
        }
    }

    /// What is tried in it: everything, or what it is about.
    pub fn trials(self, town: &Town) -> Trials {
        let way = Way::of(town);
        let mut all = trials(&town.topology, &town.facts);
        let open = all
            .listeners
            .iter()
            .position(|one| one.at == IpAddr::V4(town.open()) && one.by == Medium::Udp)
            .unwrap();
        let nothing = |path, from: &Place, how| {
            let (from, to) = (from.clone(), Target::Listener(open));
            Check { path, from, to, how, expected: Expected::Nothing }
        };
        match self {
            Self::Usual => {}
            Self::Ipv6 => {
                all.checks.clear();
                for (by, how) in [(Medium::Tcp, How::Tcp(None)), (Medium::Udp, How::Udp(None))] {
                    let at = V6[7].into();
                    let to = Target::Listener(all.listeners.len());
                    all.listeners.push(Listener { place: Place::Canary, at, by, port: Port::Any });
                    let control = Check {
                        path: "control",
                        from: Place::Host,
                        to: to.clone(),
                        how: how.clone(),
                        expected: Expected::Answer(None),
                    };
                    all.controls.push(control);
                    let from = way.replica.clone();
                    let expected = Expected::Nothing;
                    all.checks.push(Check { path: "ipv6-switched-on", from, to, how, expected });
                }
            }
            Self::WrongGateway => {
                all.checks = vec![nothing("wrong-gateway", &way.replica, How::Udp(None))];
            }
            Self::Siblings => all.checks.retain(|check| check.path == "own-other-replica"),
            Self::Detour => {
                let lie = Crafted { source: Some(way.address), ..Crafted::honest(Content::Udp) };
                let from = Place::Gateway(town.topology.zones[1].zone.clone());
                all.checks = vec![nothing("detour", &from, How::Crafted(lie))];
            }
            Self::Hairpin => all.checks.retain(|check| check.path == "host-as-router"),
            Self::Untranslated => {
                all.checks = vec![nothing("untranslated", &way.replica, How::Udp(None))];
            }
        }
        all
    }

    /// Makes it as it was.
    pub fn undo(self, town: &Town) {
        let way = Way::of(town);
        let (rule, table) = (format!("rule del pref {BEFORE}"), format!("route flush table {TABLE}"));
        match self {
            Self::Usual => {}
            Self::Untranslated => town.ip(Plan::OUTSIDE, &rule),
            Self::Ipv6 => {
                for (namespace, link) in links(&way) {
                    town.set(namespace, &format!("ipv6/conf/{link}/disable_ipv6"), 1);
                }
                for namespace in [&way.app, &way.router, &way.gateways[0], &way.canary] {
                    town.set(namespace, "ipv6/conf/all/disable_ipv6", 1);
                }
                town.set(Plan::OUTSIDE, "ipv6/conf/all/forwarding", 0);
            }
            Self::WrongGateway | Self::Siblings => town.ip(&way.router, &rule),
            Self::Detour => {
                town.ip(&way.router, &rule);
                town.ip(&way.gateways[1], &rule);
                town.ip(&way.gateways[1], &table);
            }
            Self::Hairpin => {
                town.ip(Plan::OUTSIDE, &rule);
                town.ip(Plan::OUTSIDE, &table);
            }
        }
    }
}

/// Ends of links on the way out, in the order of [`V6`].
fn links(way: &Way) -> [(&str, &str); 8] {
    [
        (&way.app, "eth0"),
        (&way.router, &way.replica_link),
        (&way.router, &way.zone_links[0]),
        (&way.gateways[0], &way.stage_link),
        (&way.gateways[0], "wan0"),
        (Plan::OUTSIDE, &way.uplinks[0]),
        (Plan::OUTSIDE, &way.canary),
        (&way.canary, "eth0"),
    ]
}

fn ipv6(town: &Town, way: &Way) {
    for namespace in [&way.app, &way.router, &way.gateways[0], &way.canary] {
        town.set(namespace, "ipv6/conf/all/disable_ipv6", 0);
    }
    for ((namespace, link), address) in links(way).into_iter().zip(V6) {
        town.set(namespace, &format!("ipv6/conf/{link}/disable_ipv6"), 0);
        town.ip(namespace, &format!("-6 addr add {address}/64 dev {link} nodad"));
    }
    // Neighbours' questions are answered by nobody here: routers take in nothing.
    let ends = links(way);
    for pair in 0..4 {
        for (own, other) in [(2 * pair, 2 * pair + 1), (2 * pair + 1, 2 * pair)] {
            let ((here, link), (there, far)) = (ends[own], ends[other]);
            let hardware = town.hardware(there, far);
            let neighbour =
                format!("-6 neigh replace {} lladdr {hardware} dev {link} nud permanent", V6[other]);
            town.ip(here, &neighbour);
        }
    }
    for namespace in [&way.router, &way.gateways[0], &Plan::OUTSIDE.to_owned()] {
        town.set(namespace, "ipv6/conf/all/forwarding", 1);
    }
    let far = "fd00::/16";
    for (namespace, next) in
        [(&way.app, V6[1]), (&way.router, V6[3]), (&way.gateways[0], V6[5]), (&way.canary, V6[6])]
    {
        town.ip(namespace, &format!("-6 route replace {far} via {next}"));
    }
    let near = "fd00:0:0:1::/64";
    town.ip(&way.gateways[0], &format!("-6 route replace {near} via {}", V6[2]));
    town.ip(Plan::OUTSIDE, &format!("-6 route replace {near} via {}", V6[4]));
}
