//! The HTTP cache engine (RFC 9111, with 9211, 9213, 9875 and 5861): what may be stored, when it may be used
//! again, what an answer looks like; and a bounded store.
//!
//! Plain values in, plain values out. It fetches nothing, reads no clock and has no random source: `now` is
//! an argument. A request goes through [`Ask`], [`decide`](decide::decide) and [`reply`](reply::reply); a response through
//! [`admit`](admit::admit), [`update`] and [`invalidate`]. Every ground has a name and a section ([`why`]).

pub mod admit;
pub mod ask;
pub mod coding;
pub mod condition;
pub mod control;
pub mod date;
pub mod decide;
pub mod freshness;
mod grounds;
pub mod head;
pub mod invalidate;
pub mod key;
mod moment;
pub mod purge;
pub mod range;
pub mod reply;
pub mod sf;
pub mod site;
mod sketch;
pub mod status;
pub mod store;
pub mod stored;
pub mod tally;
pub mod targeted;
pub mod update;
pub mod vary;
pub mod why;

pub use bastide_types::Purge;

pub use admit::{Draft, Exchange};
pub use ask::Ask;
pub use control::CacheControl;
pub use decide::{Action, Decision};
pub use head::Head;
pub use key::{Key, Scope};
pub use moment::Moment;
pub use reply::Reply;
pub use site::Site;
pub use status::{Forward, Status};
pub use store::{Cache, Limits, Space};
pub use stored::Stored;
pub use tally::{Counts, Tally};
pub use why::{Because, NotStored};
