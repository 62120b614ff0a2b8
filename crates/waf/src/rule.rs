//! A compiled rule.

use crate::{action::Ctl, error::Place, operator::Operator, text::Text, variable::Target};

/// A rule, or a chain of them.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: u32,
    pub(crate) place: Place,
    pub(crate) targets: Vec<Target>,
    /// `None` for `SecAction`: always matches.
    pub(crate) test: Option<(bool, Operator)>,
    /// Chain of transformations, as an index into the program's table.
    pub(crate) chain_of_transforms: usize,
    pub(crate) multi_match: bool,
    pub(crate) capture: bool,
    pub(crate) set: Vec<SetVar>,
    pub(crate) ctl: Vec<Ctl>,
    pub(crate) disruptive: Disruptive,
    pub(crate) status: u16,
    pub(crate) skip_after: Option<String>,
    /// Index in the phase's list where `skip_after` leads.
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

/// A change of a variable.
#[derive(Debug)]
pub(crate) struct SetVar {
    pub(crate) collection: String,
    pub(crate) name: Text,
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
