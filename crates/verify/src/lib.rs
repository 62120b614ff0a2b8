//! The proof of isolation: every forbidden path and every allowed one is tried on real packets.
//!
//! What is tried is a list of plain values (`bastide_isolation::checks`). A process of its own, the *prober*,
//! makes sockets inside the namespaces: canaries that listen there, and callers that try to reach them. It has
//! more rights than any app has, so that what it cannot do no app can. [`verify`] leads it through controls,
//! checks and controls again, and tells what came of it.
//!
//! What is deliberately not here: namespaces and rules (crate `network` makes them, the machine outside among
//! them) and the decision who may verify.

pub mod facts;
mod order;
mod prober;
mod report;
mod run;

pub use order::{Answer, Attempt, Order};
pub use prober::{main as prober_main, packet};
pub use report::{About, Outcome, Report, Row};
pub use run::{Error, Limits, Prober, Subject, verify};
