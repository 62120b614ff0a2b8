//! When a replica that ended is started again, and what is remembered of its ends.
//!
//! People expect an app that crashed once back at once, and one that crashes again and again to leave the node
//! alone. So the first end of a replica that had been ready costs one second; after that, or when it never got
//! ready, the wait is 10 s and doubles up to 300 s. Ten healthy minutes forget it all.

use crate::Error;
use bastide_types::{ReplicaId, message::LastEnd};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

const ONCE: Duration = Duration::from_secs(1);
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_mins(5);
const FORGOTTEN_AFTER: Duration = Duration::from_mins(10);

/// What is remembered of a replica's ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// How often it was started again.
    pub restarts: u32,
    /// Ends without ten healthy minutes between them.
    pub in_a_row: u32,
    /// The last one.
    pub last_end: Option<LastEnd>,
}

impl Past {
    /// Notes an end, and gives the wait until the next start. `healthy` is how long it lived after it had got
    /// ready; `None` when it never did.
    pub fn ended(&mut self, healthy: Option<Duration>) -> Duration {
        if healthy.is_some_and(|healthy| healthy >= FORGOTTEN_AFTER) {
            self.in_a_row = 0;
        }
        let before = self.in_a_row;
        self.in_a_row = before.saturating_add(1);
        match (before, healthy) {
            (0, Some(_)) => ONCE,
            (0, None) => FIRST,
            // The quick start of the first end counts as no step of the ladder.
            (before, _) => FIRST.saturating_mul(1 << (before - 1).min(16)).min(LONGEST),
        }
    }
}

/// What is remembered of the replicas of one stage, also over the end of the agent: a replica that crashes
/// again and again gets no fresh start from that.
pub(crate) struct Pasts {
    file: PathBuf,
    all: Mutex<BTreeMap<ReplicaId, Past>>,
}

impl Pasts {
    /// Reads what an earlier life of the agent wrote. What cannot be read is forgotten.
    pub(crate) fn load(file: PathBuf) -> Self {
        let all = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { file, all: Mutex::new(all.unwrap_or_default()) }
    }

    pub(crate) fn of(&self, replica: ReplicaId) -> Past {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(&replica).cloned().unwrap_or_default()
    }

    /// Keeps what is remembered of a replica; `None` forgets it.
    pub(crate) fn keep(&self, replica: ReplicaId, past: Option<Past>) {
        self.change(|all| {
            match past {
                Some(past) => all.insert(replica, past),
                None => all.remove(&replica),
            };
        });
    }

    /// Forgets replicas that nobody wants any more.
    pub(crate) fn retain(&self, wanted: impl Fn(ReplicaId) -> bool) {
        self.change(|all| all.retain(|id, _| wanted(*id)));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<ReplicaId, Past>)) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.clone();
        change(&mut all);
        if *all != before {
            let write = || -> Result<(), Error> {
                let beside = self.file.with_extension("new");
                let bytes = serde_json::to_vec(&*all).unwrap_or_default();
                fs::write(&beside, bytes).map_err(Error::file(&beside))?;
                fs::rename(&beside, &self.file).map_err(Error::file(&self.file))
            };
            if let Err(error) = write() {
                tracing::warn!(error = crate::agent::chain(&error), "ends of replicas are not remembered");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn waits(ends: &[Option<u64>]) -> Vec<u64> {
        let mut past = Past::default();
        ends.iter().map(|healthy| past.ended(healthy.map(Duration::from_secs)).as_secs()).collect()
    }

    #[test]
    fn the_first_crash_is_cheap_and_the_next_ones_are_not() {
        assert_eq!(waits(&[Some(5); 8]), [1, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(waits(&[None; 7]), [10, 10, 20, 40, 80, 160, 300]);
        assert_eq!(waits(&[None, None, Some(60), Some(600), Some(1)]), [10, 10, 20, 1, 10]);
    }

    proptest! {
        #[test]
        fn the_wait_never_shrinks_without_ten_healthy_minutes(ends in proptest::collection::vec(proptest::option::of(0_u64..600), 1..40)) {
            let waits = waits(&ends);
            prop_assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
            prop_assert!(waits.iter().all(|wait| (1..=300).contains(wait)));
        }
    }

    #[test]
    fn the_past_outlives_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pasts.json");
        let (one, other) = (ReplicaId::generate(), ReplicaId::generate());
        let past =
            Past { restarts: 3, in_a_row: 2, last_end: Some(LastEnd { at_s: 7, why: "code 1".into() }) };
        let pasts = Pasts::load(file.clone());
        pasts.keep(one, Some(past.clone()));
        pasts.keep(other, Some(Past::default()));
        pasts.keep(other, None);
        pasts.keep(other, Some(Past::default()));
        pasts.retain(|id| id == one);
        let again = Pasts::load(file.clone());
        assert_eq!((again.of(one), again.of(other)), (past, Past::default()));
        fs::write(&file, "damaged").unwrap();
        assert_eq!(Pasts::load(file).of(one), Past::default());
    }
}
