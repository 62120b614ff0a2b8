//! Whose turn it is.

use crate::directory::{AppKey, Directory, Endpoint};
use bastide_types::{ReplicaId, ZoneName};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

const SHARDS: usize = 16;

/// Counters of all apps; shared by all workers of a process.
#[derive(Default)]
pub struct Rotation {
    shards: [Mutex<HashMap<AppKey, Turns>>; SHARDS],
}

#[derive(Default)]
struct Turns {
    /// Smooth weighted round-robin: what each zone has saved up.
    zones: BTreeMap<ZoneName, i64>,
    /// Strict round-robin within each zone: the replica that was last.
    last: BTreeMap<ZoneName, ReplicaId>,
}

impl Rotation {
    /// No turns taken yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The zone of the next request: smooth weighted round-robin, weighted by ready replicas, so that
    /// every replica of every zone gets the same share. `None` when no zone but excluded ones is ready.
    pub fn pick_zone(&self, app: &AppKey, directory: &Directory, exclude: &[ZoneName]) -> Option<ZoneName> {
        let zones = directory.zones(app)?;
        let ready = |(zone, endpoints): &(&ZoneName, &Vec<Endpoint>)| {
            !endpoints.is_empty() && !exclude.contains(zone)
        };
        self.with(app, |turns| {
            turns.zones.retain(|zone, _| zones.get(zone).is_some_and(|endpoints| !endpoints.is_empty()));
            let mut total = 0;
            let mut best: Option<(&ZoneName, i64)> = None;
            for (zone, endpoints) in zones.iter().filter(ready) {
                let weight = i64::try_from(endpoints.len()).unwrap_or(i64::MAX);
                total += weight;
                let saved = turns.zones.entry(zone.clone()).or_default();
                *saved += weight;
                if best.is_none_or(|(_, most)| *saved > most) {
                    best = Some((zone, *saved));
                }
            }
            let (zone, _) = best?;
            *turns.zones.get_mut(zone)? -= total;
            Some(zone.clone())
        })
    }

    /// The replica of the next request in `zone`: strict round-robin over those that are ready there; when
    /// none is, over those of the next zone that has one. `exclude` names replicas that were tried.
    pub fn pick_replica(
        &self,
        app: &AppKey,
        zone: &ZoneName,
        directory: &Directory,
        exclude: &[ReplicaId],
    ) -> Option<Endpoint> {
        let zones = directory.zones(app)?;
        let own = zones.get_key_value(zone);
        let others = zones.iter().filter(|(other, _)| *other != zone);
        own.into_iter().chain(others).find_map(|(zone, endpoints)| self.next(app, zone, endpoints, exclude))
    }

    /// The replica after the one that was last. Replicas are kept in the order of their ids, so a round
    /// goes on where it was when some come or go.
    fn next(
        &self,
        app: &AppKey,
        zone: &ZoneName,
        endpoints: &[Endpoint],
        exclude: &[ReplicaId],
    ) -> Option<Endpoint> {
        self.with(app, |turns| {
            let last = turns.last.get(zone);
            let after = endpoints
                .iter()
                .position(|endpoint| last.is_none_or(|last| endpoint.replica > *last))
                .unwrap_or(0);
            let (before, rest) = endpoints.split_at(after);
            let chosen = rest.iter().chain(before).find(|endpoint| !exclude.contains(&endpoint.replica))?;
            turns.last.insert(zone.clone(), chosen.replica);
            Some(chosen.clone())
        })
    }

    fn with<T>(&self, app: &AppKey, work: impl FnOnce(&mut Turns) -> T) -> T {
        use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(app.app);
        let shard = &self.shards[hash as usize % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = shard.get_mut(app) {
            return work(turns);
        }
        work(shard.entry(app.clone()).or_default())
    }
}
