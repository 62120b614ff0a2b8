//! One HTTP hop: a strict front towards clients, a pooled way to what stands behind, and the header
//! hygiene between them. It knows no customers.
//!
//! HTTP/1 is our own on `httparse`, both ways. Towards clients (ADR 1) every head is in hand as raw bytes, also the
//! ones that are refused; towards upstreams a request and its answer are handled on one task, and an answer with
//! more than one meaning is broken. HTTP/2 is driven on the `h2` crate.

pub mod body;
pub mod broker;
mod crowd;
mod date;
pub mod error;
pub mod flow_log;
pub mod forwarded;
pub mod h1;
mod h2;
pub mod handover;
pub mod headers;
pub mod interim;
pub mod limits;
pub mod listener;
pub mod peer;
pub mod pool;
pub mod prepared;
pub mod problem;
pub mod proxy_protocol;
pub mod raw_head;
pub mod relay;
pub mod takeover;
pub mod upgrade;
pub mod worker;

pub use body::{Body, BodyError, Prefix};
pub use broker::Broker;
pub use error::{HeadFault, SendFailure, UpstreamError};
pub use interim::Interim;
pub use limits::Limits;
pub use listener::{Accept, Listener, Shut, accept_tls, serve};
pub use peer::{Peer, TlsInfo};
pub use pool::{Place, Pool, PoolLimits, Upstream, UpstreamTls};
pub use prepared::Prepared;
pub use problem::problem_response;
pub use raw_head::{RawHead, RefusedHead};
pub use worker::{allowed_cores, reuse_port_listener, run_workers};

use std::future::Future;

/// A request as stations see it. Its extensions hold `Arc<Peer>`, `Arc<RawHead>` and [`Interim`].
pub type Request = http::Request<Body>;
/// A response as stations make it.
pub type Response = http::Response<Body>;

/// What answers on a listener.
pub trait Service: Send + Sync + 'static {
    /// Answers a request.
    fn call(&self, request: Request) -> impl Future<Output = Response> + Send;
    /// Answers a head that is not valid HTTP; the connection closes afterwards.
    fn refuse(&self, head: RefusedHead) -> impl Future<Output = Response> + Send;
}
