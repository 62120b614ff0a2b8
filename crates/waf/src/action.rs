//! Actions of a rule, read.

use crate::{
    error::{LoadError, Place},
    pattern::Pattern,
    rule::{AllowScope, Change, Disruptive, SetVar, Skip},
    text::{Text, persistent},
    transform::Transform,
    tx::{Name, Names},
    variable::{Target, Variable, named, parse as parse_targets},
};
use std::sync::Arc;

/// Rules that an action or an exclusion means.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    Ids(u32, u32),
    /// A tag, as written.
    Tag(Vec<u8>),
    TagPattern(Arc<Pattern>),
    MsgPattern(Arc<Pattern>),
}

impl Which {
    /// Rules with exactly this message.
    pub(crate) fn message(place: &Place, text: &str) -> Result<Self, LoadError> {
        let exact = regex_syntax::escape(text);
        let pattern = Pattern::compile(format!("^{exact}$").as_bytes()).map_err(|why| place.syntax(why))?;
        Ok(Self::MsgPattern(Arc::new(pattern)))
    }
}

/// A change of the engine for this transaction.
#[derive(Debug)]
pub(crate) enum Ctl {
    Remove(Which),
    RemoveTarget(Which, Arc<Target>),
    Engine(EngineMode),
    BodyProcessor(String),
    ForceBodyVariable(bool),
    RequestBodyAccess(bool),
    ResponseBodyAccess(bool),
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
    pub(crate) skip: Option<Skip>,
    pub(crate) log: Option<bool>,
    pub(crate) msg: Option<Text>,
    pub(crate) logdata: Option<Text>,
    pub(crate) severity: Option<String>,
    pub(crate) tags: Vec<Text>,
    pub(crate) persistent: Vec<String>,
    /// Actions that are understood and do nothing here.
    pub(crate) idle: Vec<String>,
}

/// Reads a list of actions.
pub(crate) fn parse(place: &Place, text: &[u8], names: &mut Names) -> Result<Actions, LoadError> {
    let mut actions = Actions::default();
    for one in split(text) {
        let (name, value) = match memchr::memchr(b':', one) {
            Some(at) => (&one[..at], Some(unquoted(&one[at + 1..]))),
            None => (one, None),
        };
        let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
        apply(place, &mut actions, &name, value, names)?;
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

fn apply(
    place: &Place,
    actions: &mut Actions,
    name: &str,
    value: Option<Vec<u8>>,
    names: &mut Names,
) -> Result<(), LoadError> {
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
                Some(Transform::None) => list.clear(),
                Some(transform) => list.push(transform),
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
        "skipafter" => actions.skip = Some(Skip::After(text())),
        "skip" => {
            let count = text().parse().map_err(|_| place.syntax("skip is no number"))?;
            actions.skip = Some(Skip::Rules(count));
        }
        "log" => actions.log = Some(true),
        "nolog" => actions.log = Some(false),
        "auditlog" | "noauditlog" | "rev" | "ver" | "maturity" | "accuracy" => {}
        "expirevar"
        | "deprecatevar"
        | "setenv"
        | "sanitisearg"
        | "sanitisematched"
        | "sanitisematchedbytes"
        | "sanitiserequestheader"
        | "sanitiseresponseheader" => actions.idle.push(name.to_owned()),
        "msg" => actions.msg = Some(Text::parse(place, &bytes, names)?),
        "logdata" => actions.logdata = Some(Text::parse(place, &bytes, names)?),
        "severity" => actions.severity = Some(severity(&text())),
        "tag" => actions.tags.push(Text::parse(place, &bytes, names)?),
        "setvar" => actions.set.push(set_var(place, &bytes, names)?),
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

fn set_var(place: &Place, text: &[u8], names: &mut Names) -> Result<SetVar, LoadError> {
    let (removed, text) = text.strip_prefix(b"!").map_or((false, text), |rest| (true, rest));
    let (name, value) = match memchr::memchr(b'=', text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let Some(dot) = name.iter().position(|b| matches!(b, b'.' | b':')) else {
        return Err(place.syntax("setvar names no collection"));
    };
    let collection = String::from_utf8_lossy(&name[..dot]).trim().to_ascii_uppercase();
    let key = name[dot + 1..].trim_ascii().to_ascii_lowercase();
    let key = match named(&collection) {
        Some(Variable::Tx) => key,
        Some(Variable::Persistent(kind)) => persistent(kind, &key),
        _ => return Err(place.unsupported(format!("setvar of {collection}"))),
    };
    let made = Text::parse(place, &key, names)?;
    let name = match made.plain() {
        Some(plain) => Name::Known(names.slot(plain)),
        None => Name::Made(made),
    };
    let mut text = |value: &[u8]| Text::parse(place, value, names);
    let change = match (removed, value) {
        (true, _) => Change::Remove,
        (_, None) => Change::Set(text(b"1")?),
        (_, Some([b'+', amount @ ..])) => Change::Add(text(amount)?),
        (_, Some([b'-', amount @ ..])) => Change::Subtract(text(amount)?),
        (_, Some(value)) => Change::Set(text(value)?),
    };
    Ok(SetVar { name, change })
}

fn ctl(place: &Place, text: &[u8]) -> Result<Ctl, LoadError> {
    let text = String::from_utf8_lossy(text).into_owned();
    let (name, value) = text.split_once('=').ok_or_else(|| place.syntax("ctl has no value"))?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    let target = |list: &str| -> Result<(String, Arc<Target>), LoadError> {
        let (what, target) = list.split_once(';').ok_or_else(|| place.syntax("ctl names no target"))?;
        let mut targets = parse_targets(place, target.trim().as_bytes())?;
        Ok((what.trim().to_owned(), Arc::new(targets.remove(0))))
    };
    let ids = |text: &str| id_range(place, text).map(|(from, to)| Which::Ids(from, to));
    let tag = |text: &str| Which::Tag(text.as_bytes().to_vec());
    let msg = |text: &str| Which::message(place, text);
    let on = |value: &str| match value.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(place.syntax(format!("ctl {name} is On or Off"))),
    };
    Ok(match name.as_str() {
        "ruleremovebyid" => Ctl::Remove(ids(value)?),
        "ruleremovebytag" => Ctl::Remove(tag(value)),
        "ruleremovebymsg" => Ctl::Remove(msg(value)?),
        "ruleremovetargetbyid" => {
            let (which, target) = target(value)?;
            Ctl::RemoveTarget(ids(&which)?, target)
        }
        "ruleremovetargetbytag" => {
            let (which, target) = target(value)?;
            Ctl::RemoveTarget(tag(&which), target)
        }
        "ruleremovetargetbymsg" => {
            let (which, target) = target(value)?;
            Ctl::RemoveTarget(msg(&which)?, target)
        }
        "ruleengine" => Ctl::Engine(match value.to_ascii_lowercase().as_str() {
            "on" => EngineMode::On,
            "off" => EngineMode::Off,
            "detectiononly" => EngineMode::DetectionOnly,
            _ => return Err(place.syntax("ruleEngine is On, Off or DetectionOnly")),
        }),
        "requestbodyprocessor" => match value.to_ascii_uppercase().as_str() {
            known @ ("URLENCODED" | "MULTIPART" | "JSON" | "XML") => Ctl::BodyProcessor(known.to_owned()),
            other => return Err(place.unsupported(format!("body processor {other}"))),
        },
        "forcerequestbodyvariable" => Ctl::ForceBodyVariable(on(value)?),
        "requestbodyaccess" => Ctl::RequestBodyAccess(on(value)?),
        "responsebodyaccess" => Ctl::ResponseBodyAccess(on(value)?),
        "auditengine" => Ctl::Audit(!value.eq_ignore_ascii_case("off")),
        // Limits and logs are the office's policy, not the rules'.
        "auditlogparts" | "requestbodylimit" | "responsebodylimit" | "debugloglevel" => Ctl::Nothing,
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
