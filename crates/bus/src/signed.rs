//! Signed content.
use crate::BusError;
use bastide_types::message::Signed;
use serde::{Serialize, de::DeserializeOwned};

/// A private Ed25519 key that signs Snapshots or stage states.
pub struct SigningKey {}

/// Its public half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyKey([u8; 32]);

impl SigningKey {
    /// A new key as PKCS #8 (to be written with mode 0600).
    pub fn generate() -> Result<Vec<u8>, BusError> {
        unimplemented!()
    }
    /// Reads it.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, BusError> {
        let _ = pkcs8;
        unimplemented!()
    }
    /// Its public half.
    pub fn verify_key(&self) -> VerifyKey {
        unimplemented!()
    }
    /// Signs the JSON text of `content`.
    pub fn sign<T: Serialize>(&self, content: &T) -> Result<Signed, BusError> {
        let _ = content;
        unimplemented!()
    }
}

impl VerifyKey {
    /// Reads the base64url form (no padding).
    pub fn from_base64url(text: &str) -> Result<Self, BusError> {
        let _ = text;
        unimplemented!()
    }
    /// The base64url form.
    pub fn to_base64url(&self) -> String {
        unimplemented!()
    }
    /// Checks the signature, then reads the content.
    pub fn verify<T: DeserializeOwned>(&self, signed: &Signed) -> Result<T, BusError> {
        let _ = signed;
        unimplemented!()
    }
}
