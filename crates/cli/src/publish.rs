//! `publish` and `promote`: one request, then the operation is watched to its end.

use crate::{
    Context,
    http::Answer,
    pack::{digest, pack, pack_changes, tree},
    session::Session,
};
use anyhow::{Context as _, Result, bail};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_types::{AppName, Code, Manifest, Problem, tree::Tree};
use clap::Args;
use http::Method;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

/// Pause after a look at an operation that told nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `publish`.
#[derive(Debug, Clone, Args)]
pub struct PublishArgs {
    /// Directory with a bastide.toml
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// What is to be said about this revision, at most 2,000 characters
    #[arg(long, short)]
    pub message: Option<String>,
    /// Check everything and say what would happen, but publish nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `promote`.
#[derive(Debug, Clone, Args)]
pub struct PromoteArgs {
    /// Name of the app
    pub app: String,
    /// Stage to which its revision goes next
    #[arg(long)]
    pub to: String,
    /// Version that it gets in the last stage [default: the next minor one]
    #[arg(long = "as")]
    pub version: Option<String>,
    /// Say what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,
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
    /// How far it is, in percent.
    #[serde(default)]
    pub progress: u8,
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
    version: Option<String>,
    #[serde(default)]
    warning: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// Publishes a directory.
pub async fn publish(context: &Context, args: PublishArgs) -> Result<()> {
    let name = app_name(&args.dir)?;
    let tree = tree(&args.dir)?;
    let session = Session::open(context, None).await?;
    let how =
        How { dry_run: args.dry_run, message: args.message.map(|text| BASE64_URL_SAFE_NO_PAD.encode(text)) };
    let answer = send(context, &session, &name, &args.dir, &tree, &how).await?;
    if how.dry_run {
        return impact(context, &answer.json()?);
    }
    let started: Started = answer.json()?;
    let operation = watch(context, &session, &started.operation).await?;
    conclude(context, &operation, &started)
}

/// How a directory is published.
struct How {
    /// Only ask what would happen.
    dry_run: bool,
    /// What is said about it, as base64url.
    message: Option<String>,
}

/// Sends a directory: what changed since the last publish, if that is known, else all of it.
async fn send(
    context: &Context,
    session: &Session,
    name: &AppName,
    dir: &Path,
    tree: &Tree,
    how: &How,
) -> Result<Answer> {
    let path = format!("/apps/{name}/publish{}", if how.dry_run { "?dry_run=true" } else { "" });
    let more: Vec<_> = how.message.as_deref().map(|text| ("bastide-message", text)).into_iter().collect();
    let memory = Memory::of(context, session, name);
    for from in [From::Memory, From::Service, From::Nothing] {
        let base = match from {
            From::Memory => memory.recall(),
            From::Service => published(session, name).await?,
            From::Nothing => None,
        };
        let packed = match base.filter(|base| shares(base, tree)) {
            Some(base) => pack_changes(dir, tree, &base)?,
            None if from == From::Nothing => pack(dir)?,
            None => continue,
        };
        if !context.json {
            eprintln!("Publishing {name} ({} KiB) to {}", packed.len().div_ceil(1024), session.server);
        }
        let kind = Some("application/gzip");
        let answer = session.call_with(Method::POST, &path, kind, &more, packed.into()).await?;
        if answer.status.is_success() && !how.dry_run {
            memory.keep(tree);
        }
        if answer.code().as_deref() != Some(Code::ContentUnknown.as_str()) {
            return Ok(answer);
        }
    }
    bail!("the Build Service does not take the whole directory")
}

/// Who knows what was published before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Memory,
    Service,
    Nothing,
}

/// What the Build Service has of an app; a service that does not know how to say so has nothing.
async fn published(session: &Session, name: &AppName) -> Result<Option<Tree>> {
    #[derive(Deserialize)]
    struct Content {
        files: Tree,
    }
    let path = format!("/apps/{name}/content");
    let answer = session.call(Method::GET, &path, None, bytes::Bytes::new()).await?;
    Ok(answer.json::<Content>().ok().map(|content| content.files))
}

/// Whether two trees have a file in common.
fn shares(base: &Tree, tree: &Tree) -> bool {
    base.0.iter().any(|(path, file)| file.is_some() && tree.0.get(path) == Some(file))
}

/// What this machine published last. It only saves a question.
struct Memory(PathBuf);

impl Memory {
    fn of(context: &Context, session: &Session, name: &AppName) -> Self {
        let file = digest(format!("{} {name}", session.server).as_bytes()).hex();
        Self(context.config_dir.join("published").join(format!("{file}.json")))
    }

    fn recall(&self) -> Option<Tree> {
        serde_json::from_slice(&std::fs::read(&self.0).ok()?).ok()
    }

    fn keep(&self, tree: &Tree) {
        let _ = self.0.parent().map(std::fs::create_dir_all);
        let beside = self.0.with_extension(format!("{}.new", std::process::id()));
        let kept = std::fs::write(&beside, tree.text()).and_then(|()| std::fs::rename(&beside, &self.0));
        if kept.is_err() {
            let _ = std::fs::remove_file(beside);
        }
    }
}

/// Promotes an app.
pub async fn promote(context: &Context, args: PromoteArgs) -> Result<()> {
    let app: AppName = args.app.parse()?;
    let session = Session::open(context, None).await?;
    let mut body = serde_json::json!({ "stage": args.to });
    if let Some(version) = args.version {
        body["version"] = version.into();
    }
    if args.dry_run {
        body["dry_run"] = true.into();
    }
    begin(context, &session, &format!("/apps/{app}/deployments"), &body).await
}

/// Begins something and watches it to its end; or says what would happen, when only that was asked.
pub(crate) async fn begin(
    context: &Context,
    session: &Session,
    path: &str,
    body: &serde_json::Value,
) -> Result<()> {
    let answer = session.send(Method::POST, path, body).await?;
    if body["dry_run"] == true { impact(context, &answer) } else { follow(context, session, answer).await }
}

/// What would happen. Blockers are an error, as they would be without `--dry-run`.
fn impact(context: &Context, found: &serde_json::Value) -> Result<()> {
    let list = |key: &str| found[key].as_array().cloned().unwrap_or_default();
    let (blockers, warnings) = (list("blockers"), list("warnings"));
    if context.json {
        println!("{found}");
    } else {
        for warning in &warnings {
            println!("warning: {}", warning.as_str().unwrap_or_default());
        }
        if blockers.is_empty() {
            println!("Nothing stands in its way.");
        }
    }
    let Some(first) = blockers.first() else { return Ok(()) };
    let what: Vec<_> = blockers.iter().filter_map(|one| one["what"].as_str()).collect();
    let code = bastide_types::Code::from_text(first["code"].as_str().unwrap_or_default());
    match code {
        Some(code) => Err(code.because(what.join("; ")).into()),
        None => bail!("{}", what.join("; ")),
    }
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
    let mut told = String::new();
    loop {
        // The service answers when there is news.
        let path = format!("/operations/{id}?after={}", seen.len());
        let operation: Operation = serde_json::from_value(session.get(&path).await?)?;
        let before = seen.len();
        for step in &operation.steps {
            if step.status == "running" || !seen.insert(step.name.clone()) {
                continue;
            }
            if !context.json {
                let mark = if step.status == "failed" { "✗" } else { "✓" };
                eprintln!("  {mark} {} {}", step.name, step.message.as_deref().unwrap_or_default());
            }
        }
        if operation.status != "running" {
            return Ok(operation);
        }
        let now = operation.steps.iter().rev().find(|step| step.status == "running");
        if let (Some(step), false) = (now, context.json) {
            let message = step.message.as_deref().unwrap_or_default();
            let line = format!("  … {} {message} ({} %)", step.name, operation.progress);
            if line != told {
                eprintln!("{line}");
                told = line;
            }
        }
        if seen.len() == before {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn conclude(context: &Context, operation: &Operation, started: &Started) -> Result<()> {
    if context.json {
        let mut value = serde_json::to_value(operation)?;
        value["image"] = started.image.as_deref().into();
        value["revision"] = started.revision.clone();
        value["version"] = started.version.clone().into();
        value["warnings"] = started.warnings.clone().into();
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
        if let Some(version) = &started.version {
            println!("version  {version}");
        }
        if let Some(image) = &started.image {
            println!("image    {image}");
        }
        for warning in &started.warnings {
            eprintln!("warning: {warning}");
        }
    }
    if let Some(warning) = &started.warning {
        eprintln!("WARNING: {warning}");
    }
    Ok(())
}
