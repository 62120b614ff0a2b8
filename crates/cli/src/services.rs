//! `services`: what an app has besides its replicas, and new passwords for it.

use crate::{Context, network::InStage, publish, session::Session};
use anyhow::Result;
use bastide_types::AppName;
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

/// `bastide services …`
#[derive(Debug, Clone, Subcommand)]
pub enum ServicesCommand {
    /// List what an app has in each stage
    List {
        /// Name of the app
        app: AppName,
    },
    /// Give an app another role and password for its database; new replicas start with them, old ones drain
    Rotate {
        /// Name of the app
        app: AppName,
        #[command(flatten)]
        at: InStage,
    },
}

/// Services.
pub async fn services(context: &Context, command: ServicesCommand) -> Result<()> {
    let session = Session::open(context, None).await?;
    match command {
        ServicesCommand::List { app } => {
            let all = session.get(&format!("/apps/{app}/services")).await?;
            if context.json {
                println!("{all}");
                return Ok(());
            }
            let all = all.as_array().cloned().unwrap_or_default();
            if all.is_empty() {
                println!(
                    "{app} has no services. A [services.postgres] table in its bastide.toml asks for a database."
                );
            }
            all.iter().for_each(show);
            Ok(())
        }
        ServicesCommand::Rotate { app, at } => {
            let body = json!({ "stage": at.stage });
            let path = format!("/apps/{app}/services/postgres/rotate");
            let begun = session.send(Method::POST, &path, &body).await?;
            publish::follow(context, &session, begun).await
        }
    }
}

fn show(service: &Value) {
    let text = |key: &str| service[key].as_str().unwrap_or_default().to_owned();
    println!("{:<12} {:<9} {:<8} {}", text("stage"), text("kind"), text("status"), text("at"));
    println!(
        "             database {}, role {}, at most {} connections",
        text("database"),
        text("user"),
        service["connections"]
    );
    if let Some(problem) = service["problem"].as_str() {
        println!("             {problem}");
    }
}
