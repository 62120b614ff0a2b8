//! The bounded store: sharded, weighed in bytes, oldest use out first.

use crate::{control::CacheControl, entry::Entry, key::Key};
use http::HeaderMap;
use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

const SHARDS: usize = 16;

/// Limits of the store.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in all. Default 64 MiB.
    pub bytes_max: usize,
    /// Bytes of one response. Default 4 MiB.
    pub entry_bytes_max: usize,
    /// Variants of one address. Default 16.
    pub variants_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 64 * 1024 * 1024, entry_bytes_max: 4 * 1024 * 1024, variants_max: 16 }
    }
}

/// What a look-up found.
#[derive(Debug)]
pub enum Found {
    /// A fresh response for this request.
    Fresh(Entry),
    /// One that is not fresh any more.
    Stale,
    /// Nothing.
    Nothing,
}

/// The store. Shared by all workers.
pub struct Cache {
    limits: Limits,
    generation: AtomicU64,
    shards: Vec<Mutex<Shard>>,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Key, Slot>,
    /// When each key was used last, oldest first.
    uses: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
}

struct Slot {
    variants: Vec<Entry>,
    used: u64,
    generation: u64,
}

impl Slot {
    fn bytes(&self) -> usize {
        self.variants.iter().map(Entry::bytes).sum()
    }
}

impl Cache {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { limits, generation: AtomicU64::new(0), shards }
    }

    /// Largest response that is stored, in bytes.
    pub fn entry_bytes_max(&self) -> usize {
        self.limits.entry_bytes_max
    }

    /// The generation now: a response whose fetch began in an earlier one is not stored.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Forgets everything that is stored or being fetched.
    pub fn purge_all(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Looks a request up.
    pub fn look_up(&self, key: &Key, asked: &HeaderMap, control: &CacheControl, now: SystemTime) -> Found {
        let generation = self.generation();
        let mut shard = self.shard(key);
        let shard = &mut *shard;
        let Some(slot) = shard.entries.get_mut(key).filter(|slot| slot.generation == generation) else {
            return Found::Nothing;
        };
        // The newest first: an origin may begin to vary while an answer for everybody is still there.
        let Some(entry) = slot.variants.iter().rev().find(|entry| entry.matches(asked)) else {
            return Found::Nothing;
        };
        if !entry.is_fresh(control, now) {
            return Found::Stale;
        }
        let entry = entry.clone();
        shard.uses.remove(&slot.used);
        shard.clock += 1;
        slot.used = shard.clock;
        shard.uses.insert(shard.clock, key.clone());
        Found::Fresh(entry)
    }

    /// Stores a response whose fetch began in `generation`; true when it was.
    pub fn store(&self, key: Key, entry: Entry, generation: u64) -> bool {
        let per_shard = self.limits.bytes_max / SHARDS;
        let fits = entry.bytes() <= self.limits.entry_bytes_max && entry.bytes() + key.len() <= per_shard;
        if !fits || generation != self.generation() {
            return false;
        }
        let mut shard = self.shard(&key);
        let shard = &mut *shard;
        let mut variants = match shard.entries.remove(&key) {
            Some(slot) => {
                shard.uses.remove(&slot.used);
                shard.bytes -= slot.bytes() + key.len();
                if slot.generation == generation { slot.variants } else { Vec::new() }
            }
            None => Vec::new(),
        };
        variants.retain(|other| !other.same_variant(&entry));
        if variants.len() >= self.limits.variants_max {
            variants.remove(0);
        }
        variants.push(entry);
        shard.clock += 1;
        let slot = Slot { variants, used: shard.clock, generation };
        shard.bytes += slot.bytes() + key.len();
        shard.uses.insert(shard.clock, key.clone());
        shard.entries.insert(key, slot);
        while shard.bytes > per_shard {
            let Some((_, oldest)) = shard.uses.pop_first() else { break };
            if let Some(slot) = shard.entries.remove(&oldest) {
                shard.bytes -= slot.bytes() + oldest.len();
            }
        }
        true
    }

    fn shard(&self, key: &Key) -> std::sync::MutexGuard<'_, Shard> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.shards[hasher.finish() as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
