//! Actions of a rule, read.

use crate::{
    error::{LoadError, Place},
    rule::{AllowScope, Change, Disruptive, SetVar},
    text::Text,
    transform::Transform,
    variable::{Target, parse as parse_targets},
};

/// A change of the engine for this transaction.
#[derive(Debug)]
pub(crate) enum Ctl {
    RemoveById(u32, u32),
    RemoveByTag(Vec<u8>),
    RemoveTargetById(u32, u32, Target),
    RemoveTargetByTag(Vec<u8>, Target),
    Engine(EngineMode),
    BodyProcessor(String),
    ForceBodyVariable(bool),
    Audit(bool),
    /// Known, without effect on verdicts.
    Nothing,
}

/// `ctl:ruleEngine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EngineMode {
    On,
    Off,
    DetectionOnly,
}

/// What the actions of one rule say.
#[derive(Debug, Default)]
pub(crate) struct Actions {
    pub(crate) id: Option<u32>,
    pub(crate) phase: Option<usize>,
    pub(crate) transforms: Option<Vec<Transform>>,
    pub(crate) chain: bool,
    pub(crate) capture: bool,
    pub(crate) multi_match: bool,
    pub(crate) set: Vec<SetVar>,
    pub(crate) ctl: Vec<Ctl>,
    pub(crate) disruptive: Option<Disruptive>,
    pub(crate) status: Option<u16>,
    pub(crate) skip_after: Option<String>,
    pub(crate) log: Option<bool>,
    pub(crate) msg: Option<Text>,
    pub(crate) logdata: Option<Text>,
    pub(crate) severity: Option<String>,
    pub(crate) tags: Vec<Text>,
    pub(crate) persistent: Vec<String>,
}

/// Reads a list of actions.
pub(crate) fn parse(place: &Place, text: &[u8]) -> Result<Actions, LoadError> {
    let mut actions = Actions::default();
    for one in split(text) {
        let (name, value) = match memchr::memchr(b':', one) {
            Some(at) => (&one[..at], Some(unquoted(&one[at + 1..]))),
            None => (one, None),
        };
        let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
        apply(place, &mut actions, &name, value)?;
    }
    Ok(actions)
}

/// Actions at commas that stand outside of single quotes.
fn split(text: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut begun, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'\'' => quoted = !quoted,
            b',' if !quoted => {
                parts.push(text[begun..at].trim_ascii());
                begun = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[begun..].trim_ascii());
    parts.retain(|part| !part.is_empty());
    parts
}

fn unquoted(value: &[u8]) -> Vec<u8> {
    let value = value.trim_ascii();
    let inner = value.strip_prefix(b"'").and_then(|rest| rest.strip_suffix(b"'")).unwrap_or(value);
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' && bytes.peek() == Some(&b'\'') {
            continue;
        }
        out.push(byte);
    }
    out
}

fn apply(place: &Place, actions: &mut Actions, name: &str, value: Option<Vec<u8>>) -> Result<(), LoadError> {
    let bytes = value.clone().unwrap_or_default();
    let text = || String::from_utf8_lossy(&bytes).trim().to_owned();
    match name {
        "id" => actions.id = Some(text().parse().map_err(|_| place.syntax("id is no number"))?),
        "phase" => {
            actions.phase = Some(match text().to_ascii_lowercase().as_str() {
                "1" => 1,
                "2" | "request" => 2,
                "3" => 3,
                "4" | "response" => 4,
                "5" | "logging" => 5,
                other => return Err(place.syntax(format!("there is no phase {other}"))),
            });
        }
        "t" => {
            let list = actions.transforms.get_or_insert_with(Vec::new);
            match Transform::named(&text()) {
                Some(Some(transform)) => list.push(transform),
                Some(None) => list.clear(),
                None => return Err(place.unsupported(format!("transformation {}", text()))),
            }
        }
        "chain" => actions.chain = true,
        "capture" => actions.capture = true,
        "multimatch" => actions.multi_match = true,
        "pass" => actions.disruptive = Some(Disruptive::Pass),
        "block" => actions.disruptive = Some(Disruptive::Block),
        "deny" | "drop" => actions.disruptive = Some(Disruptive::Deny),
        "redirect" => return Err(place.unsupported("action redirect")),
        "allow" => {
            actions.disruptive = Some(Disruptive::Allow(match text().as_str() {
                "phase" => AllowScope::Phase,
                "request" => AllowScope::Request,
                _ => AllowScope::All,
            }));
        }
        "status" => actions.status = Some(text().parse().map_err(|_| place.syntax("status is no number"))?),
        "skipafter" => actions.skip_after = Some(text()),
        "log" => actions.log = Some(true),
        "nolog" => actions.log = Some(false),
        "auditlog"
        | "noauditlog"
        | "rev"
        | "ver"
        | "maturity"
        | "accuracy"
        | "expirevar"
        | "deprecatevar"
        | "setenv"
        | "sanitisearg"
        | "sanitisematched"
        | "sanitisematchedbytes"
        | "sanitiserequestheader"
        | "sanitiseresponseheader" => {}
        "msg" => actions.msg = Some(Text::parse(&bytes)),
        "logdata" => actions.logdata = Some(Text::parse(&bytes)),
        "severity" => actions.severity = Some(severity(&text())),
        "tag" => actions.tags.push(Text::parse(&bytes)),
        "setvar" => actions.set.push(set_var(place, &bytes)?),
        "initcol" | "setsid" | "setuid" | "setrsc" => actions.persistent.push(text()),
        "ctl" => actions.ctl.push(ctl(place, &bytes)?),
        _ => return Err(place.unsupported(format!("action {name}"))),
    }
    Ok(())
}

fn severity(text: &str) -> String {
    const WORDS: [&str; 8] =
        ["EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG"];
    match text.parse::<usize>().ok().and_then(|number| WORDS.get(number)) {
        Some(word) => (*word).to_owned(),
        None => text.to_ascii_uppercase(),
    }
}

fn set_var(place: &Place, text: &[u8]) -> Result<SetVar, LoadError> {
    let (removed, text) = text.strip_prefix(b"!").map_or((false, text), |rest| (true, rest));
    let (name, value) = match memchr::memchr(b'=', text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let Some(dot) = memchr::memchr(b'.', name) else {
        return Err(place.syntax("setvar names no collection"));
    };
    let collection = String::from_utf8_lossy(&name[..dot]).trim().to_ascii_uppercase();
    let name = Text::parse(&name[dot + 1..].to_ascii_lowercase());
    let change = match (removed, value) {
        (true, _) => Change::Remove,
        (_, None) => Change::Set(Text::parse(b"1")),
        (_, Some([b'+', amount @ ..])) => Change::Add(Text::parse(amount)),
        (_, Some([b'-', amount @ ..])) => Change::Subtract(Text::parse(amount)),
        (_, Some(value)) => Change::Set(Text::parse(value)),
    };
    Ok(SetVar { collection, name, change })
}

fn ctl(place: &Place, text: &[u8]) -> Result<Ctl, LoadError> {
    let text = String::from_utf8_lossy(text).into_owned();
    let (name, value) = text.split_once('=').ok_or_else(|| place.syntax("ctl has no value"))?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    let target = |list: &str| -> Result<(String, Target), LoadError> {
        let (what, target) = list.split_once(';').ok_or_else(|| place.syntax("ctl names no target"))?;
        let mut targets = parse_targets(place, target.trim().as_bytes())?;
        Ok((what.trim().to_owned(), targets.remove(0)))
    };
    Ok(match name.as_str() {
        "ruleremovebyid" => {
            let (from, to) = id_range(place, value)?;
            Ctl::RemoveById(from, to)
        }
        "ruleremovebytag" => Ctl::RemoveByTag(value.as_bytes().to_vec()),
        "ruleremovetargetbyid" => {
            let (ids, target) = target(value)?;
            let (from, to) = id_range(place, &ids)?;
            Ctl::RemoveTargetById(from, to, target)
        }
        "ruleremovetargetbytag" => {
            let (tag, target) = target(value)?;
            Ctl::RemoveTargetByTag(tag.into_bytes(), target)
        }
        "ruleengine" => Ctl::Engine(match value.to_ascii_lowercase().as_str() {
            "on" => EngineMode::On,
            "off" => EngineMode::Off,
            "detectiononly" => EngineMode::DetectionOnly,
            _ => return Err(place.syntax("ruleEngine is On, Off or DetectionOnly")),
        }),
        "requestbodyprocessor" => Ctl::BodyProcessor(value.to_ascii_uppercase()),
        "forcerequestbodyvariable" => Ctl::ForceBodyVariable(value.eq_ignore_ascii_case("on")),
        "auditengine" => Ctl::Audit(!value.eq_ignore_ascii_case("off")),
        "auditlogparts" | "requestbodyaccess" | "responsebodyaccess" | "requestbodylimit"
        | "responsebodylimit" | "debugloglevel" => Ctl::Nothing,
        _ => return Err(place.unsupported(format!("ctl {name}"))),
    })
}

/// `920100` or `920100-920199`.
pub(crate) fn id_range(place: &Place, text: &str) -> Result<(u32, u32), LoadError> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let number =
        |text: &str| text.trim().parse::<u32>().map_err(|_| place.syntax(format!("`{text}` is no rule id")));
    Ok((number(from)?, number(to)?))
}
