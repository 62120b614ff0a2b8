//! Shared vocabulary and wire types: ids, Snapshot, bus messages, problems, secrets. No I/O.
