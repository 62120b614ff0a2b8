//! The services of the Platform across their modules.
#![allow(clippy::unwrap_used)] // the whole binary is a test, also what helps its tests

mod api;
mod archives;
mod audit;
mod authenticator;
mod backchannel;
mod bans;
mod break_glass;
mod broker;
mod build;
mod changes;
mod client_keys;
mod domains;
mod former;
mod guesses;
mod identity;
mod images;
mod isolation;
mod keys;
mod lifecycle;
mod look;
#[allow(dead_code, unreachable_pub)] // what the image crate's tests need besides
#[path = "../../../image/tests/it/made.rs"]
mod made;
mod mail;
mod passkeys;
mod permissions;
mod property;
mod provider;
mod questions;
mod renewal;
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
