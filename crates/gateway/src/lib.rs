//! The gateway of one zone: checks who asks, decides whether they may, and balances.
//!
//! It takes requests only from edges (mutual TLS), derives customer, stage and app from the request
//! itself, and needs nothing but its Snapshot and the facts of the stages to serve: the Platform and the
//! bus may be away.

mod began;
pub mod config;
mod context;
mod credential;
mod cut;
mod error;
mod golden;
mod hygiene;
mod identify;
mod journey;
mod liveness;
mod path;
mod patience;
mod platform_client;
mod platform_lb;
mod reach;
mod receipt;
mod refusal;
mod retry;
mod runtime_lb;
mod session;
mod session_tokens;
mod site;
mod station;
mod view;

pub use config::Config;
pub use error::Error;
pub use journey::STOPS;
pub use station::{run, run_on};
