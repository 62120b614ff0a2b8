//! A compiled rule.

use crate::{
    action::Ctl,
    error::Place,
    operator::{Comparison, Test},
    text::Text,
    tx::{Name, Slot},
    value::{ValueId, Values},
    variable::{Selector, Target},
};
use std::sync::Arc;

/// A rule, or a chain of them.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: u32,
    pub(crate) place: Place,
    /// Position among all rules; links of a chain have that of their first.
    pub(crate) number: usize,
    /// As written, exclusions that came later included.
    pub(crate) targets: Vec<Arc<Target>>,
    /// The same, shared with the rules that look at the same.
    pub(crate) aims: usize,
    /// Values of these aims after this chain of transformations, shared likewise.
    pub(crate) feed: usize,
    /// `None` for `SecAction`: always matches.
    pub(crate) test: Option<Test>,
    /// The test, where it is one of a number alone.
    pub(crate) quick: Option<Quick>,
    /// Chain of transformations, as an index into the program's table.
    pub(crate) chain_of_transforms: u16,
    pub(crate) multi_match: bool,
    pub(crate) capture: bool,
    pub(crate) set: Vec<SetVar>,
    pub(crate) ctl: Vec<Ctl>,
    pub(crate) disruptive: Disruptive,
    pub(crate) status: u16,
    pub(crate) skip: Option<Skip>,
    /// Index in the phase's list where `skip` leads.
    pub(crate) skip_to: Option<usize>,
    pub(crate) log: bool,
    pub(crate) msg: Option<Text>,
    pub(crate) logdata: Option<Text>,
    pub(crate) severity: Option<String>,
    pub(crate) tags: Vec<Text>,
    pub(crate) phase: usize,
    /// The next link of a chain: it must match too.
    pub(crate) next: Option<Box<Rule>>,
}

/// What a set of rules looks at: targets with the exclusions that belong to them.
#[derive(Debug)]
pub(crate) struct Aims {
    pub(crate) aims: Vec<Aim>,
    /// Whether they may be others in the next rule.
    pub(crate) volatile: bool,
}

/// One target.
#[derive(Debug)]
pub(crate) struct Aim {
    pub(crate) target: Arc<Target>,
    /// What is left out of it.
    pub(crate) without: Vec<Arc<Target>>,
    /// Of `TX`, the variables that it means.
    pub(crate) slots: Vec<Slot>,
}

impl Aim {
    /// Whether a value of this name is looked at.
    pub(crate) fn takes(&self, key: &[u8]) -> bool {
        self.target.selector.accepts(key) && !self.without.iter().any(|other| other.selector.accepts(key))
    }

    /// The same for the name of a value.
    pub(crate) fn takes_value(&self, values: &Values, key: ValueId) -> bool {
        self.target.selector.accepts_value(values, key)
            && !self.without.iter().any(|other| other.selector.accepts_value(values, key))
    }

    /// Whether all names are.
    pub(crate) fn takes_all(&self) -> bool {
        matches!(self.target.selector, Selector::All) && self.without.is_empty()
    }
}

/// A test of one `TX` variable as a number.
#[derive(Debug)]
pub(crate) struct Quick {
    pub(crate) slot: Slot,
    /// Whether it is set, rather than its value.
    pub(crate) count: bool,
    pub(crate) negated: bool,
    pub(crate) comparison: Comparison,
    pub(crate) argument: Argument,
}

/// What a number is compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    Number(i64),
    Tx(Slot),
}

/// What a match does to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disruptive {
    /// Nothing.
    Pass,
    /// Refused.
    Deny,
    /// Whatever the phase's default action says.
    Block,
    /// Nothing more is inspected.
    Allow(AllowScope),
}

/// How far `allow` reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AllowScope {
    /// This phase.
    Phase,
    /// The request's phases.
    Request,
    /// Everything.
    All,
}

/// Which rules a match leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Skip {
    /// All up to a marker or a rule.
    After(String),
    /// So many rules of the phase; a chain is one.
    Rules(usize),
}

/// A change of a variable.
#[derive(Debug)]
pub(crate) struct SetVar {
    pub(crate) name: Name,
    pub(crate) change: Change,
}

/// How it changes.
#[derive(Debug)]
pub(crate) enum Change {
    Set(Text),
    Add(Text),
    Subtract(Text),
    Remove,
}
