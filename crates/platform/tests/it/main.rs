//! The services of the Platform across their modules.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod api;
mod archives;
mod build;
mod identity;
mod road;
