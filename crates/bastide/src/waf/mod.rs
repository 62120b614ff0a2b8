//! `bastide waf …`: the security office's tools. Policies go over the API; rules and the log are the machine's.

mod events;
mod exclude;
mod pinned;
mod request;
mod rules;
mod try_out;

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
    /// Show what rules matched lately on this machine
    Events(events::EventsArgs),
    /// Show which rules a request would match, and why; nothing is sent
    Test(try_out::TestArgs),
    /// Let a request pass that is no attack: leave out the rules that matched it, where they matched
    Exclude(exclude::ExcludeArgs),
    /// Load rules and say what they are, without using them
    Check(rules::CheckArgs),
    /// Use a release of rules, from a file
    Import(rules::ImportArgs),
    /// Use the release that is pinned by its SHA-256, from an address or a file
    Update(rules::UpdateArgs),
    /// Go back to the rules before the last import or update
    Rollback(DataArgs),
}

/// Runs a command to its end.
pub async fn run(context: bastide_cli::Context, command: WafCommand) -> Result<()> {
    match command {
        WafCommand::Policy(command) => bastide_cli::waf::policy(&context, command).await,
        WafCommand::Status(data) => status(&up::layout(data.data.as_deref()), context.json),
        WafCommand::Events(args) => events::run(&args, context.json),
        WafCommand::Test(args) => try_out::run(&args, context.json),
        WafCommand::Exclude(args) => exclude::run(&context, &args).await,
        WafCommand::Check(args) => rules::check(&args, context.json),
        WafCommand::Import(args) => rules::import(&args),
        WafCommand::Update(args) => rules::update(&args).await,
        WafCommand::Rollback(data) => rules::roll_back(&data),
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
    if !status.warnings.is_empty() {
        println!("notes     {} (bastide --json waf status)", status.warnings.len());
    }
    for trouble in &status.troubles {
        println!("REFUSED   the last good policy stays in force: {trouble}");
    }
    if let Some(refused) = &status.refused {
        println!("REFUSED   newer rules are not in force: {refused}");
    }
    Ok(())
}
