//! Values of a transaction: bytes in one place, each known by a number, with a summary by which most
//! patterns can be told apart from it without being run.

use crate::transform::{Chain, Transform};
use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, RandomState},
};

/// A set of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct ByteSet(pub(crate) [u64; 4]);

impl ByteSet {
    pub(crate) const ALL: Self = Self([u64::MAX; 4]);

    pub(crate) const fn of(bytes: &[u8]) -> Self {
        let mut set = [0; 4];
        let mut at = 0;
        while at < bytes.len() {
            set[(bytes[at] >> 6) as usize] |= 1 << (bytes[at] & 63);
            at += 1;
        }
        Self(set)
    }

    pub(crate) const fn range(from: u8, to: u8) -> Self {
        let mut set = [0; 4];
        let mut at = from as usize;
        while at <= to as usize {
            set[at >> 6] |= 1 << (at & 63);
            at += 1;
        }
        Self(set)
    }

    pub(crate) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(crate) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    #[inline]
    pub(crate) const fn meets(&self, other: &Self) -> bool {
        (self.0[0] & other.0[0])
            | (self.0[1] & other.0[1])
            | (self.0[2] & other.0[2])
            | (self.0[3] & other.0[3])
            != 0
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1], self.0[2] | other.0[2], self.0[3] | other.0[3]])
    }

    pub(crate) fn len(&self) -> u32 {
        self.0.iter().map(|part| part.count_ones()).sum()
    }
}

/// Which pairs of neighbours a value holds, letter case aside; pairs share bits, so that a missing bit says
/// no and a set one says perhaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pairs([u64; 8]);

/// Values that are longer would hold nearly every bit.
const PAIRS_BYTES_MAX: usize = 4096;

impl Pairs {
    /// The bit of two neighbours.
    pub(crate) const fn bit(first: u8, second: u8) -> u16 {
        let (first, second) = (first.to_ascii_lowercase() as u32, second.to_ascii_lowercase() as u32);
        let mixed = (first << 8 | second).wrapping_mul(0x9e37_79b1);
        (mixed >> 23) as u16
    }

    pub(crate) fn has(&self, bit: u16) -> bool {
        self.0[usize::from(bit >> 6)] >> (bit & 63) & 1 == 1
    }

    fn of(bytes: &[u8]) -> Self {
        if bytes.len() > PAIRS_BYTES_MAX {
            return Self([u64::MAX; 8]);
        }
        let mut pairs = [0; 8];
        for pair in bytes.windows(2) {
            let bit = Self::bit(pair[0], pair[1]);
            pairs[usize::from(bit >> 6)] |= 1 << (bit & 63);
        }
        Self(pairs)
    }
}

/// What is known of a value without looking at it again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) bytes: ByteSet,
    pub(crate) pairs: Pairs,
    pub(crate) len: u32,
}

impl Summary {
    pub(crate) fn of(value: &[u8]) -> Self {
        let mut bytes = ByteSet::default();
        for byte in value {
            bytes.insert(*byte);
        }
        Self { bytes, pairs: Pairs::of(value), len: value.len() as u32 }
    }
}

/// A value of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ValueId(u32);

impl ValueId {
    /// The empty value, which always exists.
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

#[derive(Debug, Clone, Copy)]
struct Place {
    start: u32,
    /// In the bytes that transformations made, which may be given up.
    derived: bool,
}

/// Most bytes that transformed values may hold before they are given up and made anew when needed.
const DERIVED_BYTES_MAX: usize = 8 << 20;
/// Capacity that is kept for the next transaction.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// All values of a transaction.
#[derive(Debug)]
pub(crate) struct Values {
    sent: Vec<u8>,
    derived: Vec<u8>,
    places: Vec<Place>,
    summaries: Vec<Summary>,
    /// Values from outside by their hash, so that equal ones are looked at once. Keyed: an attacker cannot
    /// choose names that collide.
    known: HashMap<u64, ValueId, BuildHasherDefault<Mixer>>,
    hasher: RandomState,
    /// What became of a value along a chain of transformations, where it is not the value itself.
    transformed: HashMap<u64, ValueId, BuildHasherDefault<Mixer>>,
    /// Output of a transformation on its way into `derived`.
    scratch: Vec<u8>,
}

impl Default for Values {
    fn default() -> Self {
        let mut new = Self {
            sent: Vec::new(),
            derived: Vec::new(),
            places: Vec::new(),
            summaries: Vec::new(),
            known: HashMap::default(),
            hasher: RandomState::new(),
            transformed: HashMap::default(),
            scratch: Vec::new(),
        };
        new.clear();
        new
    }
}

impl Values {
    /// Forgets all values; memory is kept within bounds.
    pub(crate) fn clear(&mut self) {
        for buffer in [&mut self.sent, &mut self.derived, &mut self.scratch] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES_MAX);
        }
        self.places.clear();
        self.places.shrink_to(KEPT_BYTES_MAX / 64);
        self.summaries.clear();
        self.summaries.shrink_to(KEPT_BYTES_MAX / 64);
        self.known.clear();
        self.known.shrink_to(KEPT_BYTES_MAX / 64);
        self.transformed.clear();
        self.transformed.shrink_to(KEPT_BYTES_MAX / 64);
        self.places.push(Place { start: 0, derived: false });
        self.summaries.push(Summary::of(b""));
    }

    pub(crate) fn bytes(&self, id: ValueId) -> &[u8] {
        let (place, len) = (self.places[id.0 as usize], self.summaries[id.0 as usize].len as usize);
        let buffer = if place.derived { &self.derived } else { &self.sent };
        let start = place.start as usize;
        &buffer[start..start + len]
    }

    pub(crate) fn summary(&self, id: ValueId) -> &Summary {
        &self.summaries[id.0 as usize]
    }

    /// How many values there are; all numbers are below.
    pub(crate) fn count(&self) -> usize {
        self.places.len()
    }

    /// A value from outside. Equal values have one number.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> ValueId {
        if bytes.is_empty() {
            return ValueId::EMPTY;
        }
        let hash = self.hasher.hash_one(bytes);
        if let Some(known) = self.known.get(&hash).copied().filter(|known| self.bytes(*known) == bytes) {
            return known;
        }
        let start = self.sent.len() as u32;
        self.sent.extend_from_slice(bytes);
        let id = self.push(Place { start, derived: false }, Summary::of(bytes));
        self.known.insert(hash, id);
        id
    }

    /// A value that the engine made: a count, a variable.
    pub(crate) fn add_made(&mut self, bytes: &[u8]) -> ValueId {
        if bytes.is_empty() {
            return ValueId::EMPTY;
        }
        let start = self.derived.len() as u32;
        self.derived.extend_from_slice(bytes);
        self.push(Place { start, derived: true }, Summary::of(bytes))
    }

    fn push(&mut self, place: Place, summary: Summary) -> ValueId {
        let id = ValueId(self.places.len() as u32);
        self.places.push(place);
        self.summaries.push(summary);
        id
    }

    /// Whether transformed values take so much room that they should be given up.
    pub(crate) fn is_full(&self) -> bool {
        self.derived.len() > DERIVED_BYTES_MAX.max(4 * self.sent.len())
    }

    /// Gives transformed values up. Numbers of such values must not be used any more.
    pub(crate) fn give_up_derived(&mut self) {
        self.derived.clear();
        self.transformed.clear();
    }

    /// What becomes of a value along a chain of transformations; done once.
    pub(crate) fn transform(&mut self, chains: &[Chain], value: ValueId, chain: u16) -> ValueId {
        let node = &chains[usize::from(chain)];
        if node.is_identity_on(&self.summaries[value.0 as usize]) {
            return value;
        }
        let key = u64::from(value.0) << 16 | u64::from(chain);
        if let Some(known) = self.transformed.get(&key) {
            return *known;
        }
        let (before, step) = (node.before, node.step);
        let before = self.transform(chains, value, before);
        let after = self.apply(step, before);
        self.transformed.insert(key, after);
        after
    }

    fn apply(&mut self, step: Transform, value: ValueId) -> ValueId {
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let changed = step.apply(self.bytes(value), &mut out);
        let after = if changed { self.add_made(&out) } else { value };
        self.scratch = out;
        after
    }
}

/// Hashes numbers that nobody outside chooses.
#[derive(Default)]
pub(crate) struct Mixer(u64);

impl std::hash::Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, n: u64) {
        let mixed = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_values_have_one_number() {
        let mut values = Values::default();
        let (a, b, c) = (values.add(b"x"), values.add(b"y"), values.add(b"x"));
        assert!(a == c && a != b && values.add(b"") == ValueId::EMPTY);
        assert_eq!((values.bytes(a), values.bytes(b)), (&b"x"[..], &b"y"[..]));
        values.clear();
        assert_eq!(values.bytes(ValueId::EMPTY), b"");
    }

    proptest! {
        #[test]
        fn a_summary_holds_every_byte_and_pair(value: Vec<u8>) {
            let summary = Summary::of(&value);
            prop_assert!(value.iter().all(|byte| summary.bytes.contains(*byte)));
            prop_assert!(value.windows(2).all(|pair| summary.pairs.has(Pairs::bit(pair[0], pair[1]))));
            let upper = value.to_ascii_uppercase();
            prop_assert!(upper.windows(2).all(|pair| summary.pairs.has(Pairs::bit(pair[0], pair[1]))));
        }
    }
}
