//! Which zone, which replica, and how many of them: plain values in, a choice out.
//!
//! [`Directory`] is what is ready now, built anew from each Snapshot and each fact. [`Rotation`] holds
//! the counters, which outlive it, so that a change of Snapshot starts no round anew. It connects to
//! nothing and reads no clock.

pub mod directory;
pub mod ring;
pub mod rotation;
pub mod scale;

pub use directory::{AppKey, Directory, Endpoint};
pub use ring::RoundRobin;
pub use rotation::Rotation;
