//! Providers of identity outside, by which users sign in.

use crate::{
    Context,
    org::{remove, segment, show, table},
    session::Session,
};
use anyhow::{Context as _, Result, bail};
use bastide_types::StageName;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use std::io::Read;

/// `bastide idp …`
#[derive(Debug, Clone, Subcommand)]
pub enum IdpCommand {
    /// List providers
    List {
        #[command(flatten)]
        of: Of,
    },
    /// Show a provider, and what it must be told
    Show {
        /// Id of the provider
        id: String,
        #[command(flatten)]
        of: Of,
    },
    /// Set a provider up; it is asked at once for what it says about itself
    Create(IdpArgs),
    /// Replace what was decided about a provider; its secret stays unless another one is given
    Change(IdpArgs),
    /// Offer a provider that was not offered
    Enable {
        /// Id of the provider
        id: String,
        #[command(flatten)]
        of: Of,
    },
    /// Offer a provider no longer; passwords go on
    Disable {
        /// Id of the provider
        id: String,
        #[command(flatten)]
        of: Of,
    },
    /// Remove a provider; sign-ins that came from it end, accounts stay
    Delete {
        /// Id of the provider
        id: String,
        #[command(flatten)]
        of: Of,
    },
}

/// Whose users it knows.
#[derive(Debug, Clone, Args)]
pub struct Of {
    /// Of the end users of this stage [default: of your organization's members]
    #[arg(long)]
    pub stage: Option<StageName>,
}

/// What is decided about a provider.
#[derive(Debug, Clone, Args)]
pub struct IdpArgs {
    /// Id of the provider: a-z, 0-9, `-`
    pub id: String,
    #[command(flatten)]
    pub of: Of,
    /// Its issuer, exactly as it calls itself
    #[arg(long)]
    pub issuer: String,
    /// Your id there
    #[arg(long)]
    pub client_id: String,
    /// Name on the sign-in page [default: the id]
    #[arg(long)]
    pub name: Option<String>,
    /// Read your secret there from standard input
    #[arg(long)]
    pub secret_stdin: bool,
    /// How you prove there who you are
    #[arg(long, default_value = "client_secret_basic", value_parser = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"])]
    pub auth: String,
    /// What to ask for besides openid. May be repeated [default: email, profile]
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// When its addresses count as proven
    #[arg(long, default_value = "claim", value_parser = ["claim", "always", "never"])]
    pub verified: String,
    /// When somebody is the account that has the address: both have proven it, the provider has, or never
    #[arg(long, default_value = "verified", value_parser = ["verified", "provider", "never"])]
    pub existing: String,
    /// Give an account to whoever is new
    #[arg(long)]
    pub create: bool,
    /// Organization role of new members. May be repeated
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Claim that holds groups
    #[arg(long, value_name = "CLAIM")]
    pub groups_claim: Option<String>,
    /// Group of the stage for those of whom the claim says a value. May be repeated
    #[arg(long = "group", value_name = "VALUE=GROUP", value_parser = rule)]
    pub groups: Vec<Value>,
}

/// Providers.
pub async fn idp(context: &Context, command: IdpCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        IdpCommand::List { of } => {
            let mut idps = session.get(&format!("/idps{}", query(&of))).await?;
            if context.json {
                println!("{idps}");
                return Ok(());
            }
            for idp in idps.as_array_mut().into_iter().flatten() {
                for key in ["name", "issuer", "enabled"] {
                    idp[key] = idp["config"][key].take();
                }
            }
            table(context, &idps, &["id", "name", "issuer", "enabled"])
        }
        IdpCommand::Show { id, of } => told(context, &session.get(&at(&id, &of)).await?),
        IdpCommand::Create(args) => {
            let mut body = decided(&args)?;
            body["id"] = args.id.as_str().into();
            let path = format!("/idps{}", query(&args.of));
            told(context, &session.send(Method::POST, &path, &body).await?)
        }
        IdpCommand::Change(args) => {
            let body = decided(&args)?;
            told(context, &session.send(Method::PUT, &at(&args.id, &args.of), &body).await?)
        }
        IdpCommand::Enable { id, of } => offer(&session, &at(&id, &of), true).await,
        IdpCommand::Disable { id, of } => offer(&session, &at(&id, &of), false).await,
        IdpCommand::Delete { id, of } => remove(&session, &at(&id, &of)).await,
    }
}

async fn offer(session: &Session, path: &str, enabled: bool) -> Result<()> {
    let mut config = session.get(path).await?["config"].take();
    config["enabled"] = enabled.into();
    session.send(Method::PUT, path, &json!({ "config": config })).await.map(drop)
}

/// Shows a provider and what it must be told.
fn told(context: &Context, idp: &Value) -> Result<()> {
    show(context, idp, &["id", "redirect_uri", "backchannel_logout_uri"])?;
    if !context.json {
        if idp["jwks_uri"].is_string() {
            show(context, idp, &["jwks_uri"])?;
        }
        println!("{}", serde_json::to_string_pretty(&idp["config"])?);
    }
    Ok(())
}

fn decided(args: &IdpArgs) -> Result<Value> {
    let mut config = json!({
        "name": args.name.as_ref().unwrap_or(&args.id),
        "issuer": args.issuer,
        "client_id": args.client_id,
        "auth": args.auth,
        "verified": args.verified,
        "existing": args.existing,
        "create": args.create,
        "roles": args.roles,
        "groups": args.groups,
    });
    if !args.scopes.is_empty() {
        config["scopes"] = json!(args.scopes);
    }
    if let Some(claim) = &args.groups_claim {
        config["claims"] = json!({ "groups": claim });
    }
    let mut body = json!({ "config": config });
    if args.secret_stdin {
        let mut secret = String::new();
        std::io::stdin().take(4096).read_to_string(&mut secret).context("cannot read the secret")?;
        let secret = secret.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            bail!("standard input held no secret");
        }
        body["secret"] = secret.into();
    }
    Ok(body)
}

fn query(of: &Of) -> String {
    of.stage.as_ref().map(|stage| format!("?stage={stage}")).unwrap_or_default()
}

fn at(id: &str, of: &Of) -> String {
    format!("/idps/{}{}", segment(id), query(of))
}

/// Reads `VALUE=GROUP`; values may hold `=`.
fn rule(text: &str) -> Result<Value, String> {
    let (value, group) = text.rsplit_once('=').ok_or("a value and a group, such as sales=buyers")?;
    Ok(json!({ "value": value, "group": group }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_ends_with_its_group() {
        assert_eq!(rule("sales=buyers"), Ok(json!({ "value": "sales", "group": "buyers" })));
        assert_eq!(rule("cn=it,dc=x=staff"), Ok(json!({ "value": "cn=it,dc=x", "group": "staff" })));
        assert!(rule("sales").is_err());
    }
}
