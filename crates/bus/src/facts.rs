//! Facts about replicas: each stage's agent tells its full list to edges and gateways directly, so
//! they know who is ready even while the platform is away.
//!
//! Facts count for the account that the broker wrote, and only if newer. Silence never prunes: an agent
//! that says nothing may be cut off while its replicas serve. Which replicas a stage may have at all is
//! the Snapshot's word; readers take the intersection.

use crate::account::STAGE_PAYLOAD_BYTES_MAX;
use crate::request::{account_of, decode, encode_within};
use crate::{Bus, BusError, file};
use bastide_types::message::ReplicaFacts;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Most replicas in one stage's facts.
const REPLICAS_MAX: usize = 4096;
/// Longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 1024;
/// Earlier lives of an agent that are remembered, so that a late message of one does not come back.
const RETIRED_MAX: usize = 8;
/// Messages that are applied at once.
const BATCH: usize = 256;
/// Time between writes to disk.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
const FILE: &str = "facts.json";
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What is known of all stages: account → facts.
pub type Facts = HashMap<String, ReplicaFacts>;

/// Agent: tells edges and gateways (no answer). Say it on each change and every few seconds, because a
/// message may be lost; the same sequence number may be said again.
///
/// # Errors
/// [`BusError::TooLarge`] beyond 252 KiB (about 2 000 replicas), [`BusError::TimedOut`] while not connected.
pub async fn publish(bus: &Bus, facts: &ReplicaFacts) -> Result<(), BusError> {
    bus.publish_encoded("fact.replicas", encode_within(facts, STAGE_PAYLOAD_BYTES_MAX)?).await
}

/// Agent: tells the platform and waits for its acknowledgement.
pub async fn report(bus: &Bus, facts: &ReplicaFacts, limit: Duration) -> Result<(), BusError> {
    bus.request_encoded("platform.evt.replicas", encode_within(facts, STAGE_PAYLOAD_BYTES_MAX)?, limit).await
}

/// Edge, gateway: the newest facts of each account, from disk (blocking) before it returns, then from
/// the bus, until `stop`, until the bus closes, or until no receiver is left.
pub fn follow(bus: &Bus, dir: &Path, stop: CancellationToken) -> watch::Receiver<Arc<Facts>> {
    let path = dir.join(FILE);
    let known = kept(&path);
    let (sender, receiver) = watch::channel(Arc::new(known.shown()));
    let follower = Follower { bus: bus.clone(), path, known, sender, unsaved: false };
    bus.spawn(follower.run(stop));
    receiver
}

fn kept(path: &Path) -> Known {
    let read = file::read(path, FILE_BYTES_MAX).and_then(|bytes| match bytes {
        Some(bytes) => decode(&bytes),
        None => Ok(Known::default()),
    });
    read.unwrap_or_else(|error| {
        tracing::error!(%error, path = %path.display(), "the facts on disk are not usable; agents say them again");
        Known::default()
    })
}

/// The newest facts of each account, and which lives of its agent are over.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    accounts: HashMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    facts: ReplicaFacts,
    retired: VecDeque<u64>,
}

impl Known {
    /// Takes facts if they are newer. Returns whether readers must see them.
    fn take(&mut self, account: String, facts: ReplicaFacts) -> bool {
        let Some(entry) = self.accounts.get_mut(&account) else {
            self.accounts.insert(account, Entry { facts, retired: VecDeque::new() });
            return true;
        };
        let same_life = entry.facts.boot == facts.boot;
        if same_life && facts.sequence <= entry.facts.sequence || entry.retired.contains(&facts.boot) {
            return false;
        }
        if !same_life {
            entry.retired.push_back(entry.facts.boot);
            if entry.retired.len() > RETIRED_MAX {
                entry.retired.pop_front();
            }
        }
        let changed = entry.facts.replicas != facts.replicas || entry.facts.generation != facts.generation;
        entry.facts = facts;
        changed
    }

    fn shown(&self) -> Facts {
        self.accounts.iter().map(|(account, entry)| (account.clone(), entry.facts.clone())).collect()
    }
}

struct Follower {
    bus: Bus,
    path: PathBuf,
    known: Known,
    sender: watch::Sender<Arc<Facts>>,
    unsaved: bool,
}

impl Follower {
    async fn run(mut self, stop: CancellationToken) {
        let closing = self.bus.closing().clone();
        let Ok(messages) = self.bus.client.subscribe("fact.*.replicas").await else { return };
        let mut batches = messages.ready_chunks(BATCH);
        let mut save = tokio::time::interval(WRITE_INTERVAL);
        save.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = closing.cancelled() => break,
                () = self.sender.closed() => break,
                batch = batches.next() => match batch {
                    Some(batch) => self.apply(&batch),
                    None => break,
                },
                _ = save.tick() => self.save().await,
            }
        }
        self.save().await;
    }

    fn apply(&mut self, batch: &[async_nats::Message]) {
        // Only the last word of each stage is read: one that floods costs no more than the others.
        let last: HashMap<&str, &async_nats::Message> =
            batch.iter().map(|message| (message.subject.as_str(), message)).collect();
        let mut changed = false;
        for (subject, message) in last {
            match read(message) {
                Ok((account, facts)) => changed |= self.known.take(account, facts),
                Err(error) => tracing::warn!(%error, subject, "facts were refused"),
            }
        }
        if changed {
            self.unsaved = true;
            self.sender.send_replace(Arc::new(self.known.shown()));
        }
    }

    async fn save(&mut self) {
        if !std::mem::take(&mut self.unsaved) {
            return;
        }
        let Ok(bytes) = serde_json::to_vec(&self.known) else { return };
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || file::write(&path, &bytes)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::error!(path = %self.path.display(), "the facts could not be kept");
            self.unsaved = true;
        }
    }
}

fn read(message: &async_nats::Message) -> Result<(String, ReplicaFacts), BusError> {
    let account = account_of(&message.subject).ok_or_else(|| BusError::Malformed("no account".into()))?;
    let facts: ReplicaFacts = decode(&message.payload)?;
    let long = |reason: &String| reason.len() > REASON_BYTES_MAX;
    if facts.replicas.len() > REPLICAS_MAX
        || facts.replicas.iter().any(|fact| fact.reason.as_ref().is_some_and(long))
    {
        return Err(BusError::Malformed("more than a stage may say".into()));
    }
    Ok((account, facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(boot: u64, sequence: u64, generation: u64) -> ReplicaFacts {
        ReplicaFacts { boot, sequence, generation, replicas: Vec::new() }
    }

    #[test]
    fn only_newer_facts_count_and_a_life_that_is_over_does_not_come_back() {
        let mut known = Known::default();
        let mut take = |boot, sequence, generation| known.take("A".into(), facts(boot, sequence, generation));
        assert!(take(7, 2, 1));
        assert!(!take(7, 2, 9), "the same sequence again");
        assert!(!take(7, 1, 9), "an earlier one");
        assert!(!take(7, 3, 1), "newer, but nothing changed");
        assert!(take(7, 4, 2));
        assert!(take(3, 1, 3), "a new life replaces, whatever its number");
        assert!(!take(7, 99, 9), "a late message of the life before");
        assert!(take(3, 2, 4));
        assert_eq!(known.shown()["A"], facts(3, 2, 4));
    }

    #[test]
    fn stages_do_not_touch_each_other() {
        let mut known = Known::default();
        known.take("A".into(), facts(1, 9, 1));
        assert!(known.take("B".into(), facts(1, 1, 1)));
        assert_eq!(known.shown().len(), 2);
    }
}
