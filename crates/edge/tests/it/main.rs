//! The edge before a small origin and before gateways, and its document.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod alone;
mod bans;
mod cache;
mod client;
mod collapsing;
mod compressing;
mod front;
mod memory;
mod origin;
mod proxying;
mod stops;
mod waf;
mod whole;
