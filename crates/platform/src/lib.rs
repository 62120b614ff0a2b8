//! The Platform's services: organizations, build, deploy, identity; the maker of Snapshots.
//!
//! SQL is the truth. What the data plane must know leaves as a signed Snapshot, what a stage should run as
//! a signed state; both travel over the bus. No request of a Runtime ever passes here.

pub mod api;
pub mod backchannel;
pub mod build;
mod bus_services;
mod caller;
pub mod config;
pub mod deploy;
pub mod domains;
mod error;
pub mod identity;
pub mod kek;
pub mod keys;
pub mod mail;
mod orgs;
mod origin;
pub mod outbound;
pub mod permissions;
pub mod retention;
pub mod services;
mod sessions;
mod settings;
mod snapshot;
mod state;
mod station;
mod waf;
pub mod wire;

pub use bus_services::BusServices;
pub use config::Config;
pub use error::{ApiError, Error};
pub use state::{App, Platform, postgres_at};
pub use station::{router, run};
