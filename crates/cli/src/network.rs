//! `egress` and `grant`: where the apps of a stage may call to, and which may call which.

use crate::{Context, session::Session};
use anyhow::{Result, bail};
use bastide_types::{
    AppName, StageName,
    egress::{EgressMode, EgressRule},
    network::{Grant, StageNetwork},
    node::ZoneAddress,
};
use clap::{Args, Subcommand};
use http::Method;

/// Which stage is meant.
#[derive(Debug, Clone, Args)]
pub struct InStage {
    /// Stage
    #[arg(long, default_value = "development")]
    pub stage: StageName,
}

/// `bastide egress …`
#[derive(Debug, Clone, Subcommand)]
pub enum EgressCommand {
    /// Show where the apps of a stage may call to
    Show {
        #[command(flatten)]
        at: InStage,
    },
    /// Change it; rules look like `api.example.com`, `*.example.com:443` or `203.0.113.0/24:5432`
    Set {
        #[command(flatten)]
        at: InStage,
        /// What happens with calls that no rule names: open, report or enforce
        #[arg(long, value_parser = mode)]
        mode: Option<EgressMode>,
        /// Let these through (may be given more than once)
        #[arg(long, value_name = "RULE")]
        allow: Vec<EgressRule>,
        /// Refuse these, whatever else says (may be given more than once)
        #[arg(long, value_name = "RULE")]
        deny: Vec<EgressRule>,
        /// Take these rules out again (may be given more than once)
        #[arg(long, value_name = "RULE")]
        remove: Vec<EgressRule>,
        /// Whether another zone's gateway, with its own address, takes a zone's traffic while its own is down
        #[arg(long, value_name = "on|off", value_parser = switch)]
        failover: Option<bool>,
    },
    /// Show the address that outsiders see when apps of each zone call them, for their allowlists
    Ips,
    /// Explain what would become of a call of an app, and why
    Explain {
        /// Name of the app
        app: AppName,
        /// Host and port, such as api.example.com:443
        to: String,
        #[command(flatten)]
        at: InStage,
    },
}

/// `bastide grant …`
#[derive(Debug, Clone, Subcommand)]
pub enum GrantCommand {
    /// List which apps of a stage may call which
    List {
        #[command(flatten)]
        at: InStage,
    },
    /// Let one app call another of the same stage
    Add {
        /// Who may call
        from: AppName,
        /// Who may be called
        to: AppName,
        #[command(flatten)]
        at: InStage,
    },
    /// Take that back
    Remove {
        /// Who may call
        from: AppName,
        /// Who may be called
        to: AppName,
        #[command(flatten)]
        at: InStage,
    },
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".into()),
    }
}

fn mode(text: &str) -> Result<EgressMode, String> {
    match text {
        "open" => Ok(EgressMode::Open),
        "report" => Ok(EgressMode::Report),
        "enforce" => Ok(EgressMode::Enforce),
        _ => Err("write open, report or enforce".into()),
    }
}

/// Egress.
pub async fn egress(context: &Context, command: EgressCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        EgressCommand::Show { at } => show_egress(context, &read(&session, &at).await?),
        EgressCommand::Set { at, mode, allow, deny, remove, failover } => {
            let mut network = read(&session, &at).await?;
            network.failover = failover.unwrap_or(network.failover);
            let policy = &mut network.egress;
            policy.mode = mode.unwrap_or(policy.mode);
            for rule in &remove {
                let before = policy.allow.len() + policy.deny.len();
                policy.allow.retain(|own| own != rule);
                policy.deny.retain(|own| own != rule);
                if policy.allow.len() + policy.deny.len() == before {
                    bail!("there is no rule `{rule}` in {}", at.stage);
                }
            }
            add(&mut policy.allow, allow);
            add(&mut policy.deny, deny);
            show_egress(context, &write(&session, &at, &network).await?)
        }
        EgressCommand::Ips => show_addresses(context, &session.get("/runtime").await?["egress"]),
        EgressCommand::Explain { app, to, at } => {
            let query: String = url::form_urlencoded::byte_serialize(to.as_bytes()).collect();
            let path = format!("/apps/{app}/egress?to={query}&stage={}", at.stage);
            let answer = session.get(&path).await?;
            if context.json {
                println!("{answer}");
                return Ok(());
            }
            let verdict = match (&answer["allowed"], &answer["reported"]) {
                (allowed, reported) if allowed == true && reported == true => "passes, and is reported",
                (allowed, _) if allowed == true => "passes",
                _ => "is refused",
            };
            println!("{app} → {to} {verdict} ({})", answer["why"].as_str().unwrap_or_default());
            if let Some(note) = answer["note"].as_str() {
                println!("{note}");
            }
            Ok(())
        }
    }
}

/// Grants.
pub async fn grant(context: &Context, command: GrantCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    let network = match command {
        GrantCommand::List { at } => read(&session, &at).await?,
        GrantCommand::Add { from, to, at } => {
            let mut network = read(&session, &at).await?;
            network.grants.push(Grant { from, to });
            write(&session, &at, &network).await?
        }
        GrantCommand::Remove { from, to, at } => {
            let mut network = read(&session, &at).await?;
            if !network.grants(&from, &to) {
                bail!("{from} has no grant to call {to} in {}", at.stage);
            }
            network.grants.retain(|grant| grant.from != from || grant.to != to);
            write(&session, &at, &network).await?
        }
    };
    if context.json {
        println!("{}", serde_json::to_string(&network.grants)?);
    } else if network.grants.is_empty() {
        println!("No grants: no app of this stage can call another.");
    } else {
        network.grants.iter().for_each(|grant| println!("{} → {}", grant.from, grant.to));
    }
    Ok(())
}

fn add(rules: &mut Vec<EgressRule>, new: Vec<EgressRule>) {
    for rule in new {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
}

fn show_egress(context: &Context, network: &StageNetwork) -> Result<()> {
    let policy = &network.egress;
    if context.json {
        let mut shown = serde_json::to_value(policy)?;
        shown["failover"] = network.failover.into();
        println!("{shown}");
        return Ok(());
    }
    let rest = match policy.mode {
        EgressMode::Open => "open: other calls pass",
        EgressMode::Report => "report: other calls pass and are reported",
        EgressMode::Enforce => "enforce: other calls are refused",
    };
    println!("mode   {rest}");
    if network.failover {
        println!("failover: while a zone's gateway is down, calls go out by another zone, with its address");
    }
    policy.deny.iter().for_each(|rule| println!("deny   {rule}"));
    policy.allow.iter().for_each(|rule| println!("allow  {rule}"));
    Ok(())
}

fn show_addresses(context: &Context, zones: &serde_json::Value) -> Result<()> {
    let zones: Vec<ZoneAddress> = serde_json::from_value(zones.clone())?;
    if context.json {
        println!("{}", serde_json::to_string(&zones)?);
        return Ok(());
    }
    for ZoneAddress { zone, address, chosen } in &zones {
        let address = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let note = if *chosen { "" } else { "  the host's own; not chosen for this zone (--egress-ip)" };
        println!("zone {zone}  {address}{note}");
    }
    if zones.is_empty() {
        println!("No zone has an address of its own here.");
    }
    Ok(())
}

async fn read(session: &Session, at: &InStage) -> Result<StageNetwork> {
    Ok(serde_json::from_value(session.get(&path(at)).await?)?)
}

async fn write(session: &Session, at: &InStage, network: &StageNetwork) -> Result<StageNetwork> {
    let body = serde_json::to_value(network)?;
    Ok(serde_json::from_value(session.send(Method::PUT, &path(at), &body).await?)?)
}

fn path(at: &InStage) -> String {
    format!("/stages/{}/network", at.stage)
}
