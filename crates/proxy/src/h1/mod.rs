//! HTTP/1 of our own, towards clients and upstreams: strict where two parsers could disagree.

pub mod answer;
pub(crate) mod ask;
pub mod connection;
pub(crate) mod exchange;
pub mod framing;
pub mod head;
pub(crate) mod response;
pub mod transport;

pub(crate) use connection::serve;
pub use transport::Transport;
