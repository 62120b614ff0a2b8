//! How long a developer waits until what was published answers, alone and with 99 others: run by `bench/publish/run`.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{neighbours::quantile, publish::Town};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const TURNS: usize = 9;
const CUSTOMERS: usize = 10;
const APPS_EACH: usize = 10;
const BAR_NEW: Duration = Duration::from_secs(2);
const BAR_CHANGED: Duration = Duration::from_secs(1);
const BAR_BACK: Duration = Duration::from_secs(2);
/// The customer that waits longest waits at most so many times as long as the one that waits least.
const BAR_FAIR: f64 = 2.0;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let executable = PathBuf::from(std::env::args().nth(1).context("the executable of Bastide")?);
    let mut town = Town::start(executable, CUSTOMERS).await?;
    println!("| from the command to the first answer | times | p50, s | longest, s | bar, s |");
    println!("|---|---|---|---|---|");
    let alone = alone(&town).await?;
    println!("\n{CUSTOMERS} customers publish {APPS_EACH} sites each at once:\n");
    println!("| customer | first, s | mean, s | last, s |");
    println!("|---|---|---|---|");
    let fair = together(&town).await?;
    town.product.down()?;
    ensure!(alone && fair, "a bar is missed");
    Ok(())
}

async fn alone(town: &Town) -> Result<bool> {
    let (mut new, mut changed, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..TURNS {
        new.push(town.new_program(0, turn).await?);
    }
    town.change_site(0, 0).await?;
    for turn in 1..=TURNS {
        changed.push(town.change_site(0, turn).await?);
    }
    for turn in 0..TURNS {
        // From the last one to the one before, and back again.
        back.push(town.roll_back_site(0, TURNS - (turn + 1) % 2).await?);
    }
    let rows = [
        ("a new program of 5 MB", &mut new, BAR_NEW),
        ("one changed file of 300", &mut changed, BAR_CHANGED),
        ("a roll back", &mut back, BAR_BACK),
    ];
    let mut met = true;
    for (what, took, bar) in rows {
        let (p50, longest) = (quantile(took, 500), quantile(took, 1000));
        met &= p50 <= bar;
        let [p50, longest, bar] = [p50, longest, bar].map(|at| at.as_secs_f64());
        println!("| {what} | {TURNS} | {p50:.2} | {longest:.2} | {bar:.0} |");
    }
    Ok(met)
}

async fn together(town: &Town) -> Result<bool> {
    let (mut publishes, begun) = (JoinSet::new(), Instant::now());
    for app in 0..APPS_EACH {
        for customer in 0..CUSTOMERS {
            let publish = town.publish_small(customer, app)?;
            publishes.spawn(async move { publish.await.map(|()| (customer, begun.elapsed())) });
        }
    }
    let mut took = vec![Vec::new(); CUSTOMERS];
    while let Some(done) = publishes.join_next().await {
        let (customer, after) = done??;
        took[customer].push(after);
    }
    let seconds = |at: Duration| at.as_secs_f64();
    let mut means = Vec::new();
    for (customer, took) in took.iter().enumerate() {
        let mean = seconds(took.iter().sum::<Duration>()) / took.len() as f64;
        let (first, last) =
            (took.first().copied().unwrap_or_default(), took.last().copied().unwrap_or_default());
        println!("| {customer} | {:.1} | {mean:.1} | {:.1} |", seconds(first), seconds(last));
        means.push(mean);
    }
    let (least, most) =
        means.iter().fold((f64::MAX, 0.0_f64), |(least, most), mean| (least.min(*mean), most.max(*mean)));
    println!(
        "\nAll {} succeeded. The longest mean is {:.2} of the shortest (bar: {BAR_FAIR}).",
        CUSTOMERS * APPS_EACH,
        most / least
    );
    Ok(most / least <= BAR_FAIR)
}
