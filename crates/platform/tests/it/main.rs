//! The services of the Platform across their modules.

mod identity;
