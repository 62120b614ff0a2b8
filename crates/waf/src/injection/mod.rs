//! SQL and script injection, told by how values read as SQL and as HTML.
//!
//! The verdicts are those of libinjection (Nick Galbreath, BSD-3-Clause), byte for byte, as Debian ships it
//! with libmodsecurity: rules count on what it finds and on what it lets pass. This is a reader of our
//! own after its definitions; words and fingerprints come from the crate `libinjectionrs`.
//! `cargo run -p xtask -- injection` compares it with the C library over any corpus.

mod html;
mod sqli;
mod words;
mod xss;

pub(crate) use sqli::sqli;
pub(crate) use xss::xss;
