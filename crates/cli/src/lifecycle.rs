//! What becomes of revisions: listed, compared, rolled back, taken out.

use crate::{
    Context,
    org::table,
    publish::{begin, follow},
    session::Session,
};
use anyhow::{Result, bail};
use bastide_types::{AppName, StageName};
use clap::Args;
use serde_json::{Value, json};

/// Arguments of `rollback`.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// Name of the app
    pub app: AppName,
    /// Stage
    #[arg(long, default_value = "development")]
    pub stage: StageName,
    /// Number of a revision that served there [default: the one before]
    #[arg(long)]
    pub to: Option<u32>,
    /// Say what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `undeploy`.
#[derive(Debug, Clone, Args)]
pub struct UndeployArgs {
    /// Name of the app
    pub app: AppName,
    /// Stage to take it out of
    #[arg(long)]
    pub stage: StageName,
    /// Say what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask for a second thought when others would notice
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `revisions`.
#[derive(Debug, Clone, Args)]
pub struct RevisionsArgs {
    /// Name of the app
    pub app: AppName,
    /// Most revisions
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
}

/// Arguments of `diff`.
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// Name of the app
    pub app: AppName,
    /// Number of a revision, or a stage: what serves there
    pub from: String,
    /// The same
    pub to: String,
}

/// Arguments of `operations`.
#[derive(Debug, Clone, Args)]
pub struct OperationsArgs {
    /// Only those of this app
    pub app: Option<AppName>,
    /// Most operations
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
}

/// Rolls an app back.
pub async fn rollback(context: &Context, args: RollbackArgs) -> Result<()> {
    let session = Session::open(context, None).await?;
    let body = json!({ "stage": args.stage, "to": args.to, "dry_run": args.dry_run });
    begin(context, &session, &format!("/apps/{}/rollbacks", args.app), &body).await
}

/// Takes an app out of a stage.
pub async fn undeploy(context: &Context, args: UndeployArgs) -> Result<()> {
    let session = Session::open(context, None).await?;
    let path = format!("/apps/{}/undeployments", args.app);
    let mut body = json!({ "stage": args.stage, "dry_run": true });
    if args.dry_run {
        return begin(context, &session, &path, &body).await;
    }
    if !args.yes {
        let impact = session.send(http::Method::POST, &path, &body).await?;
        let warnings: Vec<_> =
            impact["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if !warnings.is_empty() {
            bail!("others would notice: {}. Say --yes to do it all the same", warnings.join("; "));
        }
    }
    body["dry_run"] = false.into();
    let started = session.send(http::Method::POST, &path, &body).await?;
    follow(context, &session, started).await
}

/// Lists revisions.
pub async fn revisions(context: &Context, args: RevisionsArgs) -> Result<()> {
    let session = Session::open(context, None).await?;
    let found = session.get(&format!("/apps/{}/revisions?limit={}", args.app, args.limit)).await?;
    table(context, &found["revisions"], &["number", "version", "at", "by", "stages", "message"])
}

/// Lists operations.
pub async fn operations(context: &Context, args: OperationsArgs) -> Result<()> {
    let session = Session::open(context, None).await?;
    let app = args.app.map(|app| format!("&app={app}")).unwrap_or_default();
    let found = session.get(&format!("/operations?limit={}{app}", args.limit)).await?;
    table(context, &found["operations"], &["id", "at", "kind", "app", "stage", "revision", "status", "code"])
}

/// Compares two revisions.
pub async fn diff(context: &Context, args: DiffArgs) -> Result<()> {
    let session = Session::open(context, None).await?;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("from", &args.from).append_pair("to", &args.to);
    let found = session.get(&format!("/apps/{}/diff?{}", args.app, query.finish())).await?;
    if context.json {
        println!("{found}");
        return Ok(());
    }
    println!("revision {} -> revision {}", found["from"], found["to"]);
    for one in found["differences"].as_array().into_iter().flatten() {
        println!("{}", line(one));
    }
    Ok(())
}

/// A difference as one line.
fn line(one: &Value) -> String {
    let key = one["key"].as_str().unwrap_or_default();
    match (&one["from"], &one["to"]) {
        (Value::Null, to) => format!("+ {key} = {to}"),
        (from, Value::Null) => format!("- {key} = {from}"),
        (from, to) => format!("~ {key} = {from} -> {to}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_one_line() {
        let check = |one: Value, expected: &str| assert_eq!(line(&one), expected);
        check(json!({ "key": "env.A", "from": null, "to": "1" }), "+ env.A = \"1\"");
        check(json!({ "key": "env.A", "from": "1", "to": null }), "- env.A = \"1\"");
        check(json!({ "key": "scale.replicas", "from": 1, "to": 2 }), "~ scale.replicas = 1 -> 2");
    }
}
