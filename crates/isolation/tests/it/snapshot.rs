//! The rules as people review them.

use crate::town::{planned, topology};
use bastide_isolation::{Packets, PlanError, plan};
use std::fmt::Write as _;

#[test]
fn the_rules_of_a_small_town() {
    let topology = topology(&[vec![1, 1]], true, false);
    let plan = planned(&topology);
    let mut text = String::new();
    for (name, namespace) in &plan.namespaces {
        let _ = writeln!(text, "== {name} forwards={}", namespace.forwards);
        for (link, address) in &namespace.addresses {
            let _ = writeln!(text, "address {address} on {link}");
        }
        for route in &namespace.routes {
            let _ = writeln!(
                text,
                "route {} via {:?} on {} table {}",
                route.to, route.via, route.link, route.table
            );
        }
        for policy in &namespace.policies {
            match &policy.of {
                Packets::CameBy(link) => writeln!(text, "what came by {link} has table {}", policy.table),
                Packets::From(source) => writeln!(text, "what is from {source} has table {}", policy.table),
            }
            .unwrap();
        }
        for chain in namespace.rules.iter().flat_map(|rules| &rules.chains) {
            let end = if chain.drops { "drop" } else { "accept" };
            let _ = writeln!(text, "chain {} at {}, else {end}", chain.hook.word(), chain.priority);
            for rule in &chain.rules {
                let _ = writeln!(text, "  {}: {:?} -> {:?}", rule.id, rule.when, rule.then);
            }
        }
    }
    for link in &plan.links {
        let _ = writeln!(text, "link {}/{} - {}/{}", link.near.0, link.near.1, link.far.0, link.far.1);
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_would_meet_is_refused() {
    let mut twice = topology(&[vec![2]], false, false);
    twice.stages[0].replicas[1].address = twice.stages[0].replicas[0].address;
    assert!(matches!(plan(&twice), Err(PlanError::Address(_))));
    let mut same = topology(&[vec![2]], false, false);
    same.stages[0].replicas[1].id = same.stages[0].replicas[0].id;
    assert!(matches!(plan(&same), Err(PlanError::NameTaken(_))));
    let mut foreign = topology(&[vec![1], vec![1]], false, false);
    foreign.stages[0].replicas[0].address = foreign.stages[1].replicas[0].address;
    assert!(matches!(plan(&foreign), Err(PlanError::Address(_))));
    let mut nowhere = topology(&[vec![1]], false, false);
    nowhere.zones[0].zone = bastide_types::ZoneName::new("z").unwrap();
    assert!(matches!(plan(&nowhere), Err(PlanError::UnknownZone { .. })));
}
