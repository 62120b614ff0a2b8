//! What an organization demands of sign-ins.

use crate::{
    Context,
    org::{put, show, table},
    session::Session,
    sessions::seconds,
};
use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

/// `bastide sign-in …`
#[derive(Debug, Clone, Subcommand)]
pub enum SignInCommand {
    /// Show or set what is demanded of the members' sign-ins
    Policy {
        /// Whether every member needs a second factor; those without set it up at their next sign-in
        #[arg(long)]
        second_factor: Option<Demand>,
        /// What a permission demands of the sign-in, such as apps.deploy=mfa or apps.deploy@production=passkey/10m. May be
        /// repeated; replaces what was demanded before
        #[arg(long = "step-up", value_name = "PERMISSION[@STAGE]=ACR[/AGE]", value_parser = step_up)]
        step_up: Vec<Value>,
        /// Demand nothing of any permission
        #[arg(long, conflicts_with = "step_up")]
        no_step_up: bool,
    },
}

/// Whether something is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Demand {
    /// Of everybody.
    Demanded,
    /// Each decides.
    Optional,
}

/// What is demanded of sign-ins.
pub async fn sign_in(context: &Context, command: SignInCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    let SignInCommand::Policy { second_factor, step_up, no_step_up } = command;
    let path = "/sign-in/policy";
    let mut policy = session.get(path).await?;
    if let Some(demand) = second_factor {
        policy["second_factor"] = (demand == Demand::Demanded).into();
    }
    let changes_step_up = no_step_up || !step_up.is_empty();
    if changes_step_up {
        policy["step_up"] = Value::Array(step_up);
    }
    if second_factor.is_some() || changes_step_up {
        put(&session, path, &policy).await?;
    }
    show(context, &policy, &["second_factor"])?;
    if context.json {
        return Ok(());
    }
    table(context, &policy["step_up"], &["permission", "stage", "acr", "max_age_s"])
}

/// Reads `PERMISSION[@STAGE]=ACR[/AGE]`.
fn step_up(text: &str) -> Result<Value, String> {
    let form = "a demand such as apps.deploy@production=mfa/10m";
    let (what, demand) = text.split_once('=').ok_or(form)?;
    let (permission, stage) = what.split_once('@').map_or((what, None), |(what, stage)| (what, Some(stage)));
    let (acr, age) = demand.split_once('/').map_or((demand, None), |(acr, age)| (acr, Some(age)));
    let mut rule = json!({ "permission": permission, "acr": acr });
    if let Some(stage) = stage {
        rule["stage"] = stage.into();
    }
    if let Some(age) = age {
        rule["max_age_s"] = seconds(age)?.into();
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_names_permission_stage_kind_and_age() {
        let check = |text: &str, expected: Value| assert_eq!(step_up(text), Ok(expected), "{text}");
        check("apps.deploy=mfa", json!({ "permission": "apps.deploy", "acr": "mfa" }));
        check(
            "apps.deploy@production=mfa/10m",
            json!({ "permission": "apps.deploy", "stage": "production", "acr": "mfa", "max_age_s": 600 }),
        );
        for wrong in ["apps.deploy", "apps.deploy=mfa/soon"] {
            assert!(step_up(wrong).is_err(), "{wrong}");
        }
    }
}
