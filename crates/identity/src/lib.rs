//! Tokens, sessions and access rules: plain values in, a decision out.
//!
//! The engine speaks no HTTP, touches no database and reads no clock: `now` is an argument, in seconds
//! since 1970. Signatures and hashes are aws-lc-rs' work, never ours.

pub mod access;
pub mod assertion;
pub mod breached;
pub mod cache;
pub mod claims;
pub mod client_assertion;
pub mod client_key;
pub mod fault;
pub mod id_token;
pub mod key;
pub mod opaque;
pub mod passkey;
pub mod pkce;
pub mod revoked;
pub mod seal;
pub mod totp;
pub mod upstream;
pub mod verify;

pub use access::{Decision, decide};
pub use assertion::{mint_assertion, verify_assertion};
pub use cache::TokenCache;
pub use claims::Claims;
pub use client_assertion::{AssertionFault, Proven, Unproven};
pub use client_key::{ClientKey, ClientKeyFault};
pub use fault::TokenFault;
pub use id_token::{IdClaims, IdKey};
pub use key::{KeyError, SigningKey, mint};
pub use passkey::{Passkey, PasskeyFault, RelyingParty};
pub use revoked::{Revoked, Took};
pub use totp::TotpSecret;
pub use upstream::{Upstream, UpstreamFault, UpstreamKeys};
pub use verify::{Expect, verify};
