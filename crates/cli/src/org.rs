//! Members, roles and customers.

use crate::{Context, session::Session, users::user_id};
use anyhow::{Context as _, Result};
use bastide_types::{AppName, CustomerName, StageName};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// `bastide member …`
#[derive(Debug, Clone, Subcommand)]
pub enum MemberCommand {
    /// List members
    List,
    /// Invite somebody; prints the link to send
    Invite {
        /// E-mail address
        email: String,
        /// Name to show
        #[arg(long)]
        name: Option<String>,
        /// Organization role: administrator, developer, or one of your own (see `bastide role list`)
        #[arg(long = "role", default_value = "developer")]
        roles: Vec<String>,
        /// Stage in which these roles count; without one, in all. May be repeated
        #[arg(long = "stage", value_name = "STAGE")]
        stages: Vec<String>,
    },
    /// Suspend a member: all sessions end at once
    Suspend {
        /// E-mail address
        email: String,
    },
    /// Let a suspended member sign in again
    Resume {
        /// E-mail address
        email: String,
    },
    /// Give a member other organization roles, at once
    Roles {
        /// E-mail address
        email: String,
        /// Organization role: administrator, developer, or one of your own. May be repeated
        #[arg(long = "role", required = true)]
        roles: Vec<String>,
        /// Stage in which these roles count; without one, in all (`ROLE@STAGE` for a single role). May be repeated
        #[arg(long = "stage", value_name = "STAGE")]
        stages: Vec<String>,
    },
    /// End all sessions of a member
    SignOut {
        /// E-mail address
        email: String,
    },
    /// Make a link by which a member chooses another password, for 15 minutes
    ResetPassword {
        /// E-mail address
        email: String,
    },
    /// Take the second factor from a member who has lost it, and end the member's sessions
    ResetMfa {
        /// E-mail address
        email: String,
    },
    /// Take all passkeys from a member who has lost one, and end the member's sessions
    ResetPasskeys {
        /// E-mail address
        email: String,
    },
}

/// `bastide role …`
#[derive(Debug, Clone, Subcommand)]
pub enum RoleCommand {
    /// List the roles of your organization; of an app, who has which
    List {
        /// Name of the app
        app: Option<String>,
    },
    /// List the permissions that a role of your organization may hold
    Permissions,
    /// Make a role of your organization
    Create(RoleArgs),
    /// Give a role of your organization other permissions, at once
    Change(RoleArgs),
    /// Remove a role of your organization that nobody has
    Delete {
        /// Name of the role
        name: String,
    },
    /// Give a member, an end user or a group a role of an app in a stage
    Grant(GrantArgs),
    /// Take a role of an app in a stage away, at once
    Revoke(GrantArgs),
}

/// A role of an app and whose it is.
#[derive(Debug, Clone, Args)]
pub struct GrantArgs {
    /// Name of the app
    pub app: AppName,
    /// The role
    pub role: String,
    #[command(flatten)]
    pub who: Who,
    /// Stage
    #[arg(long, default_value = "production")]
    pub stage: StageName,
}

/// Who has a role of an app.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Who {
    /// E-mail address of a member
    pub email: Option<String>,
    /// E-mail address of an end user of the stage
    #[arg(long, value_name = "EMAIL")]
    pub user: Option<String>,
    /// A group of the stage's end users
    #[arg(long)]
    pub group: Option<String>,
}

/// A role of the organization and what it holds.
#[derive(Debug, Clone, Args)]
pub struct RoleArgs {
    /// Name of the role: a-z, 0-9, `-`
    pub name: String,
    /// What it may do, such as apps.publish. May be repeated
    #[arg(long = "permission", value_name = "PERMISSION")]
    pub permissions: Vec<String>,
}

/// `bastide customer …`
#[derive(Debug, Clone, Subcommand)]
pub enum CustomerCommand {
    /// List customers
    List,
    /// Create a customer; prints the administrator's link and an API client, once
    Create {
        /// Name: becomes the first label of its hosts
        name: String,
        /// E-mail address of its first administrator
        #[arg(long)]
        administrator: String,
    },
    /// Show or set how many replicas a customer may have in all its stages
    Quota {
        /// Name of the customer
        name: String,
        /// Most replicas
        #[arg(long)]
        replicas: Option<u32>,
    },
    /// List names and domains that were given up; nobody else may take them for 180 days
    Locks,
    /// Let others take such a name or domain now
    Unlock {
        /// The name or domain
        label: String,
    },
}

/// Members.
pub async fn member(context: &Context, command: MemberCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        MemberCommand::List => {
            let members = session.get("/members").await?;
            table(context, &members, &["email", "name", "state", "roles", "second_factor", "passkeys"])
        }
        MemberCommand::Invite { email, name, roles, stages } => {
            let roles = roles_in(&roles, &stages);
            let mut body = json!({ "email": email, "roles": roles });
            if let Some(name) = name {
                body["name"] = name.into();
            }
            let invited = session.send(Method::POST, "/members", &body).await?;
            link(context, &invited, &email)
        }
        MemberCommand::Suspend { email } => {
            let path = format!("/members/{}/suspension", id_of(&session, &email).await?);
            put(&session, &path, &json!({ "suspended": true })).await
        }
        MemberCommand::Resume { email } => {
            let path = format!("/members/{}/suspension", id_of(&session, &email).await?);
            put(&session, &path, &json!({ "suspended": false })).await
        }
        MemberCommand::Roles { email, roles, stages } => {
            let roles = roles_in(&roles, &stages);
            let path = format!("/members/{}/roles", id_of(&session, &email).await?);
            put(&session, &path, &json!({ "roles": roles })).await
        }
        MemberCommand::ResetPassword { email } => {
            let path = format!("/members/{}/password-reset", id_of(&session, &email).await?);
            link(context, &session.send(Method::POST, &path, &json!({})).await?, &email)
        }
        MemberCommand::ResetMfa { email } => {
            remove(&session, &format!("/members/{}/second-factor", id_of(&session, &email).await?)).await
        }
        MemberCommand::ResetPasskeys { email } => {
            remove(&session, &format!("/members/{}/passkeys", id_of(&session, &email).await?)).await
        }
        MemberCommand::SignOut { email } => {
            remove(&session, &format!("/members/{}/sessions", id_of(&session, &email).await?)).await
        }
    }
}

/// Says where a link went: by mail, or here to be handed on.
pub(crate) fn link(context: &Context, made: &Value, email: &str) -> Result<()> {
    if !context.json && made["mailed"] == true {
        println!("A letter is on its way to {email}.");
        return Ok(());
    }
    show(context, made, &["link"])
}

/// The id of the member with this address.
pub(crate) async fn id_of(session: &Session, email: &str) -> Result<String> {
    let members = session.get("/members").await?;
    let wanted = email.trim().to_lowercase();
    let found = members.as_array().into_iter().flatten().find(|member| member["email"] == wanted.as_str());
    let id = found.and_then(|member| member["id"].as_str());
    Ok(id.with_context(|| format!("nobody here has the address {email}"))?.to_owned())
}

/// PUT of JSON that is answered with nothing.
pub(crate) async fn put(session: &Session, path: &str, body: &Value) -> Result<()> {
    let answer = session.call(Method::PUT, path, Some("application/json"), body.to_string().into()).await?;
    answer.good().map(drop)
}

/// DELETE that is answered with nothing.
pub(crate) async fn remove(session: &Session, path: &str) -> Result<()> {
    session.call(Method::DELETE, path, None, bytes::Bytes::new()).await?.good().map(drop)
}

/// Roles of the organization and of its apps.
pub async fn role(context: &Context, command: RoleCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        RoleCommand::List { app: None } => {
            let roles = session.get("/roles").await?;
            table(context, &roles, &["name", "permissions"])
        }
        RoleCommand::Permissions => {
            let permissions = session.get("/permissions").await?;
            table(context, &permissions, &["name", "what"])
        }
        RoleCommand::Create(role) => {
            let body = json!({ "name": role.name, "permissions": role.permissions });
            let body = body.to_string().into();
            session.call(Method::POST, "/roles", Some("application/json"), body).await?.good().map(drop)
        }
        RoleCommand::Change(role) => {
            let body = json!({ "permissions": role.permissions });
            put(&session, &format!("/roles/{}", segment(&role.name)), &body).await
        }
        RoleCommand::Delete { name } => remove(&session, &format!("/roles/{}", segment(&name))).await,
        RoleCommand::List { app: Some(app) } => {
            let app: AppName = app.parse()?;
            let grants = session.get(&format!("/apps/{app}/roles")).await?;
            table(context, &grants, &["stage", "role", "email", "user", "group"])
        }
        RoleCommand::Grant(args) => grant(&session, args).await,
        RoleCommand::Revoke(args) => revoke(&session, args).await,
    }
}

async fn grant(session: &Session, args: GrantArgs) -> Result<()> {
    let GrantArgs { app, role, who, stage } = args;
    let mut body = json!({ "stage": stage, "role": role });
    let named = [("email", who.email), ("user", who.user), ("group", who.group)];
    let (key, name) = named.into_iter().find_map(|(key, name)| Some((key, name?))).unwrap_or_default();
    body[key] = name.as_str().into();
    put(session, &format!("/apps/{app}/roles"), &body).await?;
    let kind = if key == "group" { "The group " } else { "" };
    eprintln!("{kind}{name} has the role {role} of {app} in {stage}.");
    Ok(())
}

async fn revoke(session: &Session, args: GrantArgs) -> Result<()> {
    let GrantArgs { app, role, who, stage } = args;
    let whose = match who {
        Who { group: Some(group), .. } => format!("groups/{}", segment(&group)),
        Who { user: Some(user), .. } => user_id(session, &stage, &user).await?,
        Who { email, .. } => id_of(session, &email.unwrap_or_default()).await?,
    };
    remove(session, &format!("/apps/{app}/roles/{stage}/{}/{whose}", segment(&role))).await
}

/// A text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Customers.
pub async fn customer(context: &Context, command: CustomerCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        CustomerCommand::List => {
            let customers = session.get("/customers").await?;
            table(context, &customers, &["name", "platform_url"])
        }
        CustomerCommand::Quota { name, replicas } => {
            let name: CustomerName = name.parse()?;
            let path = format!("/customers/{name}/quota");
            let quota = match replicas {
                Some(replicas) => session.send(Method::PUT, &path, &json!({ "replicas": replicas })).await?,
                None => session.get(&path).await?,
            };
            show(context, &quota, &["replicas", "used"])
        }
        CustomerCommand::Locks => {
            let locks = session.get("/locks").await?;
            table(context, &locks, &["label", "kind", "until", "customer"])
        }
        CustomerCommand::Unlock { label } => {
            let label = segment(&label);
            session
                .call(Method::DELETE, &format!("/locks/{label}/lock"), None, bytes::Bytes::new())
                .await?
                .good()?;
            Ok(())
        }
        CustomerCommand::Create { name, administrator } => {
            let name: CustomerName = name.parse()?;
            let body = json!({ "name": name, "administrator_email": administrator });
            let created = session.send(Method::POST, "/customers", &body).await?;
            if context.json {
                println!("{created}");
                return Ok(());
            }
            show(context, &created, &["platform_url", "invitation_link"])?;
            show(context, &created["client"], &["id", "secret"])
        }
    }
}

/// Rows of an array, or of the one array that an object holds.
pub(crate) fn table(context: &Context, value: &Value, columns: &[&str]) -> Result<()> {
    if context.json {
        println!("{value}");
        return Ok(());
    }
    let rows = value.as_array().or_else(|| value.as_object()?.values().find_map(Value::as_array));
    for row in rows.into_iter().flatten() {
        let cells: Vec<_> = columns.iter().map(|column| cell(column, &row[column])).collect();
        println!("{}", cells.join("\t"));
    }
    Ok(())
}

/// Roles as they are given: in these stages only, or where none is said, in all.
pub(crate) fn roles_in(roles: &[String], stages: &[String]) -> Vec<String> {
    let held = |role: &String| match stages {
        [] => vec![role.clone()],
        _ if role.contains('@') => vec![role.clone()],
        stages => stages.iter().map(|stage| format!("{role}@{stage}")).collect(),
    };
    roles.iter().flat_map(held).collect()
}

/// Values of an object, one a line.
pub(crate) fn show(context: &Context, value: &Value, keys: &[&str]) -> Result<()> {
    if context.json {
        println!("{value}");
        return Ok(());
    }
    for key in keys {
        println!("{key}: {}", cell(key, &value[key]));
    }
    Ok(())
}

/// Keys whose numbers are seconds since 1970.
const MOMENTS: [&str; 5] = ["since", "seen", "until", "created", "at"];

/// A value as people read it: moments as dates after RFC 3339, in UTC.
fn cell(key: &str, value: &Value) -> String {
    let moment = value.as_i64().filter(|_| MOMENTS.contains(&key));
    moment.and_then(date).unwrap_or_else(|| plain(value))
}

fn date(at_s: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(at_s).ok()?.format(&Rfc3339).ok()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_given_in_stages_or_in_all() {
        let check = |roles: &[&str], stages: &[&str], expected: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
            assert_eq!(roles_in(&owned(roles), &owned(stages)), expected, "{roles:?} {stages:?}");
        };
        check(&["developer"], &[], &["developer"]);
        check(&["developer"], &["development", "test"], &["developer@development", "developer@test"]);
        check(&["developer", "purger@test"], &["development"], &["developer@development", "purger@test"]);
    }

    #[test]
    fn moments_are_dates_and_other_numbers_stay_numbers() {
        let check = |key: &str, value: Value, expected: &str| {
            assert_eq!(cell(key, &value), expected, "{key} {value}")
        };
        check("since", json!(1_790_000_000), "2026-09-21T14:13:20Z");
        check("until", json!(0), "1970-01-01T00:00:00Z");
        check("users", json!(1_790_000_000), "1790000000");
        check("until", json!("later"), "later");
        check("until", Value::Null, "");
        check("until", json!(i64::MAX), "9223372036854775807");
    }
}
