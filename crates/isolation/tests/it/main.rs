//! Plans, walked through packet by packet.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod checks;
mod customers;
mod mutation;
mod snapshot;
mod town;
