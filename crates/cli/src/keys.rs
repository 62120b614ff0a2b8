//! Keys that sign the organization's tokens.

use crate::{Context, org::table, session::Session};
use anyhow::Result;
use bastide_types::StageName;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

/// `bastide keys …`
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// List the keys of your organization's issuers
    List,
    /// Let the next key sign; what was signed before counts
    Rotate(RotateArgs),
}

/// Arguments of `keys rotate`.
#[derive(Debug, Clone, Args)]
pub struct RotateArgs {
    /// Keys of this stage's issuer [default: those of your organization's own]
    #[arg(long, conflicts_with = "all")]
    pub stage: Option<StageName>,
    /// Keys of all issuers of your organization
    #[arg(long)]
    pub all: bool,
    /// The keys are known to others: they are gone at once, and every session and token of your organization ends
    #[arg(long)]
    pub emergency: bool,
}

/// Keys.
pub async fn keys(context: &Context, command: KeysCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        KeysCommand::List => {
            let keys = session.get("/keys").await?;
            table(context, &keys, &["stage", "signs", "state", "id", "since"])
        }
        KeysCommand::Rotate(args) => {
            let mut body = json!({ "all": args.all, "emergency": args.emergency });
            if let Some(stage) = args.stage {
                body["stage"] = stage.as_str().into();
            }
            let body = body.to_string().into();
            let kind = Some("application/json");
            session.call(Method::POST, "/keys/rotation", kind, body).await?.good()?;
            if args.emergency {
                eprintln!("The keys are gone, and all sessions with them; sign in again: bastide login");
            }
            Ok(())
        }
    }
}
