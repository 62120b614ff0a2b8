//! How long after a sign-out, a suspension or a lost role anybody still gets in: run by `bench/revocation/run`.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{
    load::Load,
    neighbours::quantile,
    revocation::{Bench, Kind},
};
use std::{path::PathBuf, time::Duration};

/// Of each kind.
const ROUNDS: usize = 100;
/// Three times as many clients ask meanwhile.
const LOAD: usize = 8;
const BAR: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let executable = PathBuf::from(std::env::args().nth(1).context("the executable of Bastide")?);
    let mut bench = Bench::start(executable).await?;
    let load = Load::start(&bench.others()?, LOAD, |status, _| status == 200);
    println!("| ended | times | p50, ms | p99, ms (bar: 100) | longest, ms |");
    println!("|---|---|---|---|---|");
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            took.push(bench.end_once(kind).await?);
        }
        all.extend(took.iter().copied());
        line(kind.word(), &mut took);
    }
    let p99 = line("all", &mut all);
    let report = load.end().await;
    println!("\nOthers meanwhile: {} answers, {} lost.", report.answered, report.lost);
    bench.product.down()?;
    ensure!(p99 <= BAR, "the bar is missed");
    Ok(())
}

fn line(word: &str, took: &mut [Duration]) -> Duration {
    let ms = |at: Duration| at.as_secs_f64() * 1000.0;
    let (p50, p99, longest) = (quantile(took, 500), quantile(took, 990), quantile(took, 1000));
    println!("| {word} | {} | {:.1} | {:.1} | {:.1} |", took.len(), ms(p50), ms(p99), ms(longest));
    p99
}
