//! Exclusions that a policy adds to rules already compiled: a rule, one of its targets, a path.
//!
//! They are applied while a request runs, so that policies which differ only in them share one program.
//! One that would leave out the rules which add up scores and decide is refused: it would switch off all others.

use crate::{
    LoadError,
    action::{Ctl, Which, id_range},
    compile::{Program, Step},
    error::Place,
    rule::{Disruptive, Rule, SetVar},
    transform::Transform,
    tx::{Name, Slot},
    variable::{self, Selector, Variable},
};
use std::sync::Arc;

/// What a policy leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    /// Rules: an id, a range such as `942100-942199`, `tag:` and a tag, or `msg:` and a message.
    pub rules: String,
    /// One target, such as `ARGS:comment`; all of the rule when missing.
    pub target: Option<String>,
    /// A path, or with `*` at its end the begin of one; every path when missing.
    pub path: Option<String>,
}

/// An exclusion, ready to be applied.
pub(crate) struct Applied {
    path: Option<Path>,
    ctl: Ctl,
}

struct Path {
    text: Vec<u8>,
    is_prefix: bool,
}

impl Applied {
    pub(crate) fn compile(
        exclusion: &Exclusion,
        number: usize,
        program: &Program,
    ) -> Result<Self, LoadError> {
        let place = Place { file: "exclusion".into(), line: number };
        let target = exclusion.target.as_deref();
        let mut targets = match target {
            Some(target) => variable::parse(&place, target.as_bytes())?,
            None => Vec::new(),
        };
        if targets.len() > 1 || targets.iter().any(|target| target.count || target.exclude) {
            return Err(place.syntax("an exclusion names one target"));
        }
        if targets.iter().any(variable::Target::is_pattern) {
            return Err(place.unsupported("a pattern as target of an exclusion"));
        }
        let which = which(&place, &exclusion.rules)?;
        let target = targets.pop();
        if target.as_ref().is_none_or(|target| target.variable == Variable::Tx)
            && let Some(id) = scoring_rule(program, &which)
        {
            let why = format!("leaving out rule {id}, which adds up scores or decides by them,");
            return Err(place.unsupported(why));
        }
        let ctl = match target {
            Some(target) => Ctl::RemoveTarget(which, Arc::new(target)),
            None => Ctl::Remove(which),
        };
        let path = exclusion.path.as_deref().map(|path| match path.strip_suffix('*') {
            Some(begin) => Path { text: begin.into(), is_prefix: true },
            None => Path { text: path.into(), is_prefix: false },
        });
        Ok(Self { path, ctl })
    }

    /// What is done for a request of this path, if this is for it.
    pub(crate) fn ctl_for(&self, file: &[u8]) -> Option<&Ctl> {
        let Some(path) = &self.path else { return Some(&self.ctl) };
        // Rules see the path as it was sent, the router its canonical form: both must be meant, or
        // `/excluded/../elsewhere` would carry the exclusion elsewhere.
        (path.is(file) && path.is(&Transform::NormalizePath.of(file))).then_some(&self.ctl)
    }
}

fn which(place: &Place, rules: &str) -> Result<Which, LoadError> {
    if let Some(tag) = rules.strip_prefix("tag:") {
        return if tag.is_empty() {
            Err(place.syntax("the tag is empty"))
        } else {
            Ok(Which::Tag(tag.into()))
        };
    }
    if let Some(message) = rules.strip_prefix("msg:") {
        return Which::message(place, message);
    }
    let (from, to) = id_range(place, rules)?;
    Ok(Which::Ids(from, to))
}

/// A rule among those that are meant without which scores are not added up, or do not count.
fn scoring_rule(program: &Program, which: &Which) -> Option<u32> {
    let rules = program.phases.iter().flatten().filter_map(|step| match step {
        Step::Rule(rule) => Some(rule),
        Step::Marker(_) | Step::Policy => None,
    });
    let total = |slot: &Slot| program.preset.inbound.contains(slot) || program.preset.outbound.contains(slot);
    let mut scoring = rules.filter(|rule| is_scoring(program, rule, &total));
    scoring.find(|rule| which.means(rule)).map(|rule| rule.id)
}

/// Whether a rule looks at nothing but variables of the rules' own, and sets a total or refuses by one.
fn is_scoring(program: &Program, first: &Rule, total: &impl Fn(&Slot) -> bool) -> bool {
    let links = || std::iter::successors(Some(first), |rule| rule.next.as_deref());
    if !links().all(|rule| rule.targets.iter().all(|target| target.variable == Variable::Tx)) {
        return false;
    }
    let is_set = |set: &SetVar| matches!(&set.name, Name::Known(slot) if total(slot));
    let is_read = |target: &Arc<variable::Target>| match &target.selector {
        Selector::Name(name) => program.names.known(name).is_some_and(|slot| total(&slot)),
        Selector::All | Selector::Pattern(_) => false,
    };
    links().any(|rule| rule.set.iter().any(is_set))
        || matches!(first.disruptive, Disruptive::Deny | Disruptive::Block)
            && links().any(|rule| rule.targets.iter().any(is_read))
}

impl Path {
    fn is(&self, path: &[u8]) -> bool {
        if self.is_prefix { path.starts_with(&self.text) } else { path == self.text }
    }
}
