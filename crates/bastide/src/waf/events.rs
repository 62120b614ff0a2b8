//! `bastide waf events`: the audit log, read back.

use crate::{args::DataArgs, up};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// Longest line that is read, in bytes. Ours are shorter.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Arguments of `waf events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Where the installation lives
    #[command(flatten)]
    pub data: DataArgs,
    /// Read this log, such as that of an edge that stands alone
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Only of this customer
    #[arg(long)]
    pub customer: Option<String>,
    /// Only of this stage
    #[arg(long)]
    pub stage: Option<String>,
    /// Only of this app
    #[arg(long)]
    pub app: Option<String>,
    /// Only where this rule matched
    #[arg(long, value_name = "ID")]
    pub rule: Option<u32>,
    /// Only with this verdict
    #[arg(long)]
    pub verdict: Option<Verdict>,
    /// Only since then: 30m, 12h, 7d, or a time such as 2026-11-26T08:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub since: Option<OffsetDateTime>,
    /// Most events to show, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// It was refused
    Block,
    /// It would have been, in mode block
    Detect,
    /// Rules matched, but not enough
    Pass,
}

/// A line of the log, as far as it is read.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// When.
    pub time: String,
    /// The request.
    pub request_id: String,
    /// Who sent it.
    pub client: String,
    /// Host.
    #[serde(default)]
    pub site: String,
    /// Customer, stage and app, if the host belongs to one.
    #[serde(default)]
    pub customer: Option<String>,
    /// Stage.
    #[serde(default)]
    pub stage: Option<String>,
    /// App.
    #[serde(default)]
    pub app: Option<String>,
    /// What was asked.
    pub request: Request,
    /// What was answered.
    pub response: Response,
    /// What the rules said.
    pub verdict: String,
    /// Ids of the rules.
    pub rule_ids: Vec<u32>,
    /// What matched.
    pub messages: Vec<Message>,
}

/// A request.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target as sent; the query may be masked.
    pub uri: String,
}

/// An answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Response {
    /// Status; none when the client went before.
    pub status: Option<u16>,
}

/// A rule that matched.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// Id.
    pub id: u32,
    /// Message.
    pub msg: String,
    /// Severity.
    #[serde(default)]
    pub severity: Option<String>,
    /// What matched.
    #[serde(default)]
    pub target: String,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Shows events.
pub fn run(args: &EventsArgs, json: bool) -> Result<()> {
    let mut newest: VecDeque<(Event, String)> = VecDeque::new();
    for_each(&file(args.log.as_deref(), &args.data), |event, line| {
        if args.takes(&event) {
            if newest.len() == args.limit.max(1) {
                newest.pop_front();
            }
            newest.push_back((event, line.to_owned()));
        }
    })?;
    if newest.is_empty() && !json {
        println!("No events.");
    }
    for (event, line) in &newest {
        println!("{}", if json { line.clone() } else { event.text() });
    }
    Ok(())
}

/// The event of a request.
///
/// # Errors
/// When the log cannot be read, or does not hold it.
pub fn find(log: Option<&Path>, data: &DataArgs, id: &str) -> Result<Event> {
    let (file, mut found) = (file(log, data), None);
    for_each(&file, |event, _| {
        if event.request_id == id {
            found = Some(event);
        }
    })?;
    found.with_context(|| format!("{} holds no event of the request {id}", file.display()))
}

fn file(log: Option<&Path>, data: &DataArgs) -> PathBuf {
    log.map_or_else(|| up::layout(data.data.as_deref()).waf_audit(), Path::to_owned)
}

/// Reads a log, and before it what it was before it grew too large.
fn for_each(file: &Path, mut each: impl FnMut(Event, &str)) -> Result<()> {
    let before = file.with_extension("1");
    if !file.exists() && !before.exists() {
        bail!("there is no log at {}", file.display());
    }
    for file in [before, file.to_owned()].iter().filter(|file| file.exists()) {
        let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        for line in BufReader::new(opened).split(b'\n') {
            let line = line.with_context(|| format!("cannot read {}", file.display()))?;
            if line.len() > LINE_BYTES_MAX {
                continue;
            }
            // The last line may be half there; lines of other versions are not ours to read.
            let Ok(text) = str::from_utf8(&line) else { continue };
            if let Ok(event) = serde_json::from_str(text) {
                each(event, text);
            }
        }
    }
    Ok(())
}

impl EventsArgs {
    fn takes(&self, event: &Event) -> bool {
        let is = |wanted: &Option<String>, own: &Option<String>| wanted.is_none() || wanted == own;
        let verdict = match self.verdict {
            Some(Verdict::Block) => event.verdict == "block",
            Some(Verdict::Detect) => event.verdict == "detect",
            Some(Verdict::Pass) => event.verdict == "pass",
            None => true,
        };
        let is_late = |since: OffsetDateTime| {
            OffsetDateTime::parse(&event.time, &Rfc3339).is_ok_and(|time| time >= since)
        };
        verdict
            && is(&self.customer, &event.customer)
            && is(&self.stage, &event.stage)
            && is(&self.app, &event.app)
            && self.rule.is_none_or(|rule| event.rule_ids.contains(&rule))
            && self.since.is_none_or(is_late)
    }
}

impl Event {
    fn text(&self) -> String {
        let status = self.response.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let Request { method, uri } = &self.request;
        let mut text = format!(
            "{}  {:<6} {status}  {method} {}{uri}  from {}\n  {}",
            self.time, self.verdict, self.site, self.client, self.request_id
        );
        for message in &self.messages {
            let severity = message.severity.as_deref().unwrap_or("-");
            text.push_str(&format!(
                "\n  {:<7} {severity:<8}  {}  {}",
                message.id, message.target, message.msg
            ));
        }
        text
    }
}

fn since(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time);
    }
    let wrong = || "write 30m, 12h, 7d, or a time such as 2026-11-26T08:00:00Z".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number: i64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let span = match unit {
        's' => Duration::seconds(number),
        'm' => Duration::seconds(number.saturating_mul(60)),
        'h' => Duration::seconds(number.saturating_mul(3600)),
        'd' => Duration::seconds(number.saturating_mul(86_400)),
        _ => return Err(wrong()),
    };
    OffsetDateTime::now_utc().checked_sub(span).ok_or_else(wrong)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::Value;

    pub(crate) fn line(id: &str, app: &str, verdict: &str, messages: &Value) -> String {
        let ids: Vec<_> = messages.as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
        serde_json::json!({
            "time": "2026-11-26T08:00:00.5Z", "request_id": id, "client": "192.0.2.1", "site": "demo.apps.localhost",
            "customer": "demo", "stage": "production", "app": app,
            "request": {"method": "GET", "uri": "/shop/a%20b?***", "protocol": "HTTP/1.1", "headers": {}},
            "response": {"status": 403}, "verdict": verdict, "scores": {"inbound": 5, "outbound": 0},
            "rule_ids": ids, "messages": messages, "policy": "p", "rules": "r",
        })
        .to_string()
    }

    #[test]
    fn events_are_chosen_by_what_they_hold() {
        let messages =
            serde_json::json!([{"id": 942_100, "msg": "SQL", "target": "ARGS:q", "severity": "CRITICAL"}]);
        let event: Event = serde_json::from_str(&line("r1", "shop", "block", &messages)).unwrap();
        let all = EventsArgs {
            data: DataArgs { data: None },
            log: None,
            customer: None,
            stage: None,
            app: None,
            rule: None,
            verdict: None,
            since: None,
            limit: 50,
        };
        let takes = |args: EventsArgs| args.takes(&event);
        assert!(takes(all.clone()));
        assert!(takes(EventsArgs { app: Some("shop".into()), rule: Some(942_100), ..all.clone() }));
        assert!(!takes(EventsArgs { app: Some("blog".into()), ..all.clone() }));
        assert!(!takes(EventsArgs { rule: Some(1), ..all.clone() }));
        assert!(!takes(EventsArgs { verdict: Some(Verdict::Pass), ..all.clone() }));
        let at = |text: &str| Some(since(text).unwrap());
        assert!(takes(EventsArgs { since: at("2026-11-26T08:00:00Z"), ..all.clone() }));
        assert!(!takes(EventsArgs { since: at("2026-11-26T08:00:01Z"), ..all }));
        assert_eq!(
            event.text(),
            "2026-11-26T08:00:00.5Z  block  403  GET demo.apps.localhost/shop/a%20b?***  from 192.0.2.1\n  r1\n  \
             942100  CRITICAL  ARGS:q  SQL"
        );
        for wrong in ["", "h", "1y", "-", "ä"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_event_is_passed_over_and_an_older_log_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.jsonl");
        let messages = serde_json::json!([]);
        std::fs::write(dir.path().join("audit.1"), line("r1", "shop", "pass", &messages)).unwrap();
        let text = format!("nothing\n{{}}\n{}\n{{\"time\":", line("r2", "shop", "pass", &messages));
        std::fs::write(&log, text).unwrap();
        let mut ids = Vec::new();
        for_each(&log, |event, _| ids.push(event.request_id)).unwrap();
        assert_eq!(ids, ["r1", "r2"]);
        let data = DataArgs { data: None };
        assert!(find(Some(&log), &data, "r1").is_ok() && find(Some(&log), &data, "r3").is_err());
        assert!(for_each(&dir.path().join("none.jsonl"), |_, _| ()).is_err());
    }
}
