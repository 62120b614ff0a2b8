//! Measures networks in the kernel and prints rows of a table: `measure [ROUNDS]`. Needs root; everything that it
//! makes is removed. With `iperf3` installed it measures throughput too.

use bastide_isolation::{
    Caps, Direct, Installation, Ledger, Namespace, Outside, Plan, ReplicaNet, StageNet, Topology, Uplink,
    ZoneNet, plan,
};
use bastide_network::{Network, OutsideNamespace};
use bastide_types::{ReplicaId, ZoneName};
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const OUTER: Ipv4Addr = Ipv4Addr::new(11, 1, 0, 1);
const STAGES: usize = 10;
const REPLICAS: usize = 10;

fn zone(ordinal: usize) -> Outcome<ZoneName> {
    Ok(ZoneName::new(((b'a' + ordinal as u8) as char).to_string())?)
}

fn topology(installation: Installation, ledger: &mut Ledger) -> Outcome<Topology> {
    let mut stages = Vec::new();
    for number in 0..STAGES {
        let account = format!("ACCOUNT{number}");
        let mut replicas = Vec::new();
        for ordinal in 0..REPLICAS {
            let id = ReplicaId::generate();
            replicas.push(ReplicaNet {
                id,
                zone: zone(ordinal % 2)?,
                address: ledger.replica(&account, id)?,
            });
        }
        let block = ledger.stage(&account)?;
        stages.push(StageNet { account, block, replicas, failover: vec![], direct: Direct::default() });
    }
    let mut zones = Vec::new();
    for ordinal in 0..2 {
        let inner = Ipv4Addr::new(11, 1, 0, 11 + ordinal as u8);
        zones.push(ZoneNet { zone: zone(ordinal)?, uplink: Uplink { inner, outer: OUTER, public: None } });
    }
    Ok(Topology {
        installation,
        zones,
        stages,
        outside: Outside::Given,
        blocked: vec![],
        caps: Caps::default(),
        canary: None,
    })
}

/// Memory that the kernel has for itself: slabs, stacks, and what it counts per processor.
fn kernel_bytes() -> Outcome<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let lines = text.lines().filter(|line| {
        ["Slab:", "KernelStack:", "Percpu:", "VmallocUsed:"].iter().any(|name| line.starts_with(name))
    });
    Ok(lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>() * 1024)
}

fn row(what: &str, took: Duration) {
    println!("| {what} | {:.1} ms |", took.as_secs_f64() * 1000.0);
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let seed = format!("/measure/{}", std::process::id());
    let (place, installation) = (Installation::of(&format!("{seed}/outside")), Installation::of(&seed));
    let outside = place.gateway(&zone(0)?);
    let inside =
        Namespace { addresses: vec![("lo".into(), Ipv4Addr::new(11, 1, 0, 80))], ..Default::default() };
    let namespaces =
        BTreeMap::from([(outside.clone(), inside), (Plan::OUTSIDE.into(), Namespace::default())]);
    let around = Network::open(place, OutsideNamespace::Host).await?;
    let network = Network::open(installation.clone(), OutsideNamespace::Host).await?;
    drop(network);
    let done = async {
        let report = around.reconcile(&Plan { namespaces, links: vec![] }).await?;
        assert!(report.failed.is_empty(), "{report:?}");
        let network = Network::open(installation.clone(), OutsideNamespace::Named(outside.clone())).await?;
        let measured = measure(&network, installation.clone()).await;
        let begun = Instant::now();
        network.clear().await?;
        row("clear all of it", begun.elapsed());
        measured
    }
    .await;
    around.clear().await?;
    done
}

async fn measure(network: &Network, installation: Installation) -> Outcome<()> {
    let mut ledger = Ledger::default();
    let mut town = topology(installation, &mut ledger)?;
    let before = kernel_bytes()?;
    let begun = Instant::now();
    let report = network.reconcile(&plan(&town)?).await?;
    row(&format!("build {STAGES} stages with {REPLICAS} replicas each"), begun.elapsed());
    assert!(report.failed.is_empty(), "{report:?}");
    let bytes = kernel_bytes()?.saturating_sub(before);
    println!("| kernel memory for each replica | {} KiB |", bytes / 1024 / (STAGES * REPLICAS) as u64);
    let whole = plan(&town)?;
    for _ in 0..3 {
        let begun = Instant::now();
        let report = network.reconcile(&whole).await?;
        row("look, nothing to do", begun.elapsed());
        assert!(report.is_quiet(), "{report:?}");
    }
    let id = ReplicaId::generate();
    let address = ledger.replica("ACCOUNT0", id)?;
    town.stages[0].replicas.push(ReplicaNet { id, zone: zone(0)?, address });
    let begun = Instant::now();
    let report = network.reconcile(&plan(&town)?).await?;
    row("one replica more", begun.elapsed());
    assert_eq!(report.made.len(), 1, "{report:?}");
    Ok(())
}
