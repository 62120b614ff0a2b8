//! The HTTP cache engine (RFC 9111): what may be stored, how long it is fresh, and a bounded store.
//!
//! It fetches nothing and reads no clock: `now` is an argument. What it does not do yet: validation with
//! the origin, stale answers, ranges, request collapsing. A stored response that is not fresh any more is
//! a miss and is replaced.

pub mod control;
pub mod entry;
pub mod freshness;
pub mod key;
pub mod policy;
pub mod status;
pub mod store;

pub use control::CacheControl;
pub use entry::Entry;
pub use key::Key;
pub use policy::{Site, may_store};
pub use status::Status;
pub use store::{Cache, Limits};
