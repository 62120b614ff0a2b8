//! A real gateway over real mutual TLS, between an edge and stand-ins for the Platform and for apps. Snapshot
//! and facts are the last good ones on disk; only tests of revocation have a broker.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod apps;
mod broker;
mod browser;
mod golden;
mod nats;
mod peers;
mod platform;
mod revocation;
mod sockets;
mod step_up;
mod stops;
mod world;
