//! The way out: what apps call outside goes through here when they use names.
//!
//! Each replica finds a proxy (HTTP and SOCKS5 on one port) and a resolver on listeners that were made
//! inside its own namespace, so which replica calls is known from the socket. A name is resolved once,
//! every answer is judged, and the judged address is dialled from a socket made in the gateway namespace
//! of the replica's zone. This role holds no capability and makes no namespace; the runtime role hands it
//! every socket.
//!
//! Plain TCP and UDP that use no proxy leave through the zone's NAT gateway by the kernel's rules; that
//! floor is not here.

mod caller;
mod canary;
mod config;
mod control;
mod destination;
mod dial;
mod dns;
mod error;
mod http;
mod journey;
mod pace;
mod resolve;
mod socks;

pub use bastide_proxy::flow_log::FlowLog;
pub use caller::{Caller, Inside};
pub use config::Config;
pub use control::{Control, run};
pub use dial::{Dial, NamespaceDialer};
pub use error::Error;
pub use journey::Station;
pub use resolve::{Names, Resolver};
