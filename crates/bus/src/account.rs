//! Accounts on the bus: who may say and hear what.
use crate::{Authority, BusError};
use bastide_types::Secret;

/// The account of one customer's stage. The platform keeps both parts in SQL, the seed sealed.
#[derive(Debug, Clone)]
pub struct StageAccount {
    /// Public key of the account: how stages are named on the bus.
    pub account: String,
    /// Seed of the key that signs its agents; it can sign nothing else.
    pub signing_seed: Secret,
}

impl StageAccount {
    /// A new account. Its own private key is thrown away: only the operator changes what it may do.
    pub fn generate() -> Result<Self, BusError> {
        unimplemented!()
    }
    /// The account JWT to push to the broker ([`crate::PlatformBus::ensure_accounts`]).
    pub fn jwt(&self, authority: &Authority, now_s: u64) -> Result<String, BusError> {
        let _ = (authority, now_s);
        unimplemented!()
    }
    /// The credential of a node's agent in this stage.
    pub fn agent_jwt(&self, user_key: &str, now_s: u64, life_s: u64) -> Result<String, BusError> {
        let _ = (user_key, now_s, life_s);
        unimplemented!()
    }
}
