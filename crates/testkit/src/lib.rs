//! What tests share: an HTTPS client that trusts a local CA and finds `*.localhost` by itself, and a
//! started Bastide that is gone when the test is over.

mod client;
mod dns;
pub mod edge;
pub mod floods;
pub mod load;
pub mod neighbours;
pub mod postgres;
mod product;

pub use client::{Answer, Client};
pub use dns::Dns;
pub use postgres::Postgres;
pub use product::{Options, Product, build_caller, build_hello};

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .expect("loopback has a free port")
}
