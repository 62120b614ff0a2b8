//! From directives to a program: one flat list of rules per phase.

use crate::{
    Files, LoadError, Source,
    action::{self, Actions, id_range},
    error::Place,
    operator,
    pattern::Pattern,
    rule::{Disruptive, Rule},
    seclang::{self, Directive},
    transform::Transform,
    variable,
};
use std::collections::HashMap;

/// Files that may be included, one in another.
const INCLUDE_DEPTH_MAX: usize = 16;
/// Nesting of JSON, unless the rules say otherwise; the value of the common base configuration.
const JSON_DEPTH_MAX: usize = 512;
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
    /// Chains of transformations as a tree: the chain before the last step, and that step.
    pub(crate) transforms: Vec<(usize, Option<Transform>)>,
    pub(crate) rules: usize,
    /// Whether the rules' own initialization has begun.
    pub(crate) initialized: bool,
    pub(crate) warnings: Vec<String>,
    pub(crate) arguments_max: usize,
    pub(crate) json_depth_max: usize,
    pub(crate) mime_types: Vec<String>,
    pub(crate) defaults: [Option<(Disruptive, u16)>; PHASES],
}

struct Compiler<'f> {
    files: &'f dyn Files,
    program: Program,
    default_actions: HashMap<usize, Actions>,
    /// Links of a chain that is not finished yet.
    pending: Vec<Rule>,
    known_chains: HashMap<(usize, Transform), usize>,
    seen: HashMap<u32, String>,
}

pub(crate) fn compile(sources: &[Source], files: &dyn Files) -> Result<Program, LoadError> {
    let mut program = Program {
        transforms: vec![(0, None)],
        arguments_max: 1000,
        json_depth_max: JSON_DEPTH_MAX,
        ..Program::default()
    };
    program.mime_types = ["text/plain", "text/html", "text/xml", "application/json"].map(String::from).into();
    let mut compiler = Compiler {
        files,
        program,
        default_actions: HashMap::new(),
        pending: Vec::new(),
        known_chains: HashMap::new(),
        seen: HashMap::new(),
    };
    for source in sources {
        compiler.file(&source.name, &source.bytes, 0)?;
        if source.name.rsplit('/').next().is_some_and(|name| name.starts_with("crs-setup.conf")) {
            compiler.program.phases[1].push(Step::Policy);
        }
    }
    let mut program = compiler.finish()?;
    let is_rule = |step: &&Step| matches!(step, Step::Rule(_));
    program.rules = program.phases.iter().flatten().filter(is_rule).count();
    if program.rules == 0 {
        return Err(LoadError::Empty);
    }
    link(&mut program)?;
    Ok(program)
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
        match directive.name.to_ascii_lowercase().as_str() {
            "secrule" => {
                let targets = variable::parse(place, need(0)?)?;
                let (negated, operator, warning) = operator::parse(place, need(1)?, self.files)?;
                self.program.warnings.extend(warning);
                let actions = action::parse(place, argument(2).unwrap_or_default())?;
                self.rule(place, targets, Some((negated, operator)), actions)
            }
            "secaction" => {
                let actions = action::parse(place, need(0)?)?;
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
                let actions = action::parse(place, need(0)?)?;
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
                        self.remove(|rule| (from..=to).contains(&rule.id));
                    }
                }
                Ok(())
            }
            "secruleremovebytag" | "secruleremovebymsg" => {
                let pattern = Pattern::compile(need(0)?).map_err(|why| place.syntax(why))?;
                let by_tag = directive.name.eq_ignore_ascii_case("SecRuleRemoveByTag");
                self.remove(|rule| {
                    let plain =
                        |text: &crate::text::Text| text.plain().is_some_and(|text| pattern.is_match(text));
                    if by_tag { rule.tags.iter().any(plain) } else { rule.msg.as_ref().is_some_and(plain) }
                });
                Ok(())
            }
            "secruleupdatetargetbyid" => {
                let (from, to) = id_range(place, &text(0)?)?;
                self.update_targets(place, need(1)?, |rule| (from..=to).contains(&rule.id))
            }
            "secruleupdatetargetbytag" => {
                let pattern = Pattern::compile(need(0)?).map_err(|why| place.syntax(why))?;
                self.update_targets(place, need(1)?, |rule| {
                    rule.tags.iter().any(|tag| tag.plain().is_some_and(|tag| pattern.is_match(tag)))
                })
            }
            "secargumentslimit" => {
                self.program.arguments_max = text(0)?.parse().map_err(|_| place.syntax("no number"))?;
                Ok(())
            }
            "secrequestbodyjsondepthlimit" => {
                self.program.json_depth_max = text(0)?.parse().map_err(|_| place.syntax("no number"))?;
                Ok(())
            }
            "secresponsebodymimetype" => {
                self.program.mime_types = directive
                    .arguments
                    .iter()
                    .map(|kind| String::from_utf8_lossy(kind).to_ascii_lowercase())
                    .collect();
                Ok(())
            }
            // Modes, limits and logs are the office's policy, not the rules'.
            "seccomponentsignature"
            | "seccollectiontimeout"
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
            | "secargumentseparator"
            | "seccookieformat"
            | "secunicodemapfile"
            | "secstatusengine"
            | "secuploaddir"
            | "secuploadkeepfiles"
            | "secgeolookupdb"
            | "sechttpblkey" => Ok(()),
            _ => Err(place.unsupported(format!("directive {}", directive.name))),
        }
    }

    fn rule(
        &mut self,
        place: &Place,
        targets: Vec<variable::Target>,
        test: Option<(bool, operator::Operator)>,
        actions: Actions,
    ) -> Result<(), LoadError> {
        let in_chain = self.pending.last().is_some_and(|link| link.next.is_none() && self.open_chain());
        let phase = match self.pending.first() {
            Some(first) if in_chain => first.phase,
            _ => actions.phase.unwrap_or(2),
        };
        let defaults = self.default_actions.get(&phase);
        let inherited = defaults.and_then(|defaults| defaults.transforms.clone()).unwrap_or_default();
        let transforms = match &actions.transforms {
            Some(own) => own.clone(),
            None if in_chain => Vec::new(),
            None => inherited,
        };
        let id = match (actions.id, in_chain) {
            (Some(id), _) => id,
            (None, true) => self.pending.first().map_or(0, |first| first.id),
            (None, false) => return Err(place.syntax("a rule needs an id")),
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
        let log = actions.log.or(defaults.and_then(|defaults| defaults.log)).unwrap_or(true);
        let chain_of_transforms = self.chain(&transforms);
        let rule = Rule {
            id,
            place: place.clone(),
            targets,
            test,
            chain_of_transforms,
            multi_match: actions.multi_match,
            capture: actions.capture,
            set: actions.set,
            ctl: actions.ctl,
            disruptive: actions.disruptive.unwrap_or(Disruptive::Block),
            status: actions.status.unwrap_or(403),
            skip_after: actions.skip_after,
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

    /// Links are pending only while their chain is open.
    fn open_chain(&self) -> bool {
        !self.pending.is_empty()
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
        if !self.program.initialized && (901_000..902_000).contains(&rule.id) {
            self.program.initialized = true;
            self.program.phases[1].push(Step::Policy);
        }
    }

    /// The index of a chain of transformations in the tree.
    fn chain(&mut self, transforms: &[Transform]) -> usize {
        let mut at = 0;
        for transform in transforms {
            let next = self.program.transforms.len();
            at = *self.known_chains.entry((at, *transform)).or_insert_with(|| {
                self.program.transforms.push((at, Some(*transform)));
                next
            });
        }
        at
    }

    fn remove(&mut self, which: impl Fn(&Rule) -> bool) {
        for phase in &mut self.program.phases {
            phase.retain(|step| !matches!(step, Step::Rule(rule) if which(rule)));
        }
    }

    fn update_targets(
        &mut self,
        place: &Place,
        list: &[u8],
        which: impl Fn(&Rule) -> bool,
    ) -> Result<(), LoadError> {
        for phase in &mut self.program.phases {
            for step in phase {
                if let Step::Rule(rule) = step {
                    if which(rule) {
                        rule.targets.extend(variable::parse(place, list)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Program, LoadError> {
        match self.pending.first() {
            Some(open) => Err(open.place.syntax("a chain is not finished")),
            None => Ok(self.program),
        }
    }
}

/// Finds where each `skipAfter` leads.
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
        let end = phase.len();
        for (at, step) in phase.iter_mut().enumerate() {
            let Step::Rule(rule) = step else { continue };
            if let Some(name) = &rule.skip_after {
                let to = markers.iter().find(|(place, marker)| *place > at && marker == name);
                rule.skip_to = Some(to.map_or(end, |(place, _)| place + 1));
            }
        }
    }
    Ok(())
}
