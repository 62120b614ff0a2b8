//! No text makes the reader of Snapshots panic; what it takes is settled once and for all, and puts no two owners on anything.
#![no_main]

use bastide_types::Snapshot;
use std::collections::BTreeSet;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok((mut snapshot, _)) = Snapshot::read(text, None) else { return };
    snapshot.settle(None);
    let ids: BTreeSet<_> = snapshot.customers.values().map(|customer| customer.id).collect();
    assert_eq!(ids.len(), snapshot.customers.len());
    let mut again = snapshot.clone();
    assert!(again.settle(Some(&snapshot)).is_empty());
    assert_eq!(again, snapshot);
    let read = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(Snapshot::read(&read, None).unwrap().0, snapshot);
    snapshot.places().for_each(|place| drop(place.apps().count()));
});
