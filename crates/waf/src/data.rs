//! What a transaction knows of its request and its answer: named values and single ones.

use crate::{
    value::{ValueId, Values},
    variable::{Collection, Flag, Scalar},
};

/// A named value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    /// Name within its collection, as sent.
    pub(crate) key: ValueId,
    pub(crate) value: ValueId,
}

/// Everything that rules can ask for, but for `TX` and what belongs to the evaluation itself.
#[derive(Debug, Default)]
pub(crate) struct Data {
    collections: [Vec<Item>; Collection::COUNT],
    scalars: [Option<ValueId>; Scalar::COUNT],
    flags: u32,
}

impl Data {
    pub(crate) fn clear(&mut self) {
        self.collections.iter_mut().for_each(Vec::clear);
        self.scalars = [None; Scalar::COUNT];
        self.flags = 0;
    }

    pub(crate) fn of(&self, collection: Collection) -> &[Item] {
        &self.collections[collection as usize]
    }

    pub(crate) fn add(&mut self, collection: Collection, key: ValueId, value: ValueId) {
        self.collections[collection as usize].push(Item { key, value });
    }

    pub(crate) fn forget(&mut self, collection: Collection) {
        self.collections[collection as usize].clear();
    }

    pub(crate) fn scalar(&self, scalar: Scalar) -> Option<ValueId> {
        self.scalars[scalar as usize]
    }

    pub(crate) fn set(&mut self, scalar: Scalar, value: ValueId) {
        self.scalars[scalar as usize] = Some(value);
    }

    pub(crate) fn flag(&self, flag: Flag) -> bool {
        self.flags >> flag as u32 & 1 == 1
    }

    pub(crate) fn raise(&mut self, flag: Flag) {
        self.flags |= 1 << flag as u32;
    }

    /// Bytes of all names and values of the arguments.
    pub(crate) fn arguments_size(&self, values: &Values) -> usize {
        let len = |id| values.summary(id).len as usize;
        let all = self.of(Collection::ArgsGet).iter().chain(self.of(Collection::ArgsPost));
        all.map(|item| len(item.key) + len(item.value)).sum()
    }
}
