//! `cargo run -p xtask -- …`: tools for developing Bastide. Nothing of it is shipped.

mod ftw;

use anyhow::Result;
use clap::Parser;

/// Tools for developing Bastide.
#[derive(Parser)]
enum Task {
    /// Runs rule regression tests in the go-ftw format against a stand-alone edge.
    Ftw(ftw::Args),
}

fn main() -> Result<std::process::ExitCode> {
    match Task::parse() {
        Task::Ftw(args) => ftw::run(&args),
    }
}
