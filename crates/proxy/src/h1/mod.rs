//! HTTP/1 towards clients: a connection loop of our own, strict where two parsers could disagree.

pub mod connection;
pub mod framing;
pub mod head;
mod response;
pub mod transport;

pub(crate) use connection::serve;
pub use transport::Transport;
