//! What 1,000 customers with 20 apps each cost a platform replica: its memory, and how long lists take.
//!
//! Prints a table; ends with an error when a bar is missed. Called by `bench/lists`.

#[allow(dead_code, unused_imports, clippy::unwrap_used, missing_docs)]
#[path = "../tests/it/api.rs"]
mod api;

use api::{World, world};
use bastide_bus::PlatformHandler;
use bastide_platform::BusServices;
use bastide_store::{RevisionRow, raise_revision};
use bastide_types::{
    API, AppName, CustomerId, CustomerName, Digest, Manifest, StageName, message::SnapshotQuery,
};
use http::{Method, StatusCode};
use std::{
    error::Error,
    fs,
    time::{Duration, Instant},
};

const CUSTOMERS: u32 = 1000;
const APPS: u32 = 20;
const ROUNDS: usize = 1000;
const P99_MAX: Duration = Duration::from_millis(20);
const MEMORY_MB_MAX: u64 = 150;

fn digest(number: u32) -> Digest {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Digest::from_sha256(bytes)
}

/// A customer whose apps serve in all of its stages.
async fn customer(world: &World, number: u32, manifest: &str) -> Result<CustomerId, Box<dyn Error>> {
    let id = world.customer_with_stages(&format!("customer-{number}")).await;
    let own = world.app.store.customer(id);
    let mut write = world.app.store.write().await?;
    for app in 0..APPS {
        let name = AppName::new(format!("app-{app}"))?;
        let mut made: Manifest = toml::from_str(manifest)?;
        made.app.name = name.clone();
        let app = own.ensure_app(&mut write, &name).await?;
        let image = digest(number * APPS);
        let row = RevisionRow::new(app, image, image, made, vec![image]);
        let revision = own.add_revision(&mut write, &row).await?;
        for stage in StageName::defaults() {
            own.serve(&mut write, &stage, app, revision, &[], 0).await?;
        }
    }
    raise_revision(&mut write).await?;
    write.commit().await?;
    Ok(id)
}

fn memory_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Times of one list, sorted.
async fn times(world: &World, host: &str, path: &str, assertion: &str) -> Vec<Duration> {
    let mut all = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let (status, text) = world.call(host, Method::GET, path, Some(assertion), "").await;
        all.push(begun.elapsed());
        assert_eq!(status, StatusCode::OK, "{text}");
    }
    all.sort();
    all
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = world().await;
    let manifest = "[app]\nname = \"x\"\nkind = \"static\"\n\n[[route]]\npath = \"/\"\naccess = \"public\"\n";
    let mut ids = Vec::new();
    for number in 0..CUSTOMERS {
        ids.push(customer(&world, number, manifest).await?);
    }
    let one = world.assertion(ids[500], &["administrator"]);
    let office = world.app.store.customer_named(&CustomerName::operator()).await?.ok_or("no operator")?;
    let operator = world.assertion(office.id, &["operator"]);
    println!("| list | p50 | p99 | bar |\n|---|---|---|---|");
    let mut missed = false;
    for (host, path, assertion) in [
        ("customer-500", "/apps", &one),
        ("customer-500", "/apps?fields=name,stages.stage,stages.status", &one),
        ("customer-500", "/members", &one),
        ("customer-500", "/roles", &one),
        ("customer-500", "/domains", &one),
        ("operator", "/customers", &operator),
    ] {
        let all = times(&world, host, &format!("{API}{path}"), assertion).await;
        let at = |part: usize| all[(all.len() * part / 100).min(all.len() - 1)];
        missed |= at(99) > P99_MAX;
        println!("| `{path}` | {:.1?} | {:.1?} | {P99_MAX:?} |", at(50), at(99));
    }
    let head = BusServices(world.app.clone()).snapshot_head(SnapshotQuery::default()).await;
    head.map_err(|problem| problem.to_string())?;
    let memory = memory_mb();
    missed |= memory > MEMORY_MB_MAX;
    println!(
        "\nA replica with {CUSTOMERS} customers × {APPS} apps, Snapshot made: {memory} MB (bar: {MEMORY_MB_MAX} MB)"
    );
    if missed { Err("a bar was missed".into()) } else { Ok(()) }
}
