//! The machine outside that answers while isolation is being verified.
//!
//! It hangs on the namespace that the gateways go out by, like any machine of the internet. Its addresses are
//! in a routing table of their own, which holds for packets of the gateways and of the link to it: nobody
//! else's packets find it.

use crate::{
    Canary, Namespace, Packets, Plan, PlanError, Policy, Route, Topology,
    plan::{Link, MAIN, anywhere, only},
};

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
