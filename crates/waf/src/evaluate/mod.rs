//! Running rules: values are gathered and transformed once for all rules that look at the same, tested,
//! and matches have their effects.

mod bits;
mod effects;
mod expand;
mod gather;
mod lists;
mod time;

use crate::{
    Settings,
    action::EngineMode,
    audit::Match,
    compile::{Program, Step},
    data::Data,
    operator::{Found, Operator, Test},
    rule::{AllowScope, Argument, Disruptive, Quick, Rule},
    transaction::Verdict,
    tx::{Names, Tx, write_number},
    value::{ValueId, Values},
    variable::{Collection, Flag, Scalar, Target, Variable, name_of},
};
use bits::Bits;
use effects::Told;
use lists::{Entry, Lists};
use std::{borrow::Cow, sync::Arc};

/// The value that matched last.
#[derive(Debug)]
struct Matched {
    variable: Variable,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Matched {
    fn default() -> Self {
        Self { variable: Variable::Nothing, key: Vec::new(), value: Vec::new() }
    }
}

impl Matched {
    fn name(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_name(&mut out);
        out
    }

    fn write_name(&self, out: &mut Vec<u8>) {
        if self.variable != Variable::Nothing {
            out.extend_from_slice(name_of(self.variable).as_bytes());
        }
        if !self.key.is_empty() {
            out.push(b':');
            out.extend_from_slice(&self.key);
        }
    }
}

/// A target that is left out for the rest of the transaction.
#[derive(Debug)]
struct RemovedTarget {
    rules: Bits,
    target: Arc<Target>,
}

/// All that changes while a request runs. It is used again for the next request.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) values: Values,
    pub(crate) data: Data,
    pub(crate) tx: Tx,
    lists: Lists,
    matched: Matched,
    /// Values that matched so far in the chain that is run.
    matched_vars: Vec<Matched>,
    pub(crate) matches: Vec<Match>,
    removed: Bits,
    removed_targets: Vec<RemovedTarget>,
    pub(crate) engine: EngineMode,
    allow: Option<(AllowScope, usize)>,
    pub(crate) body_processor: Option<String>,
    pub(crate) force_body: bool,
    pub(crate) request_body_access: bool,
    pub(crate) response_body_access: bool,
    pub(crate) audit_on: bool,
    /// Whether what is told leaves out the values of the request.
    pub(crate) masked: bool,
    pub(crate) blocked: bool,
    pub(crate) would_block: bool,
    pub(crate) deciding: Option<u32>,
    /// Seconds since 1970.
    pub(crate) now: u64,
    scratch: Vec<u8>,
    /// Values of a list that matched, with what was captured.
    hits: Vec<(ValueId, Found)>,
    /// For each value its place in `hits`, from 1.
    marks: Vec<u32>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            values: Values::default(),
            data: Data::default(),
            tx: Tx::default(),
            lists: Lists::default(),
            matched: Matched::default(),
            matched_vars: Vec::new(),
            matches: Vec::new(),
            removed: Bits::default(),
            removed_targets: Vec::new(),
            engine: EngineMode::Off,
            allow: None,
            body_processor: None,
            force_body: false,
            request_body_access: true,
            response_body_access: true,
            audit_on: true,
            masked: false,
            blocked: false,
            would_block: false,
            deciding: None,
            now: 0,
            scratch: Vec::new(),
            hits: Vec::new(),
            marks: Vec::new(),
        }
    }
}

impl State {
    /// Forgets the last request.
    pub(crate) fn clear(&mut self, program: &Program) {
        self.values.clear();
        self.data.clear();
        self.tx.clear(&program.names);
        self.lists.forget(program);
        self.matched = Matched::default();
        self.matched_vars.clear();
        self.matches.clear();
        self.removed.clear();
        self.removed_targets.clear();
        self.allow = None;
        self.body_processor = None;
        (self.force_body, self.audit_on) = (false, true);
        (self.request_body_access, self.response_body_access) = (true, true);
        (self.blocked, self.would_block, self.deciding) = (false, false, None);
        self.hits.clear();
        self.marks.clear();
    }

    /// Runs a phase.
    pub(crate) fn run(&mut self, program: &Program, settings: &Settings, phase: usize) -> Verdict {
        if self.engine == EngineMode::Off || self.allowed(phase) {
            return Verdict::Pass;
        }
        self.lists.forget(program);
        let steps = &program.phases[phase];
        let mut at = 0;
        while let Some(step) = steps.get(at) {
            at += 1;
            let rule = match step {
                Step::Rule(rule) => rule,
                Step::Marker(_) => continue,
                Step::Policy => {
                    self.preset(program, settings);
                    continue;
                }
            };
            if self.removed.contains(rule.number) || !self.chain_matches(program, rule) {
                continue;
            }
            if let Some(to) = rule.skip_to {
                at = to;
            }
            if let Some(verdict) = self.obey(program, rule, phase) {
                return verdict;
            }
            if self.engine == EngineMode::Off || self.allowed(phase) {
                break;
            }
            if self.values.is_full() {
                self.lists.forget(program);
                self.values.give_up_derived();
            }
        }
        Verdict::Pass
    }

    fn allowed(&self, phase: usize) -> bool {
        match self.allow {
            None => false,
            Some((AllowScope::All, _)) => phase != 5,
            Some((AllowScope::Request, _)) => phase <= 2,
            Some((AllowScope::Phase, in_phase)) => in_phase == phase,
        }
    }

    /// What the policy says, under the names that CRS 3 and CRS 4 have for it. It is said before the first
    /// rule, and again after the rules' own set-up, which it overrules.
    pub(crate) fn preset(&mut self, program: &Program, settings: &Settings) {
        for slot in &program.preset.paranoia {
            self.tx.set_number(*slot, i64::from(settings.paranoia));
        }
        for (name, value) in &settings.variables {
            let name = name.to_ascii_lowercase().into_bytes();
            match program.names.known(&name) {
                Some(slot) => self.tx.set(slot, value.as_bytes()),
                None => self.tx.set_made(&name, value.as_bytes()),
            }
        }
    }

    /// The verdict of a rule that matched, if it ends the phase.
    fn obey(&mut self, program: &Program, rule: &Rule, phase: usize) -> Option<Verdict> {
        let (disruptive, status) = match rule.disruptive {
            Disruptive::Block => program.defaults[phase].unwrap_or((Disruptive::Pass, 403)),
            other => (other, rule.status),
        };
        match disruptive {
            Disruptive::Deny => {
                self.would_block = true;
                self.deciding.get_or_insert(rule.id);
                if self.engine == EngineMode::On {
                    self.blocked = true;
                    return Some(Verdict::Block { status, rule: rule.id });
                }
                None
            }
            Disruptive::Allow(scope) => {
                self.allow = Some((scope, phase));
                None
            }
            Disruptive::Pass | Disruptive::Block => None,
        }
    }

    /// Whether a rule and all its links match. Variables are set as the links match; what is told, and
    /// what controls the engine, waits until all have.
    fn chain_matches(&mut self, program: &Program, first: &Rule) -> bool {
        if first.next.is_none() {
            if let Some(quick) = &first.quick {
                if !self.holds(quick) {
                    return false;
                }
                self.take_quick(program, quick);
                self.effects(program, first);
                let told = self.tell(program, first, first);
                self.matches.extend(told);
                self.controls(program, first);
                return true;
            }
        } else {
            self.matched_vars.clear();
        }
        let mut told = None;
        let mut link = Some(first);
        while let Some(rule) = link {
            if !self.rule_matches(program, rule, first, &mut told) {
                return false;
            }
            link = rule.next.as_deref();
        }
        let mut link = Some(first);
        while let Some(rule) = link {
            self.controls(program, rule);
            link = rule.next.as_deref();
        }
        if let Some(Told { mut last, began }) = told {
            if first.next.is_some() {
                last.target = began;
            }
            self.matches.push(last);
        }
        true
    }

    fn holds(&self, quick: &Quick) -> bool {
        let value = match (self.tx.is_set(quick.slot), quick.count) {
            (set, true) => i64::from(set),
            (true, false) => self.tx.number(quick.slot),
            (false, false) => return false,
        };
        let argument = match quick.argument {
            Argument::Number(number) => number,
            Argument::Tx(slot) => self.tx.number(slot),
        };
        quick.comparison.holds(value, argument) != quick.negated
    }

    fn take_quick(&mut self, program: &Program, quick: &Quick) {
        self.matched.variable = Variable::Tx;
        self.matched.key.clear();
        self.matched.key.extend_from_slice(program.names.name(quick.slot));
        self.matched.value.clear();
        if quick.count {
            write_number(i64::from(self.tx.is_set(quick.slot)), &mut self.matched.value);
        } else {
            self.tx.write(quick.slot, &mut self.matched.value);
        }
    }

    fn rule_matches(
        &mut self,
        program: &Program,
        rule: &Rule,
        first: &Rule,
        told: &mut Option<Told>,
    ) -> bool {
        let Some(test) = &rule.test else {
            self.effects(program, rule);
            self.note(program, rule, first, told);
            return true;
        };
        if rule.multi_match {
            return self.matches_many(program, rule, test, first, told);
        }
        let list = self.list(program, rule);
        let found = &self.lists.all[list];
        if found.values.is_empty() || !test.negated && !test.filter.may_match_any(&found.bytes, found.longest)
        {
            return false;
        }
        let argument = self.argument(program, rule, &test.operator);
        let capture = rule.capture && !test.negated;
        self.hits.clear();
        for value in &self.lists.all[list].values {
            if !test.negated && !test.filter.may_match(self.values.summary(*value)) {
                continue;
            }
            let found = test.operator.matches(self.values.bytes(*value), &argument, capture);
            if (found != Found::No) != test.negated {
                self.hits.push((*value, found));
            }
        }
        if self.hits.is_empty() {
            return false;
        }
        let hits = std::mem::take(&mut self.hits);
        self.marks.resize(self.values.count(), 0);
        for (number, (value, _)) in (1..).zip(&hits) {
            self.marks[value.number() as usize] = number;
        }
        let hit = |state: &Self, at: usize| {
            let entry = state.lists.all[list].entries[at];
            let mark = state.marks[entry.value.number() as usize] as usize;
            mark.checked_sub(1).map(|number| (entry, number))
        };
        let count = self.lists.all[list].entries.len();
        let last = (0..count).rev().find(|at| hit(self, *at).is_some());
        for at in 0..count {
            if let Some((entry, number)) = hit(self, at) {
                self.take(program, rule, first, entry, &hits[number].1);
                if Some(at) == last {
                    self.note(program, rule, first, told);
                }
            }
        }
        for (value, _) in &hits {
            self.marks[value.number() as usize] = 0;
        }
        self.hits = hits;
        true
    }

    /// Tests each value before, between and after its transformations; each that matches counts.
    fn matches_many(
        &mut self,
        program: &Program,
        rule: &Rule,
        test: &Test,
        first: &Rule,
        told: &mut Option<Told>,
    ) -> bool {
        let mut chains = vec![rule.chain_of_transforms];
        while let Some(last) = chains.last().copied().filter(|last| *last != 0) {
            chains.push(program.chains[usize::from(last)].before);
        }
        let argument = self.argument(program, rule, &test.operator);
        let list = self.untransformed(program, rule);
        let mut matched = false;
        for at in 0..self.lists.all[list].entries.len() {
            let entry = self.lists.all[list].entries[at];
            let mut before = None;
            for chain in chains.iter().rev() {
                let value = self.values.transform(&program.chains, entry.value, *chain);
                if before == Some(value) {
                    continue;
                }
                before = Some(value);
                if !test.negated && !test.filter.may_match(self.values.summary(value)) {
                    continue;
                }
                let capture = rule.capture && !test.negated;
                let found = test.operator.matches(self.values.bytes(value), &argument, capture);
                if (found != Found::No) != test.negated {
                    matched = true;
                    self.take(program, rule, first, Entry { value, ..entry }, &found);
                    self.note(program, rule, first, told);
                }
            }
        }
        matched
    }

    /// Effects of one value that matched.
    fn take(&mut self, program: &Program, rule: &Rule, first: &Rule, entry: Entry, found: &Found) {
        self.matched.variable = entry.variable;
        self.matched.key.clear();
        self.matched.key.extend_from_slice(self.values.bytes(entry.key));
        self.matched.value.clear();
        self.matched.value.extend_from_slice(self.values.bytes(entry.value));
        if rule.capture {
            let value = &self.matched.value;
            match found {
                Found::Groups(groups) => {
                    for n in 0..10 {
                        match groups.get(n) {
                            Some(range) => self.tx.set(Names::group(n), &value[range.clone()]),
                            None => self.tx.remove(Names::group(n)),
                        }
                    }
                }
                Found::Text(text) => self.tx.set(Names::group(0), text),
                Found::Yes | Found::No => self.tx.set(Names::group(0), value),
            }
        }
        if first.next.is_some() {
            let Matched { variable, key, value } = &self.matched;
            self.matched_vars.push(Matched { variable: *variable, key: key.clone(), value: value.clone() });
        }
        self.effects(program, rule);
    }

    /// The argument of an operator, its macros expanded.
    fn argument<'r>(&self, program: &Program, rule: &Rule, operator: &'r Operator) -> Cow<'r, [u8]> {
        let Some(text) = operator.argument() else { return Cow::default() };
        if let Some(plain) = text.plain() {
            return Cow::Borrowed(plain);
        }
        let mut out = Vec::new();
        self.write(program, rule, text, &mut out);
        Cow::Owned(out)
    }

    /// A single value, empty when it is not known.
    pub(crate) fn scalar(&self, scalar: Scalar) -> &[u8] {
        self.data.scalar(scalar).map(|value| self.values.bytes(value)).unwrap_or_default()
    }

    pub(crate) fn set_scalar(&mut self, scalar: Scalar, value: &[u8]) {
        let value = self.values.add(value);
        self.data.set(scalar, value);
    }

    pub(crate) fn add(&mut self, collection: Collection, key: &[u8], value: &[u8]) {
        let (key, value) = (self.values.add(key), self.values.add(value));
        self.data.add(collection, key, value);
    }

    pub(crate) fn fail_body(&mut self, why: &str) {
        self.data.raise(Flag::BodyError);
        self.set_scalar(Scalar::BodyErrorMessage, why.as_bytes());
    }
}
