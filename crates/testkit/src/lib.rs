//! What tests share: an HTTPS client that trusts a local CA and finds `*.localhost` by itself, and a
//! started Bastide that is gone when the test is over.

mod client;
mod dns;
pub mod edge;
pub mod floods;
pub mod load;
pub mod logins;
pub mod neighbours;
pub mod postgres;
mod product;
pub mod publish;
pub mod revocation;
pub mod smtp;

pub use client::{Answer, Client};
pub use dns::Dns;
pub use postgres::Postgres;
pub use product::{Options, Product, build_caller, build_hello};

use std::sync::atomic::{AtomicU32, Ordering};

/// A port that is free now and that nobody else in this process is given. It lies below those of outgoing connections,
/// one of which would else take it before it is used.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes beside this one begin elsewhere.
    let first = std::process::id().wrapping_mul(97);
    loop {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (number % 10_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
