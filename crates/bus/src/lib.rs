//! The bus: the only way on which Platform and stages meet, over NATS in operator mode.
//!
//! One account per customer and stage; who asks is written into the subject by the broker, never read
//! from a message. What travels: requests with an absolute deadline, blobs by digest, signed state
//! (Snapshots for the data plane, desired replicas for agents) that readers keep on disk, and facts
//! about replicas. All of it survives a missing broker: readers go on with the last good state.
//!
//! Nothing here is the truth: that is SQL. There is no JetStream, and nothing else uses async-nats.

pub mod account;
pub mod ask;
pub mod blob;
pub mod bootstrap;
pub mod broker;
pub mod check;
pub mod claims;
pub mod connection;
pub mod error;
pub mod facts;
pub mod jwt;
pub mod platform;
pub mod request;
pub mod sessions;
pub mod signed;
pub mod snapshot;
pub mod state;

mod file;
mod follow;

pub use bootstrap::{Accounts, Authority, Issuers};
pub use connection::{Bus, Config, Counters};
pub use error::BusError;
pub use platform::{PlatformBus, PlatformHandler};
pub use signed::{SigningKey, VerifyKey};
