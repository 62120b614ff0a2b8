//! Opaque secrets: session cookies, refresh tokens, codes, links. Only their hash is ever stored.

use crate::key::KeyError;
use aws_lc_rs::{digest, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_types::Secret;

/// A new secret and the hash under which it is stored.
pub struct Opaque {
    /// 256 bits, base64url: shown once.
    pub secret: Secret,
    /// Its SHA-256.
    pub hash: [u8; 32],
}

impl Opaque {
    /// Makes one.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
        let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Ok(Self { hash: hash(&text), secret: Secret::new(text) })
    }
}

/// The hash under which a secret is stored.
pub fn hash(secret: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    bytes
}

/// Whether a text has the form of such a secret. What has not need not be looked up anywhere.
pub fn has_form(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_hash_to_what_is_stored() {
        let (one, two) = (Opaque::generate().unwrap(), Opaque::generate().unwrap());
        assert_ne!(one.hash, two.hash);
        assert_eq!(hash(one.secret.expose()), one.hash);
        assert!(has_form(one.secret.expose()));
        assert!(!has_form("short") && !has_form(&"ü".repeat(22)));
    }
}
