//! One replica in one container.
//!
//! Every replica has a small process of its own, the *shim*: it makes the container, keeps its log within
//! bounds, waits for its end and writes that down. The shim and the app go on running when the agent that
//! started them dies; [`attach`] finds them again. When the shim dies, the kernel kills the app.
//!
//! What is deliberately not here: networks (a container joins the network namespace it is given), images
//! (it is given an unpacked directory) and the decision what should run.

mod capture;
pub mod cgroup;
mod container;
mod cores;
mod error;
mod handle;
mod life;
mod preflight;
mod remove;
pub mod seccomp;
mod shim;
mod spec;

pub use container::{Container, Engine, Limits, Log, Mount};
pub use cores::Cores;
pub use error::Error;
pub use handle::{Handle, attach, start};
pub use life::{Ended, How, Life};
pub use preflight::{Finding, Level, Preflight, preflight};
pub use remove::remove;
pub use shim::main as shim_main;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
