//! Sealing of small values that travel through a browser: AES-256-GCM with a random nonce.

use crate::key::KeyError;
use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// Version of the form, first byte of a sealed value.
const VERSION: u8 = 1;
/// Largest value that is opened, in bytes of text.
const TEXT_BYTES_MAX: usize = 8 * 1024;
const NONCE_BYTES: usize = 12;

/// A key for sealing.
pub struct SealKey(RandomizedNonceKey);

impl SealKey {
    /// Reads the 32 bytes of a key.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes).map(Self).map_err(|_| KeyError::NotAKey)
    }

    /// Seals a value for one purpose; it opens only for the same purpose.
    pub fn seal(&self, purpose: &str, value: &[u8]) -> Result<String, KeyError> {
        let mut sealed = value.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(purpose.as_bytes()), &mut sealed)
            .map_err(|_| KeyError::Signing)?;
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(nonce.as_ref());
        bytes.extend_from_slice(&sealed);
        Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Opens a value; `None` for anything that was not sealed with this key for this purpose.
    pub fn open(&self, purpose: &str, text: &str) -> Option<Vec<u8>> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, rest) = bytes.split_first()?;
        if *version != VERSION || rest.len() < NONCE_BYTES {
            return None;
        }
        let (nonce, sealed) = rest.split_at(NONCE_BYTES);
        let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let open = self.0.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut sealed).ok()?;
        Some(open.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_opens_for_its_purpose_only(value: Vec<u8>) {
            let key = SealKey::new(&[7; 32]).unwrap();
            let sealed = key.seal("login", &value).unwrap();
            if sealed.len() <= TEXT_BYTES_MAX {
                prop_assert_eq!(key.open("login", &sealed), Some(value));
            }
            prop_assert_eq!(key.open("other", &sealed), None);
        }
        #[test]
        fn foreign_text_never_opens(text in "\\PC*") {
            prop_assert_eq!(SealKey::new(&[7; 32]).unwrap().open("login", &text), None);
        }
    }
}
