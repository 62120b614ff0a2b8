//! Networks as the kernel makes them. Needs root; says so when it skips.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod conformance;
mod gateways;
mod host;
mod limits;
mod repair;
mod scene;
