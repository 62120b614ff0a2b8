//! `bastide waf exclude --from-event`: the smallest exclusions that let a request pass which is none of an attack.

use super::events::{self, Event};
use crate::args::DataArgs;
use anyhow::{Context as _, Result, bail};
use bastide_cli::waf::At;
use bastide_types::waf::{WafExclusion, WafFault, WafRules};
use clap::Args;
use std::path::PathBuf;

/// Id of the engine's own rule: a request that cannot be read.
const ENGINE_RULE: u32 = 1;

/// Arguments of `waf exclude`.
#[derive(Debug, Clone, Args)]
pub struct ExcludeArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// Id of the request, from its answer or from `waf events`
    #[arg(long, value_name = "REQUEST")]
    pub from_event: String,
    /// Only this rule; may be given more than once [default: all that count]
    #[arg(long, value_name = "ID")]
    pub rule: Vec<u32>,
    /// Another path than that of the request, such as /shop/*
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Read the event from this log
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Show the exclusions and change nothing
    #[arg(long, conflicts_with = "seclang")]
    pub dry_run: bool,
    /// Print them as rules, for an edge that stands alone, and change nothing
    #[arg(long)]
    pub seclang: bool,
}

/// Makes exclusions from an event and adds them where it happened.
pub async fn run(context: &bastide_cli::Context, args: &ExcludeArgs) -> Result<()> {
    let event = events::find(args.log.as_deref(), &args.data, &args.from_event)?;
    let exclusions = smallest(&event, &args.rule, args.path.as_deref())?;
    if args.seclang {
        print!("{}", seclang(&exclusions));
        return Ok(());
    }
    for exclusion in &exclusions {
        println!("{exclusion}");
    }
    if args.dry_run {
        return Ok(());
    }
    let at = level(&event)?;
    let version = bastide_cli::waf::exclude(context, &at, &exclusions).await?;
    eprintln!("Added; in force within seconds as policy {version}.");
    Ok(())
}

/// For each rule that counts and each target that it matched: this rule, this target, this path.
fn smallest(event: &Event, only: &[u32], path: Option<&str>) -> Result<Vec<WafExclusion>> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => decoded(event.request.uri.split('?').next().unwrap_or_default())?,
    };
    let mut exclusions: Vec<WafExclusion> = Vec::new();
    let (mut engine, mut scoring) = (false, None);
    for message in &event.messages {
        if !only.is_empty() && !only.contains(&message.id) {
            continue;
        }
        if message.id == ENGINE_RULE {
            engine = true;
            continue;
        }
        let exclusion = WafExclusion {
            rules: WafRules::Ids(message.id, message.id),
            target: target(&message.target),
            path: Some(path.clone()),
        };
        match exclusion.check() {
            Ok(()) => {}
            // It is left alone where others count; asked for, it is refused.
            Err(fault @ WafFault::Scoring(_)) => {
                scoring = Some(fault);
                continue;
            }
            Err(fault) => {
                return Err(fault).with_context(|| format!("rule {} cannot be excluded", message.id));
            }
        }
        // Rules that only tell (no severity) do not count, unless they are asked for.
        let counts = message.severity.is_some() && !is_sum(message) || !only.is_empty();
        if counts && !exclusions.contains(&exclusion) {
            exclusions.push(exclusion);
        }
    }
    match (exclusions.is_empty(), scoring, engine) {
        (false, ..) => Ok(exclusions),
        (true, Some(fault), _) if !only.is_empty() => Err(fault.into()),
        (true, _, true) => bail!(
            "the request could not be read, or its body was longer than what is inspected: that is set by \
             `bastide waf policy set --request-body`, not by an exclusion"
        ),
        (true, ..) => bail!("no rule of this event can be excluded"),
    }
}

/// Rules that only say what others came to.
fn is_sum(message: &events::Message) -> bool {
    message.tags.iter().any(|tag| tag == "anomaly-evaluation" || tag == "reporting")
}

/// The target of an exclusion, if the value that matched has a name that can be told apart: what rules put together
/// themselves has not, nor has a name that would be read as a pattern.
fn target(matched: &str) -> Option<String> {
    let (variable, key) = matched.split_once(':').map_or((matched, None), |(name, key)| (name, Some(key)));
    let is_own =
        ["TX", "MATCHED_VAR", "MATCHED_VARS", "MATCHED_VARS_NAMES", "MATCHED_VAR_NAME"].contains(&variable);
    let is_plain = |key: &str| {
        !key.is_empty()
            && !key.starts_with('/')
            && !key.contains(['|', ',', '\'', '"', '\\'])
            && key.len() <= 200
    };
    if variable.is_empty() || is_own {
        return None;
    }
    match key {
        None => Some(variable.to_owned()),
        Some(key) if is_plain(key) => Some(format!("{variable}:{key}")),
        Some(_) => Some(variable.to_owned()),
    }
}

/// The path as rules see it.
fn decoded(path: &str) -> Result<String> {
    let (mut out, mut rest) = (Vec::new(), path.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|pair| str::from_utf8(pair).ok());
        let escaped = hex.filter(|_| *byte == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    let out = String::from_utf8(out).context("the path is no text: give one with --path")?;
    if out.contains("..") || out.contains('*') {
        bail!("the path `{out}` has no one meaning: give one with --path");
    }
    Ok(out)
}

fn level(event: &Event) -> Result<At> {
    let Some(customer) = &event.customer else {
        bail!("the event is of no site of this installation: use --seclang for an edge that stands alone");
    };
    let Some(stage) = &event.stage else { return Ok(At { platform: true, ..At::default() }) };
    Ok(At {
        platform: false,
        customer: Some(customer.parse()?),
        stage: Some(stage.parse()?),
        app: event.app.as_ref().map(|app| app.parse()).transpose()?,
    })
}

/// The same as rules, to be loaded before the others. Their ids are in the range that is kept for users.
fn seclang(exclusions: &[WafExclusion]) -> String {
    let mut text = String::new();
    for (number, exclusion) in (0_u32..).zip(exclusions) {
        let path = exclusion.path.as_deref().unwrap_or("/");
        let (operator, path) = match path.strip_suffix('*') {
            Some(begin) => ("beginsWith", begin),
            None => ("streq", path),
        };
        let ctl = match &exclusion.target {
            Some(target) => format!("ctl:ruleRemoveTargetById={};{target}", exclusion.rules),
            None => format!("ctl:ruleRemoveById={}", exclusion.rules),
        };
        text.push_str(&format!(
            "SecRule REQUEST_FILENAME \"@{operator} {path}\" \"id:{},phase:1,pass,nolog,t:none,{ctl}\"\n",
            1000 + number
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event(messages: &Value) -> Event {
        serde_json::from_str(&events::tests::line("r1", "shop", "block", messages)).unwrap()
    }

    fn made(messages: &Value, only: &[u32]) -> Result<Vec<String>> {
        Ok(smallest(&event(messages), only, None)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_exclusion_is_one_rule_one_target_one_path() {
        let messages = json!([
            {"id": 942_100, "msg": "SQL", "severity": "CRITICAL", "target": "ARGS:q"},
            {"id": 942_100, "msg": "SQL", "severity": "CRITICAL", "target": "ARGS:q"},
            {"id": 920_440, "msg": "extension", "severity": "CRITICAL", "target": "TX:extension"},
            {"id": 941_100, "msg": "XSS", "severity": "CRITICAL", "target": "ARGS:/x/"},
            {"id": 949_110, "msg": "Inbound Anomaly Score Exceeded", "severity": "CRITICAL", "target": "TX:anomaly_score"},
            {"id": 980_130, "msg": "sum", "target": "TX:inbound_anomaly_score"},
        ]);
        let path = "/shop/a b";
        let expected =
            [format!("942100 ARGS:q {path}"), format!("920440 {path}"), format!("941100 ARGS {path}")];
        assert_eq!(made(&messages, &[]).unwrap(), expected);
        assert_eq!(made(&messages, &[941_100]).unwrap(), expected[2..]);
        let at = level(&event(&messages)).unwrap();
        assert_eq!((at.stage.unwrap().as_str(), at.app.unwrap().as_str()), ("production", "shop"));
        let rules = seclang(&smallest(&event(&messages), &[942_100], Some("/shop/*")).unwrap());
        assert_eq!(
            rules,
            "SecRule REQUEST_FILENAME \"@beginsWith /shop/\" \"id:1000,phase:1,pass,nolog,t:none,\
             ctl:ruleRemoveTargetById=942100;ARGS:q\"\n"
        );
    }

    #[test]
    fn what_would_switch_the_scoring_off_or_excludes_nothing_is_refused() {
        let scoring =
            json!([{"id": 949_110, "msg": "x", "severity": "CRITICAL", "target": "TX:anomaly_score"}]);
        let refused = made(&scoring, &[949_110]).unwrap_err().to_string();
        assert!(refused.contains("add up scores"), "{refused}");
        assert!(made(&scoring, &[]).is_err());
        let engine = json!([{"id": 1, "msg": "x", "severity": "CRITICAL", "target": "REQUEST_BODY"}]);
        assert!(made(&engine, &[]).unwrap_err().to_string().contains("--request-body"));
        for path in ["/a/../b", "/a*", "/%ff"] {
            assert!(decoded(path).is_err(), "{path}");
        }
        assert_eq!(decoded("/a%20b%zz").unwrap(), "/a b%zz");
    }
}
