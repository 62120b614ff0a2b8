//! How much longer a quiet app's answers take while an app of another customer disturbs: run by `bench/neighbours/run`.
//!
//! Windows alone and disturbed take turns, so that whatever else the machine does falls on both.

use anyhow::{Context, Result};
use bastide_testkit::neighbours::{Disturber, Neighbours, quantile};
use std::{path::PathBuf, time::Duration};

/// One request in each.
const EVERY: Duration = Duration::from_millis(10);
const WINDOW: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
/// A disturbance begins before its window and ends after it.
const LEAD: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let executable = PathBuf::from(words.next().context("the executable of Bastide")?);
    let only: Vec<String> = words.collect();
    let mut neighbours = Neighbours::start(executable).await?;
    println!(
        "| disturber | p50 alone, ms | p50 disturbed | p99 alone, ms | p99 disturbed | ratio of p99 (bar: 2) |"
    );
    println!("|---|---|---|---|---|---|");
    // The first requests of all find cold caches.
    neighbours.ask_steadily(EVERY, WINDOW).await?;
    for how in Disturber::ALL {
        if !only.is_empty() && !only.iter().any(|word| word == how.word()) {
            continue;
        }
        let (mut alone, mut disturbed) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.extend(neighbours.ask_steadily(EVERY, WINDOW).await?);
            let mut tasks = neighbours.disturb(how, LEAD + WINDOW + LEAD).await?;
            tokio::time::sleep(LEAD).await;
            disturbed.extend(neighbours.ask_steadily(EVERY, WINDOW).await?);
            tasks.shutdown().await;
            tokio::time::sleep(2 * LEAD).await;
            neighbours.free().await;
        }
        let ms = |took: &mut [Duration], at| quantile(took, at).as_secs_f64() * 1000.0;
        let (p50, p50_disturbed) = (ms(&mut alone, 500), ms(&mut disturbed, 500));
        let (p99, p99_disturbed) = (ms(&mut alone, 990), ms(&mut disturbed, 990));
        let ratio = p99_disturbed / p99;
        let word = how.word();
        println!("| {word} | {p50:.2} | {p50_disturbed:.2} | {p99:.2} | {p99_disturbed:.2} | {ratio:.2} |");
    }
    neighbours.product.down()
}
