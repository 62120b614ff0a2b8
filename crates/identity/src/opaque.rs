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

/// Letters of a user code: no vowels, so that no words come out (RFC 8628 §6.1).
const USER_CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters of a user code: 43 bits.
pub const USER_CODE_LENGTH: usize = 10;

/// A new code for people to type.
///
/// # Errors
/// Without randomness.
pub fn user_code() -> Result<String, KeyError> {
    let mut code = String::with_capacity(USER_CODE_LENGTH);
    while code.len() < USER_CODE_LENGTH {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).map_err(|_| KeyError::Randomness)?;
        // 240 is the largest multiple of 20: without the rest, all letters are equally likely.
        for byte in bytes.into_iter().filter(|byte| *byte < 240).take(USER_CODE_LENGTH - code.len()) {
            code.push(char::from(USER_CODE_LETTERS[usize::from(byte) % USER_CODE_LETTERS.len()]));
        }
    }
    Ok(code)
}

/// A user code as typed, in the form in which it is stored: capitals, without dashes and blanks.
pub fn typed_user_code(text: &str) -> String {
    let letters = text.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase());
    letters.take(USER_CODE_LENGTH + 1).collect()
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

    #[test]
    fn a_user_code_is_read_however_it_is_typed() {
        let code = user_code().unwrap();
        assert!(code.len() == USER_CODE_LENGTH && code.bytes().all(|b| USER_CODE_LETTERS.contains(&b)));
        let typed = format!(" {}-{}\n", code[..5].to_lowercase(), &code[5..]);
        assert_eq!(typed_user_code(&typed), code);
        assert_ne!(user_code().unwrap(), code);
    }
}
