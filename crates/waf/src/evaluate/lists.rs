//! Lists of values that rules look at, shared by all that look at the same.

use crate::{
    compile::Program,
    value::{ByteSet, ValueId, Values},
    variable::Variable,
};
use std::collections::HashMap;

/// A value that a rule looks at, and where it is from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) value: ValueId,
    pub(super) key: ValueId,
    pub(super) variable: Variable,
}

/// Values that rules look at.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) entries: Vec<Entry>,
    /// Each value once.
    pub(super) values: Vec<ValueId>,
    /// All bytes of all of them, and the greatest length.
    pub(super) bytes: ByteSet,
    pub(super) longest: u32,
}

/// A position in `Lists`; there is none yet.
pub(super) const NONE: u32 = u32::MAX;

/// Lists that rules share, made when the first of them is run.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) all: Vec<List>,
    pub(super) used: usize,
    pub(super) by_aims: Vec<u32>,
    pub(super) by_feed: Vec<u32>,
    /// Lists from which something was taken out, by feed and what.
    pub(super) reduced: HashMap<(usize, u64), u32>,
    /// The same before transformations, by aims and what.
    pub(super) reduced_bases: HashMap<(usize, u64), u32>,
    /// For each value the list for which it was seen last, to tell repeated ones.
    stamps: Vec<u32>,
    stamp: u32,
}

impl Lists {
    pub(super) fn forget(&mut self, program: &Program) {
        self.used = 0;
        self.by_aims.clear();
        self.by_aims.resize(program.aims.len(), NONE);
        self.by_feed.clear();
        self.by_feed.resize(program.feeds.len(), NONE);
        self.reduced.clear();
        self.reduced_bases.clear();
    }

    /// An empty list.
    pub(super) fn open(&mut self) -> usize {
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
    pub(super) fn close(&mut self, number: usize, values: &Values) {
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
