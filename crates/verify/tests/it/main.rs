//! Verification over real namespaces. Needs root; says so when it skips.

mod proof;
mod town;
