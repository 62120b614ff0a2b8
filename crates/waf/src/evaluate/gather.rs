//! What rules look at: values of variables, without what is left out, transformed.

use super::{
    State,
    lists::{Entry, NONE},
};
use crate::{
    compile::{Program, slot_name},
    rule::{Aim, Rule},
    tx::{number, write_count, write_number},
    value::ValueId,
    variable::{Collection, Selector, Variable},
};

/// The bit that targets left out share beyond the 63rd. What it stands for differs by rule, so that lists with it
/// are not kept.
const SHARED: u64 = 1 << 63;

impl State {
    /// The values of a rule, transformed.
    pub(super) fn list(&mut self, program: &Program, rule: &Rule) -> usize {
        let reduced = self.removed_for(rule);
        let volatile = program.aims[rule.aims].volatile;
        let key = (rule.feed, reduced);
        if !volatile && reduced == 0 && self.lists.by_feed[rule.feed] != NONE {
            return self.lists.by_feed[rule.feed] as usize;
        }
        if !volatile && let Some(known) = self.lists.reduced.get(&key) {
            return *known as usize;
        }
        let base = self.base(program, rule, reduced);
        let list = self.transformed(program, base, rule.chain_of_transforms);
        if !volatile && reduced == 0 {
            self.lists.by_feed[rule.feed] = list as u32;
        } else if !volatile && reduced & SHARED == 0 {
            self.lists.reduced.insert(key, list as u32);
        }
        list
    }

    /// The values of a rule as they are.
    pub(super) fn untransformed(&mut self, program: &Program, rule: &Rule) -> usize {
        let reduced = self.removed_for(rule);
        self.base(program, rule, reduced)
    }

    fn base(&mut self, program: &Program, rule: &Rule, reduced: u64) -> usize {
        if program.aims[rule.aims].volatile || reduced & SHARED != 0 {
            return self.gather(program, rule, reduced);
        }
        if reduced != 0 {
            let key = (rule.aims, reduced);
            if let Some(known) = self.lists.reduced_bases.get(&key) {
                return *known as usize;
            }
            let list = self.gather(program, rule, reduced);
            self.lists.reduced_bases.insert(key, list as u32);
            return list;
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
    pub(super) fn transformed(&mut self, program: &Program, base: usize, chain: u16) -> usize {
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
    pub(super) fn removed_for(&self, rule: &Rule) -> u64 {
        let numbered = self.removed_targets.iter().enumerate();
        numbered
            .filter(|(_, removed)| removed.rules.contains(rule.number))
            .fold(0, |bits, (n, _)| bits | 1 << n.min(63))
    }

    /// Gathers the values of a rule into a list.
    pub(super) fn gather(&mut self, program: &Program, rule: &Rule, reduced: u64) -> usize {
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

    pub(super) fn collect(&mut self, program: &Program, aim: &Aim, entries: &mut Vec<Entry>) {
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

    pub(super) fn collect_tx(&mut self, program: &Program, aim: &Aim, entries: &mut Vec<Entry>) {
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
    pub(super) fn single(&mut self, variable: Variable) -> Option<ValueId> {
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
}
