//! Measures networks in the kernel and prints rows of a table. Needs root; everything that it makes is removed.
//! With `iperf3` installed it measures throughput too: from a replica over its router and the gateway to the
//! outside, against one plain cable.

use bastide_isolation::{
    Caps, Direct, Installation, Ledger, Link, MAIN, Namespace, Outside, Plan, ReplicaNet, Route, StageNet,
    Topology, Uplink, ZoneNet, plan,
};
use bastide_network::{
    Network, OutsideNamespace,
    gateway::{Gateways, Health},
    socket::Sockets,
};
use bastide_types::{ReplicaId, ZoneName};
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const OUTER: Ipv4Addr = Ipv4Addr::new(11, 1, 0, 1);
const API: Ipv4Addr = Ipv4Addr::new(11, 1, 0, 80);
const PLAIN: [Ipv4Addr; 2] = [Ipv4Addr::new(11, 3, 0, 1), Ipv4Addr::new(11, 3, 0, 2)];
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
    println!("## Networks\n\n| what | measured |\n|---|---|");
    let seed = format!("/measure/{}", std::process::id());
    let (place, installation) = (Installation::of(&format!("{seed}/outside")), Installation::of(&seed));
    let (outside, plain) = (place.gateway(&zone(0)?), place.gateway(&zone(1)?));
    let around = Network::open(place, OutsideNamespace::Host).await?;
    let done = async {
        let report = around.reconcile(&surroundings(&outside, &plain)?).await?;
        assert!(report.failed.is_empty(), "{report:?}");
        let by = OutsideNamespace::Named(outside.clone());
        let network = Arc::new(Network::open(installation.clone(), by).await?);
        let measured = measure(&network, installation, &outside, &plain).await;
        let begun = Instant::now();
        network.clear().await?;
        row("clear all of it", begun.elapsed());
        measured
    }
    .await;
    around.clear().await?;
    done
}

/// The outside, and another namespace on one plain cable to it.
fn surroundings(outside: &str, plain: &str) -> Outcome<Plan> {
    let end = |own: Ipv4Addr, other: Ipv4Addr, link: &str| -> Outcome<Namespace> {
        let to = ipnet::Ipv4Net::new(other, 32)?;
        Ok(Namespace {
            addresses: vec![(link.into(), own)],
            routes: vec![Route { to, via: None, link: link.into(), table: MAIN }],
            ..Namespace::default()
        })
    };
    let mut there = end(PLAIN[0], PLAIN[1], "plain0")?;
    there.addresses.push(("lo".into(), API));
    let namespaces = BTreeMap::from([
        (outside.to_owned(), there),
        (plain.to_owned(), end(PLAIN[1], PLAIN[0], "eth0")?),
        (Plan::OUTSIDE.to_owned(), Namespace::default()),
    ]);
    let link = Link { near: (plain.to_owned(), "eth0".into()), far: (outside.to_owned(), "plain0".into()) };
    Ok(Plan { namespaces, links: vec![link] })
}

async fn measure(
    network: &Arc<Network>,
    installation: Installation,
    outside: &str,
    plain: &str,
) -> Outcome<()> {
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
    let mut looks = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let report = network.reconcile(&whole).await?;
        looks.push(begun.elapsed());
        assert!(report.is_quiet(), "{report:?}");
    }
    row("look at all of it, nothing to do (median of 5)", median(looks));
    let id = ReplicaId::generate();
    let address = ledger.replica("ACCOUNT0", id)?;
    town.stages[0].replicas.push(ReplicaNet { id, zone: zone(0)?, address });
    let begun = Instant::now();
    let report = network.reconcile(&plan(&town)?).await?;
    row("one replica more", begun.elapsed());
    assert_eq!(report.made.len(), 1, "{report:?}");
    repair(network, &town).await?;
    throughput(&town, outside, plain)
}

/// A gateway that is gone, and one that hangs with its links up.
async fn repair(network: &Arc<Network>, town: &Topology) -> Outcome<()> {
    let gateways = Gateways::new(network.clone(), Sockets::start()?);
    let (whole, gateway) = (plan(town)?, town.installation.gateway(&zone(0)?));
    for (what, command) in [
        ("repair a gateway whose way out is gone (bar: 1 s)", "ip link delete wan0".to_owned()),
        (
            "repair a gateway that hangs (bar: 1 s)",
            format!("ip neighbour replace {OUTER} lladdr 02:00:00:00:00:01 dev wan0 nud permanent"),
        ),
    ] {
        let mut repairs = Vec::new();
        while repairs.len() < 5 {
            let done = inside(&gateway).args(["/bin/sh", "-c", &command]).status()?;
            assert!(done.success(), "{command}");
            loop {
                match gateways.tend(town, &whole).await.remove(&zone(0)?) {
                    Some(Health::Repaired { took, .. }) => break repairs.push(took),
                    Some(Health::Passes | Health::Unknown) => {}
                    other => return Err(format!("{command}: {other:?}").into()),
                }
            }
        }
        row(&format!("{what}, median of 5"), median(repairs));
    }
    Ok(())
}

fn inside(namespace: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", bastide_network::path(namespace).display()));
    command
}

/// A server that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rounds of both ways in turn: with other work on the machine only the ratio counts.
fn throughput(town: &Topology, outside: &str, plain: &str) -> Outcome<()> {
    if Command::new("iperf3").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("| throughput | not measured: iperf3 is not installed |");
        return Ok(());
    }
    let replica = town.installation.replica(town.stages[0].replicas[0].id);
    let server = inside(outside).args(["iperf3", "--server"]).stdout(Stdio::null()).spawn()?;
    let _server = Server(server);
    std::thread::sleep(Duration::from_millis(500));
    for streams in ["1", "4"] {
        let (mut direct, mut whole) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            direct.push(gigabits(plain, PLAIN[0], streams)?);
            whole.push(gigabits(&replica, API, streams)?);
        }
        let (direct, whole) = (median(direct), median(whole));
        println!(
            "| throughput, {streams} stream(s), medians of 3: over router and gateway / plain cable (bar: 70 %) | {whole:.1} / {direct:.1} Gbit/s = {:.0} % |",
            whole * 100.0 / direct
        );
    }
    Ok(())
}

fn gigabits(from: &str, to: Ipv4Addr, streams: &str) -> Outcome<f64> {
    let said = inside(from)
        .args(["iperf3", "--json", "--time", "2", "--parallel", streams, "--client", &to.to_string()])
        .output()?;
    let said: serde_json::Value = serde_json::from_slice(&said.stdout)?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.ok_or_else(|| format!("iperf3: {}", said["error"]))? / 1e9)
}

fn median<T: PartialOrd + Copy>(mut all: Vec<T>) -> T {
    all.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    all[all.len() / 2]
}
