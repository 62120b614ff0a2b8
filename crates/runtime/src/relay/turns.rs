//! Whose turn it is. Plain: it connects to nothing.

use super::Place;
use bastide_types::{AppName, ReplicaId, ZoneName};
use std::collections::HashMap;

/// Who was called last, by app and zone of the called replica.
#[derive(Debug, Default)]
pub(crate) struct Turns(HashMap<(AppName, ZoneName), ReplicaId>);

impl Turns {
    /// The replicas of an app in the order in which a caller in `zone` tries them: those of its zone first, each
    /// zone beginning with the one whose turn it is. The first of all has had its turn then.
    pub(crate) fn order(&mut self, app: &AppName, zone: &ZoneName, replicas: &[Place]) -> Vec<ReplicaId> {
        let mut zones: Vec<_> = replicas.iter().map(|(zone, _)| zone).collect();
        zones.sort_by_key(|other| (*other != zone, *other));
        zones.dedup();
        let mut order = Vec::with_capacity(replicas.len());
        for (rank, zone) in zones.into_iter().enumerate() {
            let mut here: Vec<_> = replicas.iter().filter(|(z, _)| z == zone).map(|(_, id)| *id).collect();
            here.sort_unstable();
            let key = (app.clone(), zone.clone());
            // The next id after the last one, so that replicas that come and go take no one's turn.
            let next = self.0.get(&key).map_or(0, |last| here.partition_point(|id| id <= last) % here.len());
            here.rotate_left(next);
            if rank == 0 {
                self.0.insert(key, here[0]);
            }
            order.extend(here);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn zone(name: &str) -> ZoneName {
        ZoneName::new(name).unwrap()
    }

    fn app() -> AppName {
        AppName::new("blog").unwrap()
    }

    fn places(zones: &[&str]) -> Vec<Place> {
        zones.iter().map(|name| (zone(name), ReplicaId::generate())).collect()
    }

    #[test]
    fn the_own_zone_comes_first_and_everyone_has_a_turn() {
        let replicas = places(&["a", "a", "b", "a", "b"]);
        let mut turns = Turns::default();
        let mut called: BTreeMap<ReplicaId, usize> = BTreeMap::new();
        for _ in 0..30 {
            let order = turns.order(&app(), &zone("a"), &replicas);
            assert_eq!(order.len(), 5, "all are tried");
            let own = |id| replicas.iter().any(|(z, r)| *r == id && *z == zone("a"));
            assert!(order[..3].iter().all(|id| own(*id)) && order[3..].iter().all(|id| !own(*id)));
            *called.entry(order[0]).or_default() += 1;
        }
        assert_eq!(called.into_values().collect::<Vec<_>>(), [10, 10, 10]);
        // Two callers in different zones take turns at the replicas of a third.
        let away = places(&["c", "c"]);
        let mut turns = Turns::default();
        let first: Vec<_> =
            ["a", "b", "a", "b"].map(|from| turns.order(&app(), &zone(from), &away)[0]).into();
        assert!(first[0] != first[1] && first[0] == first[2] && first[1] == first[3]);
        assert_eq!(turns.order(&app(), &zone("a"), &[]), []);
    }

    proptest! {
        #[test]
        fn whoever_stays_is_called_as_often_as_the_others(gone in 0usize..5, before in 0usize..20) {
            let mut replicas = places(&["a"; 6]);
            let mut turns = Turns::default();
            for _ in 0..before {
                turns.order(&app(), &zone("a"), &replicas);
            }
            replicas.remove(gone);
            let first: Vec<_> = (0..10).map(|_| turns.order(&app(), &zone("a"), &replicas)[0]).collect();
            for (_, id) in replicas {
                prop_assert_eq!(first.iter().filter(|called| **called == id).count(), 2);
            }
        }
    }
}
