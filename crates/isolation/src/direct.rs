//! Where apps may send packets of their own, past the proxy that knows names.
//!
//! Packets carry no names. Under `enforce` only the policy's networks are open to them, everything else is
//! called by name. Denied networks are closed to them in every mode.

use crate::{
    Canary,
    plan::{anywhere, only},
};
use bastide_types::egress::{Destination, EgressMode, EgressPolicy, EgressRule};
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, BTreeSet};

/// A range of addresses, and one port or all of them.
pub type Service = (Ipv4Net, Option<u16>);

/// Where apps of a stage may send packets of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// To there.
    pub allowed: Vec<Service>,
    /// And not to there, whatever is allowed.
    pub denied: Vec<Service>,
}

impl Default for Direct {
    fn default() -> Self {
        Self { allowed: vec![(anywhere(), None)], denied: Vec::new() }
    }
}

impl Direct {
    /// What a stage's policy means for packets.
    pub fn of(policy: &EgressPolicy) -> Self {
        let allowed = match policy.mode {
            EgressMode::Open | EgressMode::Report => vec![(anywhere(), None)],
            EgressMode::Enforce => services(&policy.allow),
        };
        Self { allowed, denied: services(&policy.deny) }
    }
}

impl Direct {
    /// The same with a canary: what becomes of its ports is what it is there for, and no policy means it.
    pub(crate) fn with(&self, canary: &Canary) -> Self {
        let at = only(canary.open);
        let around =
            self.denied.iter().flat_map(|(net, port)| minus(*net, &[at]).into_iter().map(|net| (net, *port)));
        Self {
            allowed: self.allowed.iter().copied().chain([(at, Some(canary.ports.allowed))]).collect(),
            denied: around.chain([(at, Some(canary.ports.denied))]).collect(),
        }
    }
}

fn services(rules: &[EgressRule]) -> Vec<Service> {
    let networks = rules.iter().filter_map(|rule| match rule.to {
        Destination::Network(IpNet::V4(net)) => Some((net.trunc(), rule.port)),
        _ => None,
    });
    networks.collect()
}

/// The same services without overlaps: a set of the kernel takes none.
pub(crate) fn disjoint(services: &[Service]) -> BTreeSet<Service> {
    let mut by_port: BTreeMap<Option<u16>, Vec<Ipv4Net>> = BTreeMap::new();
    for (net, port) in services {
        by_port.entry(*port).or_default().push(net.trunc());
    }
    let whole = Ipv4Net::aggregate(&by_port.remove(&None).unwrap_or_default());
    let mut all: BTreeSet<Service> = whole.iter().map(|net| (*net, None)).collect();
    for (port, nets) in by_port {
        let left = Ipv4Net::aggregate(&nets).into_iter().flat_map(|net| minus(net, &whole));
        all.extend(left.map(|net| (net, port)));
    }
    all
}

/// `net` without `holes`.
fn minus(net: Ipv4Net, holes: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let near: Vec<_> =
        holes.iter().filter(|hole| hole.contains(&net) || net.contains(*hole)).copied().collect();
    if near.is_empty() {
        return vec![net];
    }
    if near.iter().any(|hole| hole.contains(&net)) || net == only(net.addr()) {
        return Vec::new();
    }
    let halves = net.subnets(net.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| minus(half, &near)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    #[test]
    fn names_mean_nothing_for_packets() {
        let rules = |all: &[&str]| all.iter().map(|rule| rule.parse().unwrap()).collect();
        let mut policy = EgressPolicy {
            mode: EgressMode::Enforce,
            allow: rules(&["api.example", "8.8.8.0/24:53", "[2001:db8::/32]", "9.9.9.9"]),
            deny: rules(&["*.bad.example", "7.0.0.0/8:25"]),
        };
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let enforced = Direct::of(&policy);
        assert_eq!(enforced.allowed, [(net("8.8.8.0/24"), Some(53)), (net("9.9.9.9/32"), None)]);
        assert_eq!(enforced.denied, [(net("7.0.0.0/8"), Some(25))]);
        policy.mode = EgressMode::Report;
        assert_eq!(Direct::of(&policy).allowed, Direct::default().allowed);
        assert_eq!(Direct::of(&policy).denied, enforced.denied);
        assert_eq!(Direct::of(&EgressPolicy::default()), Direct::default());
    }

    #[test]
    fn no_policy_means_the_canary() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let canary = Canary {
            outer: Ipv4Addr::new(100, 96, 0, 1),
            open: Ipv4Addr::new(198, 18, 0, 1),
            ports: crate::CanaryPorts { allowed: 1, denied: 2, unnamed: 3 },
            closed: Vec::new(),
            bystander: None,
        };
        let nothing = Direct {
            allowed: Vec::new(),
            denied: vec![(net("0.0.0.0/0"), None), (net("198.18.0.0/24"), Some(1))],
        };
        let with = nothing.with(&canary);
        assert_eq!(disjoint(&with.allowed), BTreeSet::from([(net("198.18.0.1/32"), Some(1))]));
        let denies = |port| {
            let covers =
                |(net, own): &&Service| net.contains(&canary.open) && own.is_none_or(|own| own == port);
            with.denied.iter().filter(covers).count()
        };
        assert_eq!([denies(1), denies(2), denies(3)], [0, 1, 0]);
        assert!(
            with.denied.iter().any(|(net, port)| net.contains(&Ipv4Addr::new(8, 8, 8, 8)) && port.is_none())
        );
    }

    fn service() -> impl Strategy<Value = Service> {
        // Few networks, so that they meet.
        (0_u32..64, 24_u8..=32, prop::option::of(80_u16..83))
            .prop_map(|(low, length, port)| (Ipv4Net::new(Ipv4Addr::from(low), length).unwrap(), port))
    }

    proptest! {
        #[test]
        fn taking_overlaps_away_changes_no_service(services in prop::collection::vec(service(), 0..12)) {
            let all = disjoint(&services);
            for low in 0_u32..300 {
                for port in 79_u16..84 {
                    let address = Ipv4Addr::from(low);
                    let covers = |(net, own): &Service| net.contains(&address) && own.is_none_or(|own| own == port);
                    let count = all.iter().filter(|one| covers(one)).count();
                    prop_assert_eq!(count, usize::from(services.iter().any(covers)));
                }
            }
        }
    }
}
