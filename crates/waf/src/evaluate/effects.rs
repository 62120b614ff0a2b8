//! What matches do: variables are set, the engine is controlled, the match is told.

use super::{RemovedTarget, State, bits::Bits};
use crate::{
    action::{Ctl, EngineMode, Which},
    audit::{Match, shown},
    compile::{Program, Step},
    rule::{Change, Rule, SetVar},
    text::{Piece, Text},
    tx::{Name, number},
};

/// What is told of a chain so far.
pub(super) struct Told {
    pub(super) last: Match,
    /// The value with which the chain began.
    pub(super) began: String,
}

impl State {
    pub(super) fn effects(&mut self, program: &Program, rule: &Rule) {
        for set in &rule.set {
            self.set_variable(program, rule, set);
        }
    }

    pub(super) fn set_variable(&mut self, program: &Program, rule: &Rule, set: &SetVar) {
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

    pub(super) fn controls(&mut self, program: &Program, rule: &Rule) {
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
    pub(super) fn note(&self, program: &Program, rule: &Rule, first: &Rule, told: &mut Option<Told>) {
        if let Some(found) = self.tell(program, first, rule) {
            let began = match told.take() {
                Some(before) if !std::ptr::eq(rule, first) => before.began,
                _ => found.target.clone(),
            };
            *told = Some(Told { last: found, began });
        }
    }

    /// A match as it is told: with the texts of the first link.
    pub(super) fn tell(&self, program: &Program, first: &Rule, rule: &Rule) -> Option<Match> {
        if !first.log {
            return None;
        }
        let text = |text: &Text| {
            let mut out = Vec::new();
            if self.masked {
                self.write_masked(program, rule, text, &mut out);
            } else {
                self.write(program, rule, text, &mut out);
            }
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
