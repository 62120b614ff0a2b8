//! `bastide waf …`: the security office's tools. Policies go over the API; rules and the log are the machine's.

use crate::{args::DataArgs, files, layout::Layout, up};
use anyhow::{Result, bail};
use bastide_cli::waf::PolicyCommand;
use bastide_edge::waf::force::Status;
use clap::Subcommand;

/// What `bastide waf` does.
#[derive(Debug, Clone, Subcommand)]
pub enum WafCommand {
    /// What is inspected, how strictly, and what is left out
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Show which rules are in force on this machine, and why newer ones are not
    Status(DataArgs),
}

/// Runs a command to its end.
pub async fn run(context: bastide_cli::Context, command: WafCommand) -> Result<()> {
    match command {
        WafCommand::Policy(command) => bastide_cli::waf::policy(&context, command).await,
        WafCommand::Status(data) => status(&up::layout(data.data.as_deref()), context.json),
    }
}

fn status(layout: &Layout, json: bool) -> Result<()> {
    let Some(status) = files::read_json::<Status>(&layout.waf_status())? else {
        bail!("no edge has said anything in {}: is Bastide up?", layout.root().display());
    };
    if json {
        println!("{}", serde_json::to_string(&status)?);
        return Ok(());
    }
    println!("rules     {} in {} files, {}", status.rules, status.files, status.origin);
    println!("digest    {}", status.digest);
    println!("policies  {}", status.policies);
    for warning in &status.warnings {
        println!("note      {warning}");
    }
    if let Some(refused) = &status.refused {
        println!("REFUSED   newer rules are not in force: {refused}");
    }
    Ok(())
}
