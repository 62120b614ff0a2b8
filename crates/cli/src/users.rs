//! End users of a stage and their groups.

use crate::{
    Context,
    org::{link, put, remove, segment, show, table},
    session::Session,
};
use anyhow::{Context as _, Result};
use bastide_types::StageName;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

/// The stage that is meant.
#[derive(Debug, Clone, Args)]
pub struct InStage {
    /// Stage
    #[arg(long, default_value = "production")]
    pub stage: StageName,
}

/// `bastide user …`
#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// List the end users of a stage
    List {
        #[command(flatten)]
        at: InStage,
    },
    /// Show an end user
    Show {
        /// E-mail address
        email: String,
        #[command(flatten)]
        at: InStage,
    },
    /// Invite somebody to the apps of a stage; prints the link to send
    Invite {
        /// E-mail address
        email: String,
        /// Name to show
        #[arg(long)]
        name: Option<String>,
        /// Group to put the user into. May be repeated
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        #[command(flatten)]
        at: InStage,
    },
    /// Suspend an end user: all sessions end at once
    Suspend {
        /// E-mail address
        email: String,
        #[command(flatten)]
        at: InStage,
    },
    /// Let a suspended end user sign in again
    Resume {
        /// E-mail address
        email: String,
        #[command(flatten)]
        at: InStage,
    },
    /// Remove an end user with all that belongs to them
    Delete {
        /// E-mail address
        email: String,
        #[command(flatten)]
        at: InStage,
    },
    /// End all sessions of an end user
    SignOut {
        /// E-mail address
        email: String,
        #[command(flatten)]
        at: InStage,
    },
    /// Make a link by which an end user chooses another password, for 15 minutes
    ResetPassword {
        /// E-mail address
        email: String,
        #[command(flatten)]
        at: InStage,
    },
    /// Show or decide whether everybody may make an account at a stage
    Registration {
        /// Open it to everybody who has an address, or close it
        #[arg(value_parser = ["open", "closed"])]
        state: Option<String>,
        #[command(flatten)]
        at: InStage,
    },
    /// Take the second factor from an end user who has lost it, and end their sessions
    ResetMfa {
        /// E-mail address
        email: String,
        #[command(flatten)]
        at: InStage,
    },
    /// Take all passkeys from an end user who has lost one, and end their sessions
    ResetPasskeys {
        /// E-mail address
        email: String,
        #[command(flatten)]
        at: InStage,
    },
}

/// `bastide group …`
#[derive(Debug, Clone, Subcommand)]
pub enum GroupCommand {
    /// List the groups of a stage; of a group, who is in it
    List {
        /// Name of a group
        name: Option<String>,
        #[command(flatten)]
        at: InStage,
    },
    /// Make a group. `bastide role grant APP ROLE --group NAME` gives it roles
    Create {
        /// Name: letters, digits, `-`, `_`, `.`
        name: String,
        #[command(flatten)]
        at: InStage,
    },
    /// Remove a group: its roles are lost at once
    Delete {
        /// Name of the group
        name: String,
        #[command(flatten)]
        at: InStage,
    },
    /// Put an end user into a group
    Add {
        /// Name of the group
        name: String,
        /// E-mail address of the user
        email: String,
        #[command(flatten)]
        at: InStage,
    },
    /// Take an end user out of a group, at once
    Remove {
        /// Name of the group
        name: String,
        /// E-mail address of the user
        email: String,
        #[command(flatten)]
        at: InStage,
    },
}

/// End users.
pub async fn user(context: &Context, command: UserCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        UserCommand::List { at } => {
            let users = session.get(&format!("/stages/{}/users", at.stage)).await?;
            table(context, &users, &["email", "name", "state", "groups", "second_factor", "passkeys"])
        }
        UserCommand::Show { email, at } => {
            let found = session.get(&path(&session, &at, &email).await?).await?;
            let keys =
                ["id", "email", "name", "state", "email_verified", "groups", "second_factor", "passkeys"];
            show(context, &found, &keys)
        }
        UserCommand::Invite { email, name, groups, at } => {
            let mut body = json!({ "email": email, "groups": groups });
            if let Some(name) = name {
                body["name"] = name.into();
            }
            let users = format!("/stages/{}/users", at.stage);
            link(context, &session.send(Method::POST, &users, &body).await?, &email)
        }
        UserCommand::Suspend { email, at } => suspend(&session, &at, &email, true).await,
        UserCommand::Resume { email, at } => suspend(&session, &at, &email, false).await,
        UserCommand::Delete { email, at } => remove(&session, &path(&session, &at, &email).await?).await,
        UserCommand::SignOut { email, at } => {
            remove(&session, &format!("{}/sessions", path(&session, &at, &email).await?)).await
        }
        UserCommand::ResetPassword { email, at } => {
            let path = format!("{}/password-reset", path(&session, &at, &email).await?);
            link(context, &session.send(Method::POST, &path, &json!({})).await?, &email)
        }
        UserCommand::Registration { state, at } => {
            let path = format!("/stages/{}/registration", at.stage);
            match state {
                Some(state) => put(&session, &path, &json!({ "open": state == "open" })).await,
                None => show(context, &session.get(&path).await?, &["open"]),
            }
        }
        UserCommand::ResetMfa { email, at } => {
            remove(&session, &format!("{}/second-factor", path(&session, &at, &email).await?)).await
        }
        UserCommand::ResetPasskeys { email, at } => {
            remove(&session, &format!("{}/passkeys", path(&session, &at, &email).await?)).await
        }
    }
}

/// Groups of end users.
pub async fn group(context: &Context, command: GroupCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    let of = |at: &InStage| format!("/stages/{}/groups", at.stage);
    match command {
        GroupCommand::List { name: None, at } => {
            table(context, &session.get(&of(&at)).await?, &["name", "users"])
        }
        GroupCommand::List { name: Some(name), at } => {
            let users = session.get(&format!("{}/{}/users", of(&at), segment(&name))).await?;
            table(context, &users, &["email"])
        }
        GroupCommand::Create { name, at } => {
            let body = json!({ "name": name }).to_string().into();
            session.call(Method::POST, &of(&at), Some("application/json"), body).await?.good().map(drop)
        }
        GroupCommand::Delete { name, at } => {
            remove(&session, &format!("{}/{}", of(&at), segment(&name))).await
        }
        GroupCommand::Add { name, email, at } => {
            let user = user_id(&session, &at.stage, &email).await?;
            let path = format!("{}/{}/users/{user}", of(&at), segment(&name));
            put(&session, &path, &json!({})).await
        }
        GroupCommand::Remove { name, email, at } => {
            let user = user_id(&session, &at.stage, &email).await?;
            remove(&session, &format!("{}/{}/users/{user}", of(&at), segment(&name))).await
        }
    }
}

async fn suspend(session: &Session, at: &InStage, email: &str, suspended: bool) -> Result<()> {
    let path = format!("{}/suspension", path(session, at, email).await?);
    put(session, &path, &json!({ "suspended": suspended })).await
}

async fn path(session: &Session, at: &InStage, email: &str) -> Result<String> {
    Ok(format!("/stages/{}/users/{}", at.stage, user_id(session, &at.stage, email).await?))
}

/// The id of the end user with this address.
pub(crate) async fn user_id(session: &Session, stage: &StageName, email: &str) -> Result<String> {
    let found = session.get(&format!("/stages/{stage}/users?email={}", segment(email))).await?;
    let id = found[0]["id"].as_str();
    Ok(id.with_context(|| format!("nobody in {stage} has the address {email}"))?.to_owned())
}
