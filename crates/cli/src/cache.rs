//! `cache`: what the edges store of apps.

use crate::{Context, session::Session};
use anyhow::{Context as _, Result};
use bastide_types::{
    AppName, StageName,
    cache::{CacheDecision, CacheFigures},
};
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded::Serializer;

/// `bastide cache …`
#[derive(Debug, Clone, Subcommand)]
pub enum CacheCommand {
    /// Make the edges forget stored responses; in force within a second
    Purge(Purge),
    /// Show what became of requests at the edges, and what they store, by app
    Stats(Which),
    /// Explain what the edges would do with a request, and why
    Why(Why),
}

/// Which figures to show.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Only this stage
    #[arg(long)]
    stage: Option<StageName>,
    /// Only this app
    #[arg(long)]
    app: Option<AppName>,
}

/// Which request to explain.
#[derive(Debug, Clone, Args)]
pub struct Why {
    /// Its address, such as https://acme.apps.localhost:8443/shop/logo.png
    url: String,
    /// Its method
    #[arg(long, default_value = "GET")]
    method: String,
    /// A field of it, such as "Accept-Encoding: br"; may be given several times
    #[arg(long = "field", short = 'H', value_name = "NAME: VALUE")]
    fields: Vec<String>,
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
    let session = Session::open(context, None).await?;
    match command {
        CacheCommand::Purge(what) => purge(context, &session, &what).await,
        CacheCommand::Stats(which) => stats(context, &session, &which).await,
        CacheCommand::Why(request) => why(context, &session, &request).await,
    }
}

async fn purge(context: &Context, session: &Session, what: &Purge) -> Result<()> {
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
    let answer = session.send(Method::POST, "/cache/purges", &body).await?;
    if context.json {
        println!("{answer}");
        return Ok(());
    }
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    let of = text("app").map_or_else(|| "all apps".to_owned(), |app| format!("app {app}"));
    println!("Purged in {}: {of}.", text("stage").unwrap_or_default());
    Ok(())
}

async fn stats(context: &Context, session: &Session, which: &Which) -> Result<()> {
    let mut query = Serializer::new(String::new());
    query.extend_pairs(which.stage.iter().map(|stage| ("stage", stage.as_str())));
    query.extend_pairs(which.app.iter().map(|app| ("app", app.as_str())));
    let answer = session.get(&format!("/cache/figures?{}", query.finish())).await?;
    if context.json {
        println!("{answer}");
        return Ok(());
    }
    let edges: Vec<String> = serde_json::from_value(answer["edges"].clone())?;
    let apps: Vec<CacheFigures> = serde_json::from_value(answer["apps"].clone())?;
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>9} {:>8}",
        "app", "hit ratio", "hits", "misses", "validated", "collapsed", "stale", "passed", "bytes", "evicted"
    );
    for app in &apps {
        let ratio = app.hit_ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{:.1} %", ratio * 100.0));
        println!(
            "{:<28} {ratio:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>9} {:>8}",
            format!("{} ({})", app.app, app.stage),
            app.hits,
            app.misses,
            app.validated,
            app.collapsed,
            app.stale,
            app.passed,
            size(app.bytes),
            app.evicted
        );
    }
    println!("Of {}, since each started.", edges.join(", "));
    Ok(())
}

fn size(bytes: u64) -> String {
    let (mut size, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB"] {
        if size >= 1024.0 {
            (size, unit) = (size / 1024.0, larger);
        }
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

async fn why(context: &Context, session: &Session, request: &Why) -> Result<()> {
    let fields = request.fields.iter().map(|field| {
        let (name, value) = field
            .split_once(':')
            .with_context(|| format!("`{field}` is no field: give its name, a colon and its value"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    });
    let fields: Vec<_> = fields.collect::<Result<_>>()?;
    let body = json!({ "url": request.url, "method": request.method, "fields": fields });
    let answer = session.send(Method::POST, "/cache/why", &body).await?;
    if context.json {
        println!("{answer}");
        return Ok(());
    }
    let explanations: Explanations = serde_json::from_value(answer)?;
    println!("{} {}  (app {}, stage {})", request.method, request.url, explanations.app, explanations.stage);
    for edge in &explanations.edges {
        match &edge.decision {
            Some(decision) => show(&edge.edge, decision),
            None => println!("\n{}: does not know this app, or nothing is served there", edge.edge),
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Explanations {
    stage: String,
    app: String,
    edges: Vec<EdgeExplanation>,
}

#[derive(Deserialize)]
struct EdgeExplanation {
    edge: String,
    decision: Option<CacheDecision>,
}

fn show(edge: &str, decision: &CacheDecision) {
    println!(
        "\n{edge}: {}, because {} ({})",
        decision.action, decision.because.text, decision.because.section
    );
    for stored in &decision.stored {
        let mark = if stored.chosen { "*" } else { " " };
        let state = if stored.ttl_s > 0 {
            format!("fresh for {} s", stored.ttl_s)
        } else {
            format!("stale since {} s", -stored.ttl_s)
        };
        let part = if stored.whole { "" } else { ", in part" };
        let list = |name: &str, list: &[String]| match list {
            [] => String::new(),
            list => format!(", {name} {}", list.join(", ")),
        };
        println!(
            "  {mark} stored: {}, {} old, {state}, {}{part}{}{}",
            stored.status,
            format_args!("{} s", stored.age_s),
            size(stored.bytes),
            list("varies by", &stored.vary),
            list("groups", &stored.groups)
        );
    }
    if let Some(not) = &decision.not_stored {
        println!(
            "    not stored {} s ago, because {} ({})",
            not.ago_s, not.because.text, not.because.section
        );
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_for_people() {
        assert_eq!(
            [0, 1023, 1024, 1_572_864, 5_368_709_120].map(size),
            ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB"]
        );
    }
}
