//! `scale`: how many replicas an app has in a stage.

use crate::{Context, session::Session};
use anyhow::{Result, bail};
use bastide_types::{AppName, StageName, manifest::Scale};
use clap::Args;
use http::Method;
use serde_json::{Value, json};

/// Arguments of `scale`.
#[derive(Debug, Clone, Args)]
pub struct ScaleArgs {
    /// Name of the app
    pub app: AppName,
    /// Stage
    #[arg(long, default_value = "development")]
    pub stage: StageName,
    /// A fixed number of replicas
    #[arg(long, conflicts_with_all = ["min", "max", "cpu_percent", "memory_percent"])]
    pub replicas: Option<u32>,
    /// Fewest replicas
    #[arg(long)]
    pub min: Option<u32>,
    /// Most replicas
    #[arg(long)]
    pub max: Option<u32>,
    /// Processor use that they should have on average, in percent of what each may use
    #[arg(long)]
    pub cpu_percent: Option<u32>,
    /// Memory use that they should have on average, in percent of what each may use
    #[arg(long)]
    pub memory_percent: Option<u32>,
    /// Go back to what the manifest says
    #[arg(long, conflicts_with_all = ["replicas", "min", "max", "cpu_percent", "memory_percent"])]
    pub reset: bool,
}

/// Sets or shows the scale of an app.
pub async fn scale(context: &Context, args: ScaleArgs) -> Result<()> {
    let asked = Scale {
        replicas: args.replicas,
        min: args.min,
        max: args.max,
        cpu_percent: args.cpu_percent,
        memory_percent: args.memory_percent,
    };
    asked_for(&asked)?;
    let session = Session::open(context, None).await?;
    let (app, stage) = (&args.app, &args.stage);
    let shown = if args.reset || asked != Scale::default() {
        let body = json!({ "stage": stage, "scale": (!args.reset).then_some(asked) });
        session.send(Method::PUT, &format!("/apps/{app}/scale"), &body).await?
    } else {
        let value = session.get(&format!("/apps/{app}")).await?;
        let stages = value["stages"].as_array().cloned().unwrap_or_default();
        let found = stages.into_iter().find(|one| one["stage"] == stage.as_str());
        match found.map(|mut found| found["scale"].take()) {
            Some(scale) if !scale.is_null() => scale,
            _ => bail!("{app} does not serve in {stage}"),
        }
    };
    if context.json {
        println!("{shown}");
    } else {
        println!("{app} in {stage}: {}", words(&shown));
    }
    Ok(())
}

/// What can be seen to be wrong without asking. A range alone may be wrong only together with what holds.
fn asked_for(asked: &Scale) -> Result<()> {
    let alone = Scale { min: asked.min.or(asked.max), max: asked.max.or(asked.min), ..*asked };
    Ok(alone.check()?)
}

/// A scale as one line.
pub(crate) fn words(scale: &Value) -> String {
    let number = |key: &str| scale[key].as_u64();
    let (min, max) = (number("min").unwrap_or(0), number("max").unwrap_or(0));
    let mut line = if min == max {
        format!("{min} replica{}", if min == 1 { "" } else { "s" })
    } else {
        format!("{min} to {max} replicas")
    };
    for (key, what) in [("cpu_percent", "cpu"), ("memory_percent", "memory")] {
        if let (Some(percent), true) = (number(key), min < max) {
            line.push_str(&format!(", {what} {percent} %"));
        }
    }
    if scale["set_here"].as_bool() == Some(true) {
        line.push_str(", set for this stage");
    }
    match scale["why"].as_str() {
        Some(why) if min < max => line.push_str(&format!(" ({why})")),
        Some(why) if why.contains("quota") => line.push_str(&format!(" ({why})")),
        _ => {}
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_one_line() {
        let check = |scale: Value, line: &str| assert_eq!(words(&scale), line);
        check(json!({"min": 1, "max": 1, "set_here": false, "why": "a fixed number"}), "1 replica");
        check(
            json!({"min": 2, "max": 8, "cpu_percent": 70, "set_here": true, "why": "cpu 90 %, target 70 %"}),
            "2 to 8 replicas, cpu 70 %, set for this stage (cpu 90 %, target 70 %)",
        );
        check(
            json!({"min": 5, "max": 5, "why": "the customer's quota is used up"}),
            "5 replicas (the customer's quota is used up)",
        );
    }

    #[test]
    fn what_makes_no_sense_is_not_sent() {
        for asked in
            [Scale { max: Some(99), ..Scale::default() }, Scale { replicas: Some(0), ..Scale::default() }]
        {
            assert!(asked_for(&asked).is_err());
        }
        for asked in [Scale { max: Some(1), ..Scale::default() }, Scale { min: Some(5), ..Scale::default() }]
        {
            asked_for(&asked).unwrap();
        }
    }
}
