//! A real gateway over real mutual TLS, between an edge and stand-ins for the Platform and for apps. There
//! is no broker: Snapshot and facts are the last good ones on disk.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod apps;
mod broker;
mod browser;
mod peers;
mod platform;
mod sockets;
mod stops;
mod world;
