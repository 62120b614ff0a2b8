//! Verification over real namespaces. Needs root; says so when it skips.

mod mutation;
mod proof;
mod situation;
mod town;
