//! The services of the Platform across their modules.

mod api;
mod build;
mod identity;
