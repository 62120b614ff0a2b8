//! Follows the first packet of a connection through a plan, as the kernel would: link by link, with policy
//! routing, every chain, and the translation of sources.
//!
//! It knows new connections only. An answer goes back the way of an accepted packet and needs no walk of its
//! own: a connection exists only if its first packet came through.

use crate::{
    name,
    plan::{LOCAL, MAIN, Namespace, Packets, Plan, Route},
    rules::{Chain, Hook, Match, Members, Ruleset, Transport, Verdict},
};
use std::net::Ipv4Addr;

/// Hops after which a packet goes in circles.
const HOPS_MAX: usize = 16;

/// A first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Source, possibly a lie.
    pub from: Ipv4Addr,
    /// Destination.
    pub to: Ipv4Addr,
    /// Protocol.
    pub protocol: Protocol,
}

/// Protocols that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP to this port, opening.
    Tcp(u16),
    /// TCP in the middle of an unknown connection.
    MidStream(u16),
    /// UDP to this port.
    Udp(u16),
    /// Anything else, such as ICMP.
    Other,
    /// IPv6, whatever it carries; addresses do not matter.
    Ipv6,
}

/// Where a packet's way ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// In a namespace that has the destination's address.
    Delivered(String),
    /// Out of everything that the plan describes, with this source.
    Left {
        /// Source as outsiders see it; `None` when the outgoing link's own is taken.
        source: Option<Ipv4Addr>,
    },
    /// A rule stopped it: namespace and rule's id; the id is a chain's name when its policy did.
    Stopped(String, String),
    /// No route there.
    NoRoute(String),
}

/// The way of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// Namespaces passed, in order.
    pub passed: Vec<String>,
    /// Its end.
    pub end: End,
}

/// Sends `packet` from the namespace `start`.
pub fn walk(plan: &Plan, start: &str, mut packet: Packet) -> Walk {
    let (mut here, mut came_by): (String, Option<String>) = (start.to_owned(), None);
    let mut passed = vec![here.clone()];
    let end = loop {
        if passed.len() > HOPS_MAX {
            break End::NoRoute(here);
        }
        match step(plan, &here, came_by.as_deref(), &mut packet) {
            Step::End(end) => break end,
            Step::On(namespace, link) => {
                passed.push(namespace.clone());
                (here, came_by) = (namespace, Some(link));
            }
        }
    };
    Walk { passed, end }
}

enum Step {
    End(End),
    On(String, String),
}

fn step(plan: &Plan, here: &str, came_by: Option<&str>, packet: &mut Packet) -> Step {
    let Some(namespace) = plan.namespaces.get(here) else { return Step::End(End::NoRoute(here.into())) };
    let mut at = At { here, rules: namespace.rules.as_ref(), came_by, goes_by: None };
    if came_by.is_some()
        && let Err(end) = at.passes(Hook::Prerouting, packet)
    {
        return Step::End(end);
    }
    let local = |route: &Route| route.table == LOCAL && route.to.contains(&packet.to);
    if namespace.addresses.iter().any(|(_, address)| *address == packet.to)
        || namespace.routes.iter().any(local)
    {
        return Step::End(match came_by.map(|_| at.passes(Hook::Input, packet)) {
            Some(Err(end)) => end,
            _ => End::Delivered(here.into()),
        });
    }
    if came_by.is_some() && !namespace.forwards && here != Plan::OUTSIDE {
        return Step::End(End::Stopped(here.into(), "does-not-forward".into()));
    }
    let link = route(namespace, came_by, packet);
    if link.is_none() && here != Plan::OUTSIDE {
        return Step::End(End::NoRoute(here.into()));
    }
    // Outside, what no route of ours takes leaves by the host's own.
    let link = link.unwrap_or("");
    at.goes_by = Some(link);
    let hook = if came_by.is_some() { Hook::Forward } else { Hook::Output };
    if let Err(end) = at.passes(hook, packet).and_then(|()| at.passes(Hook::Postrouting, packet)) {
        return Step::End(end);
    }
    if link.is_empty() {
        let source = (packet.from != Ipv4Addr::UNSPECIFIED).then_some(packet.from);
        return Step::End(End::Left { source });
    }
    let near = (here.to_owned(), link.to_owned());
    let other = plan.links.iter().find_map(|link| match () {
        () if link.near == near => Some(&link.far),
        () if link.far == near => Some(&link.near),
        () => None,
    });
    match other {
        Some((namespace, link)) => Step::On(namespace.clone(), link.clone()),
        None => Step::End(End::NoRoute(here.into())),
    }
}

/// The link that a packet is routed to: policies first, then the main table; the longest prefix wins.
fn route<'a>(namespace: &'a Namespace, came_by: Option<&str>, packet: &Packet) -> Option<&'a str> {
    let tables = namespace.policies.iter().filter(|policy| match &policy.of {
        Packets::CameBy(link) => Some(link.as_str()) == came_by,
        Packets::From(source) => *source == packet.from,
    });
    // The main table comes first in the kernel only for local addresses; policies have a higher priority.
    for table in tables.map(|policy| policy.table).chain([MAIN]) {
        let fits =
            namespace.routes.iter().filter(|route| route.table == table && route.to.contains(&packet.to));
        if let Some(route) = fits.max_by_key(|route| route.to.prefix_len()) {
            return Some(&route.link);
        }
    }
    None
}

struct At<'a> {
    here: &'a str,
    rules: Option<&'a Ruleset>,
    came_by: Option<&'a str>,
    goes_by: Option<&'a str>,
}

impl At<'_> {
    fn passes(&self, hook: Hook, packet: &mut Packet) -> Result<(), End> {
        let Some(rules) = self.rules else { return Ok(()) };
        for chain in rules.chains.iter().filter(|chain| chain.hook == hook) {
            self.decide(rules, chain, packet)?;
        }
        Ok(())
    }

    fn decide(&self, rules: &Ruleset, chain: &Chain, packet: &mut Packet) -> Result<(), End> {
        for rule in &chain.rules {
            if rule.when.iter().all(|condition| self.holds(rules, condition, packet)) {
                match rule.then {
                    Verdict::Accept => return Ok(()),
                    Verdict::Drop | Verdict::Reset => {
                        return Err(End::Stopped(self.here.into(), rule.id.into()));
                    }
                    Verdict::Snat(first, _) => packet.from = first,
                    Verdict::Masquerade => packet.from = Ipv4Addr::UNSPECIFIED,
                }
            }
        }
        if chain.drops { Err(End::Stopped(self.here.into(), chain.hook.word().into())) } else { Ok(()) }
    }

    fn holds(&self, rules: &Ruleset, condition: &Match, packet: &Packet) -> bool {
        let members = |name: &str| rules.sets.iter().find(|set| set.name == name).map(|set| &set.members);
        let ipv4 = packet.protocol != Protocol::Ipv6;
        let (came_by, goes_by) = (self.came_by.unwrap_or("lo"), self.goes_by.unwrap_or_default());
        match condition {
            Match::Ipv6 => !ipv4,
            Match::In(name) => fits(name, came_by),
            Match::NotIn(name) => !fits(name, came_by),
            Match::Out(name) => fits(name, goes_by),
            Match::NotOut(name) => !fits(name, goes_by),
            Match::FromOthers => !name::is_uplink(came_by),
            Match::ToOthers => !name::is_uplink(goes_by),
            Match::SenderNotIn(set) => match members(set) {
                Some(Members::Senders(all)) => {
                    ipv4 && !all.iter().any(|(link, net)| link == came_by && net.contains(&packet.from))
                }
                _ => true,
            },
            Match::WayNotIn(set) => match members(set) {
                Some(Members::Ways(all)) => !all.contains(&(came_by.to_owned(), goes_by.to_owned())),
                _ => true,
            },
            Match::To(set) => match members(set) {
                Some(Members::Ranges(all)) => ipv4 && all.iter().any(|net| net.contains(&packet.to)),
                _ => false,
            },
            Match::ToAddress(address) => ipv4 && packet.to == *address,
            Match::FromAddress(address) => ipv4 && packet.from == *address,
            Match::TcpPort(port) => {
                matches!(packet.protocol, Protocol::Tcp(to) | Protocol::MidStream(to) if to == *port)
            }
            Match::Tcp => matches!(packet.protocol, Protocol::Tcp(_) | Protocol::MidStream(_)),
            Match::Udp => matches!(packet.protocol, Protocol::Udp(_)),
            Match::ServiceIn(transport, set) => serves(rules, *transport, set, packet) == Some(true),
            Match::ServiceNotIn(transport, set) => serves(rules, *transport, set, packet) == Some(false),
            Match::TcpOrUdp => !matches!(packet.protocol, Protocol::Other),
            Match::NotSyn => matches!(packet.protocol, Protocol::MidStream(_)),
            // A first packet belongs to nothing, and there is no other connection.
            Match::Known | Match::Over(_) => false,
        }
    }
}

/// Whether destination and port are in the set; `None` when it is not this protocol.
fn serves(rules: &Ruleset, transport: Transport, set: &str, packet: &Packet) -> Option<bool> {
    let to = match (transport, packet.protocol) {
        (Transport::Tcp, Protocol::Tcp(port) | Protocol::MidStream(port)) => port,
        (Transport::Udp, Protocol::Udp(port)) => port,
        _ => return None,
    };
    let set = rules.sets.iter().find(|one| one.name == set);
    let Some(Members::Services(all)) = set.map(|set| &set.members) else { return Some(false) };
    Some(all.iter().any(|(net, port)| net.contains(&packet.to) && port.is_none_or(|port| port == to)))
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}
