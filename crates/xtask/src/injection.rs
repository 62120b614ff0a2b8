//! Our SQL and script verdicts against those of the C library, over generated values.

use crate::{
    oracle::{Oracle, write_text},
    values::{Chance, value},
};
use anyhow::{Context, Result};
use std::{
    io::{BufRead, Write},
    process::ExitCode,
    thread,
};

/// How much is compared.
#[derive(clap::Args)]
pub struct Args {
    /// Values
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Where the values begin; another number gives others
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Differences that are printed.
const SHOWN_MAX: usize = 20;

/// Compares; fails at any difference.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut oracle = Oracle::injection()?;
    let (mut input, output) = oracle.split().context("it has ended")?;
    let (seed, count) = (args.seed, args.count);
    let writer = thread::spawn(move || -> std::io::Result<()> {
        let mut chance = Chance::new(seed);
        (0..count).try_for_each(|_| write_text(&mut input, &value(&mut chance)))?;
        input.flush()
    });
    let (mut chance, mut sqli, mut xss, mut differences) = (Chance::new(seed), 0_u64, 0_u64, 0_usize);
    let mut line = String::new();
    for _ in 0..count {
        let value = value(&mut chance);
        line.clear();
        output.read_line(&mut line)?;
        let (fingerprint, script) = line.trim_end().rsplit_once(' ').context("no answer")?;
        let (own, own_script) = bastide_waf::injections(&value);
        let own = own.map_or("-".to_owned(), |own| String::from_utf8_lossy(&own).into_owned());
        sqli += u64::from(fingerprint != "-");
        xss += u64::from(script == "1");
        if own != fingerprint || own_script != (script == "1") {
            differences += 1;
            if differences <= SHOWN_MAX {
                println!(
                    "{:?}: ours {own} {own_script}, theirs {fingerprint} {script}",
                    String::from_utf8_lossy(&value)
                );
            }
        }
    }
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    println!("{count} values from seed {seed}: {sqli} SQL, {xss} scripts, {differences} differences");
    Ok(if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
