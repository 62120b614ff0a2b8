//! Who reaches whom, on real packets, judged by the body of the answer.

use crate::scene::{
    API, BRIEFLY, BUS, METADATA, OUTER, PATIENCE, PLATFORM, PORT, PRIVATE, Town, by_hand, name, zone_address,
};
use bastide_isolation::{Canary, CanaryPorts, address, plan};
use std::net::Ipv4Addr;

/// Two customers, two stages each, two zones.
const STAGES: &[&[usize]] = &[&[1, 1], &[1, 1], &[1, 1], &[1, 1]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_reaches_the_outside_and_nobody_else() {
    let Some(town) = Town::built("everybody_reaches", STAGES).await else { return };
    town.controls().await;
    for (stage, replica) in town.places() {
        let namespace = town.namespace(stage, replica);
        let heard = town.people.request(&namespace, PORT, PATIENCE).await;
        assert_eq!(heard, format!("{} hears {}", name(stage, replica), address::BROKER));
        let heard = town.people.request(&namespace, 9999, PATIENCE).await;
        assert_eq!(heard, "ConnectionRefused");
    }
    // Everything that may not be: from one replica of each zone to everywhere, at once.
    let mut targets: Vec<(Ipv4Addr, u16)> =
        [PRIVATE, METADATA, PLATFORM, zone_address(0), zone_address(1), address::ROUTER, address::GATEWAY]
            .map(|to| (to, PORT))
            .into();
    targets.push((address::ROUTER, 22));
    for (from_stage, from) in [(0, 0), (0, 1), (2, 0), (2, 1)] {
        let own = town.replica(from_stage, from);
        let others = town.places().into_iter().filter(|place| *place != (from_stage, from));
        let others = others.map(|(stage, replica)| (town.replica(stage, replica).address, PORT));
        let mut calls = tokio::task::JoinSet::new();
        for to in targets.iter().copied().chain(others) {
            let (sockets, namespace, from) =
                (town.people.sockets.clone(), town.namespace(from_stage, from), own.address);
            let people = crate::scene::People { sockets, tasks: tokio::task::JoinSet::new() };
            calls.spawn(async move {
                let tcp = people.call(&namespace, from, to.into(), BRIEFLY).await;
                let udp = people.ask(&namespace, from, to.into(), BRIEFLY).await;
                (to, tcp, udp)
            });
        }
        while let Some(call) = calls.join_next().await {
            let (to, tcp, udp) = call.unwrap();
            assert!(
                !tcp.contains("hears") && !udp.contains("hears"),
                "{from_stage}.{from} to {to:?}: {tcp}, {udp}"
            );
        }
    }
    // From outside, with a route as a neighbour on the wire would have.
    let outside = &town.outside.namespace;
    by_hand(
        outside,
        &format!(
            "ip route add 100.64.0.0/10 via {} onlink dev {}",
            zone_address(0),
            town.topology.installation.uplink(&crate::scene::zone(0))
        ),
    );
    for to in [town.replica(0, 0).address, town.replica(2, 1).address, zone_address(0), zone_address(1)] {
        let heard = town.people.call(outside, API, (to, PORT).into(), BRIEFLY).await;
        assert!(!heard.contains("hears"), "outside to {to}: {heard}");
    }
    town.controls().await;
    let stopped = town.network.counters(&town.router(0)).await.unwrap();
    assert!(stopped["blocked"] > 0, "{stopped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_goes_out_by_the_zone_and_other_protocols_do_not() {
    let Some(town) = Town::built("udp_goes_out", STAGES).await else { return };
    for (stage, replica) in [(0, 0), (2, 1)] {
        let own = town.replica(stage, replica);
        let heard =
            town.people.ask(&town.namespace(stage, replica), own.address, (API, PORT).into(), PATIENCE).await;
        assert_eq!(heard, format!("outside hears {}", zone_address(replica)));
        let heard = town.call(stage, replica, API, BUS, PATIENCE).await;
        assert_eq!(heard, format!("bus hears {}", zone_address(replica)));
    }
    let echo = by_hand(&town.namespace(0, 0), &format!("ping -c 1 -W 1 {API} || echo nothing"));
    assert!(echo.contains("nothing"), "{echo}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_sender_is_stopped_and_counted() {
    let Some(town) = Town::built("a_false_sender", STAGES).await else { return };
    town.control(0, 0).await;
    let false_one = town.replica(2, 0).address;
    by_hand(&town.namespace(0, 0), &format!("ip address add {false_one}/32 dev lo"));
    let heard = town.people.call(&town.namespace(0, 0), false_one, (API, PORT).into(), BRIEFLY).await;
    assert!(!heard.contains("hears"), "{heard}");
    let stopped = town.network.counters(&town.router(0)).await.unwrap();
    assert!(stopped["spoofed"] > 0, "{stopped:?}");
    let report = town.reconcile().await;
    assert_eq!(report.changed.len(), 1, "{report:?}");
    town.control(0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_ipv6() {
    let Some(town) = Town::built("there_is_no_ipv6", &[&[1, 0]]).await else { return };
    town.control(0, 0).await;
    for namespace in town.plan.namespaces.keys().filter(|name| *name != bastide_isolation::Plan::OUTSIDE) {
        assert_eq!(by_hand(namespace, "ip -6 address show; ip -6 route show table all"), "", "{namespace}");
        let loopback = "[::1]:8080".parse().unwrap();
        assert!(town.people.sockets.listen(namespace, loopback).await.is_err(), "{namespace}");
    }
    // Somebody switches it on: the rules stop it all the same, and the next look switches it off.
    let (replica, router) = (town.namespace(0, 0), town.router(0));
    for namespace in [&replica, &router] {
        by_hand(namespace, "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 0 > $f; done");
    }
    by_hand(&replica, "ip -6 address add fd00::2/64 dev eth0 nodad");
    let link = bastide_isolation::name::replica_link(town.replica(0, 0).id);
    by_hand(&router, &format!("ip -6 address add fd00::1/64 dev {link} nodad"));
    // The kernel takes its time until it speaks by a link that was just switched on.
    let begun = std::time::Instant::now();
    while town.network.counters(&router).await.unwrap()["no-ipv6"] == 0 {
        by_hand(&replica, "ping -c 1 -W 1 fd00::1 && exit 1 || true");
        assert!(begun.elapsed() < PATIENCE, "nothing was stopped");
    }
    let _ = town.reconcile().await;
    for namespace in [&replica, &router] {
        assert_eq!(by_hand(namespace, "ip -6 address show"), "", "{namespace}");
    }
    assert!(town.reconcile().await.is_quiet());
    assert!(!town.call(0, 0, OUTER, 9, BRIEFLY).await.contains("hears"));
    town.control(0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_canary_answers_apps_at_one_address_and_goes_without_a_trace() {
    let Some(mut town) = Town::new("the_canary", &[&[1, 1]]).await else { return };
    let (open, closed) = (Ipv4Addr::new(198, 18, 7, 7), Ipv4Addr::new(172, 20, 7, 7));
    let ports = CanaryPorts { allowed: PORT, denied: 1, unnamed: 2 };
    let canary =
        Canary { outer: Ipv4Addr::new(198, 18, 7, 1), open, ports, closed: vec![closed], bystander: None };
    town.topology.canary = Some(canary);
    town.plan = plan(&town.topology).unwrap();
    assert!(town.reconcile().await.failed.is_empty());
    town.populate().await;
    let there = town.topology.installation.canary();
    for at in [open, closed] {
        town.people.answers(&there, at, PORT, "canary").await;
    }
    for replica in [0, 1] {
        let heard = town.call(0, replica, open, PORT, PATIENCE).await;
        assert_eq!(heard, format!("canary hears {}", zone_address(replica)));
        assert!(!town.call(0, replica, closed, PORT, BRIEFLY).await.contains("hears"));
    }
    let report = town.reconcile().await;
    assert!(report.is_quiet(), "{report:?}");
    by_hand(&town.outside.namespace, "ip rule flush; ip rule add table main priority 32766");
    assert!(!town.reconcile().await.changed.is_empty());
    assert!(town.call(0, 0, open, PORT, PATIENCE).await.contains("hears"));
    town.topology.canary = None;
    town.plan = plan(&town.topology).unwrap();
    let report = town.reconcile().await;
    assert_eq!(report.removed, [there], "{report:?}");
    let rules = by_hand(&town.outside.namespace, "ip rule show");
    assert!(!rules.contains("1000:"), "{rules}");
    town.controls().await;
}
