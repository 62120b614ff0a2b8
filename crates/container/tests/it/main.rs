//! Containers as the kernel makes them. Needs root; says so when it skips.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod fences;
mod limits;
mod lives;
mod scene;
