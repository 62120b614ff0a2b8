//! The list of what is tried agrees with the plan, and nobody is forgotten.

use crate::town::{planned, topology};
use bastide_isolation::{
    Canary, CanaryPorts, Topology, address,
    checks::{App, Check, Expected, Facts, How, Listener, Names, Place, Port, Target, Trials, trials},
    walk::{End, Packet, Protocol, walk},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

const HOST: Ipv4Addr = Ipv4Addr::new(11, 9, 9, 9);

/// Two customers with two stages each over two zones, on a host.
fn town() -> (Topology, Facts) {
    let mut topology = topology(&[vec![1, 1], vec![1, 1], vec![1, 1], vec![1, 1]], true, false);
    topology.canary = Some(Canary {
        outer: address::canary_link(7).0,
        open: Ipv4Addr::new(198, 18, 3, 4),
        ports: CanaryPorts { allowed: 4001, denied: 4002, unnamed: 4003 },
        closed: vec![
            Ipv4Addr::new(10, 9, 8, 7),
            Ipv4Addr::new(169, 254, 169, 254),
            Ipv4Addr::new(11, 2, 0, 9),
            Ipv4Addr::new(240, 0, 0, 9),
        ],
        bystander: Some(address::bystander_link(7)),
    });
    let mut apps = BTreeMap::new();
    for (number, stage) in topology.stages.iter().enumerate() {
        for replica in &stage.replicas {
            let app = App {
                customer: ["acme", "beta"][number / 2].parse().unwrap(),
                stage: ["test", "production"][number % 2].parse().unwrap(),
                app: "web".parse().unwrap(),
                serves: Some((8080, b"GET / HTTP/1.0\r\n\r\n".to_vec())),
                may_use: vec![("169.254.2.1:5432".parse().unwrap(), b"x".to_vec())],
                may_not_use: vec!["blog.internal".into()],
            };
            apps.insert(replica.id, app);
        }
    }
    topology.stages[1].direct.allowed.clear();
    let names = Names {
        open: "open.example".into(),
        closed: vec![("names-private", "private.example".into(), vec![Ipv4Addr::new(10, 9, 8, 7).into()])],
        mixed: "mixed.example".into(),
        rebinding: "rebinding.example".into(),
    };
    let services = vec![("11.9.9.9:8443".parse().unwrap(), "edge".into())];
    let facts = Facts {
        host: vec![HOST.into()],
        services,
        v6: true,
        apps,
        proxy: Some(names),
        only: None,
        flood: true,
    };
    (topology, facts)
}

#[test]
fn every_replica_tries_every_path_and_every_canary_has_a_control() {
    let (topology, facts) = town();
    let Trials { listeners, controls, checks } = trials(&topology, &facts);
    let mut paths: BTreeMap<&Place, BTreeSet<&str>> = BTreeMap::new();
    for check in &checks {
        paths.entry(&check.from).or_default().insert(check.path);
    }
    let of = |place: &Place| paths[place].iter().copied().collect::<Vec<_>>().join("\n");
    let replicas: Vec<_> = topology.stages.iter().flat_map(|stage| &stage.replicas).collect();
    // Floods fill the caps of a stage, so one replica of each is enough.
    let (first, second) = (Place::Replica(replicas[0].id), Place::Replica(replicas[1].id));
    insta::assert_snapshot!("paths_of_a_replica", of(&first));
    for replica in &replicas[1..] {
        let own = &paths[&Place::Replica(replica.id)];
        let missing: Vec<_> = paths[&second].symmetric_difference(own).collect();
        assert!(
            missing.iter().all(|path| path.starts_with("cap-") || **path == "not-by-name"),
            "{missing:?}"
        );
        let peers = checks.iter().filter(|check| {
            check.from == Place::Replica(replica.id) && matches!(check.how, How::Tcp(None)) && {
                matches!(check.to, Target::Listener(at) if matches!(listeners[at].place, Place::Replica(_)))
            }
        });
        assert_eq!(peers.count(), replicas.len() - 1, "one try at each other replica");
    }
    insta::assert_snapshot!("paths_behind_a_gateway", of(&Place::Probe(topology.zones[0].zone.clone())));
    for (index, listener) in listeners.iter().enumerate() {
        let heard = controls.iter().any(|control| {
            control.from == listener.place && matches!(control.to, Target::At(at, _) if at == index)
        });
        assert!(heard, "{listener:?} has no control");
        if listener.place == Place::Canary {
            let from_host = |control: &&Check| matches!(control.to, Target::At(at, _) if at == index);
            assert!(controls.iter().filter(from_host).any(|control| control.from == Place::Host));
        }
    }
}

#[test]
fn the_list_agrees_with_the_plan() {
    let (topology, facts) = town();
    let mut plan = planned(&topology);
    plan.namespaces.get_mut("outside").unwrap().addresses.push(("eth0".into(), HOST));
    let Trials { listeners, checks, .. } = trials(&topology, &facts);
    let mut judged = 0;
    for check in &checks {
        let Target::Listener(index) = check.to else { continue };
        let Listener { at: to, place, port, .. } = &listeners[index];
        let port = if let Port::Fixed(port) = port { *port } else { 9999 };
        let protocol = match check.how {
            How::Tcp(_) => Protocol::Tcp(port),
            How::Udp(_) => Protocol::Udp(port),
            _ => continue,
        };
        let IpAddr::V4(to) = *to else { continue };
        if to.is_loopback() {
            continue;
        }
        let start = check.from.namespace(&topology.installation);
        let own = plan.namespaces[&start].addresses.iter().find(|(link, _)| link != "lo");
        let from = own.map_or(HOST, |(_, address)| *address);
        let end = walk(&plan, &start, Packet { from, to, protocol }).end;
        let there = End::Delivered(place.namespace(&topology.installation));
        match check.expected {
            Expected::Nothing | Expected::Silence | Expected::Reset => assert_ne!(end, there, "{check:?}"),
            _ => assert_eq!(end, there, "{check:?}"),
        }
        judged += 1;
    }
    assert!(judged > 300, "{judged}");
}
