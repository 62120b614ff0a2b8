//! One connection to the broker.
use crate::BusError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::PathBuf;
use std::time::Duration;

/// How to reach the broker, and as whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address, such as `tls://127.0.0.1:4222`.
    pub url: String,
    /// Certificate of the internal CA, PEM.
    pub ca_file: PathBuf,
    /// Credentials file (JWT and seed). Either this, or `jwt` and `seed_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creds_file: Option<PathBuf>,
    /// User JWT, with `seed_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<String>,
    /// File with the seed that belongs to `jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_file: Option<PathBuf>,
    /// Name of this process in the broker's log.
    pub name: String,
}

/// What happened on a connection so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections made.
    pub connects: u64,
    /// Permission violations: any is a fault.
    pub violations: u64,
    /// Messages lost because we were too slow.
    pub slow_consumers: u64,
}

/// A connection. Cheap to clone.
#[derive(Clone)]
pub struct Bus {}

impl Bus {
    /// Starts connecting and returns at once, whether or not the broker is there; it is tried for ever.
    pub async fn connect(config: &Config) -> Result<Self, BusError> {
        let _ = config;
        unimplemented!()
    }
    /// Waits until connected, at most `limit`.
    pub async fn connected(&self, limit: Duration) -> Result<(), BusError> {
        let _ = limit;
        unimplemented!()
    }
    /// Whether it is connected now.
    pub fn is_connected(&self) -> bool {
        unimplemented!()
    }
    /// Uses this user JWT from the next connect on.
    pub fn renew(&self, jwt: String) -> Result<(), BusError> {
        let _ = jwt;
        unimplemented!()
    }
    /// Counters.
    pub fn counters(&self) -> Counters {
        unimplemented!()
    }
    /// Asks and waits for the answer (`Reply<A>`), at most `limit`.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(&self, subject: &str, query: &Q, limit: Duration) -> Result<A, BusError> {
        let _ = (subject, query, limit);
        unimplemented!()
    }
    /// Publishes without an answer; refused while not connected, so that nothing old arrives later.
    pub async fn publish<T: Serialize>(&self, subject: &str, message: &T) -> Result<(), BusError> {
        let _ = (subject, message);
        unimplemented!()
    }
    /// Ends followers, sends what is queued and closes; at most 5 s.
    pub async fn close(&self) {
        unimplemented!()
    }
}
