//! Members, roles and customers.

use crate::{Context, session::Session};
use anyhow::Result;
use bastide_types::{AppName, CustomerName};
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

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
        /// Organization role: administrator or developer
        #[arg(long = "role", default_value = "developer")]
        roles: Vec<String>,
    },
}

/// `bastide role …`
#[derive(Debug, Clone, Subcommand)]
pub enum RoleCommand {
    /// List who has which role of an app
    List {
        /// Name of the app
        app: String,
    },
    /// Give a member a role of an app in a stage
    Grant {
        /// Name of the app
        app: String,
        /// The role
        role: String,
        /// E-mail address of the member
        email: String,
        /// Stage
        #[arg(long, default_value = "production")]
        stage: String,
    },
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
            let members = session.get("/api/members").await?;
            table(context, &members, &["email", "name", "state", "roles"])
        }
        MemberCommand::Invite { email, name, roles } => {
            let mut body = json!({ "email": email, "roles": roles });
            if let Some(name) = name {
                body["name"] = name.into();
            }
            let invited = session.send(Method::POST, "/api/members", &body).await?;
            show(context, &invited, &["link"])
        }
    }
}

/// Roles of apps.
pub async fn role(context: &Context, command: RoleCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        RoleCommand::List { app } => {
            let app: AppName = app.parse()?;
            let grants = session.get(&format!("/api/apps/{app}/roles")).await?;
            table(context, &grants, &["stage", "role", "email"])
        }
        RoleCommand::Grant { app, role, email, stage } => {
            let app: AppName = app.parse()?;
            let body = json!({ "stage": stage, "role": role, "email": email });
            let path = format!("/api/apps/{app}/roles");
            let answer =
                session.call(Method::PUT, &path, Some("application/json"), body.to_string().into()).await?;
            answer.good()?;
            eprintln!("{email} has the role {role} of {app} in {stage}.");
            Ok(())
        }
    }
}

/// Customers.
pub async fn customer(context: &Context, command: CustomerCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        CustomerCommand::List => {
            let customers = session.get("/api/customers").await?;
            table(context, &customers, &["name", "platform_url"])
        }
        CustomerCommand::Quota { name, replicas } => {
            let name: CustomerName = name.parse()?;
            let path = format!("/api/customers/{name}/quota");
            let quota = match replicas {
                Some(replicas) => session.send(Method::PUT, &path, &json!({ "replicas": replicas })).await?,
                None => session.get(&path).await?,
            };
            show(context, &quota, &["replicas", "used"])
        }
        CustomerCommand::Locks => {
            let locks = session.get("/api/locks").await?;
            table(context, &locks, &["label", "kind", "until", "customer"])
        }
        CustomerCommand::Unlock { label } => {
            let label: String = url::form_urlencoded::byte_serialize(label.as_bytes()).collect();
            session
                .call(Method::DELETE, &format!("/api/locks/{label}/lock"), None, bytes::Bytes::new())
                .await?
                .good()?;
            Ok(())
        }
        CustomerCommand::Create { name, administrator } => {
            let name: CustomerName = name.parse()?;
            let body = json!({ "name": name, "administrator_email": administrator });
            let created = session.send(Method::POST, "/api/customers", &body).await?;
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
        let cells: Vec<_> = columns.iter().map(|column| plain(&row[column])).collect();
        println!("{}", cells.join("\t"));
    }
    Ok(())
}

/// Values of an object, one a line.
pub(crate) fn show(context: &Context, value: &Value, keys: &[&str]) -> Result<()> {
    if context.json {
        println!("{value}");
        return Ok(());
    }
    for key in keys {
        println!("{key}: {}", plain(&value[key]));
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
