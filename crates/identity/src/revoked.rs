//! What was revoked, as far as a gateway knows from the session feed.
//!
//! Memory is bounded. When a customer revokes more than fits, all of its tokens that were made before count as
//! revoked, which is safe: sessions get new tokens, and those that ended get none.

use crate::{claims::Claims, fault::TokenFault};
use bastide_types::feed::{Entry, Feed, REVOKED_FOR_S, What};
use std::collections::HashMap;

/// Entries that are kept for all customers together.
pub const ENTRIES_MAX: usize = 200_000;

/// What was revoked.
#[derive(Debug)]
pub struct Revoked {
    life: u64,
    last: u64,
    said_at_s: u64,
    customers: HashMap<String, Customer>,
    count: usize,
    entries_max: usize,
    swept_at_s: u64,
}

/// Time between two looks for what may be forgotten, in seconds.
const SWEEP_EVERY_S: u64 = 60;

/// What became of a part of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// It fits what was known. Whether it revoked anything.
    Fits(bool),
    /// Something between what was known and this part is missing, or it is of another life: ask for it.
    Missing,
}

/// What one customer revoked.
#[derive(Debug, Default)]
struct Customer {
    /// Tokens of an earlier epoch are refused.
    floor: u64,
    /// Number of the newest entry.
    newest: u64,
    /// Seconds since 1970 after which the floor need not be known any more.
    floor_until_s: u64,
    ended: HashMap<String, u64>,
    subjects: HashMap<String, Cut>,
    clients: HashMap<String, Cut>,
}

/// Tokens of an earlier epoch are refused.
#[derive(Debug, Clone, Copy)]
struct Cut {
    epoch: u64,
    until_s: u64,
}

impl Default for Revoked {
    fn default() -> Self {
        Self::bounded(ENTRIES_MAX)
    }
}

impl Revoked {
    /// Nothing yet; keeps at most so many entries.
    pub fn bounded(entries_max: usize) -> Self {
        let (life, last, said_at_s, swept_at_s) = (0, 0, 0, 0);
        Self { life, last, said_at_s, customers: HashMap::new(), count: 0, entries_max, swept_at_s }
    }

    /// Which life and which number are known last.
    pub fn position(&self) -> (u64, u64) {
        (self.life, self.last)
    }

    /// Whether the feed was ever heard.
    pub fn is_known(&self) -> bool {
        self.said_at_s > 0
    }

    /// Whether the Platform was not heard for more than `limit_s` seconds.
    pub fn is_stale(&self, limit_s: u64, now_s: u64) -> bool {
        now_s > self.said_at_s.saturating_add(limit_s)
    }

    /// Whether nothing that was revoked since then is forgotten. Only tokens that live longer than they say need ask.
    pub fn remembers_since(&self, at_s: u64) -> bool {
        self.swept_at_s < at_s.saturating_add(REVOKED_FOR_S)
    }

    /// Takes a part that passed [`Feed::check`].
    pub fn take(&mut self, feed: &Feed, now_s: u64) -> Took {
        if feed.life != self.life || feed.after > self.last || !self.is_known() {
            return Took::Missing;
        }
        Took::Fits(self.add(feed, now_s))
    }

    /// Begins anew with the whole feed, in parts of which the first begins at 0.
    pub fn replace(&mut self, parts: &[Feed], now_s: u64) {
        let mut fresh = Self::bounded(self.entries_max);
        for part in parts {
            fresh.life = part.life;
            fresh.add(part, now_s);
        }
        *self = fresh;
    }

    fn add(&mut self, feed: &Feed, now_s: u64) -> bool {
        let known = self.last;
        let mut revokes = false;
        for entry in feed.entries.iter().filter(|entry| entry.number > known) {
            revokes |= self.add_entry(entry);
        }
        self.last = self.last.max(feed.last);
        // A part that was overtaken by a later one does not show that nothing is missing; and nobody speaks in the
        // future.
        if feed.last == self.last && !feed.more {
            self.said_at_s = self.said_at_s.max(feed.at_s.min(now_s));
        }
        if now_s >= self.swept_at_s.saturating_add(SWEEP_EVERY_S) {
            self.sweep(now_s);
        }
        if self.count > self.entries_max {
            self.shrink(now_s);
        }
        revokes
    }

    fn add_entry(&mut self, entry: &Entry) -> bool {
        if entry.what == What::Began {
            return false;
        }
        let customer = self.customers.entry(entry.customer.to_string()).or_default();
        customer.newest = entry.number;
        let cut = Cut { epoch: entry.number, until_s: entry.until_s };
        let before = match entry.what {
            What::Session => customer.ended.insert(entry.id.clone(), entry.until_s).is_some(),
            What::Subject => customer.subjects.insert(entry.id.clone(), cut).is_some(),
            What::Client => customer.clients.insert(entry.id.clone(), cut).is_some(),
            What::Customer | What::Began => {
                self.count -= customer.raise(entry.number, entry.until_s);
                true
            }
        };
        self.count += usize::from(!before);
        true
    }

    /// Makes room: what nobody needs to know goes first, then whoever holds the most is cut off whole.
    fn shrink(&mut self, now_s: u64) {
        self.sweep(now_s);
        while self.count > self.entries_max {
            let Some(largest) = self.customers.values_mut().max_by_key(|customer| customer.len()) else {
                return;
            };
            let until_s = largest.until_s();
            self.count -= largest.raise(largest.newest, until_s);
        }
    }

    /// Forgets what no token can be of any more.
    pub fn sweep(&mut self, now_s: u64) {
        self.swept_at_s = now_s;
        for customer in self.customers.values_mut() {
            customer.ended.retain(|_, until_s| *until_s > now_s);
            customer.subjects.retain(|_, cut| cut.until_s > now_s);
            customer.clients.retain(|_, cut| cut.until_s > now_s);
        }
        self.customers.retain(|_, customer| customer.len() > 0 || customer.floor_until_s > now_s);
        self.count = self.customers.values().map(Customer::len).sum();
    }

    /// Whether a token still counts. Its signature is not looked at.
    ///
    /// # Errors
    /// [`TokenFault::Revoked`].
    pub fn check(&self, claims: &Claims) -> Result<(), TokenFault> {
        let Some(customer) = self.customers.get(&claims.org) else { return Ok(()) };
        let is_cut =
            |cuts: &HashMap<String, Cut>, id: &str| cuts.get(id).is_some_and(|cut| claims.epoch < cut.epoch);
        let dead = claims.epoch < customer.floor
            || customer.ended.contains_key(&claims.sid)
            || is_cut(&customer.subjects, &claims.sub)
            || is_cut(&customer.clients, &claims.client_id);
        if dead { Err(TokenFault::Revoked) } else { Ok(()) }
    }

    /// Entries that are kept.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.customers.is_empty()
    }
}

impl Customer {
    fn len(&self) -> usize {
        self.ended.len() + self.subjects.len() + self.clients.len()
    }

    /// When the last of its entries need not be known any more.
    fn until_s(&self) -> u64 {
        let cuts = self.subjects.values().chain(self.clients.values()).map(|cut| cut.until_s);
        cuts.chain(self.ended.values().copied()).max().unwrap_or(0)
    }

    /// Refuses all tokens of an earlier epoch, which makes every entry superfluous; how many there were.
    fn raise(&mut self, epoch: u64, until_s: u64) -> usize {
        let held = self.len();
        self.floor = self.floor.max(epoch);
        self.floor_until_s = self.floor_until_s.max(until_s);
        self.ended.clear();
        self.subjects.clear();
        self.clients.clear();
        held
    }
}
