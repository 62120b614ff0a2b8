//! Verification over real namespaces. Needs root; says so when it skips.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod mutation;
mod proof;
mod situation;
mod town;
