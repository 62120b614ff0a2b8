//! Signing keys (Ed25519) and minting.

use crate::claims::Claims;
use aws_lc_rs::{
    digest,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_types::snapshot::VerifyingKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

/// `typ` of an access token (RFC 9068).
pub const ACCESS_TYPE: &str = "at+jwt";

/// A key could not be made, read or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a PKCS #8 Ed25519 key.
    #[error("not an Ed25519 key")]
    NotAKey,
    /// The system gave no randomness.
    #[error("no randomness")]
    Randomness,
    /// Signing failed.
    #[error("signing failed")]
    Signing,
}

/// A private key of an issuer or of the gateways.
pub struct SigningKey {
    pkcs8: Vec<u8>,
    encoding: EncodingKey,
    public: VerifyingKey,
}

impl SigningKey {
    /// A new key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Randomness)?;
        let pkcs8 = pair.to_pkcs8().map_err(|_| KeyError::NotAKey)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// Reads a key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| KeyError::NotAKey)?;
        let public = pair.public_key().as_ref();
        let x = BASE64_URL_SAFE_NO_PAD.encode(public);
        let hash = digest::digest(&digest::SHA256, public);
        let kid = BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..12]);
        let encoding = EncodingKey::from_ed_der(pkcs8);
        Ok(Self { pkcs8: pkcs8.to_vec(), encoding, public: VerifyingKey { kid, x } })
    }

    /// The key itself, to be sealed or written with mode 0600.
    pub fn to_pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Its public half.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    pub(crate) fn sign<T: Serialize>(&self, typ: &str, claims: &T) -> Result<String, KeyError> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.public.kid.clone());
        encode(&header, claims, &self.encoding).map_err(|_| KeyError::Signing)
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public.kid)
    }
}

/// Signs an access token.
pub fn mint(key: &SigningKey, claims: &Claims) -> Result<String, KeyError> {
    key.sign(ACCESS_TYPE, claims)
}
