//! What a flood of logins costs users of other routes: run by `bench/logins/run`.

use anyhow::{Context, Result, ensure};
use bastide_testkit::{
    logins::{Attack, watch},
    neighbours::quantile,
    revocation::Bench,
};
use std::{path::PathBuf, sync::atomic::Ordering, time::Duration};

const ATTACKERS: usize = 200;
/// Of each part, quiet and flooded in turns.
const PART: Duration = Duration::from_secs(10);
const TURNS: usize = 3;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<()> {
    let executable = PathBuf::from(std::env::args().nth(1).context("the executable of Bastide")?);
    let mut bench = Bench::start(executable).await?;
    let routes = [
        ("an app", bench.others()?),
        ("the Platform: keys of the issuer", bench.platform("/identity/jwks")?),
    ];
    let victim = bench.platform("/identity/login")?;
    println!("| route | quiet p50, ms | p99, ms | flooded p50, ms | p99, ms | ratio (bar: 2) |");
    println!("|---|---|---|---|---|---|");
    let (mut missed, mut heard) = (false, [0; 3]);
    for (name, target) in routes {
        let (mut quiet, mut flooded) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            quiet.extend(watch(&target, PART).await?);
            let attack = Attack::start(&victim, ATTACKERS);
            tokio::time::sleep(Duration::from_secs(1)).await;
            flooded.extend(watch(&target, PART).await?);
            let tally = attack.end().await;
            for (sum, count) in heard.iter_mut().zip([&tally.hashed, &tally.refused, &tally.other]) {
                *sum += count.load(Ordering::Relaxed);
            }
            // What waits still is worked off.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let ms = |at: Duration| at.as_secs_f64() * 1000.0;
        let [q50, f50] = [&mut quiet, &mut flooded].map(|took| ms(quantile(took, 500)));
        let [q99, f99] = [&mut quiet, &mut flooded].map(|took| ms(quantile(took, 990)));
        let ratio = f99 / q99;
        missed |= ratio > 2.0;
        println!("| {name} | {q50:.1} | {q99:.1} | {f50:.1} | {f99:.1} | {ratio:.2} |");
    }
    let [hashed, refused, other] = heard;
    println!("\nThe attackers: {hashed} hashes, {refused} refused at once, {other} other.");
    bench.product.down()?;
    ensure!(!missed, "the bar is missed");
    Ok(())
}
