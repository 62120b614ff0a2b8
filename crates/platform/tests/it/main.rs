//! The services of the Platform across their modules.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod api;
mod archives;
mod audit;
mod backchannel;
mod break_glass;
mod broker;
mod build;
mod changes;
mod domains;
mod former;
mod guesses;
mod identity;
mod images;
mod isolation;
mod keys;
mod lifecycle;
#[allow(dead_code, unreachable_pub)] // what the image crate's tests need besides
#[path = "../../../image/tests/it/made.rs"]
mod made;
mod mail;
mod permissions;
mod property;
mod provider;
mod questions;
mod replicas;
mod revocation;
mod road;
mod scale;
mod second;
mod services;
mod settings;
mod site;
mod step_up;
mod timing;
mod told;
mod users;
mod waf;
mod wire;
