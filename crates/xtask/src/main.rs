//! `cargo run -p xtask -- …`: tools for developing Bastide. Nothing of it is shipped.

mod compare;
mod cost;
mod ftw;
mod injection;
mod oracle;
mod request;
mod rules;
mod values;

use anyhow::Result;
use clap::Parser;

/// Tools for developing Bastide.
#[derive(Parser)]
enum Task {
    /// Runs rule regression tests in the go-ftw format against a stand-alone edge.
    Ftw(ftw::Args),
    /// What a request costs in process, beside libmodsecurity with the same rules
    Cost(cost::Args),
    /// Verdict by verdict against libmodsecurity over generated requests
    Compare(compare::Args),
    /// SQL and script verdicts against libinjection over generated values
    Injection(injection::Args),
}

fn main() -> Result<std::process::ExitCode> {
    match Task::parse() {
        Task::Ftw(args) => ftw::run(&args),
        Task::Cost(args) => cost::run(&args),
        Task::Compare(args) => compare::run(&args),
        Task::Injection(args) => injection::run(&args),
    }
}
