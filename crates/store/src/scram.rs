//! What a PostgreSQL server keeps of a password: a SCRAM-SHA-256 verifier (RFC 5803), made here so that the
//! password itself never stands in a statement, and so in no log of the server.

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac, pbkdf2,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::num::NonZeroU32;

/// As the server itself would take.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");
pub(crate) const SALT_BYTES: usize = 16;

/// The verifier of a password of ASCII letters and digits (others would have to be prepared first, RFC 4013).
pub(crate) fn verifier(password: &str, salt: &[u8; SALT_BYTES]) -> String {
    debug_assert!(password.bytes().all(|b| b.is_ascii_alphanumeric()));
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, password.as_bytes(), &mut salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let stored = digest(&SHA256, hmac::sign(&key, b"Client Key").as_ref());
    let server = hmac::sign(&key, b"Server Key");
    let [salt, stored, server] =
        [&salt[..], stored.as_ref(), server.as_ref()].map(|bytes| STANDARD.encode(bytes));
    format!("SCRAM-SHA-256${ROUNDS}:{salt}${stored}:{server}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_password_has_its_known_verifier() {
        // The exchange of RFC 7677 §3 (user `user`, password `pencil`): its server signature needs exactly this key.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let made = verifier("pencil", salt.as_slice().try_into().unwrap());
        let server = STANDARD.decode(made.rsplit(':').next().unwrap()).unwrap();
        let exchange = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &server), exchange.as_bytes());
        assert_eq!(STANDARD.encode(signature.as_ref()), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(made.starts_with("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"));
    }
}
