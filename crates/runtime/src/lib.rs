//! The runtime: stage agents and the drivers that start replicas.
//!
//! An agent does what its stage's desired state says, tells the truth about what runs, and keeps it
//! running when the bus and the Platform are away. It never decides *what* should run, and it answers
//! nobody from outside.

mod agent;
pub mod broker;
pub mod config;
pub mod driver;
mod error;
pub mod exec_child;
mod files;
mod image;
mod keeper;
mod node;
pub mod plan;
pub mod privileges;
mod probe;
pub mod relay;
mod restart;
pub mod static_server;
mod told;
pub mod verify;

pub use config::Config;
pub use error::Error;
pub use exec_child::exec_child;
pub use node::run;
