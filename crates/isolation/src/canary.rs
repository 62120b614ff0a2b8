//! The machine outside that answers while isolation is being verified.
//!
//! It hangs on the namespace that the gateways go out by, like any machine of the internet. Its addresses are
//! in a routing table of their own, which holds for packets of the gateways and of the link to it: nobody
//! else's packets find it.

use crate::{
    Canary, CanaryPorts, Namespace, Outside, Packets, Plan, PlanError, Policy, Route, Topology, address,
    blocked, checks,
    plan::{Link, MAIN, anywhere, only},
};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

impl Canary {
    /// A canary for a topology, of addresses that nobody can know before: `random` is asked for numbers. The links to
    /// it are those of `slot`; `taken` are addresses of the host, which would answer for themselves.
    pub fn invent(
        topology: &Topology,
        slot: u16,
        taken: &[Ipv4Addr],
        mut random: impl FnMut() -> u32,
    ) -> Self {
        let mut one_of = |net: &Ipv4Net| {
            // The first and the last address of a range mean something else now and then.
            let size =
                (u64::from(u32::from(net.broadcast()) - u32::from(net.network()))).saturating_sub(1).max(1);
            let first = u32::from(net.network()) + u32::from(size > 1);
            Ipv4Addr::from(first + (u64::from(random()) % size) as u32)
        };
        let open = one_of(&address::TRIALS);
        let own: Vec<_> = topology.stages.iter().map(|stage| address::block(stage.block)).collect();
        let is_free =
            |to: &Ipv4Addr| *to != open && !taken.contains(to) && !own.iter().any(|block| block.contains(to));
        let mut closed = vec![checks::METADATA];
        for range in blocked::each(&topology.blocked) {
            // The kernel sends nobody's packets to loopback's addresses, and to groups only where somebody asked.
            if range.addr().is_loopback() || range.addr().is_multicast() {
                continue;
            }
            closed.extend((0..TRIES).map(|_| one_of(&range)).find(is_free));
        }
        closed.retain(is_free);
        let first = 20_000 + (random() % 30_000) as u16;
        let ports = CanaryPorts { allowed: first, denied: first + 1, unnamed: first + 2 };
        let bystander = match topology.outside {
            Outside::Host { routes_already: false } => Some(address::bystander_link(slot)),
            _ => None,
        };
        Self { outer: address::canary_link(slot).0, open, ports, closed, bystander }
    }
}

/// Attempts at an address that is free, of a range that may be all taken.
const TRIES: usize = 64;

/// Its own link.
const LINK: &str = "eth0";

pub(crate) fn plan(
    topology: &Topology,
    canary: &Canary,
    outside: &mut Namespace,
    plan: &mut Plan,
    add: impl Fn(&mut Plan, String, Namespace) -> Result<(), PlanError>,
) -> Result<(), PlanError> {
    let (here, table) = (topology.installation.canary(), topology.installation.canary_table());
    let all = || canary.closed.iter().chain([&canary.open]);
    let machine = Namespace {
        addresses: all().map(|address| (LINK.to_owned(), *address)).collect(),
        routes: vec![Route { to: anywhere(), via: Some(canary.outer), link: LINK.into(), table: MAIN }],
        ..Namespace::default()
    };
    outside.addresses.push((here.clone(), canary.outer));
    outside.routes.extend(all().map(|to| Route { to: only(*to), via: None, link: here.clone(), table }));
    let mut sources: Vec<_> =
        topology.zones.iter().map(|zone| zone.uplink.inner).chain([canary.outer]).collect();
    if let Some((outer, inner)) = canary.bystander {
        let there = topology.installation.bystander();
        let machine = Namespace {
            addresses: vec![(LINK.into(), inner)],
            routes: vec![Route { to: anywhere(), via: Some(outer), link: LINK.into(), table: MAIN }],
            ..Namespace::default()
        };
        outside.addresses.push((there.clone(), outer));
        outside.routes.push(Route { to: only(inner), via: None, link: there.clone(), table: MAIN });
        sources.push(inner);
        plan.links
            .push(Link { near: (there.clone(), LINK.into()), far: (Plan::OUTSIDE.into(), there.clone()) });
        add(plan, there, machine)?;
    }
    outside.policies.extend(sources.into_iter().map(|source| Policy { of: Packets::From(source), table }));
    plan.links.push(Link { near: (here.clone(), LINK.into()), far: (Plan::OUTSIDE.into(), here.clone()) });
    add(plan, here, machine)
}
