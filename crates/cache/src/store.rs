//! The bounded store: sharded, weighed in bytes, fair between customers, and not to be emptied by a scan.
//!
//! A hit takes the lock of one shard for the time of one look-up and copies nothing; it only counts the use.
//! A new response enters a small window in the order of arrival. What falls out of the window unused must be
//! asked for more often than what would have to leave for it (TinyLFU), or it is forgotten.
//!
//! Each customer has a share. When the store is full, the largest share gives way, so that nobody is pushed
//! below an equal part of the store by others.

use crate::{
    Moment,
    grounds::Grounds,
    key::{Hashed, Key},
    purge::Purges,
    sketch::Sketch,
    stored::Stored,
    tally::Tally,
    vary::Variant,
    why::NotStored,
};
use bastide_types::Purge;
use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasherDefault,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

const SHARDS: usize = 128;
/// Invalidations are counted in so many buckets; two addresses may share one, which only costs a store.
const BUCKETS: usize = 4096;
/// Places for addresses whose answers are not for others.
const MARKS: usize = 16 * 1024;
/// Part of a share that new responses wait in: one tenth.
const WINDOW_PART: usize = 10;
/// Uses of a response that are remembered for when its turn to leave comes.
const USES_MAX: u8 = 3;
/// Most responses that one is weighed against.
const RIVALS_MAX: usize = 32;

/// Limits of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all. Default 256 MiB.
    pub bytes_max: usize,
    /// Bytes of one response. Default 16 MiB.
    pub entry_bytes_max: usize,
    /// Bytes of one customer. Default 128 MiB.
    pub customer_bytes_max: usize,
    /// Variants of one address. Default 64.
    pub variants_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            bytes_max: 256 * MIB,
            entry_bytes_max: 16 * MIB,
            customer_bytes_max: 128 * MIB,
            variants_max: 64,
        }
    }
}

/// What the store has done since it was made, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Bytes held.
    pub bytes: usize,
    /// Addresses held.
    pub addresses: usize,
    /// Responses that were stored.
    pub stored: u64,
    /// Addresses that had to leave for others.
    pub evicted: u64,
}

/// The store. Shared by all workers.
pub struct Cache {
    limits: Limits,
    shards: Box<[Mutex<Shard>]>,
    sketch: Sketch,
    voids: Box<[AtomicU64]>,
    marks: Box<[AtomicU64]>,
    grounds: Grounds,
    /// Counts purges; what a fetch began at tells whether a purge is later.
    tick: AtomicU64,
    bytes: AtomicUsize,
    stored: AtomicU64,
    evicted: AtomicU64,
    shares: Mutex<HashMap<String, Weak<Share>>>,
    apps: Mutex<HashMap<Vec<String>, Weak<AppPart>>>,
}

type Shard = HashMap<Key, Arc<Slot>, BuildHasherDefault<Hashed>>;

/// One app's part of the cache: whose share it counts against, its purges, and what is counted of it.
#[derive(Debug)]
pub struct Space {
    share: Arc<Share>,
    app: Arc<AppPart>,
}

/// What all spaces of one app have together.
#[derive(Debug, Default)]
struct AppPart {
    purges: Purges,
    tally: Tally,
}

impl Space {
    /// Its purges.
    pub fn purges(&self) -> &Purges {
        &self.app.purges
    }

    /// What is counted of the app.
    pub fn tally(&self) -> &Tally {
        &self.app.tally
    }

    /// Bytes that the customer's share holds.
    pub fn share_bytes(&self) -> usize {
        self.share.bytes.load(Ordering::Relaxed)
    }
}

/// A customer's share.
#[derive(Debug, Default)]
struct Share {
    bytes: AtomicUsize,
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    window: VecDeque<Arc<Seat>>,
    window_bytes: usize,
    main: VecDeque<Arc<Seat>>,
    main_bytes: usize,
    /// Seats that were given up and still stand in a queue.
    gone: usize,
}

/// An address's seat in a queue of its share.
#[derive(Debug)]
struct Seat {
    key: Key,
    app: Arc<AppPart>,
    uses: AtomicU8,
    is_gone: AtomicBool,
    is_in_main: AtomicBool,
    weight: AtomicUsize,
    /// Weight that its queue counts it with.
    counted: AtomicUsize,
}

/// Everything that is stored under one address. Never changed, only replaced.
#[derive(Debug)]
pub struct Slot {
    /// The variants, oldest first.
    pub variants: Vec<Arc<Stored>>,
    born: Vec<u64>,
    used: Vec<AtomicU32>,
    checked: AtomicU64,
    space: Arc<Space>,
    seat: Arc<Seat>,
}

/// What a fetch began with: what it brings is stored only if nothing made it invalid meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    tick: u64,
    void: u64,
}

impl Slot {
    fn new(
        space: &Arc<Space>,
        seat: &Arc<Seat>,
        variants: Vec<(Arc<Stored>, u64, u32)>,
        checked: u64,
    ) -> Arc<Self> {
        let weight = seat.key.len() * 2
            + size_of::<Self>()
            + size_of::<Seat>()
            + variants.iter().map(|(stored, ..)| stored.weight() + 64).sum::<usize>();
        seat.weight.store(weight, Ordering::Relaxed);
        Arc::new(Self {
            born: variants.iter().map(|(_, born, _)| *born).collect(),
            used: variants.iter().map(|(.., used)| AtomicU32::new(*used)).collect(),
            variants: variants.into_iter().map(|(stored, ..)| stored).collect(),
            checked: AtomicU64::new(checked),
            space: space.clone(),
            seat: seat.clone(),
        })
    }

    fn parts(&self) -> impl Iterator<Item = (Arc<Stored>, u64, u32)> {
        let used = self.used.iter().map(|used| used.load(Ordering::Relaxed));
        self.variants
            .iter()
            .zip(&self.born)
            .zip(used)
            .map(|((stored, born), used)| (stored.clone(), *born, used))
    }
}

impl Cache {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        let counters = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            // About as many addresses as there would be with 8 KiB each.
            sketch: Sketch::new((limits.bytes_max / 8192).clamp(1024, 8 * 1024 * 1024)),
            voids: counters(BUCKETS),
            marks: counters(MARKS),
            grounds: Grounds::new(),
            tick: AtomicU64::new(1),
            bytes: AtomicUsize::new(0),
            stored: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            shares: Mutex::default(),
            apps: Mutex::default(),
            limits,
        }
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What it has done and holds.
    pub fn figures(&self) -> Figures {
        Figures {
            bytes: self.bytes.load(Ordering::Relaxed),
            addresses: self.shards.iter().map(|shard| lock(shard).len()).sum(),
            stored: self.stored.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// The space of an app (customer, stage, app) in a customer's share. The same names give the same space as
    /// long as anything of it is stored.
    pub fn space(&self, customer: &str, app: &[&str]) -> Arc<Space> {
        let share = shared(&self.shares, customer.to_owned());
        let app = shared(&self.apps, app.iter().map(|part| (*part).to_owned()).collect());
        Arc::new(Space { share, app })
    }

    /// What is stored under a key and not purged; counts the use.
    pub fn look_up(&self, key: &Key) -> Option<Arc<Slot>> {
        self.sketch.add(key.hash());
        let slot = lock(self.shard(key)).get(key).cloned()?;
        let slot = self.unpurged(slot)?;
        let uses = slot.seat.uses.load(Ordering::Relaxed);
        if uses < USES_MAX {
            slot.seat.uses.store(uses + 1, Ordering::Relaxed);
        }
        Some(slot)
    }

    /// The same, without counting a use.
    pub fn peek(&self, key: &Key) -> Option<Arc<Slot>> {
        let slot = lock(self.shard(key)).get(key).cloned()?;
        self.unpurged(slot)
    }

    /// Notes that a variant was used, so that others leave before it when there are too many.
    pub fn touch(&self, slot: &Slot, variant: usize, now: Moment) {
        if let Some(used) = slot.used.get(variant)
            && slot.variants.len() > 1
        {
            used.store((now.steady_ms / 1000) as u32, Ordering::Relaxed);
        }
    }

    /// Usually one comparison: only after a purge is each address looked at more closely, once.
    fn unpurged(&self, slot: Arc<Slot>) -> Option<Arc<Slot>> {
        let latest = slot.space.purges().latest();
        if slot.checked.load(Ordering::Acquire) >= latest {
            return Some(slot);
        }
        let target = slot.seat.key.target();
        let is_purged = |stored: &Stored, born| slot.space.purges().means(target, stored, born);
        if !slot.variants.iter().zip(&slot.born).any(|(stored, born)| is_purged(stored, *born)) {
            slot.checked.fetch_max(latest, Ordering::AcqRel);
            return Some(slot);
        }
        let kept = slot.parts().filter(|(stored, born, _)| !is_purged(stored, *born)).collect();
        self.replace(&slot, kept, latest)
    }

    /// Puts other variants in the place of a slot, unless another one has taken it meanwhile.
    fn replace(
        &self,
        old: &Arc<Slot>,
        variants: Vec<(Arc<Stored>, u64, u32)>,
        checked: u64,
    ) -> Option<Arc<Slot>> {
        let key = &old.seat.key;
        let mut shard = lock(self.shard(key));
        match shard.get(key) {
            Some(current) if Arc::ptr_eq(current, old) => {}
            // Whoever stored something since has looked at the purges, too, or will.
            Some(current) => {
                let current = current.clone();
                drop(shard);
                return (current.checked.load(Ordering::Acquire) >= checked).then_some(current);
            }
            None => return None,
        }
        if variants.is_empty() {
            shard.remove(key);
            drop(shard);
            self.give_up(&old.space.share, &old.seat, true);
            return None;
        }
        let slot = Slot::new(&old.space, &old.seat, variants, checked);
        shard.insert(key.clone(), slot.clone());
        drop(shard);
        self.reweigh(&old.space.share, &old.seat);
        Some(slot)
    }

    /// Begins a fetch.
    pub fn begin(&self, key: &Key) -> Ticket {
        Ticket { tick: self.tick.load(Ordering::Acquire), void: self.void(key).load(Ordering::Acquire) }
    }

    /// Whether what a fetch brings that began with this ticket is not invalid by now. A purge of anything of the
    /// app counts here: asking once more costs little.
    pub fn is_current(&self, space: &Space, key: &Key, ticket: Ticket) -> bool {
        self.void(key).load(Ordering::Acquire) == ticket.void && space.purges().latest() <= ticket.tick
    }

    /// Stores a response in the place of its own variant, if nothing made it invalid since its fetch began.
    ///
    /// # Errors
    /// Why it is not stored.
    pub fn store(
        &self,
        space: &Arc<Space>,
        key: &Key,
        stored: Stored,
        ticket: Ticket,
    ) -> Result<Arc<Stored>, NotStored> {
        let weight = stored.weight() + key.len() * 2 + 512;
        if weight > self.limits.entry_bytes_max
            || weight > self.limits.bytes_max.min(self.limits.customer_bytes_max)
        {
            return Err(NotStored::TooLarge);
        }
        let stored = Arc::new(stored);
        let mut shard = lock(self.shard(key));
        if self.void(key).load(Ordering::Acquire) != ticket.void {
            return Err(NotStored::Overtaken);
        }
        let used = (stored.received().steady_ms / 1000) as u32;
        let latest = space.purges().latest();
        let old = shard.get(key).cloned();
        let seat = old.as_ref().map(|old| old.seat.clone());
        let mut variants: Vec<_> = match &old {
            Some(old) => {
                let is_purged = |stored: &Stored, born| old.space.purges().means(key.target(), stored, born);
                let checked = old.checked.load(Ordering::Acquire) >= latest;
                old.parts().filter(|(stored, born, _)| checked || !is_purged(stored, *born)).collect()
            }
            None => Vec::new(),
        };
        if variants.iter().any(|(other, ..)| is_kept_against(other, &stored)) {
            return Err(NotStored::Older);
        }
        variants.retain(|(other, ..)| other.variant != stored.variant);
        if variants.len() >= self.limits.variants_max.max(1) {
            let least = variants.iter().enumerate().min_by_key(|(_, (.., used))| *used).map(|(at, _)| at);
            variants.remove(least.unwrap_or(0));
        }
        variants.push((stored.clone(), ticket.tick, used));
        let is_new = seat.is_none();
        let seat = seat.unwrap_or_else(|| Arc::new(Seat::new(key.clone(), &space.app)));
        // A purge that came since is compared with when each fetch began, at the next look-up.
        let checked = ticket.tick.min(latest);
        shard.insert(key.clone(), Slot::new(space, &seat, variants, checked));
        drop(shard);
        self.stored.fetch_add(1, Ordering::Relaxed);
        space.tally().stored.fetch_add(1, Ordering::Relaxed);
        if is_new {
            let mut queues = lock(&space.share.queues);
            // Somebody may have made it invalid again already.
            if !seat.is_gone() {
                self.recount(&space.share, &mut queues, &seat, seat.weight.load(Ordering::Relaxed));
                queues.window.push_back(seat);
            }
        } else {
            self.reweigh(&space.share, &seat);
        }
        self.make_room(&space.share);
        Ok(stored)
    }

    /// Puts another response in the place of one that is stored: an update of its head. Nothing happens when
    /// that one is not there any more.
    pub fn update(&self, key: &Key, old: &Arc<Stored>, new: Option<Stored>) -> Option<Arc<Stored>> {
        let slot = self.peek(key)?;
        let new = new.map(Arc::new);
        let mut found = false;
        let mut variants = Vec::with_capacity(slot.variants.len());
        for (stored, born, used) in slot.parts() {
            if Arc::ptr_eq(&stored, old) {
                found = true;
                variants.extend(new.clone().map(|new| (new, born, used)));
            } else if new.as_ref().is_none_or(|new| new.variant != stored.variant) {
                variants.push((stored, born, used));
            }
        }
        if found {
            self.replace(&slot, variants, slot.checked.load(Ordering::Acquire));
        }
        new.filter(|_| found)
    }

    /// Forgets what is stored under a key, and what is being fetched for it.
    pub fn invalidate(&self, key: &Key) {
        self.void(key).fetch_add(1, Ordering::AcqRel);
        let removed = lock(self.shard(key)).remove(key);
        if let Some(slot) = removed {
            self.give_up(&slot.space.share, &slot.seat, true);
        }
    }

    /// Purges a part of an app's stored responses, and of what is being fetched.
    pub fn purge(&self, space: &Space, purge: Purge) {
        let tick = self.tick.fetch_add(1, Ordering::AcqRel) + 1;
        space.purges().add(purge, tick);
    }

    /// Applies purges of the control plane that are newer than those in force. `all_before` is the number up to
    /// which purges are not listed any more: an app that has not seen them all is purged whole.
    pub fn apply_purges(&self, space: &Space, purges: &[(u64, Purge)], all_before: u64) {
        let applied = space.purges().applied();
        if applied < all_before {
            self.purge(space, Purge::All);
        }
        for (number, purge) in purges.iter().filter(|(number, _)| *number > applied) {
            self.purge(space, purge.clone());
            space.purges().set_applied(*number);
        }
        space.purges().set_applied(all_before);
    }

    /// Remembers for some seconds that answers under a key are not for others, so that requests do not wait
    /// for each other.
    pub fn mark_unshared(&self, key: &Key, now: Moment, seconds: u64) {
        let until = (now.steady_ms / 1000 + seconds) & 0xffff_ffff;
        self.mark(key).store(key.hash() >> 32 << 32 | until, Ordering::Relaxed);
    }

    /// Whether answers under a key were not for others just now.
    pub fn is_unshared(&self, key: &Key, now: Moment) -> bool {
        let mark = self.mark(key).load(Ordering::Relaxed);
        mark >> 32 == key.hash() >> 32 && mark & 0xffff_ffff > now.steady_ms / 1000
    }

    /// Remembers why an answer under a key was not stored.
    pub fn note_ground(&self, key: &Key, why: NotStored, now: Moment) {
        self.grounds.note(key, why, now);
    }

    /// Why an answer under a key was last not stored, and how many seconds ago, if that is still known.
    pub fn ground(&self, key: &Key, now: Moment) -> Option<(NotStored, u64)> {
        self.grounds.of(key, now)
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[(key.hash() >> 48) as usize % SHARDS]
    }

    fn void(&self, key: &Key) -> &AtomicU64 {
        &self.voids[key.hash() as usize % BUCKETS]
    }

    fn mark(&self, key: &Key) -> &AtomicU64 {
        &self.marks[key.hash() as usize % MARKS]
    }

    /// Counts a seat with another weight, wherever it is counted.
    fn recount(&self, share: &Share, queues: &mut Queues, seat: &Seat, now: usize) {
        let before = seat.counted.swap(now, Ordering::Relaxed);
        let queue = if seat.is_in_main.load(Ordering::Relaxed) {
            &mut queues.main_bytes
        } else {
            &mut queues.window_bytes
        };
        *queue = *queue + now - before;
        for bytes in [&self.bytes, &share.bytes, &seat.app.tally.bytes] {
            bytes.fetch_add(now, Ordering::Relaxed);
            bytes.fetch_sub(before, Ordering::Relaxed);
        }
    }

    /// Counts a seat with the weight that it has now.
    fn reweigh(&self, share: &Share, seat: &Seat) {
        let mut queues = lock(&share.queues);
        if !seat.is_gone() {
            self.recount(share, &mut queues, seat, seat.weight.load(Ordering::Relaxed));
        }
    }

    /// A seat whose address is stored no more. One that stands in a queue leaves it when its turn comes, or when
    /// many have gone.
    fn give_up(&self, share: &Share, seat: &Seat, stands: bool) -> bool {
        let mut queues = lock(&share.queues);
        if seat.is_gone.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.recount(share, &mut queues, seat, 0);
        queues.gone += usize::from(stands);
        if queues.gone > 64 && queues.gone * 2 > queues.window.len() + queues.main.len() {
            queues.sweep();
        }
        true
    }

    fn make_room(&self, share: &Arc<Share>) {
        while share.bytes.load(Ordering::Relaxed) > self.limits.customer_bytes_max {
            if !self.evict(share) {
                break;
            }
        }
        while self.bytes.load(Ordering::Relaxed) > self.limits.bytes_max {
            let largest = {
                let shares = lock(&self.shares);
                let alive = shares.values().filter_map(Weak::upgrade);
                alive.max_by_key(|share| share.bytes.load(Ordering::Relaxed))
            };
            if !largest.is_some_and(|share| self.evict(&share)) {
                break;
            }
        }
    }

    /// Lets one address of a share leave, or several that are worth less than one that waits for a place.
    fn evict(&self, share: &Share) -> bool {
        let leaving = lock(&share.queues).choose(&self.sketch);
        for seat in &leaving {
            let mut shard = lock(self.shard(&seat.key));
            if shard.get(&seat.key).is_some_and(|slot| Arc::ptr_eq(&slot.seat, seat)) {
                shard.remove(&seat.key);
            }
            drop(shard);
            if self.give_up(share, seat, false) {
                self.evicted.fetch_add(1, Ordering::Relaxed);
                seat.app.tally.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
        !leaving.is_empty()
    }
}

/// Whether a stored response of the same variant stays where another one comes (RFC 9111 §4): it is newer by
/// its Date, or it is whole, no older in its version, and the other one is a part.
fn is_kept_against(old: &Stored, new: &Stored) -> bool {
    if old.variant != new.variant {
        return false;
    }
    let is_part_of_it =
        old.content.is_whole() && !new.content.is_whole() && old.validators.same_bytes(&new.validators);
    old.validators.date > new.validators.date || is_part_of_it
}

impl Seat {
    fn new(key: Key, app: &Arc<AppPart>) -> Self {
        Self {
            key,
            app: app.clone(),
            uses: AtomicU8::new(0),
            is_gone: AtomicBool::new(false),
            is_in_main: AtomicBool::new(false),
            weight: AtomicUsize::new(0),
            counted: AtomicUsize::new(0),
        }
    }

    fn bytes(&self) -> usize {
        self.counted.load(Ordering::Relaxed)
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

impl Queues {
    /// Whose turn it is to leave. They stay counted until they are given up.
    fn choose(&mut self, sketch: &Sketch) -> Vec<Arc<Seat>> {
        loop {
            let is_window_full = self.window_bytes > (self.window_bytes + self.main_bytes) / WINDOW_PART;
            if !is_window_full && let Some(seat) = self.next_of_main() {
                return vec![seat];
            }
            let Some(seat) = self.window.pop_front() else {
                return self.next_of_main().into_iter().collect();
            };
            if seat.is_gone() {
                self.gone = self.gone.saturating_sub(1);
                continue;
            }
            let all = self.window_bytes + self.main_bytes;
            let has_room = self.main_bytes + seat.bytes() <= all - all / WINDOW_PART;
            if seat.uses.swap(0, Ordering::Relaxed) > 0 || has_room {
                self.enter_main(seat);
                continue;
            }
            return self.weigh(seat, sketch);
        }
    }

    /// A response that leaves the window unused against those that would have to leave for it: together they
    /// must be asked for less often (TinyLFU, with the sizes counted).
    fn weigh(&mut self, seat: Arc<Seat>, sketch: &Sketch) -> Vec<Arc<Seat>> {
        let own = sketch.count(seat.key.hash());
        let (mut rivals, mut freed, mut sum) = (Vec::new(), 0, 0);
        while freed < seat.bytes() && rivals.len() < RIVALS_MAX && sum < own {
            let Some(rival) = self.next_of_main() else { break };
            freed += rival.bytes();
            sum += sketch.count(rival.key.hash());
            rivals.push(rival);
        }
        if freed >= seat.bytes() && sum < own {
            self.enter_main(seat);
            return rivals;
        }
        self.main.extend(rivals);
        vec![seat]
    }

    fn enter_main(&mut self, seat: Arc<Seat>) {
        if !seat.is_in_main.swap(true, Ordering::Relaxed) {
            self.window_bytes -= seat.bytes();
            self.main_bytes += seat.bytes();
        }
        self.main.push_back(seat);
    }

    /// The first of the main queue that was not used since its last turn; the others go round once more.
    fn next_of_main(&mut self) -> Option<Arc<Seat>> {
        loop {
            let seat = self.main.pop_front()?;
            if seat.is_gone() {
                self.gone = self.gone.saturating_sub(1);
                continue;
            }
            let uses = seat.uses.load(Ordering::Relaxed);
            if uses == 0 {
                return Some(seat);
            }
            seat.uses.store(uses - 1, Ordering::Relaxed);
            self.main.push_back(seat);
        }
    }

    /// Takes the seats out that were given up.
    fn sweep(&mut self) {
        self.window.retain(|seat| !seat.is_gone());
        self.main.retain(|seat| !seat.is_gone());
        self.gone = 0;
    }
}

/// The value that is shared under a name as long as anybody holds it.
fn shared<N, V>(known: &Mutex<HashMap<N, Weak<V>>>, name: N) -> Arc<V>
where
    N: std::hash::Hash + Eq,
    V: Default,
{
    let mut known = lock(known);
    if let Some(value) = known.get(&name).and_then(Weak::upgrade) {
        return value;
    }
    known.retain(|_, value| value.strong_count() > 0);
    let value = Arc::<V>::default();
    known.insert(name, Arc::downgrade(&value));
    value
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The variant that requests like this one would get, by the fields that count under a key now: what may wait
/// for one answer together.
pub fn expected(slot: Option<&Slot>, asked: &http::HeaderMap) -> Variant {
    let mut names: Vec<_> =
        slot.iter().flat_map(|slot| &slot.variants).flat_map(|v| v.variant.names().cloned()).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Variant::by(asked, names)
}
