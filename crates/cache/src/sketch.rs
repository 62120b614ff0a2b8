//! How often addresses are asked for, roughly: small counters in one piece of memory of fixed size
//! (a count-min sketch as in TinyLFU), halved now and then so that what was popular may be forgotten.

use std::sync::atomic::{AtomicU64, Ordering};

/// Words of one block: the counters of an address lie in one line of the processor's cache.
const BLOCK: usize = 8;
const COUNTERS: u32 = 4;
/// Largest count.
pub(crate) const COUNT_MAX: u64 = 15;

/// Counts of about as many addresses as it was made for.
pub(crate) struct Sketch {
    words: Box<[AtomicU64]>,
    /// Increments since the last halving.
    added: AtomicU64,
    sample: u64,
}

impl Sketch {
    /// A sketch for so many addresses.
    pub(crate) fn new(addresses: usize) -> Self {
        let blocks = (addresses / 32).next_power_of_two().max(16);
        let words = (0..blocks * BLOCK).map(|_| AtomicU64::new(0)).collect();
        Self { words, added: AtomicU64::new(0), sample: addresses.max(512) as u64 * 10 }
    }

    /// Places of the counters of a hash: a word and a shift each.
    fn places(&self, hash: u64) -> impl Iterator<Item = (&AtomicU64, u32)> {
        let blocks = self.words.len() / BLOCK;
        let block = (hash >> 32) as usize & (blocks - 1);
        (0..COUNTERS).map(move |row| {
            let bits = (hash >> (row * 8)) as u32;
            let word = block * BLOCK + row as usize * 2 + (bits & 1) as usize;
            (&self.words[word], (bits >> 1 & 15) * 4)
        })
    }

    /// How often, at most 15.
    pub(crate) fn count(&self, hash: u64) -> u64 {
        let counts = self.places(hash).map(|(word, shift)| word.load(Ordering::Relaxed) >> shift & COUNT_MAX);
        counts.min().unwrap_or(0)
    }

    /// Counts one use. A count may be lost when two threads meet; that is as good as any other sample.
    pub(crate) fn add(&self, hash: u64) {
        let mut added = false;
        for (word, shift) in self.places(hash) {
            let counts = word.load(Ordering::Relaxed);
            if counts >> shift & COUNT_MAX < COUNT_MAX {
                word.store(counts + (1 << shift), Ordering::Relaxed);
                added = true;
            }
        }
        if added && self.added.fetch_add(1, Ordering::Relaxed) + 1 == self.sample {
            self.halve();
        }
    }

    fn halve(&self) {
        self.added.store(self.sample / 2, Ordering::Relaxed);
        for word in &self.words {
            let half = word.load(Ordering::Relaxed) >> 1 & 0x7777_7777_7777_7777;
            word.store(half, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_grow_to_a_limit_and_are_halved() {
        let sketch = Sketch::new(1024);
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..20 {
            sketch.add(hash(1));
        }
        assert_eq!(sketch.count(hash(1)), COUNT_MAX);
        assert_eq!(sketch.count(hash(2)), 0);
        sketch.halve();
        assert_eq!(sketch.count(hash(1)), COUNT_MAX / 2);
    }

    #[test]
    fn few_addresses_are_taken_for_others() {
        let sketch = Sketch::new(4096);
        let hash = |n: u64| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..2048).for_each(|n| sketch.add(hash(n)));
        let wrong = (0..2048).filter(|n| sketch.count(hash(*n)) != 1).count();
        assert!(wrong < 400, "{wrong} of 2048");
    }
}
