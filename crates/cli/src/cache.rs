//! `cache`: what the edges store of apps.

use crate::{Context, session::Session};
use anyhow::Result;
use bastide_types::{AppName, StageName};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

/// `bastide cache …`
#[derive(Debug, Clone, Subcommand)]
pub enum CacheCommand {
    /// Make the edges forget stored responses; in force within a second
    Purge(Purge),
}

/// What to purge.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct Purge {
    /// One address, such as https://acme.apps.localhost:8443/shop/logo.png
    #[arg(conflicts_with_all = ["prefix", "app", "all_apps", "group"])]
    url: Option<String>,
    /// All addresses that begin so
    #[arg(long, value_name = "URL", conflicts_with_all = ["app", "all_apps", "group"])]
    prefix: Option<String>,
    /// Everything of an app, or one of its groups
    #[arg(long, conflicts_with = "all_apps")]
    app: Option<AppName>,
    /// Only what belongs to this cache group (field Cache-Groups) of the app
    #[arg(long, requires = "app")]
    group: Option<String>,
    /// Everything of all apps of the stage
    #[arg(long)]
    all_apps: bool,
    /// Stage
    #[arg(long, default_value = "development", conflicts_with_all = ["url", "prefix"])]
    stage: StageName,
}

/// Cache.
pub async fn cache(context: &Context, command: CacheCommand) -> Result<()> {
    let CacheCommand::Purge(what) = command;
    let session = Session::open(context, None).await?;
    let body = match (&what.url, &what.prefix) {
        (Some(url), _) => json!({ "url": url }),
        (None, Some(prefix)) => json!({ "prefix": prefix }),
        (None, None) => {
            let mut body = json!({ "stage": what.stage });
            if let Some(app) = &what.app {
                body["app"] = json!(app);
            }
            if let Some(group) = &what.group {
                body["group"] = json!(group);
            }
            body
        }
    };
    let answer = session.send(Method::POST, "/api/cache/purges", &body).await?;
    if context.json {
        println!("{answer}");
        return Ok(());
    }
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    let of = text("app").map_or_else(|| "all apps".to_owned(), |app| format!("app {app}"));
    println!("Purged in {}: {of}.", text("stage").unwrap_or_default());
    Ok(())
}
