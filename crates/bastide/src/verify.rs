//! `bastide verify`: has the runtime role of this machine prove that apps are kept apart.

use crate::{args::VerifyArgs, files, layout::Layout, supervisor::Identity};
use anyhow::{Context, Result, bail};
use bastide_runtime::verify::{Answer, Request, ask};
use bastide_verify::Outcome;
use std::{io::Write, process::ExitCode};

/// Prints what came of it. The exit code is 0 when isolation is proven, 1 when a path is not as it should be, 2
/// when nothing could be proven.
pub async fn run(layout: &Layout, args: VerifyArgs, json: bool) -> Result<ExitCode> {
    let door = layout.verify_door();
    if files::read_json::<Identity>(&layout.supervisor())?.as_ref().is_none_or(|x| !Identity::is_alive(x)) {
        bail!("nothing runs in {}: start it with `bastide up`", layout.root().display());
    }
    if !door.exists() {
        bail!(
            "apps are not isolated here, or not yet: there is nothing to prove. `bastide check` says what this machine allows"
        );
    }
    if !json {
        eprintln!("Trying every path; this takes up to a minute.");
    }
    let request = Request { customer: args.customer, stage: args.stage };
    let answer = ask(&door, &request).await;
    match answer.with_context(|| format!("the runtime role does not answer at {}", door.display()))? {
        Answer::Report(report) => {
            let text = if json { serde_json::to_string_pretty(&report)? + "\n" } else { report.table() };
            // Whoever reads only the first lines still gets the exit code.
            match std::io::stdout().write_all(text.as_bytes()) {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(ExitCode::from(report.outcome.code())),
            }
        }
        Answer::Refused(why) => {
            eprintln!("error: {why}");
            Ok(ExitCode::from(Outcome::Unproven.code()))
        }
    }
}
