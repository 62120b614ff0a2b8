//! ID tokens (OpenID Connect Core §2): for the client, never for an app or the Platform.
//!
//! They are signed with RS256, the one algorithm that every relying party knows (§15.1). Access tokens have
//! other keys, so neither kind can pass for the other.

use crate::key::KeyError;
use aws_lc_rs::{
    digest, rand,
    rsa::KeySize,
    signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};

/// Life of an ID token, in seconds. It says that somebody has signed in, and opens nothing.
pub const ID_LIFE_S: u64 = 300;
/// Longest ID token that is read back, in bytes.
const HINT_BYTES_MAX: usize = 8 * 1024;
/// Public exponent of all our RSA keys: 65537, base64url.
pub const RSA_EXPONENT: &str = "AQAB";
/// How the public half of a 2048-bit key with that exponent begins in DER (RFC 8017 §A.1.1).
const PUBLIC_HEAD: [u8; 9] = [0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
const MODULUS_BYTES: usize = 256;

/// Claims of an ID token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdClaims {
    /// Issuer.
    pub iss: String,
    /// Id of the user.
    pub sub: String,
    /// The client.
    pub aud: String,
    /// Seconds since 1970.
    pub exp: u64,
    /// Seconds since 1970.
    pub iat: u64,
    /// Seconds since 1970 at which the user signed in.
    pub auth_time: u64,
    /// The client's own value of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// How well the sign-in is secured.
    pub acr: String,
    /// How the user signed in (RFC 8176).
    pub amr: Vec<String>,
    /// Binds the access token to this one.
    pub at_hash: String,
    /// Session.
    pub sid: String,
    /// Name to show, with the scope `profile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address, with the scope `email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether the address was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email_verified: Option<bool>,
}

/// A private key for ID tokens.
pub struct IdKey {
    pair: RsaKeyPair,
    /// Id.
    pub kid: String,
    /// Modulus, base64url.
    pub n: String,
}

impl IdKey {
    /// A new key and its PKCS #8 form. Costs about 0.1 s.
    ///
    /// # Errors
    /// Without randomness.
    pub fn generate() -> Result<(Self, Vec<u8>), KeyError> {
        use aws_lc_rs::encoding::AsDer;
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Randomness)?;
        let pkcs8 = pair.as_der().map_err(|_| KeyError::NotAKey)?.as_ref().to_vec();
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    /// Reads a key.
    ///
    /// # Errors
    /// Unless it is an RSA key of 2048 bits with the exponent 65537.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| KeyError::NotAKey)?;
        let public = pair.public_key().as_ref();
        let modulus = public.strip_prefix(&PUBLIC_HEAD).and_then(|rest| rest.get(..MODULUS_BYTES));
        let n = BASE64_URL_SAFE_NO_PAD.encode(modulus.ok_or(KeyError::NotAKey)?);
        let kid = BASE64_URL_SAFE_NO_PAD.encode(&digest::digest(&digest::SHA256, public).as_ref()[..12]);
        Ok(Self { pair, kid, n })
    }

    /// Signs an ID token.
    ///
    /// # Errors
    /// When signing fails.
    pub fn mint(&self, claims: &IdClaims) -> Result<String, KeyError> {
        self.sign("JWT", claims)
    }

    /// Signs claims as a token of this type (RFC 7515 §5.1).
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign<T: Serialize>(&self, typ: &str, claims: &T) -> Result<String, KeyError> {
        let header = serde_json::json!({ "alg": "RS256", "typ": typ, "kid": self.kid });
        let part = |bytes: Vec<u8>| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let claims = serde_json::to_vec(claims).map_err(|_| KeyError::Signing)?;
        let input = format!("{}.{}", part(header.to_string().into_bytes()), part(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = rand::SystemRandom::new();
        self.pair
            .sign(&RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature)
            .map_err(|_| KeyError::Signing)?;
        Ok(format!("{input}.{}", part(signature)))
    }
}

/// Value of `at_hash` for RS256: the left half of the access token's SHA-256 (§3.1.3.6).
pub fn at_hash(access_token: &str) -> String {
    let hash = digest::digest(&digest::SHA256, access_token.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16])
}

/// Reads an ID token of ours that comes back as `id_token_hint`; `keys` are pairs of id and modulus. It may
/// have ended: a hint says who is meant and opens nothing (RP-Initiated Logout §2).
pub fn read_hint(token: &str, issuer: &str, keys: &[(&str, &str)]) -> Option<IdClaims> {
    if token.len() > HINT_BYTES_MAX {
        return None;
    }
    let kid = decode_header(token).ok()?.kid?;
    let (_, n) = keys.iter().find(|(known, _)| *known == kid)?;
    let mut rules = Validation::new(Algorithm::RS256);
    rules.validate_exp = false;
    rules.validate_aud = false;
    rules.set_issuer(&[issuer]);
    rules.set_required_spec_claims(&["iss", "sub", "aud"]);
    let key = DecodingKey::from_rsa_components(n, RSA_EXPONENT).ok()?;
    decode::<IdClaims>(token, &key, &rules).ok().map(|data| data.claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claims() -> IdClaims {
        IdClaims {
            iss: "https://issuer".into(),
            sub: "ann".into(),
            aud: "client".into(),
            exp: 1_300,
            iat: 1_000,
            auth_time: 990,
            nonce: Some("n".into()),
            acr: "password".into(),
            amr: vec!["pwd".into()],
            at_hash: at_hash("token"),
            sid: "session".into(),
            name: None,
            email: None,
            email_verified: None,
        }
    }

    #[test]
    fn a_hint_is_read_only_by_its_own_key_and_issuer() {
        let (key, pkcs8) = IdKey::generate().unwrap();
        let other = IdKey::generate().unwrap().0;
        let again = IdKey::from_pkcs8(&pkcs8).unwrap();
        assert_eq!((&again.kid, &again.n), (&key.kid, &key.n));
        let token = key.mint(&claims()).unwrap();
        let read = |token: &str, issuer: &str, kid: &str, n: &str| read_hint(token, issuer, &[(kid, n)]);
        assert_eq!(read(&token, "https://issuer", &key.kid, &key.n), Some(claims()));
        assert_eq!(read(&token, "https://other", &key.kid, &key.n), None);
        assert_eq!(read(&token, "https://issuer", &key.kid, &other.n), None, "another key of this id");
        assert_eq!(read(&token, "https://issuer", &other.kid, &key.n), None, "no key of this id");
        let mut parts = token.split('.');
        let (head, body) = (parts.next().unwrap(), parts.next().unwrap());
        assert_eq!(read(&format!("{head}.{body}."), "https://issuer", &key.kid, &key.n), None);
        let none = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, key.kid));
        assert_eq!(read(&format!("{none}.{body}."), "https://issuer", &key.kid, &key.n), None);
        let hmac = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, key.kid));
        let sign = parts.next().unwrap();
        assert_eq!(read(&format!("{hmac}.{body}.{sign}"), "https://issuer", &key.kid, &key.n), None);
    }

    #[test]
    fn the_hash_of_an_access_token_is_that_of_the_specification() {
        // OpenID Connect Core §A.4 gives this pair.
        assert_eq!(at_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"), "77QmUPtjPfzWtF2AnpK9RQ");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}") {
            prop_assert_eq!(read_hint(&text, "i", &[("k", "AQAB")]), None);
        }
    }
}
