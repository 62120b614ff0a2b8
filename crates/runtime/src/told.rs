//! What an agent tells of its replicas; every change wakes the tellers.

use bastide_types::{
    ReplicaId,
    message::{Reach, ReplicaFact, ReplicaState, Usage},
};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// The facts of one stage.
pub(crate) struct Told {
    facts: watch::Sender<BTreeMap<ReplicaId, ReplicaFact>>,
}

impl Default for Told {
    fn default() -> Self {
        Self { facts: watch::channel(BTreeMap::new()).0 }
    }
}

impl Told {
    pub(crate) fn subscribe(&self) -> watch::Receiver<BTreeMap<ReplicaId, ReplicaFact>> {
        self.facts.subscribe()
    }

    pub(crate) fn knows(&self, id: ReplicaId) -> bool {
        self.facts.borrow().contains_key(&id)
    }

    /// Says how a replica is; what was said of its past and its use stays.
    pub(crate) fn set(
        &self,
        id: ReplicaId,
        state: ReplicaState,
        reach: Option<Reach>,
        reason: Option<String>,
    ) {
        self.change(id, |fact| {
            (fact.state, fact.reach, fact.reason) = (state, reach, reason);
            if !matches!(state, ReplicaState::Ready | ReplicaState::Starting) {
                fact.usage = None;
            }
        });
    }

    /// Says what was remembered of its ends.
    pub(crate) fn set_past(&self, id: ReplicaId, past: &crate::restart::Past) {
        self.change(id, |fact| {
            (fact.restarts, fact.last_end) = (past.restarts, past.last_end.clone());
        });
    }

    /// Says what replicas use; others are left as they are.
    pub(crate) fn set_usage(&self, used: &BTreeMap<ReplicaId, Usage>) {
        self.facts.send_if_modified(|facts| {
            let mut changed = false;
            for (id, usage) in used {
                if let Some(fact) = facts.get_mut(id) {
                    changed |= fact.usage.replace(*usage) != Some(*usage);
                }
            }
            changed
        });
    }

    pub(crate) fn forget(&self, id: ReplicaId) {
        self.facts.send_if_modified(|facts| facts.remove(&id).is_some());
    }

    fn change(&self, id: ReplicaId, change: impl FnOnce(&mut ReplicaFact)) {
        self.facts.send_if_modified(|facts| {
            let known = facts.contains_key(&id);
            let fact = facts.entry(id).or_insert_with(|| ReplicaFact::new(id, ReplicaState::Starting));
            let before = fact.clone();
            change(fact);
            !known || *fact != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restart::Past;

    #[test]
    fn only_news_wakes_and_the_past_stays_said() {
        let (told, id) = (Told::default(), ReplicaId::generate());
        let mut heard = told.subscribe();
        let mut woken = || {
            let changed = heard.has_changed().unwrap();
            heard.mark_unchanged();
            changed
        };
        told.set(id, ReplicaState::Starting, None, None);
        assert!(woken());
        told.set(id, ReplicaState::Starting, None, None);
        assert!(!woken());
        told.set_past(id, &Past { restarts: 2, ..Past::default() });
        assert!(woken());
        let used = BTreeMap::from([
            (id, Usage { cpu_millis: 5, memory_bytes: 6 }),
            (ReplicaId::generate(), Usage { cpu_millis: 1, memory_bytes: 1 }),
        ]);
        told.set_usage(&used);
        assert!(woken());
        told.set_usage(&used);
        assert!(!woken());
        told.set(id, ReplicaState::Ready, Some(Reach::Broker), None);
        let fact = told.subscribe().borrow()[&id].clone();
        assert_eq!((fact.restarts, fact.usage.is_some(), told.subscribe().borrow().len()), (2, true, 1));
        told.set(id, ReplicaState::Failed, None, Some("code 1".into()));
        assert_eq!(told.subscribe().borrow()[&id].usage, None);
        woken();
        told.forget(id);
        assert!(woken() && !told.knows(id));
        told.forget(id);
        assert!(!woken());
    }
}
