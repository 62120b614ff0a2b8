//! HTTP/2 on the `h2` crate, towards clients and towards upstreams.
//!
//! Driven directly, since only so interim responses pass, each stream has its own time limits, and a flood of
//! control frames is seen ([`guard`]). Requests look the same to a service as those of HTTP/1.

mod guard;
mod head;
mod held;
mod server;
pub(crate) mod stream;

pub(crate) use server::serve;
