//! The services of the Platform across their modules.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod api;
mod archives;
mod build;
mod domains;
mod identity;
mod images;
mod isolation;
#[allow(dead_code, unreachable_pub)] // what the image crate's tests need besides
#[path = "../../../image/tests/it/made.rs"]
mod made;
mod provider;
mod road;
mod scale;
mod services;
mod site;
mod waf;
