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
    if let Some(warning) = session.get("/runtime").await?["warning"].as_str() {
        eprintln!("WARNING: {warning}");
    }
    let value = match &args.app {
        Some(app) => session.get(&format!("/apps/{}", app.parse::<AppName>()?)).await?,
        None => session.get("/apps").await?,
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
        if !stage["scale"].is_null() {
            println!("    {}", crate::scale::words(&stage["scale"]));
        }
        for replica in stage["replicas"].as_array().into_iter().flatten() {
            println!("    {}", line(replica, now_s()));
        }
    }
}

/// A replica: where it is, how it is, what it uses, and how it ended if it ever did.
fn line(replica: &Value, now_s: u64) -> String {
    let mut line =
        format!("{} zone {} {:<9}", text(&replica["id"]), text(&replica["zone"]), text(&replica["state"]));
    let usage = &replica["usage"];
    if let (Some(cpu), Some(cpu_max), Some(memory), Some(memory_max)) = (
        usage["cpu_millis"].as_u64(),
        usage["cpu_millis_max"].as_u64(),
        usage["memory_bytes"].as_u64(),
        usage["memory_bytes_max"].as_u64(),
    ) {
        let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
        let percent = cpu * 100 / cpu_max.max(1);
        line.push_str(&format!(" cpu {percent} %, memory {} of {} MiB", mib(memory), mib(memory_max)));
    }
    if let Some(reason) = replica["reason"].as_str() {
        line.push_str(&format!(" {reason}"));
    }
    let restarts = replica["restarts"].as_u64().unwrap_or(0);
    if let Some(why) = replica["last_end"]["why"].as_str() {
        let ago = replica["last_end"]["at"].as_u64().map_or(0, |at| now_s.saturating_sub(at));
        line.push_str(&format!("\n      started again {restarts} ×; last end {} ago: {why}", span(ago)));
    }
    line
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_crash_loop_is_seen_at_a_glance() {
        let replica = json!({
            "id": "r1", "zone": "a", "state": "failed", "reason": "it ended with exit code 3", "restarts": 4,
            "last_end": { "at": 1000, "why": "it was ended by SIGKILL (out of memory: its limit is 64 MiB)" },
        });
        assert_eq!(
            line(&replica, 1300),
            "r1 zone a failed    it ended with exit code 3\n      started again 4 ×; last end 5 min ago: it was \
             ended by SIGKILL (out of memory: its limit is 64 MiB)"
        );
        let well = json!({
            "id": "r2", "zone": "b", "state": "ready", "reason": null, "restarts": 0, "last_end": null,
            "usage": { "cpu_millis": 350, "cpu_millis_max": 500, "memory_bytes": 41_000_000, "memory_bytes_max": 268_435_456 },
        });
        assert_eq!(line(&well, 0), "r2 zone b ready     cpu 70 %, memory 40 of 256 MiB");
        assert_eq!(line(&json!({"id": "r3", "zone": "a", "state": "starting"}), 0), "r3 zone a starting ");
    }
}
