//! `status`: your apps, or one app with its replicas.

use crate::{Context, session::Session};
use anyhow::Result;
use bastide_types::AppName;
use clap::Args;
use serde_json::Value;

/// Arguments of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Name of an app
    pub app: Option<String>,
}

/// Shows apps.
pub async fn status(context: &Context, args: StatusArgs) -> Result<()> {
    let session = Session::open(context, None).await?;
    if let Some(warning) = session.get("/api/runtime").await?["warning"].as_str() {
        eprintln!("WARNING: {warning}");
    }
    let value = match &args.app {
        Some(app) => session.get(&format!("/api/apps/{}", app.parse::<AppName>()?)).await?,
        None => session.get("/api/apps").await?,
    };
    if context.json {
        println!("{value}");
        return Ok(());
    }
    if args.app.is_some() {
        one(&value);
        return Ok(());
    }
    let apps = value.as_array().or_else(|| value["apps"].as_array()).cloned().unwrap_or_default();
    if apps.is_empty() {
        println!("No apps yet. Publish one: bastide publish <directory>");
    }
    for app in &apps {
        one(app);
    }
    Ok(())
}

fn one(app: &Value) {
    println!("{}", text(&app["name"]));
    for stage in app["stages"].as_array().into_iter().flatten() {
        let revision = stage["revision"].as_u64().map(|number| format!("revision {number}"));
        println!(
            "  {:<12} {:<9} {:<13} {}",
            text(&stage["stage"]),
            text(&stage["status"]),
            revision.unwrap_or_default(),
            text(&stage["url"])
        );
        for replica in stage["replicas"].as_array().into_iter().flatten() {
            let id = text(&replica["id"]);
            println!(
                "    {id} zone {} {} {}",
                text(&replica["zone"]),
                text(&replica["state"]),
                text(&replica["reason"])
            );
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
