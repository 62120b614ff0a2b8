//! What a stage may and how much of it: its policy for packets, and its connections at a time.

use crate::scene::{API, BRIEFLY, BUS, PATIENCE, PORT, Town, zone_address};
use bastide_isolation::{Direct, address, plan};
use std::net::Ipv4Addr;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_holds_for_packets_at_once_and_loses_no_count() {
    let Some(mut town) = Town::built("a_policy_holds", &[&[1, 0], &[1, 0]]).await else { return };
    town.controls().await;
    // Something that is counted before.
    assert!(!town.call(0, 0, address::in_block(9, 9), PORT, BRIEFLY).await.contains("hears"));
    let counted = town.network.counters(&town.router(0)).await.unwrap();
    let udp = async |town: &Town, port: u16, limit| {
        let from = town.replica(0, 0).address;
        town.people.ask(&town.namespace(0, 0), from, (API, port).into(), limit).await
    };
    let net = |address: Ipv4Addr| ipnet::Ipv4Net::new(address, 32).unwrap();
    for (direct, http, bus) in [
        (Direct { allowed: vec![(net(API), Some(PORT))], denied: vec![] }, true, false),
        (Direct { allowed: vec![(net(API), None)], denied: vec![(net(API), Some(PORT))] }, false, true),
        (Direct { allowed: vec![], denied: vec![] }, false, false),
        (Direct::default(), true, true),
    ] {
        town.topology.stages[0].direct = direct.clone();
        town.plan = plan(&town.topology).unwrap();
        let report = town.reconcile().await;
        assert!(report.made.is_empty() && report.failed.is_empty() && !report.is_quiet(), "{report:?}");
        for (port, may) in [(PORT, http), (BUS, bus)] {
            // What may not be is said at once over TCP.
            let heard = town.call(0, 0, API, port, PATIENCE).await;
            let expected = if may { zone_address(0).to_string() } else { "ConnectionRefused".into() };
            assert!(heard.ends_with(&expected), "{direct:?} {port}: {heard}");
            let heard = udp(&town, port, if may { PATIENCE } else { BRIEFLY }).await;
            assert_eq!(heard.contains("hears"), may, "{direct:?} {port}: {heard}");
        }
        town.control(1, 0).await;
    }
    for (rule, count) in town.network.counters(&town.router(0)).await.unwrap() {
        assert!(count >= counted[&rule], "{rule}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_at_its_cap_is_told_at_once_and_others_notice_nothing() {
    let Some(mut town) = Town::new("a_stage_at_its_cap", &[&[1, 1], &[1, 0]]).await else { return };
    (town.topology.caps.tcp, town.topology.caps.udp) = (5, 3);
    town.plan = plan(&town.topology).unwrap();
    assert!(town.reconcile().await.failed.is_empty());
    town.populate().await;
    let mut open = Vec::new();
    for number in 0..8 {
        // Both replicas in both zones: it is one cap for the stage.
        let replica = number % 2;
        let (namespace, from) = (town.namespace(0, replica), town.replica(0, replica).address);
        let fd = town.people.sockets.connect(&namespace, from, (API, PORT).into(), PATIENCE).await;
        match fd {
            Ok(fd) => open.push(fd),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{number}"),
        }
    }
    assert_eq!(open.len(), 5);
    let stopped = town.network.counters(&town.router(0)).await.unwrap();
    assert_eq!(stopped["cap-tcp"], 3, "{stopped:?}");
    town.control(1, 0).await;
    let mut heard = Vec::new();
    for _ in 0..5 {
        let (namespace, from) = (town.namespace(0, 0), town.replica(0, 0).address);
        heard.push(town.people.ask(&namespace, from, (API, PORT).into(), BRIEFLY).await);
    }
    assert_eq!(heard.iter().filter(|heard| heard.contains("hears")).count(), 3, "{heard:?}");
    let from = town.replica(1, 0).address;
    let heard = town.people.ask(&town.namespace(1, 0), from, (API, PORT).into(), PATIENCE).await;
    assert!(heard.contains("hears"), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_finds_under_internal_names_is_its_own() {
    let Some(mut town) = Town::built("what_a_replica_finds", &[&[2, 0]]).await else { return };
    let (one, at) = (town.namespace(0, 0), Ipv4Addr::new(169, 254, 2, 7));
    town.people.answers(&one, at, 80, "granted").await;
    let heard = town.people.call(&one, town.replica(0, 0).address, (at, 80).into(), PATIENCE).await;
    assert!(heard.starts_with("granted hears"), "{heard}");
    let heard = town.call(0, 1, at, 80, PATIENCE).await;
    assert_eq!(heard, "ConnectionRefused", "the other replica has its own");
    town.control(0, 1).await;
}
