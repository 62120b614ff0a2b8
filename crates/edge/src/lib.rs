//! The edge (CDN): ends TLS with the right certificate, inspects with the WAF, caches, and hands what is
//! left to the gateway of a zone — or, alone, to one HTTP origin.
//!
//! It serves from its Snapshot and the facts of the stages; neither the Platform nor the bus need be there.

mod access_log;
mod ahead;
pub mod alone;
mod bans;
mod cache;
mod certificates;
mod compress;
pub mod config;
mod context;
mod custom;
mod error;
mod front;
mod gateways;
mod golden;
mod headers;
mod journey;
mod lines;
mod metrics;
mod refusal;
pub mod rules;
mod site;
mod station;
mod succession;
mod view;
pub mod waf;

pub use alone::run_alone;
pub use bastide_types::canonical;
pub use config::{Config, StandAlone};
pub use error::Error;
pub use journey::STOPS;
pub use station::run;
