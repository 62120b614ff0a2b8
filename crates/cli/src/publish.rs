//! `publish` and `promote`: one request, then the operation is watched to its end.

use crate::{Context, pack::pack, session::Session};
use anyhow::{Context as _, Result, bail};
use bastide_types::{AppName, Manifest, Problem};
use clap::Args;
use http::Method;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

/// Pause between two looks at an operation.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `publish`.
#[derive(Debug, Clone, Args)]
pub struct PublishArgs {
    /// Directory with a bastide.toml
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

/// Arguments of `promote`.
#[derive(Debug, Clone, Args)]
pub struct PromoteArgs {
    /// Name of the app
    pub app: String,
    /// Stage to which its revision goes next
    #[arg(long)]
    pub to: String,
}

/// An operation, as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Operation {
    /// Id.
    pub id: String,
    /// `running`, `finished` or `failed`.
    pub status: String,
    /// Stage.
    #[serde(default)]
    pub stage: String,
    /// Steps so far.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Why it failed.
    #[serde(default)]
    pub problem: Option<Problem>,
    /// Address of the app.
    #[serde(default)]
    pub url: Option<String>,
}

/// A step of an operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// Name.
    pub name: String,
    /// `running`, `finished` or `failed`.
    pub status: String,
    /// What happened.
    #[serde(default)]
    pub message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Started {
    operation: String,
    #[serde(default)]
    revision: serde_json::Value,
    #[serde(default)]
    image: Option<String>,
    #[serde(default)]
    warning: Option<String>,
}

/// Publishes a directory.
pub async fn publish(context: &Context, args: PublishArgs) -> Result<()> {
    let name = app_name(&args.dir)?;
    let packed = pack(&args.dir)?;
    let session = Session::open(context, None).await?;
    if !context.json {
        eprintln!("Publishing {name} ({} KiB) to {}", packed.len().div_ceil(1024), session.server);
    }
    let path = format!("/api/apps/{name}/publish");
    let started: Started =
        session.call(Method::POST, &path, Some("application/gzip"), packed.into()).await?.json()?;
    let operation = watch(context, &session, &started.operation).await?;
    conclude(context, &operation, &started)
}

/// Promotes an app.
pub async fn promote(context: &Context, args: PromoteArgs) -> Result<()> {
    let app: AppName = args.app.parse()?;
    let session = Session::open(context, None).await?;
    let body = serde_json::json!({ "stage": args.to });
    let started = session.send(Method::POST, &format!("/api/apps/{app}/deployments"), &body).await?;
    follow(context, &session, started).await
}

/// Watches what an answer of the API says has begun, to its end.
pub async fn follow(context: &Context, session: &Session, started: serde_json::Value) -> Result<()> {
    let started: Started = serde_json::from_value(started)?;
    let operation = watch(context, session, &started.operation).await?;
    conclude(context, &operation, &started)
}

/// The name in the manifest; everything else in it is checked by the Build Service.
fn app_name(dir: &Path) -> Result<AppName> {
    let path = dir.join("bastide.toml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        // `pack` says best what is missing.
        Err(_) => return pack(dir).and_then(|_| bail!("cannot read {}", path.display())),
    };
    let manifest: Manifest =
        toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
    manifest.check().with_context(|| format!("{} is not valid", path.display()))?;
    Ok(manifest.app.name)
}

async fn watch(context: &Context, session: &Session, id: &str) -> Result<Operation> {
    let mut seen = HashSet::new();
    loop {
        let operation: Operation =
            serde_json::from_value(session.get(&format!("/api/operations/{id}")).await?)?;
        for step in &operation.steps {
            if step.status != "running" && seen.insert(step.name.clone()) && !context.json {
                let mark = if step.status == "failed" { "✗" } else { "✓" };
                eprintln!("  {mark} {} {}", step.name, step.message.as_deref().unwrap_or_default());
            }
        }
        if operation.status != "running" {
            return Ok(operation);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn conclude(context: &Context, operation: &Operation, started: &Started) -> Result<()> {
    if context.json {
        let mut value = serde_json::to_value(operation)?;
        value["image"] = started.image.as_deref().into();
        value["revision"] = started.revision.clone();
        if let Some(warning) = &started.warning {
            value["warning"] = warning.as_str().into();
        }
        println!("{value}");
    }
    if operation.status != "finished" {
        return match &operation.problem {
            Some(problem) => Err(problem.clone().into()),
            None => bail!("the operation ended as {}", operation.status),
        };
    }
    if !context.json {
        println!("{}", operation.url.as_deref().unwrap_or_default());
        println!(
            "revision {}",
            started
                .revision
                .as_u64()
                .map_or_else(|| started.revision.to_string(), |number| number.to_string())
        );
        if let Some(image) = &started.image {
            println!("image    {image}");
        }
    }
    if let Some(warning) = &started.warning {
        eprintln!("WARNING: {warning}");
    }
    Ok(())
}
