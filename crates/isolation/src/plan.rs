//! From what there is to what the kernel should have.

use crate::{
    Direct, Installation, PlanError, address, blocked, canary, gateway, name, router, rules::Ruleset, uplink,
};
use bastide_types::{ReplicaId, ZoneName};
use ipnet::Ipv4Net;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

/// Everything on one node that needs a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Whose it is.
    pub installation: Installation,
    /// Zones of this node, in an order that does not change.
    pub zones: Vec<ZoneNet>,
    /// Stages with replicas here.
    pub stages: Vec<StageNet>,
    /// Where the gateways go out.
    pub outside: Outside,
    /// Ranges that no app may reach besides the reserved ones: the platform's own.
    pub blocked: Vec<Ipv4Net>,
    /// Limits.
    pub caps: Caps,
    /// A machine outside that answers while isolation is being verified.
    pub canary: Option<Canary>,
}

/// A zone with its NAT gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneNet {
    /// Which one.
    pub zone: ZoneName,
    /// Its way out.
    pub uplink: Uplink,
}

/// The link by which a gateway goes out, and what the outside sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Address of the gateway's end; also what it translates sources to.
    pub inner: Ipv4Addr,
    /// Address of the other end.
    pub outer: Ipv4Addr,
    /// On a host: the host's own address to translate to; the outgoing link's when there is none.
    pub public: Option<Ipv4Addr>,
}

/// Where gateways go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// The host itself, which translates once more. `routes_already`: it forwarded packets before we came.
    Host {
        /// Whether the host forwarded packets before we came; if not, it goes on refusing everybody else's.
        routes_already: bool,
    },
    /// A namespace that knows how to reach the gateways' addresses and needs no rules of ours.
    Given,
}

/// A stage of a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageNet {
    /// Its account on the bus: an id that no other stage of any customer has.
    pub account: String,
    /// Its block of addresses.
    pub block: u16,
    /// Its replicas.
    pub replicas: Vec<ReplicaNet>,
    /// Zones whose gateway is away, and whose traffic another gateway takes meanwhile (opt-in).
    pub failover: Vec<Failover>,
    /// Where its apps may send packets of their own. Changing it changes members of sets, no rule.
    pub direct: Direct,
}

/// Another gateway stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// Whose gateway is away.
    pub from: ZoneName,
    /// Whose gateway takes its traffic; outsiders see that zone's address.
    pub to: ZoneName,
}

/// Who stands in for whom while the gateways of `down` are away: the next zone whose gateway is there.
pub fn stand_ins(zones: &[ZoneName], down: &BTreeSet<ZoneName>) -> Vec<Failover> {
    let after = |place: usize| zones[place + 1..].iter().chain(&zones[..place]);
    let away = zones.iter().enumerate().filter(|(_, zone)| down.contains(*zone));
    away.filter_map(|(place, from)| {
        let to = after(place).find(|zone| !down.contains(*zone))?;
        Some(Failover { from: from.clone(), to: to.clone() })
    })
    .collect()
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaNet {
    /// Which one.
    pub id: ReplicaId,
    /// Where it runs, and by which gateway it goes out.
    pub zone: ZoneName,
    /// Its address, of its stage's block.
    pub address: Ipv4Addr,
}

/// A machine outside of our own, a namespace: there is not always an internet to try things on. Only what the
/// gateways send finds it, so the host's own traffic to these addresses goes where it always went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// Address of the host's end of the link to it.
    pub outer: Ipv4Addr,
    /// Its address for apps, of [`address::TRIALS`]: the one hole in the blocked ranges.
    pub open: Ipv4Addr,
    /// Its ports at that address: which packets may reach whatever a stage's policy says, which none may, and
    /// which is left to the policy.
    pub ports: CanaryPorts,
    /// Addresses of blocked ranges that lead to it as well, for as far as a packet comes.
    pub closed: Vec<Ipv4Addr>,
    /// On a host that was no router: both ends of a link to yet another machine, outer end first.
    pub bystander: Option<(Ipv4Addr, Ipv4Addr)>,
}

/// Ports of a [`Canary`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanaryPorts {
    /// Allowed in every stage.
    pub allowed: u16,
    /// Denied in every stage.
    pub denied: u16,
    /// As the stage's policy says of everything that it does not name.
    pub unnamed: u16,
}

/// Limits of one customer's stage, over all its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// TCP connections to outside; more are reset. Closing ones count for a while. Default 4000.
    pub tcp: u32,
    /// UDP flows to outside; more are dropped. Default 1000.
    pub udp: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self { tcp: 4000, udp: 1000 }
    }
}

impl Topology {
    /// What no app may reach now.
    pub fn blocked_ranges(&self) -> Vec<Ipv4Net> {
        let ranges = blocked::ranges(&self.blocked);
        match &self.canary {
            Some(canary) => blocked::without(&ranges, canary.open),
            None => ranges,
        }
    }
}

/// What the kernel should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Namespaces of this installation, by name. [`Plan::OUTSIDE`] is the one that the gateways go out by; it
    /// is not ours, and only what is named here may be touched in it.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Links between them. Nothing else connects them.
    pub links: Vec<Link>,
}

impl Plan {
    /// Stands for the namespace that the gateways go out by.
    pub const OUTSIDE: &'static str = "outside";
}

/// A namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its firewall; a replica's has none, since nothing routes to it.
    pub rules: Option<Ruleset>,
    /// Whether it forwards packets. Switched on last.
    pub forwards: bool,
    /// Addresses, each a /32, by link.
    pub addresses: Vec<(String, Ipv4Addr)>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Which table holds for what.
    pub policies: Vec<Policy>,
    /// More settings than all namespaces have: name below `/proc/sys/net` and value.
    pub settings: Vec<(&'static str, &'static str)>,
}

/// The kernel's main routing table.
pub const MAIN: u32 = 254;
/// The kernel's table of local addresses: a range in it is the namespace's own.
pub const LOCAL: u32 = 255;

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub to: Ipv4Net,
    /// Next hop on the link; the destination itself when there is none.
    pub via: Option<Ipv4Addr>,
    /// Link.
    pub link: String,
    /// Table.
    pub table: u32,
}

/// Some packets are routed by `table`, and by the main table when it has no route for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which.
    pub of: Packets,
    /// Table.
    pub table: u32,
}

/// Packets for which a [`Policy`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packets {
    /// They came in by this link.
    CameBy(String),
    /// This is their source, before it is translated.
    From(Ipv4Addr),
}

/// A pair of links: a cable between two namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Namespace and name of one end; it is made there.
    pub near: (String, String),
    /// Namespace and name of the other end.
    pub far: (String, String),
}

/// Everything, in 0.0.0.0/0.
pub(crate) fn anywhere() -> Ipv4Net {
    Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).expect("0 is a prefix length")
}

/// One address as a range.
pub(crate) fn only(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new(address, 32).expect("32 is a prefix length")
}

/// Makes the plan.
///
/// # Errors
/// [`PlanError`] when names or addresses would meet, or a replica stands in an unknown zone.
pub fn plan(topology: &Topology) -> Result<Plan, PlanError> {
    check(topology)?;
    let mut plan = Plan { namespaces: BTreeMap::new(), links: Vec::new() };
    let add = |plan: &mut Plan, name: String, namespace: Namespace| {
        if plan.namespaces.contains_key(&name) {
            return Err(PlanError::NameTaken(name));
        }
        plan.namespaces.insert(name, namespace);
        Ok(())
    };
    for (ordinal, zone) in topology.zones.iter().enumerate() {
        gateway::plan(topology, ordinal as u8, zone, &mut plan, add)?;
    }
    for stage in &topology.stages {
        router::plan(topology, stage, &mut plan, add)?;
    }
    let mut outside = uplink::plan(topology);
    if let Some(machine) = &topology.canary {
        canary::plan(topology, machine, &mut outside, &mut plan, add)?;
    }
    add(&mut plan, Plan::OUTSIDE.to_owned(), outside)?;
    links_differ(&plan)?;
    Ok(plan)
}

fn check(topology: &Topology) -> Result<(), PlanError> {
    if topology.zones.len() > 64 {
        return Err(PlanError::ZonesFull);
    }
    let mut addresses = BTreeSet::new();
    let mut blocks = BTreeSet::new();
    for stage in &topology.stages {
        let block = address::block(stage.block);
        if stage.block == 0 || !blocks.insert(stage.block) {
            return Err(PlanError::Address(block.network()));
        }
        for replica in &stage.replicas {
            if !block.contains(&replica.address) || !addresses.insert(replica.address) {
                return Err(PlanError::Address(replica.address));
            }
            if !topology.zones.iter().any(|zone| zone.zone == replica.zone) {
                return Err(PlanError::UnknownZone { replica: replica.id, zone: replica.zone.clone() });
            }
        }
    }
    for zone in &topology.zones {
        for address in [zone.uplink.inner, zone.uplink.outer] {
            addresses.insert(address);
        }
        if zone.uplink.inner == zone.uplink.outer {
            return Err(PlanError::Address(zone.uplink.inner));
        }
    }
    if let Some(canary) = &topology.canary {
        let blocked = blocked::ranges(&topology.blocked);
        let own = |to: &Ipv4Addr| addresses.contains(to) || *to == canary.outer;
        if !address::TRIALS.contains(&canary.open) || own(&canary.open) {
            return Err(PlanError::Address(canary.open));
        }
        let ports = canary.ports;
        if BTreeSet::from([0, ports.allowed, ports.denied, ports.unnamed]).len() < 4 {
            return Err(PlanError::Address(canary.open));
        }
        let is_wrong =
            |to: &&Ipv4Addr| own(to) || **to == canary.open || !blocked.iter().any(|net| net.contains(*to));
        if let Some(wrong) = canary.closed.iter().find(is_wrong) {
            return Err(PlanError::Address(*wrong));
        }
    }
    let inner: BTreeSet<_> = topology.zones.iter().map(|zone| zone.uplink.inner).collect();
    if let (true, Some(zone)) = (inner.len() < topology.zones.len(), topology.zones.first()) {
        return Err(PlanError::Address(zone.uplink.inner));
    }
    Ok(())
}

fn links_differ(plan: &Plan) -> Result<(), PlanError> {
    let mut seen = BTreeSet::new();
    for end in plan.links.iter().flat_map(|link| [&link.near, &link.far]) {
        debug_assert!(end.1.len() <= name::BYTES_MAX);
        if !seen.insert(end) {
            return Err(PlanError::NameTaken(end.1.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_zone_that_is_there_stands_in() {
        let zones = ["a", "b", "c"].map(|zone| ZoneName::new(zone).unwrap());
        let check = |down: &[usize], expected: &[(usize, usize)]| {
            let down = down.iter().map(|place| zones[*place].clone()).collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(from, to)| Failover { from: zones[*from].clone(), to: zones[*to].clone() })
                .collect();
            assert_eq!(stand_ins(&zones, &down), expected);
        };
        check(&[], &[]);
        check(&[0], &[(0, 1)]);
        check(&[2], &[(2, 0)]);
        check(&[0, 1], &[(0, 2), (1, 2)]);
        check(&[0, 1, 2], &[]);
    }
}
