//! What 10,000 issuers and 100,000 sessions cost a platform replica: how long discovery takes, and its memory.
//!
//! Prints a table; ends with an error when a bar is missed. Called by `bench/issuers`.

#[allow(dead_code, unused_imports, clippy::unwrap_used, missing_docs)]
#[path = "../tests/it/api.rs"]
mod api;

use api::{World, world};
use bastide_store::{MemberRow, NewSession, now_s};
use bastide_types::{CustomerId, UserId};
use http::{Method, StatusCode};
use std::{
    error::Error,
    fs,
    time::{Duration, Instant},
};

/// Each has an issuer for its members and one for each of its three stages.
const CUSTOMERS: u32 = 2_500;
const SESSIONS: u32 = 100_000;
const SESSIONS_EACH: u32 = SESSIONS / CUSTOMERS;
const ROUNDS: u32 = 5_000;
const P99_MAX: Duration = Duration::from_millis(10);
const MEMORY_MB_MAX: u64 = 60;

/// Secrets are hashes of numbers here: what they are of does not matter.
fn hash(number: u32) -> [u8; 32] {
    bastide_identity::opaque::hash(&number.to_string())
}

/// A customer with a member who is signed in many times.
async fn customer(world: &World, number: u32) -> Result<CustomerId, Box<dyn Error>> {
    let id = world.customer_with_stages(&format!("customer-{number}")).await;
    let own = world.app.store.customer(id);
    let mut write = world.app.store.write().await?;
    let member = MemberRow {
        id: UserId::generate(),
        state: "active".into(),
        ..MemberRow::invited("", "ann@example.com", "Ann", vec!["developer".into()])
    };
    own.add_member(&mut write, &member).await?;
    for session in 0..SESSIONS_EACH {
        let hash = hash(number * SESSIONS_EACH + session);
        let until = now_s() + 36_000;
        let new = NewSession { kind: "browser", hash: &hash, parent: None, member: member.id, until };
        own.add_session(&mut write, &new).await?;
    }
    write.commit().await?;
    Ok(id)
}

fn memory_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn row(what: &str, mut took: Vec<Duration>, bar: Option<Duration>) -> bool {
    took.sort();
    let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)];
    let shown = bar.map_or_else(String::new, |bar| format!("{bar:?}"));
    println!("| {what} | {:.2?} | {:.2?} | {shown} |", at(50), at(99));
    bar.is_none_or(|bar| at(99) <= bar)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = world().await;
    let empty = memory_mb();
    let mut ids = Vec::new();
    for number in 0..CUSTOMERS {
        ids.push(customer(&world, number).await?);
    }
    println!("| what | p50 | p99 | bar |\n|---|---|---|---|");
    let (mut discovery, mut sessions) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // In no order that a cache would like.
        let number = round.wrapping_mul(2_654_435_761) % CUSTOMERS;
        let base = ["", "/s/development", "/s/test", "/s/production"][(round % 4) as usize];
        let path = format!("/identity{base}/.well-known/openid-configuration");
        let begun = Instant::now();
        let (status, text) = world.call(&format!("customer-{number}"), Method::GET, &path, None, "").await;
        discovery.push(begun.elapsed());
        assert_eq!(status, StatusCode::OK, "{text}");
        assert!(text.contains(&format!("customer-{number}")), "{text}");
        let begun = Instant::now();
        let own = world.app.store.customer(ids[number as usize]);
        let found = own.session("browser", &hash(number * SESSIONS_EACH + round % SESSIONS_EACH)).await?;
        sessions.push(begun.elapsed());
        assert!(found.is_some());
    }
    let met = row("discovery of one of 10,000 issuers", discovery, Some(P99_MAX));
    row("one of 100,000 sessions is looked up", sessions, None);
    let memory = memory_mb();
    println!("\nA replica: {memory} MB (bar: {MEMORY_MB_MAX} MB), {empty} MB before.");
    if met && memory <= MEMORY_MB_MAX { Ok(()) } else { Err("a bar was missed".into()) }
}
