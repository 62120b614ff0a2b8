//! From directives to a program: one flat list of rules per phase, in which everything that rules share
//! (targets, chains of transformations, names of variables) is a number.

use crate::{
    Files, LoadError, Source,
    action::{self, Actions, Which, id_range},
    error::Place,
    operator::{self, Operator, Test},
    pattern::Pattern,
    rule::{Aim, Aims, Argument, Disruptive, Quick, Rule, Skip},
    seclang::{self, Directive},
    text::{Piece, Text, persistent},
    transform::{Chain, Transform},
    tx::{Names, Slot, number},
    variable::{self, Selector, Target, Variable},
};
use std::{collections::HashMap, sync::Arc};

/// Files that may be included, one in another.
const INCLUDE_DEPTH_MAX: usize = 16;
/// Nesting of JSON, unless the rules say otherwise; the value of the common base configuration.
const JSON_DEPTH_MAX: usize = 512;
/// Arguments of a request, unless the rules say otherwise; likewise.
const ARGUMENTS_MAX: usize = 1000;
/// Transformations in one chain whose output may be longer than their input.
const GROWTH_MAX: usize = 3;
/// Phases are numbered 1 to 5.
pub(crate) const PHASES: usize = 6;

/// A step of a phase.
#[derive(Debug)]
pub(crate) enum Step {
    Rule(Box<Rule>),
    /// Where `skipAfter` leads.
    Marker(String),
    /// The policy's variables overrule the set-up before it.
    Policy,
}

/// Compiled rules.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) phases: [Vec<Step>; PHASES],
    /// Chains of transformations as a tree.
    pub(crate) chains: Vec<Chain>,
    pub(crate) aims: Vec<Aims>,
    /// Aims and chain of each feed.
    pub(crate) feeds: Vec<(usize, u16)>,
    pub(crate) names: Names,
    pub(crate) preset: Preset,
    pub(crate) rules: usize,
    /// Numbers of rules by id, in order of ids.
    pub(crate) by_id: Vec<(u32, usize)>,
    /// Numbers of rules by plain tags.
    pub(crate) by_tag: HashMap<Vec<u8>, Vec<usize>>,
    pub(crate) warnings: Vec<String>,
    pub(crate) arguments_max: usize,
    pub(crate) json_depth_max: usize,
    pub(crate) argument_separator: u8,
    /// Whether a rule looks at the content of files.
    pub(crate) reads_files: bool,
    pub(crate) mime_types: Vec<String>,
    pub(crate) defaults: [Option<(Disruptive, u16)>; PHASES],
}

impl Program {
    /// All rules, links of chains each by itself.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Rule> {
        let firsts = self.phases.iter().flatten().filter_map(|step| match step {
            Step::Rule(rule) => Some(&**rule),
            _ => None,
        });
        firsts.flat_map(|first| std::iter::successors(Some(first), |rule| rule.next.as_deref()))
    }
}

/// Variables that belong to the engine.
#[derive(Debug, Default)]
pub(crate) struct Preset {
    /// The paranoia level, under the names that CRS 3 and CRS 4 have for it.
    pub(crate) paranoia: Vec<Slot>,
    /// Scores, under all names that CRS has had for them.
    pub(crate) inbound: Vec<Slot>,
    pub(crate) outbound: Vec<Slot>,
}

impl Preset {
    fn of(names: &mut Names) -> Self {
        let mut slots = |list: &[&str]| list.iter().map(|name| names.slot(name.as_bytes())).collect();
        Self {
            paranoia: slots(&[
                "paranoia_level",
                "executing_paranoia_level",
                "blocking_paranoia_level",
                "detection_paranoia_level",
            ]),
            inbound: slots(&[
                "anomaly_score",
                "inbound_anomaly_score",
                "blocking_inbound_anomaly_score",
                "detection_inbound_anomaly_score",
            ]),
            outbound: slots(&[
                "outbound_anomaly_score",
                "blocking_outbound_anomaly_score",
                "detection_outbound_anomaly_score",
            ]),
        }
    }
}

/// A change of rules that may come before or after them.
enum Change {
    Remove(Which),
    Targets(Which, Vec<Arc<Target>>),
    Actions { which: Which, link: usize, place: Place, actions: Box<Actions> },
}

struct Compiler<'f> {
    files: &'f dyn Files,
    program: Program,
    default_actions: HashMap<usize, Actions>,
    /// Links of a chain that is not finished yet.
    pending: Vec<Rule>,
    known_chains: HashMap<(u16, Transform), u16>,
    known_targets: HashMap<Vec<u8>, Arc<Target>>,
    seen: HashMap<u32, String>,
    changes: Vec<Change>,
    /// Whether the rules' own initialization has begun.
    initialized: bool,
}

pub(crate) fn compile(sources: &[Source], files: &dyn Files) -> Result<Program, LoadError> {
    let mut program = Program {
        chains: vec![Chain::ROOT],
        arguments_max: ARGUMENTS_MAX,
        json_depth_max: JSON_DEPTH_MAX,
        argument_separator: b'&',
        ..Program::default()
    };
    program.preset = Preset::of(&mut program.names);
    program.mime_types = ["text/plain", "text/html", "text/xml", "application/json"].map(String::from).into();
    let mut compiler = Compiler {
        files,
        program,
        default_actions: HashMap::new(),
        pending: Vec::new(),
        known_chains: HashMap::new(),
        known_targets: HashMap::new(),
        seen: HashMap::new(),
        changes: Vec::new(),
        initialized: false,
    };
    for source in sources {
        compiler.file(&source.name, &source.bytes, 0)?;
        if source.name.rsplit('/').next().is_some_and(|name| name.starts_with("crs-setup.conf")) {
            compiler.program.phases[1].push(Step::Policy);
        }
    }
    compiler.finish()
}

impl Compiler<'_> {
    fn file(&mut self, name: &str, bytes: &[u8], depth: usize) -> Result<(), LoadError> {
        for directive in seclang::parse(name, bytes)? {
            self.directive(&directive, depth)?;
        }
        Ok(())
    }

    fn directive(&mut self, directive: &Directive, depth: usize) -> Result<(), LoadError> {
        let place = &directive.place;
        let argument = |n: usize| directive.arguments.get(n).map(Vec::as_slice);
        let need = |n: usize| {
            argument(n).ok_or_else(|| place.syntax(format!("{} needs more arguments", directive.name)))
        };
        let text = |n: usize| need(n).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let count = |n: usize| text(n)?.parse().map_err(|_| place.syntax("no number"));
        let pattern = |n: usize| {
            Pattern::compile(need(n)?)
                .map(Arc::new)
                .map_err(|why| place.unsupported(format!("pattern ({why})")))
        };
        match directive.name.to_ascii_lowercase().as_str() {
            "secrule" => {
                let targets = self.targets(place, need(0)?)?;
                let (test, warning) = operator::parse(place, need(1)?, self.files, &mut self.program.names)?;
                self.program.warnings.extend(warning);
                let actions = argument(2).unwrap_or_default();
                let actions = action::parse(place, actions, &mut self.program.names)?;
                self.rule(place, targets, Some(test), actions)
            }
            "secaction" => {
                let actions = action::parse(place, need(0)?, &mut self.program.names)?;
                self.rule(place, Vec::new(), None, actions)
            }
            "secmarker" => {
                let name = text(0)?;
                for phase in &mut self.program.phases {
                    phase.push(Step::Marker(name.clone()));
                }
                Ok(())
            }
            "secdefaultaction" => {
                let actions = action::parse(place, need(0)?, &mut self.program.names)?;
                let phase = actions.phase.unwrap_or(2);
                self.program.defaults[phase] =
                    Some((actions.disruptive.unwrap_or(Disruptive::Pass), actions.status.unwrap_or(403)));
                self.default_actions.insert(phase, actions);
                Ok(())
            }
            "include" | "includeoptional" => {
                if depth >= INCLUDE_DEPTH_MAX {
                    return Err(place.syntax("files include each other too deeply"));
                }
                let glob = text(0)?;
                let found = self.files.expand(&place.file, &glob).map_err(|why| place.file(why))?;
                if found.is_empty() && directive.name.eq_ignore_ascii_case("include") {
                    return Err(place.file(format!("`{glob}` is no file")));
                }
                for path in found {
                    let bytes = self.files.read(&place.file, &path).map_err(|why| place.file(why))?;
                    self.file(&path, &bytes, depth + 1)?;
                }
                Ok(())
            }
            "secruleremovebyid" => {
                for n in 0..directive.arguments.len() {
                    for ids in text(n)?.split([' ', ',']).filter(|ids| !ids.is_empty()) {
                        let (from, to) = id_range(place, ids)?;
                        self.changes.push(Change::Remove(Which::Ids(from, to)));
                    }
                }
                Ok(())
            }
            "secruleremovebytag" => {
                self.changes.push(Change::Remove(Which::TagPattern(pattern(0)?)));
                Ok(())
            }
            "secruleremovebymsg" => {
                self.changes.push(Change::Remove(Which::MsgPattern(pattern(0)?)));
                Ok(())
            }
            "secruleupdatetargetbyid" => {
                let targets = self.targets(place, need(1)?)?;
                for ids in text(0)?.split([' ', ',']).filter(|ids| !ids.is_empty()) {
                    let (from, to) = id_range(place, ids)?;
                    self.changes.push(Change::Targets(Which::Ids(from, to), targets.clone()));
                }
                Ok(())
            }
            "secruleupdatetargetbytag" => {
                let targets = self.targets(place, need(1)?)?;
                self.changes.push(Change::Targets(Which::TagPattern(pattern(0)?), targets));
                Ok(())
            }
            "secruleupdatetargetbymsg" => {
                let targets = self.targets(place, need(1)?)?;
                self.changes.push(Change::Targets(Which::MsgPattern(pattern(0)?), targets));
                Ok(())
            }
            "secruleupdateactionbyid" => {
                let ids = text(0)?;
                let (ids, link) = match ids.split_once(':') {
                    Some((ids, link)) => (ids, link.parse().map_err(|_| place.syntax("no link of a chain"))?),
                    None => (ids.as_str(), 0),
                };
                let (from, to) = id_range(place, ids)?;
                let actions = Box::new(action::parse(place, need(1)?, &mut self.program.names)?);
                if actions.id.is_some() || actions.phase.is_some() || actions.chain {
                    return Err(place.syntax("id, phase and chain of a rule cannot be changed"));
                }
                let place = place.clone();
                self.changes.push(Change::Actions { which: Which::Ids(from, to), link, place, actions });
                Ok(())
            }
            "secargumentslimit" => {
                self.program.arguments_max = count(0)?;
                Ok(())
            }
            "secrequestbodyjsondepthlimit" => {
                self.program.json_depth_max = count(0)?;
                Ok(())
            }
            "secargumentseparator" => match need(0)? {
                [separator] => {
                    self.program.argument_separator = *separator;
                    Ok(())
                }
                _ => Err(place.syntax("a separator is one character")),
            },
            "seccookieformat" => match need(0)? {
                b"0" => Ok(()),
                _ => Err(place.unsupported("SecCookieFormat other than 0")),
            },
            "secresponsebodymimetype" => {
                let kinds = directive.arguments.iter();
                self.program.mime_types =
                    kinds.map(|kind| String::from_utf8_lossy(kind).to_ascii_lowercase()).collect();
                Ok(())
            }
            "seccomponentsignature" => Ok(()),
            // Modes, limits and logs are the office's policy, not the rules'.
            "seccollectiontimeout"
            | "secruleengine"
            | "secrequestbodyaccess"
            | "secresponsebodyaccess"
            | "secrequestbodylimit"
            | "secrequestbodynofileslimit"
            | "secrequestbodylimitaction"
            | "secresponsebodylimit"
            | "secresponsebodylimitaction"
            | "secrequestbodyinmemorylimit"
            | "secpcrematchlimit"
            | "secpcrematchlimitrecursion"
            | "sectmpdir"
            | "sectmpsaveuploadedfiles"
            | "secdatadir"
            | "secdebuglog"
            | "secdebugloglevel"
            | "secauditengine"
            | "secauditlogrelevantstatus"
            | "secauditlogparts"
            | "secauditlogtype"
            | "secauditlog"
            | "secauditlogformat"
            | "secauditlogstoragedir"
            | "secunicodemapfile"
            | "secstatusengine"
            | "secuploaddir"
            | "secuploadfilelimit"
            | "secuploadfilemode"
            | "secuploadkeepfiles"
            | "secgeolookupdb"
            | "sechttpblkey" => {
                self.program.warnings.push(format!(
                    "{}:{}: {} is decided by the policy, not by rules",
                    place.file, place.line, directive.name
                ));
                Ok(())
            }
            _ => Err(place.unsupported(format!("directive {}", directive.name))),
        }
    }

    /// Reads targets; those that are written alike are one.
    fn targets(&mut self, place: &Place, text: &[u8]) -> Result<Vec<Arc<Target>>, LoadError> {
        let mut shared = Vec::new();
        for target in variable::parse(place, text)? {
            if target.variable == Variable::Nothing {
                let shown = String::from_utf8_lossy(&target.text).to_ascii_uppercase();
                self.program
                    .warnings
                    .push(format!("{}:{}: {shown} is always empty here", place.file, place.line));
            }
            if let (Variable::Tx | Variable::Persistent(_), Selector::Name(name)) =
                (target.variable, &target.selector)
            {
                self.program.names.slot(&slot_name(target.variable, name));
            }
            let known = self.known_targets.entry(target.text.clone());
            shared.push(known.or_insert_with(|| Arc::new(target)).clone());
        }
        Ok(shared)
    }

    fn rule(
        &mut self,
        place: &Place,
        targets: Vec<Arc<Target>>,
        test: Option<Test>,
        actions: Actions,
    ) -> Result<(), LoadError> {
        let in_chain = !self.pending.is_empty();
        let phase = match self.pending.first() {
            Some(first) => first.phase,
            None => actions.phase.unwrap_or(2),
        };
        let defaults = self.default_actions.get(&phase);
        let inherited = defaults.and_then(|defaults| defaults.transforms.clone()).unwrap_or_default();
        let transforms = match &actions.transforms {
            Some(own) => own.clone(),
            None if in_chain => Vec::new(),
            None => inherited,
        };
        let id = match (actions.id, self.pending.first()) {
            (_, Some(first)) => first.id,
            (Some(id), None) => id,
            (None, None) => return Err(place.syntax("a rule needs an id")),
        };
        if !in_chain {
            let here = format!("{}:{}", place.file, place.line);
            if let Some(before) = self.seen.insert(id, here) {
                return Err(place.syntax(format!("rule {id} is there twice, first at {before}")));
            }
        }
        for collection in &actions.persistent {
            let name = collection.split('=').next().unwrap_or_default();
            self.program.warnings.push(format!(
                "{}:{}: collection `{name}` lives for one transaction only",
                place.file, place.line
            ));
        }
        for idle in &actions.idle {
            self.program.warnings.push(format!("{}:{}: {idle} does nothing here", place.file, place.line));
        }
        let log = actions.log.or(defaults.and_then(|defaults| defaults.log)).unwrap_or(true);
        let chain_of_transforms = self.chain(place, &transforms)?;
        let rule = Rule {
            id,
            place: place.clone(),
            number: 0,
            targets,
            aims: 0,
            feed: 0,
            test,
            quick: None,
            chain_of_transforms,
            multi_match: actions.multi_match,
            capture: actions.capture,
            set: actions.set,
            ctl: actions.ctl,
            disruptive: actions.disruptive.unwrap_or(Disruptive::Block),
            status: actions.status.unwrap_or(403),
            skip: actions.skip,
            skip_to: None,
            log,
            msg: actions.msg,
            logdata: actions.logdata,
            severity: actions.severity,
            tags: actions.tags,
            phase,
            next: None,
        };
        self.pending.push(rule);
        if !actions.chain {
            self.close_chain();
        }
        Ok(())
    }

    fn close_chain(&mut self) {
        let mut links = std::mem::take(&mut self.pending);
        let mut next: Option<Box<Rule>> = None;
        while let Some(mut link) = links.pop() {
            link.next = next.take();
            next = Some(Box::new(link));
        }
        if let Some(first) = next {
            self.policy_before(&first);
            self.program.phases[first.phase].push(Step::Rule(first));
        }
    }

    /// The set-up stands before the rules that fill in what it left open (ids 901000 and up in CRS),
    /// whatever its file is called; there the policy overrules it.
    fn policy_before(&mut self, rule: &Rule) {
        if !self.initialized && (901_000..902_000).contains(&rule.id) {
            self.initialized = true;
            self.program.phases[1].push(Step::Policy);
        }
    }

    /// The index of a chain of transformations in the tree.
    fn chain(&mut self, place: &Place, transforms: &[Transform]) -> Result<u16, LoadError> {
        if transforms.iter().filter(|transform| transform.grows()).count() > GROWTH_MAX {
            return Err(place.unsupported("so many transformations that make a value longer"));
        }
        let mut at = 0;
        for transform in transforms {
            let next = u16::try_from(self.program.chains.len())
                .map_err(|_| place.unsupported("so many chains of transformations"))?;
            at = *self.known_chains.entry((at, *transform)).or_insert_with(|| {
                let before = &self.program.chains[usize::from(at)];
                self.program.chains.push(Chain::after(before, at, *transform));
                next
            });
        }
        Ok(at)
    }

    fn finish(mut self) -> Result<Program, LoadError> {
        if let Some(open) = self.pending.first() {
            return Err(open.place.syntax("a chain is not finished"));
        }
        let changes = std::mem::take(&mut self.changes);
        for change in changes {
            self.change(change)?;
        }
        let mut program = self.program;
        let mut number = 0;
        let mut shared = Shared::default();
        for phase in &mut program.phases {
            for step in phase {
                let Step::Rule(rule) = step else { continue };
                for tag in rule.tags.iter().filter_map(Text::plain) {
                    program.by_tag.entry(tag.to_vec()).or_default().push(number);
                }
                program.by_id.push((rule.id, number));
                let mut link = Some(rule);
                while let Some(rule) = link {
                    rule.number = number;
                    shared.share(rule, &program.names);
                    link = rule.next.as_mut();
                }
                number += 1;
            }
        }
        (program.aims, program.feeds) = (shared.aims, shared.feeds);
        let files = Variable::Of(variable::Collection::FilesContent);
        let mut aims = program.aims.iter().flat_map(|aims| &aims.aims);
        program.reads_files = aims.any(|aim| aim.target.variable == files);
        program.rules = number;
        program.by_id.sort_unstable();
        if program.rules == 0 {
            return Err(LoadError::Empty);
        }
        link(&mut program)?;
        Ok(program)
    }

    fn change(&mut self, change: Change) -> Result<(), LoadError> {
        match change {
            Change::Remove(which) => {
                for phase in &mut self.program.phases {
                    phase.retain(|step| !matches!(step, Step::Rule(rule) if which.means(rule)));
                }
            }
            Change::Targets(which, targets) => {
                for rule in self.rules_mut(&which) {
                    rule.targets.extend(targets.iter().cloned());
                }
            }
            Change::Actions { which, link, place, actions } => {
                let transforms = actions.transforms.as_deref().map(|list| self.chain(&place, list));
                let transforms = transforms.transpose()?;
                let mut actions = Some(actions);
                for first in self.rules_mut(&which) {
                    let mut rule = first;
                    for _ in 0..link {
                        let next = rule.next.as_deref_mut();
                        rule = next.ok_or_else(|| place.syntax("the chain has no such link"))?;
                    }
                    let Some(actions) = actions.take() else {
                        return Err(place.unsupported("changing the actions of several rules at once"));
                    };
                    change_actions(rule, *actions, transforms);
                }
            }
        }
        Ok(())
    }

    fn rules_mut<'a>(&'a mut self, which: &'a Which) -> impl Iterator<Item = &'a mut Rule> {
        self.program.phases.iter_mut().flatten().filter_map(move |step| match step {
            Step::Rule(rule) if which.means(rule) => Some(&mut **rule),
            _ => None,
        })
    }
}

/// What is named anew replaces what was there; what a rule may have several of is added.
fn change_actions(rule: &mut Rule, actions: Actions, transforms: Option<u16>) {
    rule.chain_of_transforms = transforms.unwrap_or(rule.chain_of_transforms);
    rule.disruptive = actions.disruptive.unwrap_or(rule.disruptive);
    rule.status = actions.status.unwrap_or(rule.status);
    rule.log = actions.log.unwrap_or(rule.log);
    rule.capture |= actions.capture;
    rule.multi_match |= actions.multi_match;
    for (own, new) in [(&mut rule.msg, actions.msg), (&mut rule.logdata, actions.logdata)] {
        if new.is_some() {
            *own = new;
        }
    }
    if actions.severity.is_some() {
        rule.severity = actions.severity;
    }
    if actions.skip.is_some() {
        rule.skip = actions.skip;
    }
    rule.set.extend(actions.set);
    rule.ctl.extend(actions.ctl);
    rule.tags.extend(actions.tags);
}

impl Which {
    /// Whether a rule is meant.
    pub(crate) fn means(&self, rule: &Rule) -> bool {
        let plain = |text: &Text, pattern: &Pattern| text.plain().is_some_and(|text| pattern.is_match(text));
        match self {
            Self::Ids(from, to) => (*from..=*to).contains(&rule.id),
            Self::Tag(tag) => rule.tags.iter().any(|own| own.plain() == Some(tag)),
            Self::TagPattern(pattern) => rule.tags.iter().any(|tag| plain(tag, pattern)),
            Self::MsgPattern(pattern) => rule.msg.as_ref().is_some_and(|msg| plain(msg, pattern)),
        }
    }
}

/// What rules have in common, found by how it is written.
#[derive(Default)]
struct Shared {
    aims: Vec<Aims>,
    known_aims: HashMap<Vec<u8>, usize>,
    feeds: Vec<(usize, u16)>,
    known_feeds: HashMap<(usize, u16), usize>,
}

impl Shared {
    fn share(&mut self, rule: &mut Rule, names: &Names) {
        let texts = rule.targets.iter().map(|target| target.text.as_slice());
        let key = texts.collect::<Vec<_>>().join(&b'|');
        rule.aims = *self.known_aims.entry(key).or_insert_with(|| {
            self.aims.push(aims(&rule.targets, names));
            self.aims.len() - 1
        });
        let feed = (rule.aims, rule.chain_of_transforms);
        rule.feed = *self.known_feeds.entry(feed).or_insert_with(|| {
            self.feeds.push(feed);
            self.feeds.len() - 1
        });
        rule.quick = quick(rule, names);
    }
}

fn aims(targets: &[Arc<Target>], names: &Names) -> Aims {
    let aims: Vec<Aim> = targets
        .iter()
        .filter(|target| !target.exclude)
        .map(|target| {
            let without = |other: &&Arc<Target>| other.exclude && other.variable == target.variable;
            let without: Vec<_> = targets.iter().filter(without).cloned().collect();
            let mut aim = Aim { target: target.clone(), without, slots: Vec::new() };
            aim.slots = slots(&aim, names);
            aim
        })
        .collect();
    let volatile = aims.iter().any(|aim| aim.target.variable.is_volatile());
    Aims { aims, volatile }
}

/// The variables of `TX`, or of a persistent collection, that a target means.
fn slots(aim: &Aim, names: &Names) -> Vec<Slot> {
    let variable = aim.target.variable;
    if !matches!(variable, Variable::Tx | Variable::Persistent(_)) {
        return Vec::new();
    }
    let begin = slot_name(variable, b"");
    let is_meant = |slot: &Slot| match names.name(*slot).strip_prefix(begin.as_slice()) {
        Some(name) => !name.starts_with(b"\0") && aim.takes(name),
        None => false,
    };
    names.slots().filter(is_meant).collect()
}

/// The name under which a variable is set.
pub(crate) fn slot_name(variable: Variable, key: &[u8]) -> Vec<u8> {
    match variable {
        Variable::Persistent(kind) => persistent(kind, key),
        _ => key.to_vec(),
    }
}

/// The test of a rule, where it is one of a single number.
fn quick(rule: &Rule, names: &Names) -> Option<Quick> {
    let test = rule.test.as_ref()?;
    let Operator::Number(comparison, argument) = &test.operator else { return None };
    let [target] = rule.targets.as_slice() else { return None };
    let Selector::Name(name) = &target.selector else { return None };
    let is_plain = target.variable == Variable::Tx && !target.exclude;
    if !is_plain || rule.multi_match || rule.capture || rule.chain_of_transforms != 0 {
        return None;
    }
    let argument = match argument.0.as_slice() {
        [Piece::Tx(slot)] => Argument::Tx(*slot),
        _ => Argument::Number(number(argument.plain()?)),
    };
    Some(Quick {
        slot: names.known(name)?,
        count: target.count,
        negated: test.negated,
        comparison: *comparison,
        argument,
    })
}

/// Finds where each `skipAfter` and `skip` leads.
fn link(program: &mut Program) -> Result<(), LoadError> {
    for phase in &mut program.phases {
        let markers: Vec<(usize, String)> = phase
            .iter()
            .enumerate()
            .filter_map(|(at, step)| match step {
                Step::Marker(name) => Some((at, name.clone())),
                Step::Policy => None,
                Step::Rule(rule) => Some((at, rule.id.to_string())),
            })
            .collect();
        let rules: Vec<usize> = (0..phase.len()).filter(|at| matches!(phase[*at], Step::Rule(_))).collect();
        let end = phase.len();
        for (at, step) in phase.iter_mut().enumerate() {
            let Step::Rule(rule) = step else { continue };
            rule.skip_to = match &rule.skip {
                None => None,
                Some(Skip::After(name)) => {
                    let to = markers.iter().find(|(place, marker)| *place > at && marker == name);
                    let missing = || rule.place.syntax(format!("skipAfter: no marker `{name}` follows"));
                    Some(to.ok_or_else(missing)?.0 + 1)
                }
                Some(Skip::Rules(count)) => {
                    Some(rules.iter().copied().filter(|place| *place > at).nth(*count).unwrap_or(end))
                }
            };
        }
    }
    Ok(())
}
