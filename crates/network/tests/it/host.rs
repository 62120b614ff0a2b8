//! The host as the way out: it translates once more, answers nobody, and is left as it was.

use crate::scene::{
    BRIEFLY, PATIENCE, PORT, People, Place, by_hand, installation, left, possible, topology, zone,
};
use bastide_isolation::{Outside, Uplink, address, plan};
use bastide_network::{Network, OutsideNamespace};
use std::{fs, net::Ipv4Addr};

/// On the internet of this test, and the host's own end of the cable there.
const SITE: Ipv4Addr = Ipv4Addr::new(11, 77, 0, 80);
const HOST: Ipv4Addr = Ipv4Addr::new(11, 77, 0, 1);

fn forwards() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap()
}

/// The host is everybody's: tests that change it take turns.
fn turn() -> fs::File {
    let file = fs::File::create("/run/bastide-test-host.lock").unwrap();
    file.lock().unwrap();
    file
}

struct Cleared<'a>(&'a Network);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        std::thread::scope(|scope| {
            let clear = || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(self.0.clear()).unwrap();
            };
            let _ = scope.spawn(clear).join();
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_translates_answers_nobody_and_is_left_as_it_was() {
    const TEST: &str = "the_host_translates";
    if !possible(TEST) {
        return;
    }
    let _turn = turn();
    let before = (forwards(), by_hand("../../proc/self/ns/net", "nft list tables; ip -o link show | wc -l"));
    {
        let internet = Place::new(TEST, &[SITE], Some(HOST)).await;
        let mut topology = topology(installation(TEST), &[&[1, 1], &[1, 0]]);
        let network = Network::open(topology.installation.clone(), OutsideNamespace::Host).await.unwrap();
        let _cleared = Cleared(&network);
        topology.outside = Outside::Host { routes_already: network.routes_already().await.unwrap() };
        let slot = (std::process::id() % 8192) as u16;
        for (ordinal, zone) in topology.zones.iter_mut().enumerate() {
            let (outer, inner) = address::uplink(slot, ordinal as u8);
            zone.uplink = Uplink { inner, outer, public: None };
        }
        let planned = plan(&topology).unwrap();
        let report = network.reconcile(&planned).await.unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        let report = network.reconcile(&planned).await.unwrap();
        assert!(report.is_quiet(), "{report:?}");

        let mut people = People::new();
        people.answers(&internet.namespace, SITE, PORT, "site").await;
        let mut host = tokio::task::JoinSet::new();
        let outer = topology.zones[0].uplink.outer;
        for at in [HOST, outer] {
            let listener = tokio::net::TcpListener::bind((at, PORT)).await.unwrap();
            host.spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"host hears").await;
                }
            });
        }
        let replicas: Vec<_> = topology.stages.iter().flat_map(|stage| &stage.replicas).collect();
        let namespace = |number: usize| topology.installation.replica(replicas[number].id);
        let call = async |number: usize, to: Ipv4Addr, port: u16, limit| {
            people.call(&namespace(number), replicas[number].address, (to, port).into(), limit).await
        };
        for number in 0..replicas.len() {
            assert_eq!(call(number, SITE, PORT, PATIENCE).await, format!("site hears {HOST}"));
        }
        // The way to the gateways' own probe is open, and answered by the host with a reset.
        let probe = topology.installation.probe(&zone(0));
        let from = address::in_block(0, 1);
        let heard = people.call(&probe, from, (outer, bastide_isolation::PROBE_PORT).into(), PATIENCE).await;
        assert_eq!(heard, "ConnectionRefused");
        for to in [HOST, outer, Ipv4Addr::LOCALHOST, replicas[1].address, replicas[2].address] {
            let heard = call(0, to, PORT, BRIEFLY).await;
            assert!(!heard.contains("hears"), "{to}: {heard}");
        }
        assert!(network.counters(bastide_isolation::Plan::OUTSIDE).await.unwrap()["host"] > 0);

        // With addresses of its own for a zone, the outside sees those.
        by_hand("../../proc/self/ns/net", "ip address add 11.77.0.3/32 dev lo");
        by_hand(&internet.namespace, "ip route add 11.77.0.3/32 dev eth0");
        topology.zones[1].uplink.public = Some(Ipv4Addr::new(11, 77, 0, 3));
        let report = network.reconcile(&plan(&topology).unwrap()).await.unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        let heard = call(1, SITE, PORT, PATIENCE).await;
        by_hand("../../proc/self/ns/net", "ip address delete 11.77.0.3/32 dev lo");
        assert_eq!(heard, "site hears 11.77.0.3");
        assert_eq!(call(0, SITE, PORT, PATIENCE).await, format!("site hears {HOST}"));

        // Somebody takes the host's table away.
        by_hand(
            "../../proc/self/ns/net",
            &format!("nft delete table inet {}", topology.installation.table()),
        );
        assert!(!network.reconcile(&plan(&topology).unwrap()).await.unwrap().is_quiet());
        let heard = call(0, outer, PORT, BRIEFLY).await;
        assert!(!heard.contains("hears"), "{heard}");
        network.clear().await.unwrap();
        assert_eq!(left(&topology.installation), Vec::<String>::new());
    }
    let after = (forwards(), by_hand("../../proc/self/ns/net", "nft list tables; ip -o link show | wc -l"));
    assert_eq!(before, after);
}
