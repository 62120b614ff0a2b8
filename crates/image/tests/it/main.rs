//! Images as evil as they come, and those of honest tools.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod evil;
mod made;
mod outside;
mod semantics;
mod sources;
