//! Networks as the kernel makes them. Needs root; says so when it skips.

mod conformance;
mod gateways;
mod host;
mod limits;
mod repair;
mod scene;
