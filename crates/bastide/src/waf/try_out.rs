//! `bastide waf test`: which rules would match a request, and why. Nothing is sent.

use super::request::{self, Request};
use crate::{args::DataArgs, layout::Layout, up};
use anyhow::{Context, Result};
use bastide_bus::VerifyKey;
use bastide_edge::{
    rules::Places,
    waf::force::{office, settings},
};
use bastide_types::{
    AppName, Site, Snapshot, WafPolicy,
    waf::{WafExclusion, WafMode},
};
use bastide_waf::{Audit, Connection, RuleSet, Settings, Verdict};
use clap::Args;
use std::{fs, path::PathBuf, sync::Arc};

/// Arguments of `waf test`.
#[derive(Debug, Clone, Args)]
pub struct TestArgs {
    /// A request as curl would take it, such as 'curl https://demo.apps.localhost/shop/?q=1 -H "X-A: b"'
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub request: Vec<String>,
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// Other rules: files, directories and globs, in order [default: those of the installation]
    #[arg(long, value_name = "PATH", num_args = 1)]
    pub rules: Vec<PathBuf>,
    /// Another paranoia level than the policy's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=4))]
    pub paranoia: Option<u8>,
    /// An exclusion to try out, such as "942100 ARGS:q /shop/*"
    #[arg(long, value_name = "EXCLUSION")]
    pub exclude: Vec<WafExclusion>,
}

/// Tries the request out.
pub fn run(args: &TestArgs, json: bool) -> Result<()> {
    let words = match args.request.as_slice() {
        [line] => request::words(line)?,
        words => words.to_vec(),
    };
    let request = Request::parse(&words)?;
    let layout = up::layout(args.data.data.as_deref());
    let (place, mut policy) = policy_of(&layout, &request)?;
    if let Some(paranoia) = args.paranoia {
        (policy.paranoia, policy.paranoia_detection) = (paranoia, paranoia.max(policy.paranoia_detection));
    }
    policy.exclusions.extend(args.exclude.iter().cloned());
    let places = Places { named: args.rules.clone(), versions: Some(layout.waf_versions()) };
    let found = places.find()?;
    let sources: Vec<_> = [office()].into_iter().chain(found.read()?).collect();
    let own = Settings { masked: false, ..settings(&policy) };
    let set = Arc::new(RuleSet::compile(&sources, &bastide_edge::rules::Directories, &own)?);
    let (verdict, audit) = inspect(&set, &request);
    if json {
        let blocked = verdict != Verdict::Pass;
        let line = serde_json::json!({"blocked": blocked, "place": place, "rules": found.origin.to_string(), "audit": audit});
        println!("{line}");
    } else {
        println!("rules     {} rules, {}", set.rules(), found.origin);
        println!("policy    {place}: mode {}, paranoia {}", policy.mode, policy.paranoia);
        print!("{}", text(&policy, verdict, &audit));
    }
    Ok(())
}

/// The policy of the place that the request is for, as the edge has it; the default where none is known.
fn policy_of(layout: &Layout, request: &Request) -> Result<(String, WafPolicy)> {
    let unknown = || ("no site of this installation".to_owned(), WafPolicy::default());
    if !layout.snapshot_public().exists() {
        return Ok(unknown());
    }
    let key = fs::read_to_string(layout.snapshot_public())?;
    let key = VerifyKey::from_base64url(key.trim()).context("the key of Snapshots cannot be used")?;
    let Some(snapshot) = bastide_bus::snapshot::last_good(&layout.state("edge"), key) else {
        return Ok(unknown());
    };
    Ok(in_snapshot(&snapshot, request).unwrap_or_else(unknown))
}

fn in_snapshot(snapshot: &Snapshot, request: &Request) -> Option<(String, WafPolicy)> {
    let (place, id) = match snapshot.domains.site(&request.host)? {
        Site::Platform(customer) => (format!("Platform of {customer}"), snapshot.platform_waf),
        Site::Runtime(customer, stage) => {
            let (_, own) = snapshot.stage(&customer, &stage)?;
            let first = request.target[1..].split(['/', '?']).next().unwrap_or_default();
            let app = AppName::new(first).ok().and_then(|name| Some((own.apps.get(&name)?.waf, name)));
            match app {
                Some((waf, name)) => (format!("{customer}, {stage}, {name}"), waf.unwrap_or(own.waf)),
                None => (format!("{customer}, {stage}"), own.waf),
            }
        }
    };
    Some((place, snapshot.waf.get(&id)?.clone()))
}

/// The phases of the request. An answer there is none.
fn inspect(set: &Arc<RuleSet>, request: &Request) -> (Verdict, Audit) {
    let here = ([127, 0, 0, 1], 0).into();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let mut transaction = set.begin(Connection { client: here, server: here, unique_id: "test".into(), now });
    let fields = request.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let (method, target) = (request.method.as_bytes(), request.target.as_bytes());
    let mut verdict = transaction.request_head(method, target, b"HTTP/1.1", fields);
    if verdict == Verdict::Pass {
        let limit = set.settings().request_body_bytes_max;
        let body = &request.body[..request.body.len().min(limit)];
        verdict = transaction.request_body(body, body.len() == request.body.len());
    }
    (verdict, transaction.finish())
}

fn text(policy: &WafPolicy, verdict: Verdict, audit: &Audit) -> String {
    let by = audit.rule.map(|rule| format!(", by rule {rule}")).unwrap_or_default();
    let said = match (verdict, audit.would_block) {
        (Verdict::Block { .. }, _) => format!("refused{by}"),
        (Verdict::Pass, true) => format!("passes, but mode block would refuse it{by}"),
        (Verdict::Pass, false) if policy.mode == WafMode::Off => "passes: nothing is inspected".to_owned(),
        (Verdict::Pass, false) => "passes".to_owned(),
    };
    let threshold = policy.inbound_threshold;
    let mut text = format!("verdict   {said}; score {} of {threshold}\n", audit.inbound_score);
    for one in &audit.matches {
        let severity = one.severity.as_deref().unwrap_or("-");
        text.push_str(&format!("\n{}  {severity}  {}\n", one.id, one.msg));
        text.push_str(&format!("    in   {}\n", one.target));
        if !one.logdata.is_empty() {
            text.push_str(&format!("    why  {}\n", one.logdata));
        }
        text.push_str(&format!("    at   {}:{}, phase {}\n", one.file, one.line, one.phase));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_tried_out_and_every_match_explained() {
        let sources = [office(), bastide_edge::rules::built_in()];
        let policy = WafPolicy::default();
        let own = Settings { masked: false, ..settings(&policy) };
        let set = Arc::new(RuleSet::compile(&sources, &bastide_edge::rules::Directories, &own).unwrap());
        let said = |line: &str| {
            let request = Request::parse(&request::words(line).unwrap()).unwrap();
            let (verdict, audit) = inspect(&set, &request);
            text(&policy, verdict, &audit)
        };
        assert_eq!(said("curl http://h/?q=hello"), "verdict   passes; score 0 of 5\n");
        let refused = said("curl 'http://h/?file=../../etc/passwd'");
        assert!(refused.starts_with("verdict   refused, by rule 10298; score "), "{refused}");
        assert!(refused.contains("in   ARGS:file"), "{refused}");
        assert!(said("curl http://h/ -d \"q=1' or '1'='1\"").contains("SQL in a value"));
    }
}
