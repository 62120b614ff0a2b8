//! Zones' gateways at work: their repair, their table of connections, and what is heard of them.

use crate::scene::{API, BRIEFLY, PATIENCE, PORT, PRIVATE, Town, by_hand, zone, zone_address};
use bastide_isolation::{Failover, Plan, plan, stand_ins};
use bastide_network::gateway::{Ears, Event, Gateways, Health, Station};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

/// A connection that is open and talks: everything comes back.
async fn talking(town: &mut Town, replica: usize, port: u16) -> TcpStream {
    let outside = town.outside.namespace.clone();
    let listener = town.people.sockets.listen(&outside, (API, port).into()).await.unwrap();
    let listener = tokio::net::TcpListener::from_std(listener.into()).unwrap();
    town.people.tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let (namespace, from) = (town.namespace(0, replica), town.replica(0, replica).address);
    let fd = town.people.sockets.connect(&namespace, from, (API, port).into(), PATIENCE).await.unwrap();
    let mut stream = TcpStream::from_std(fd.into()).unwrap();
    echo(&mut stream).await.unwrap();
    stream
}

async fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    let talk = async {
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut [0; 5]).await
    };
    tokio::time::timeout(PATIENCE, talk).await?.map(drop)
}

fn gateways(town: &Town) -> Gateways {
    Gateways::new(Arc::clone(&town.network), town.people.sockets.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_gateway_comes_back_with_its_address_and_the_other_zone_notices_nothing() {
    let Some(mut town) = Town::built("a_dead_gateway", &[&[1, 1], &[1, 1]]).await else { return };
    let gateways = gateways(&town);
    let all_pass = |health: &std::collections::BTreeMap<_, Health>| {
        health.values().filter(|one| matches!(one, Health::Passes)).count() == 2
    };
    let health = gateways.tend(&town.topology, &town.plan).await;
    assert!(all_pass(&health), "{health:?}");
    let namespace = town.topology.installation.gateway(&zone(0));
    // Gone; without rules; with its way outwards leading nowhere, which no look at it tells.
    for (number, command) in [
        format!("ip netns exec {namespace} ip link delete wan0; ip netns delete {namespace}"),
        format!("ip netns exec {namespace} nft flush ruleset; ip netns exec {namespace} ip link set wan0 down"),
        format!(
            "ip netns exec {namespace} ip neighbour replace {} lladdr 02:00:00:00:00:01 dev wan0 nud permanent",
            crate::scene::OUTER
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut cut = talking(&mut town, 0, 7001 + number as u16).await;
        let mut kept = talking(&mut town, 1, 7101 + number as u16).await;
        by_hand("../../proc/self/ns/net", &command);
        // Meanwhile a replica's namespace is taken away as well: that is not for this repair.
        let replica = town.namespace(1, 0);
        let away = bastide_network::path(&replica);
        if number == 0 {
            by_hand("../../proc/self/ns/net", &format!("ip netns delete {replica}"));
        }
        let begun = Instant::now();
        let took = loop {
            let mut health = gateways.tend(&town.topology, &town.plan).await;
            assert!(matches!(health[&zone(1)], Health::Passes | Health::Unknown), "{health:?}");
            match health.remove(&zone(0)).unwrap() {
                Health::Repaired { took, .. } => break took,
                Health::Passes | Health::Unknown => assert!(begun.elapsed() < PATIENCE),
                Health::Down => panic!("{command}"),
            }
        };
        eprintln!("repaired in {took:?}: {command}");
        echo(&mut kept).await.unwrap();
        if number == 0 {
            assert!(!away.exists());
            assert!(town.reconcile().await.made.contains(&replica));
        }
        town.controls().await;
        if number != 1 {
            let error = echo(&mut cut).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{command}");
        }
        assert!(town.reconcile().await.is_quiet());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_zone_stands_in_only_where_that_was_asked_for() {
    let Some(mut town) = Town::built("another_zone_stands_in", &[&[1, 1], &[1, 1]]).await else { return };
    let zones = [zone(0), zone(1)];
    let failover = stand_ins(&zones, &BTreeSet::from([zone(0)]));
    assert_eq!(failover, [Failover { from: zone(0), to: zone(1) }]);
    town.topology.stages[0].failover = failover;
    town.plan = plan(&town.topology).unwrap();
    let report = town.reconcile().await;
    assert!(report.made.is_empty() && report.failed.is_empty(), "{report:?}");
    let heard = town.call(0, 0, API, PORT, PATIENCE).await;
    assert_eq!(heard, format!("outside hears {}", zone_address(1)));
    town.control(0, 1).await;
    town.control(1, 0).await;
    town.topology.stages[0].failover.clear();
    town.plan = plan(&town.topology).unwrap();
    assert!(town.reconcile().await.failed.is_empty());
    town.controls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_of_ports_is_told() {
    let Some(town) = Town::built("a_full_pool", &[&[1, 0]]).await else { return };
    let gateway = town.topology.installation.gateway(&zone(0));
    let metrics = town.network.metrics(&gateway).await.unwrap();
    assert_eq!(metrics.insert_failed, 0, "{metrics:?}");
    // Ten ports instead of 64 512.
    let snat = format!("oifname wan0 meta l4proto tcp snat ip to {}:6000-6009", zone_address(0));
    by_hand(
        &gateway,
        &format!("nft flush chain inet bastide postrouting; nft add rule inet bastide postrouting {snat}"),
    );
    let mut open = Vec::new();
    for number in 0..14 {
        let (namespace, from) = (town.namespace(0, 0), town.replica(0, 0).address);
        let limit = if number < 10 { PATIENCE } else { BRIEFLY };
        open.push(town.people.sockets.connect(&namespace, from, (API, PORT).into(), limit).await);
    }
    assert_eq!(open.iter().filter(|one| one.is_ok()).count(), 10);
    let metrics = town.network.metrics(&gateway).await.unwrap();
    assert!(metrics.insert_failed + metrics.dropped > 0, "{metrics:?}");
    let fullest = &metrics.ports[0];
    assert_eq!(
        (fullest.used, fullest.to, fullest.from),
        (10, std::net::SocketAddrV4::new(API, PORT), zone_address(0))
    );
    assert!(metrics.connections >= 10 && fullest.percent() < 1.0, "{metrics:?}");
}

async fn until<T>(events: &mut mpsc::Receiver<Event>, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let seek = async {
        loop {
            if let Some(found) = wanted(&events.recv().await.expect("they go on")) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, seek).await.expect("it is heard")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_passes_and_what_is_stopped_is_heard() {
    let Some(town) = Town::built("what_passes", &[&[1, 1], &[1, 0]]).await else { return };
    let (mut ears, mut events) = Ears::new(town.people.sockets.clone());
    ears.attend(&town.topology).await.unwrap();
    for round in 0..2 {
        // The gateways' own probes are nobody's.
        gateways(&town).tend(&town.topology, &town.plan).await;
        town.control(0, 1).await;
        let from = town.replica(0, 1).address;
        let opened = until(&mut events, |event| match event {
            Event::Opened(zone, one) => {
                assert_eq!(*one.from.ip(), from, "{event:?}");
                Some((zone.clone(), one.clone()))
            }
            Event::Closed(..) => None,
            Event::Stopped(..) => panic!("{event:?}"),
        })
        .await;
        assert_eq!((opened.0, opened.1.protocol), (zone(1), 6));
        assert_eq!(
            (*opened.1.seen_as.ip(), *opened.1.to.ip(), opened.1.to.port()),
            (zone_address(1), API, PORT)
        );
        let closed_by_hand = format!("conntrack -D -s {from} >/dev/null 2>&1; true");
        by_hand(&town.topology.installation.gateway(&zone(1)), &closed_by_hand);
        let to = std::net::SocketAddrV4::new(API, PORT);
        let closed = until(&mut events, |event| match event {
            Event::Closed(_, one) if one.to == to && one.from == opened.1.from => Some(one.clone()),
            _ => None,
        })
        .await;
        assert!(closed.bytes_out > 100 && closed.bytes_back > 100 && closed.lasted.is_some(), "{closed:?}");

        let blocked: SocketAddr = (PRIVATE, 5432).into();
        let heard = town.call(0, 0, PRIVATE, 5432, BRIEFLY).await;
        assert!(!heard.contains("hears"), "{heard}");
        let (station, stopped) = until(&mut events, |event| match event {
            Event::Stopped(station, one, count) if *count > 0 => Some((station.clone(), one.clone())),
            _ => None,
        })
        .await;
        assert_eq!(station, Station::Router("ACCOUNT0".into()));
        assert_eq!(stopped.rule, "blocked");
        assert_eq!((stopped.protocol, SocketAddr::from((stopped.to, stopped.port))), (6, blocked));
        assert_eq!(stopped.from, std::net::IpAddr::V4(town.replica(0, 0).address));
        if round == 0 {
            // Everything is made anew: nobody is heard any more until the ears attend to the new ones.
            let empty =
                Plan { namespaces: [(Plan::OUTSIDE.to_owned(), Default::default())].into(), links: vec![] };
            let _ = town.network.reconcile(&empty).await.unwrap();
            assert_eq!(town.reconcile().await.made.len(), town.plan.namespaces.len() - 1);
            ears.attend(&town.topology).await.unwrap();
        }
    }
    // A flood of what is stopped is told as one, and what is not taken is counted.
    let (namespace, from) = (town.namespace(1, 0), town.replica(1, 0).address);
    let socket = town.people.sockets.udp(&namespace, (from, 0).into()).await.unwrap();
    let socket = tokio::net::UdpSocket::from_std(socket.into()).unwrap();
    for _ in 0..2000 {
        socket.send_to(b"x", (Ipv4Addr::new(10, 1, 1, 1), 9)).await.unwrap();
    }
    let mut heard = 0;
    let mut words = 0;
    while heard < 1000 {
        heard += until(&mut events, |event| match event {
            Event::Stopped(_, one, count) if one.protocol == 17 => Some(*count),
            _ => None,
        })
        .await;
        words += 1;
    }
    assert!(words < 200, "{words}");
}
