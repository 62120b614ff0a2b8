//! Running rules: values are gathered and transformed once for all rules that look at the same, tested,
//! and matches have their effects.

use crate::{
    Settings,
    action::{Ctl, EngineMode, Which},
    audit::{Match, shown},
    compile::{Program, Step, slot_name},
    data::Data,
    operator::{Found, Operator, Test},
    rule::{AllowScope, Argument, Change, Disruptive, Quick, Rule, SetVar},
    text::{Piece, Property, Text},
    transaction::Verdict,
    tx::{Name, Names, Tx, number, write_count, write_number},
    value::{ByteSet, ValueId, Values},
    variable::{Collection, Flag, Scalar, Selector, Target, Time, Variable, name_of},
};
use std::{collections::HashMap, sync::Arc};

/// A value that a rule looks at, and where it is from.
#[derive(Debug, Clone, Copy)]
struct Entry {
    value: ValueId,
    key: ValueId,
    variable: Variable,
}

/// Values that rules look at.
#[derive(Debug, Default)]
struct List {
    entries: Vec<Entry>,
    /// Each value once.
    values: Vec<ValueId>,
    /// All bytes of all of them, and the greatest length.
    bytes: ByteSet,
    longest: u32,
}

/// A position in `Lists`; there is none yet.
const NONE: u32 = u32::MAX;

/// Lists that rules share, made when the first of them is run.
#[derive(Debug, Default)]
struct Lists {
    all: Vec<List>,
    used: usize,
    by_aims: Vec<u32>,
    by_feed: Vec<u32>,
    /// Lists from which something was taken out, by feed and what.
    reduced: HashMap<(usize, u64), u32>,
    /// For each value the list for which it was seen last, to tell repeated ones.
    stamps: Vec<u32>,
    stamp: u32,
}

impl Lists {
    fn forget(&mut self, program: &Program) {
        self.used = 0;
        self.by_aims.clear();
        self.by_aims.resize(program.aims.len(), NONE);
        self.by_feed.clear();
        self.by_feed.resize(program.feeds.len(), NONE);
        self.reduced.clear();
    }

    /// An empty list.
    fn open(&mut self) -> usize {
        if self.used == self.all.len() {
            self.all.push(List::default());
        }
        let list = &mut self.all[self.used];
        list.entries.clear();
        list.values.clear();
        (list.bytes, list.longest) = (ByteSet::default(), 0);
        self.used += 1;
        self.used - 1
    }

    /// Sums a list up.
    fn close(&mut self, number: usize, values: &Values) {
        if self.stamp == u32::MAX {
            self.stamps.clear();
            self.stamp = 0;
        }
        self.stamp += 1;
        let list = &mut self.all[number];
        for entry in &list.entries {
            let at = entry.value.number() as usize;
            if self.stamps.len() <= at {
                self.stamps.resize(at + 1, 0);
            }
            if self.stamps[at] == self.stamp {
                continue;
            }
            self.stamps[at] = self.stamp;
            let summary = values.summary(entry.value);
            list.values.push(entry.value);
            list.bytes = list.bytes.union(summary.bytes);
            list.longest = list.longest.max(summary.len);
        }
    }
}

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

/// A set of numbers of rules.
#[derive(Debug, Clone, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn insert(&mut self, number: usize) {
        if self.0.len() <= number / 64 {
            self.0.resize(number / 64 + 1, 0);
        }
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn contains(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|part| part >> (number % 64) & 1 == 1)
    }
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
        self.removed.0.clear();
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
    fn argument(&self, program: &Program, rule: &Rule, operator: &Operator) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(text) = operator.argument() {
            self.write(program, rule, text, &mut out);
        }
        out
    }

    // What rules look at.

    /// The values of a rule, transformed.
    fn list(&mut self, program: &Program, rule: &Rule) -> usize {
        let reduced = self.removed_for(rule);
        let volatile = program.aims[rule.aims].volatile;
        if volatile || reduced != 0 {
            let key = (rule.feed, reduced);
            if let Some(known) = self.lists.reduced.get(&key).filter(|_| !volatile) {
                return *known as usize;
            }
            let base = self.gather(program, rule, reduced);
            let list = self.transformed(program, base, rule.chain_of_transforms);
            if !volatile {
                self.lists.reduced.insert(key, list as u32);
            }
            return list;
        }
        let known = self.lists.by_feed[rule.feed];
        if known != NONE {
            return known as usize;
        }
        let base = self.untransformed(program, rule);
        let list = self.transformed(program, base, rule.chain_of_transforms);
        self.lists.by_feed[rule.feed] = list as u32;
        list
    }

    /// The values of a rule as they are.
    fn untransformed(&mut self, program: &Program, rule: &Rule) -> usize {
        let reduced = self.removed_for(rule);
        if program.aims[rule.aims].volatile || reduced != 0 {
            return self.gather(program, rule, reduced);
        }
        let known = self.lists.by_aims[rule.aims];
        if known != NONE {
            return known as usize;
        }
        let list = self.gather(program, rule, 0);
        self.lists.by_aims[rule.aims] = list as u32;
        list
    }

    /// The list after a chain of transformations; itself, when that changes nothing.
    fn transformed(&mut self, program: &Program, base: usize, chain: u16) -> usize {
        if program.chains[usize::from(chain)].is_identity_for(&self.lists.all[base].bytes) {
            return base;
        }
        let list = self.lists.open();
        let (before, after) = self.lists.all.split_at_mut(list);
        let mut changed = false;
        for entry in &before[base].entries {
            let value = self.values.transform(&program.chains, entry.value, chain);
            changed |= value != entry.value;
            after[0].entries.push(Entry { value, ..*entry });
        }
        if !changed {
            self.lists.used -= 1;
            return base;
        }
        self.lists.close(list, &self.values);
        list
    }

    /// Which of the targets that were left out belong to a rule, as bits; those beyond the 63rd share one.
    fn removed_for(&self, rule: &Rule) -> u64 {
        let numbered = self.removed_targets.iter().enumerate();
        numbered
            .filter(|(_, removed)| removed.rules.contains(rule.number))
            .fold(0, |bits, (n, _)| bits | 1 << n.min(63))
    }

    /// Gathers the values of a rule into a list.
    fn gather(&mut self, program: &Program, rule: &Rule, reduced: u64) -> usize {
        let number = self.lists.open();
        let mut list = std::mem::take(&mut self.lists.all[number]);
        for aim in &program.aims[rule.aims].aims {
            let begun = list.entries.len();
            self.collect(program, aim, &mut list.entries);
            if reduced != 0 {
                let removed: Vec<_> = self
                    .removed_targets
                    .iter()
                    .filter(|removed| removed.rules.contains(rule.number))
                    .collect();
                let (values, mut at) = (&self.values, 0);
                list.entries.retain(|entry| {
                    at += 1;
                    at <= begun
                        || !removed.iter().any(|removed| {
                            removed.target.variable == aim.target.variable
                                && removed.target.selector.accepts_value(values, entry.key)
                        })
                });
            }
            if aim.target.count {
                let mut text = Vec::new();
                write_count((list.entries.len() - begun) as u64, &mut text);
                list.entries.truncate(begun);
                let value = self.values.add_made(&text);
                let key = match &aim.target.selector {
                    Selector::Name(name) => self.values.add_made(name),
                    Selector::All | Selector::Pattern(_) => ValueId::EMPTY,
                };
                list.entries.push(Entry { value, key, variable: aim.target.variable });
            }
        }
        self.lists.all[number] = list;
        self.lists.close(number, &self.values);
        number
    }

    fn collect(&mut self, program: &Program, aim: &crate::rule::Aim, entries: &mut Vec<Entry>) {
        use Variable as V;
        let variable = aim.target.variable;
        let mut from = |collections: &[Collection], names: bool| {
            let everything = aim.takes_all();
            for item in collections.iter().flat_map(|collection| self.data.of(*collection)) {
                if everything || aim.takes_value(&self.values, item.key) {
                    let value = if names { item.key } else { item.value };
                    entries.push(Entry { value, key: item.key, variable });
                }
            }
        };
        const ARGS: &[Collection] = &[Collection::ArgsGet, Collection::ArgsPost];
        match variable {
            V::Of(collection) => from(&[collection], false),
            V::Args => from(ARGS, false),
            V::ArgsNames => from(ARGS, true),
            V::ArgsGetNames => from(&[Collection::ArgsGet], true),
            V::ArgsPostNames => from(&[Collection::ArgsPost], true),
            V::CookiesNames => from(&[Collection::Cookies], true),
            V::RequestHeadersNames => from(&[Collection::RequestHeaders], true),
            V::ResponseHeadersNames => from(&[Collection::ResponseHeaders], true),
            V::FilesNames => from(&[Collection::Files], true),
            V::Tx | V::Persistent(_) => self.collect_tx(program, aim, entries),
            V::MatchedVars | V::MatchedVarsNames => {
                for at in 0..self.matched_vars.len() {
                    let name = self.matched_vars[at].name();
                    if aim.takes(&name) {
                        let key = self.values.add_made(&name);
                        let value = match variable {
                            V::MatchedVars => self.values.add_made(&self.matched_vars[at].value),
                            _ => key,
                        };
                        entries.push(Entry { value, key, variable });
                    }
                }
            }
            _ => {
                if let Some(value) = self.single(variable).filter(|_| aim.takes(b"")) {
                    entries.push(Entry { value, key: ValueId::EMPTY, variable });
                }
            }
        }
    }

    fn collect_tx(&mut self, program: &Program, aim: &crate::rule::Aim, entries: &mut Vec<Entry>) {
        let variable = aim.target.variable;
        let begin = slot_name(variable, b"").len();
        for slot in &aim.slots {
            self.scratch.clear();
            if self.tx.write(*slot, &mut self.scratch) {
                let key = self.values.add_made(&program.names.name(*slot)[begin..]);
                let value = self.values.add_made(&self.scratch);
                entries.push(Entry { value, key, variable });
            }
        }
        if matches!(aim.target.selector, Selector::Name(_)) {
            return;
        }
        let begin = slot_name(variable, b"");
        for (name, value) in self.tx.all_made() {
            let Some(key) = name.strip_prefix(begin.as_slice()) else { continue };
            if !key.starts_with(b"\0") && aim.takes(key) {
                let (key, value) = (self.values.add_made(key), self.values.add_made(&value));
                entries.push(Entry { value, key, variable });
            }
        }
    }

    /// The value of a variable that has one, if it has it now.
    fn single(&mut self, variable: Variable) -> Option<ValueId> {
        let mut text = Vec::new();
        match variable {
            Variable::Scalar(scalar) => return self.data.scalar(scalar),
            Variable::ArgsCombinedSize => {
                write_count(self.data.arguments_size(&self.values) as u64, &mut text);
            }
            Variable::FilesCombinedSize => {
                let sizes = self.data.of(Collection::FilesSizes).iter();
                write_number(sizes.map(|item| number(self.values.bytes(item.value))).sum(), &mut text);
            }
            Variable::Flag(flag) => write_number(i64::from(self.data.flag(flag)), &mut text),
            Variable::MatchedVar => text.extend_from_slice(&self.matched.value),
            Variable::MatchedVarName => self.matched.write_name(&mut text),
            Variable::Duration => text.push(b'0'),
            Variable::Time(time) => time.write(self.now, &mut text),
            _ => return None,
        }
        Some(self.values.add_made(&text))
    }

    // What matches do.

    fn effects(&mut self, program: &Program, rule: &Rule) {
        for set in &rule.set {
            self.set_variable(program, rule, set);
        }
    }

    fn set_variable(&mut self, program: &Program, rule: &Rule, set: &SetVar) {
        let (slot, made) = match &set.name {
            Name::Known(slot) => (Some(*slot), Vec::new()),
            Name::Made(text) => {
                let mut name = Vec::new();
                self.write(program, rule, text, &mut name);
                name.make_ascii_lowercase();
                (program.names.known(&name), name)
            }
        };
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        match &set.change {
            Change::Remove => match slot {
                Some(slot) => self.tx.remove(slot),
                None => self.tx.remove_made(&made),
            },
            Change::Set(text) => {
                self.write(program, rule, text, &mut value);
                match slot {
                    Some(slot) => self.tx.set(slot, &value),
                    None => self.tx.set_made(&made, &value),
                }
            }
            Change::Add(amount) | Change::Subtract(amount) => {
                let amount = match amount.0.as_slice() {
                    [Piece::Tx(slot)] => self.tx.number(*slot),
                    _ => {
                        self.write(program, rule, amount, &mut value);
                        number(&value)
                    }
                };
                let amount = if matches!(set.change, Change::Subtract(_)) { -amount } else { amount };
                let held = match slot {
                    Some(slot) => self.tx.number(slot),
                    None => self.tx.made(&made).map_or(0, |held| number(&held)),
                };
                let sum = held.saturating_add(amount);
                match slot {
                    Some(slot) => self.tx.set_number(slot, sum),
                    None => self.tx.set_made(&made, sum.to_string().as_bytes()),
                }
            }
        }
        self.scratch = value;
    }

    fn controls(&mut self, program: &Program, rule: &Rule) {
        for ctl in &rule.ctl {
            self.control(program, ctl);
        }
    }

    pub(crate) fn control(&mut self, program: &Program, ctl: &Ctl) {
        match ctl {
            Ctl::Remove(which) => meant(program, which, &mut self.removed),
            Ctl::RemoveTarget(which, target) => {
                let mut rules = Bits::default();
                meant(program, which, &mut rules);
                self.removed_targets.push(RemovedTarget { rules, target: target.clone() });
                // Beyond 63 their bits are shared, so that lists made before may be wrong.
                if self.removed_targets.len() > 63 {
                    self.lists.reduced.clear();
                }
            }
            Ctl::Engine(mode) => {
                // A rule may only make the engine milder than its policy.
                if *mode != EngineMode::On {
                    self.engine = *mode;
                }
            }
            Ctl::BodyProcessor(name) => self.body_processor = Some(name.clone()),
            Ctl::ForceBodyVariable(on) => self.force_body = *on,
            Ctl::RequestBodyAccess(on) => self.request_body_access = *on,
            Ctl::ResponseBodyAccess(on) => self.response_body_access = *on,
            Ctl::Audit(on) => self.audit_on = *on,
            Ctl::Nothing => {}
        }
    }

    /// Keeps what is to be told of a link that matched; the last one of a chain is told.
    fn note(&self, program: &Program, rule: &Rule, first: &Rule, told: &mut Option<Told>) {
        if let Some(found) = self.tell(program, first, rule) {
            let began = match told.take() {
                Some(before) if !std::ptr::eq(rule, first) => before.began,
                _ => found.target.clone(),
            };
            *told = Some(Told { last: found, began });
        }
    }

    /// A match as it is told: with the texts of the first link.
    fn tell(&self, program: &Program, first: &Rule, rule: &Rule) -> Option<Match> {
        if !first.log {
            return None;
        }
        let text = |text: &Text| {
            let mut out = Vec::new();
            self.write(program, rule, text, &mut out);
            shown(&out)
        };
        Some(Match {
            id: first.id,
            msg: first.msg.as_ref().map(text).unwrap_or_default(),
            severity: first.severity.clone(),
            logdata: first.logdata.as_ref().map(text).unwrap_or_default(),
            target: shown(&self.matched.name()),
            tags: first.tags.iter().map(text).collect(),
            file: first.place.file.to_string(),
            line: first.place.line,
            phase: first.phase,
        })
    }

    /// Writes a text with its macros expanded.
    fn write(&self, program: &Program, rule: &Rule, text: &Text, out: &mut Vec<u8>) {
        for piece in &text.0 {
            match piece {
                Piece::Plain(plain) => out.extend_from_slice(plain),
                Piece::Tx(slot) => {
                    self.tx.write(*slot, out);
                }
                Piece::MatchedVar => out.extend_from_slice(&self.matched.value),
                Piece::MatchedVarName => self.matched.write_name(out),
                Piece::Rule(Property::Id) => write_number(i64::from(rule.id), out),
                Piece::Rule(Property::Msg) => {
                    out.extend_from_slice(rule.msg.as_ref().and_then(Text::plain).unwrap_or_default());
                }
                Piece::Rule(Property::Severity) => {
                    out.extend_from_slice(rule.severity.as_deref().unwrap_or_default().as_bytes());
                }
                Piece::Variable(variable, selector) => self.write_first(program, *variable, selector, out),
            }
        }
    }

    /// Writes the first value of a variable.
    fn write_first(&self, program: &Program, variable: Variable, selector: &Selector, out: &mut Vec<u8>) {
        let of = |collections: &[Collection], names: bool| {
            let mut items = collections.iter().flat_map(|collection| self.data.of(*collection));
            let found = items.find(|item| selector.accepts(self.values.bytes(item.key)))?;
            Some(self.values.bytes(if names { found.key } else { found.value }))
        };
        const ARGS: &[Collection] = &[Collection::ArgsGet, Collection::ArgsPost];
        let found = match variable {
            Variable::Scalar(scalar) => self.data.scalar(scalar).map(|value| self.values.bytes(value)),
            Variable::Of(collection) => of(&[collection], false),
            Variable::Args => of(ARGS, false),
            Variable::ArgsNames => of(ARGS, true),
            Variable::ArgsGetNames => of(&[Collection::ArgsGet], true),
            Variable::ArgsPostNames => of(&[Collection::ArgsPost], true),
            Variable::CookiesNames => of(&[Collection::Cookies], true),
            Variable::RequestHeadersNames => of(&[Collection::RequestHeaders], true),
            Variable::ResponseHeadersNames => of(&[Collection::ResponseHeaders], true),
            Variable::FilesNames => of(&[Collection::Files], true),
            Variable::ArgsCombinedSize => {
                return write_count(self.data.arguments_size(&self.values) as u64, out);
            }
            Variable::Flag(flag) => return write_number(i64::from(self.data.flag(flag)), out),
            Variable::Time(time) => return time.write(self.now, out),
            Variable::MatchedVars => self.matched_vars.first().map(|matched| matched.value.as_slice()),
            Variable::MatchedVarsNames => {
                return self.matched_vars.first().map_or((), |matched| matched.write_name(out));
            }
            Variable::Tx | Variable::Persistent(_) => {
                // Without a selector: the first that is set.
                let mut slots = program.names.slots();
                return slots.find(|slot| self.tx.write(*slot, out)).map_or((), |_| ());
            }
            Variable::MatchedVar
            | Variable::MatchedVarName
            | Variable::FilesCombinedSize
            | Variable::Duration
            | Variable::Nothing => None,
        };
        out.extend_from_slice(found.unwrap_or_default());
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

/// What is told of a chain so far.
struct Told {
    last: Match,
    /// The value with which the chain began.
    began: String,
}

/// Adds the numbers of the rules that are meant.
fn meant(program: &Program, which: &Which, rules: &mut Bits) {
    match which {
        Which::Ids(from, to) => {
            let begin = program.by_id.partition_point(|(id, _)| id < from);
            let found = program.by_id[begin..].iter().take_while(|(id, _)| id <= to);
            found.for_each(|(_, number)| rules.insert(*number));
        }
        Which::Tag(tag) => {
            program.by_tag.get(tag).into_iter().flatten().for_each(|number| rules.insert(*number));
        }
        Which::TagPattern(_) | Which::MsgPattern(_) => {
            for step in program.phases.iter().flatten() {
                if let Step::Rule(rule) = step
                    && which.means(rule)
                {
                    rules.insert(rule.number);
                }
            }
        }
    }
}

impl Time {
    /// Writes this part of a time in seconds since 1970, UTC.
    fn write(self, now: u64, out: &mut Vec<u8>) {
        let (days, second) = (now / 86_400, now % 86_400);
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let (year, month, day) = date(days);
        let two = |number: u64, out: &mut Vec<u8>| {
            out.extend_from_slice(&[b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]);
        };
        match self {
            Self::Clock => {
                for (part, end) in [(hour, &b":"[..]), (minute, b":"), (second % 60, b"")] {
                    two(part, out);
                    out.extend_from_slice(end);
                }
            }
            Self::Epoch => write_count(now, out),
            Self::Year => write_count(year, out),
            // As ModSecurity counts: months from 0.
            Self::Month => write_count(month - 1, out),
            Self::Day => write_count(day, out),
            Self::Hour => write_count(hour, out),
            Self::Minute => write_count(minute, out),
            Self::Second => write_count(second % 60, out),
            // 1970 began on a Thursday.
            Self::Weekday => write_count((days + 4) % 7, out),
        }
    }
}

/// Year, month and day of a day since 1970 in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Years here begin in March, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_apart() {
        let check = |time: Time, now: u64, expected: &str| {
            let mut out = Vec::new();
            time.write(now, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        // 2024-02-29 23:59:58, a Thursday.
        let now = 1_709_251_198;
        for (time, expected) in [
            (Time::Clock, "23:59:58"),
            (Time::Epoch, "1709251198"),
            (Time::Year, "2024"),
            (Time::Month, "1"),
            (Time::Day, "29"),
            (Time::Hour, "23"),
            (Time::Minute, "59"),
            (Time::Second, "58"),
            (Time::Weekday, "4"),
        ] {
            check(time, now, expected);
        }
        check(Time::Day, 0, "1");
        check(Time::Year, 951_782_400, "2000");
    }
}
