//! The engine as the edge uses it: a table per topic of the RFCs.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod answers;
mod lab;
mod parts;
mod places;
mod ratio;
mod reuse;
mod rules;
mod stale;
mod storing;
mod trace;
mod validating;
mod variants;
