//! Signed content: Snapshots and desired states are signed by the platform, so that whoever takes over
//! the broker can delay them, but neither make nor change any.

use crate::BusError;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bastide_types::message::Signed;
use serde::{Serialize, de::DeserializeOwned};

/// A private Ed25519 key. One signs Snapshots, another stage states.
pub struct SigningKey(Ed25519KeyPair);

/// Its public half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyKey([u8; 32]);

impl SigningKey {
    /// A new key as PKCS #8 (to be written with mode 0600).
    pub fn generate() -> Result<Vec<u8>, BusError> {
        let fault = |_| BusError::Config("no key could be made".into());
        let key = Ed25519KeyPair::generate().map_err(fault)?;
        Ok(key.to_pkcs8().map_err(fault)?.as_ref().to_vec())
    }

    /// Reads it.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, BusError> {
        Ed25519KeyPair::from_pkcs8(pkcs8)
            .map(Self)
            .map_err(|_| BusError::Config("not an Ed25519 key in PKCS #8".into()))
    }

    /// Its public half.
    pub fn verify_key(&self) -> VerifyKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        VerifyKey(bytes)
    }

    /// Signs the JSON text of `content`.
    pub fn sign<T: Serialize>(&self, content: &T) -> Result<Signed, BusError> {
        let payload =
            serde_json::to_string(content).map_err(|error| BusError::Malformed(error.to_string()))?;
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(payload.as_bytes()).as_ref());
        Ok(Signed { payload, signature })
    }
}

impl VerifyKey {
    /// Reads the base64url form (no padding).
    pub fn from_base64url(text: &str) -> Result<Self, BusError> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| BusError::Config("not an Ed25519 public key".into()))
    }

    /// The base64url form.
    pub fn to_base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Checks the signature, then reads the content.
    ///
    /// # Errors
    /// [`BusError::Signature`] before anything of the content is read; [`BusError::Malformed`].
    pub fn verify<T: DeserializeOwned>(&self, signed: &Signed) -> Result<T, BusError> {
        serde_json::from_str(self.verified(signed)?).map_err(|error| BusError::Malformed(error.to_string()))
    }

    /// The content as text, if its signature is right.
    ///
    /// # Errors
    /// [`BusError::Signature`].
    pub fn verified<'s>(&self, signed: &'s Signed) -> Result<&'s str, BusError> {
        let signature = URL_SAFE_NO_PAD.decode(&signed.signature).map_err(|_| BusError::Signature)?;
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(signed.payload.as_bytes(), &signature)
            .map_err(|_| BusError::Signature)?;
        Ok(&signed.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_text_under_the_right_key_is_read() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap();
        let other = SigningKey::from_pkcs8(&SigningKey::generate().unwrap()).unwrap();
        let signed = key.sign(&vec![1, 2]).unwrap();
        let public = VerifyKey::from_base64url(&key.verify_key().to_base64url()).unwrap();
        assert_eq!(public.verify::<Vec<u8>>(&signed).unwrap(), [1, 2]);
        assert!(matches!(other.verify_key().verify::<Vec<u8>>(&signed), Err(BusError::Signature)));
        let changed = Signed { payload: "[1,3]".into(), ..signed.clone() };
        assert!(matches!(public.verify::<Vec<u8>>(&changed), Err(BusError::Signature)));
        let cut = Signed { signature: String::new(), ..signed };
        assert!(matches!(public.verify::<Vec<u8>>(&cut), Err(BusError::Signature)));
    }
}
