//! The services of the Platform across their modules.

mod api;
mod archives;
mod build;
mod identity;
mod road;
