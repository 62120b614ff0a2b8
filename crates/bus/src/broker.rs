//! Finding a broker binary that is new enough.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where to look, in this order.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Path that the operator configured; when set, nothing else is tried.
    pub configured: Option<PathBuf>,
    /// Directory of our executable.
    pub beside: Option<PathBuf>,
    /// Value of `PATH`.
    pub path: Option<OsString>,
    /// Run one below the version floor all the same.
    pub allow_old: bool,
}

/// A broker that may be run.
#[derive(Debug, Clone)]
pub struct Broker {
    /// The binary.
    pub program: PathBuf,
    /// Its version.
    pub version: Version,
    /// True when it is below the floor and was allowed all the same.
    pub insecure: bool,
}

/// Major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16, pub u16, pub u16);

/// Why there is no broker to run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// None was found.
    #[error("no nats-server was found")]
    NotFound,
}

/// Finds a broker and asks its version (runs `nats-server --version`, blocking, at most 5 s).
pub fn find(search: &Search) -> Result<Broker, BrokerError> {
    let _ = search;
    unimplemented!()
}

impl Broker {
    /// Command line that runs it with this configuration file.
    pub fn command_line(&self, conf: &Path) -> Vec<OsString> {
        let _ = conf;
        unimplemented!()
    }
    /// Command line that only checks the configuration file.
    pub fn check_line(&self, conf: &Path) -> Vec<OsString> {
        let _ = conf;
        unimplemented!()
    }
}
