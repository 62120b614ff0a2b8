//! Public keys of API clients (RFC 7517), as administrators give them.
//!
//! A key says by which one algorithm it is used. Only what is needed to check signatures is read and kept; a key with its
//! private half, or one that both sides would have to know, is refused.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

/// Most keys of one document, and of a client.
pub const CLIENT_KEYS_MAX: usize = 4;
/// Longest id of a key, in bytes.
const KID_BYTES_MAX: usize = 100;
/// Shortest and longest RSA modulus, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Members that only the owner of a key has: of RSA, of curves, of shared secrets (RFC 7518 §6).
const PRIVATE: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
/// Algorithms by which clients sign, as discovery names them.
pub const CLIENT_ALGORITHMS: [&str; 5] = ["ES256", "EdDSA", "Ed25519", "RS256", "PS256"];

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientKeyFault {
    /// Neither a JWK nor a set of them.
    #[error("give a public key as a JWK, or a set of them: {{\"keys\": [...]}}")]
    Form,
    /// None, or too many.
    #[error("give 1 to 4 keys")]
    Count,
    /// The private half.
    #[error(
        "this holds a private key: give its public half only, and make a new key, for this one was sent away"
    )]
    Private,
    /// Its kind.
    #[error("kty: EC with crv P-256, OKP with crv Ed25519, or RSA")]
    Kind,
    /// Its id.
    #[error("kid: at most 100 of A-Z, a-z, 0-9, `-`, `_`, `.`, `~`")]
    Kid,
    /// Its id is another's, too.
    #[error("kid: each key has its own")]
    Repeated,
    /// What it is for.
    #[error("alg, use, key_ops: a key that signs, by ES256, EdDSA, RS256 or PS256, as its kind does")]
    Purpose,
    /// Its numbers.
    #[error(
        "the numbers of the key make no good key; an RSA key has 2048 to 4096 bits and the exponent 65537"
    )]
    Numbers,
}

/// The public key of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKey {
    kid: String,
    half: Half,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Half {
    P256([u8; 65]),
    Ed25519([u8; 32]),
    Rsa { n: Vec<u8>, is_pss: bool },
}

impl ClientKey {
    /// Reads a document: one key, or a set of at most [`CLIENT_KEYS_MAX`] keys with different ids.
    ///
    /// # Errors
    /// The first [`ClientKeyFault`] found.
    pub fn read_all(document: &Value) -> Result<Vec<Self>, ClientKeyFault> {
        let members = document.as_object().ok_or(ClientKeyFault::Form)?;
        let Some(set) = members.get("keys") else { return Ok(vec![Self::of(members)?]) };
        let set = set.as_array().ok_or(ClientKeyFault::Form)?;
        if set.is_empty() || set.len() > CLIENT_KEYS_MAX {
            return Err(ClientKeyFault::Count);
        }
        let keys = set.iter().map(Self::read).collect::<Result<Vec<_>, _>>()?;
        let again = |(at, key): (usize, &Self)| keys[at + 1..].iter().any(|other| other.kid == key.kid);
        if keys.iter().enumerate().any(again) { Err(ClientKeyFault::Repeated) } else { Ok(keys) }
    }

    /// Reads one key.
    ///
    /// # Errors
    /// The first [`ClientKeyFault`] found.
    pub fn read(jwk: &Value) -> Result<Self, ClientKeyFault> {
        Self::of(jwk.as_object().ok_or(ClientKeyFault::Form)?)
    }

    fn of(jwk: &Map<String, Value>) -> Result<Self, ClientKeyFault> {
        if PRIVATE.iter().any(|name| jwk.contains_key(*name)) {
            return Err(ClientKeyFault::Private);
        }
        let kid = text(jwk, "kid").filter(|kid| is_kid(kid)).ok_or(ClientKeyFault::Kid)?.to_owned();
        let half = match (text(jwk, "kty"), text(jwk, "crv")) {
            (Some("EC"), Some("P-256")) => p256(jwk)?,
            (Some("OKP"), Some("Ed25519")) => ed25519(jwk)?,
            (Some("RSA"), _) => rsa(jwk)?,
            _ => return Err(ClientKeyFault::Kind),
        };
        let key = Self { kid, half };
        demand_purpose(&key, jwk)?;
        Ok(key)
    }

    /// Its id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The algorithm by which it is used.
    pub fn algorithm(&self) -> &'static str {
        match &self.half {
            Half::P256(_) => "ES256",
            Half::Ed25519(_) => "EdDSA",
            Half::Rsa { is_pss: false, .. } => "RS256",
            Half::Rsa { is_pss: true, .. } => "PS256",
        }
    }

    /// Whether this is a name of its algorithm. RFC 9864 gave EdDSA with this curve a second one.
    pub(crate) fn is_used_by(&self, algorithm: &str) -> bool {
        algorithm == self.algorithm() || (algorithm == "Ed25519" && matches!(self.half, Half::Ed25519(_)))
    }

    /// Whether it made this signature.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.half {
            Half::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Half::Ed25519(x) => UnparsedPublicKey::new(&ED25519, x).verify(message, signature).is_ok(),
            Half::Rsa { n, is_pss } => {
                let rule = if *is_pss { &RSA_PSS_2048_8192_SHA256 } else { &RSA_PKCS1_2048_8192_SHA256 };
                let e: &[u8] = &EXPONENT;
                RsaPublicKeyComponents { n: n.as_slice(), e }.verify(rule, message, signature).is_ok()
            }
        }
    }

    /// The key as a JWK of exactly what is known of it.
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (kid, alg) = (&self.kid, self.algorithm());
        match &self.half {
            Half::P256(point) => json!({
                "kty": "EC", "crv": "P-256", "kid": kid, "alg": alg, "use": "sig",
                "x": encode(&point[1..33]), "y": encode(&point[33..]),
            }),
            Half::Ed25519(x) => json!({
                "kty": "OKP", "crv": "Ed25519", "kid": kid, "alg": alg, "use": "sig", "x": encode(x),
            }),
            Half::Rsa { n, .. } => json!({
                "kty": "RSA", "kid": kid, "alg": alg, "use": "sig", "n": encode(n), "e": encode(&EXPONENT),
            }),
        }
    }
}

/// 65537.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// It stands in addresses and in the audit trail.
fn is_kid(kid: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    // A segment of dots alone would be another address.
    (1..=KID_BYTES_MAX).contains(&kid.len()) && kid.bytes().all(plain) && !kid.bytes().all(|b| b == b'.')
}

fn p256(jwk: &Map<String, Value>) -> Result<Half, ClientKeyFault> {
    let mut point = [4; 65];
    point[1..33].copy_from_slice(&number::<32>(jwk, "x")?);
    point[33..].copy_from_slice(&number::<32>(jwk, "y")?);
    // Also whether it is on the curve.
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| ClientKeyFault::Numbers)?;
    Ok(Half::P256(point))
}

fn ed25519(jwk: &Map<String, Value>) -> Result<Half, ClientKeyFault> {
    let x = number::<32>(jwk, "x")?;
    ParsedPublicKey::new(&ED25519, x).map_err(|_| ClientKeyFault::Numbers)?;
    Ok(Half::Ed25519(x))
}

fn rsa(jwk: &Map<String, Value>) -> Result<Half, ClientKeyFault> {
    let n = bytes(jwk, "n")?;
    let (first, last) = (n.first().copied().unwrap_or(0), n.last().copied().unwrap_or(0));
    let bits = (n.len() * 8).saturating_sub(first.leading_zeros() as usize);
    if first == 0 || last % 2 == 0 || !RSA_BITS.contains(&bits) || bytes(jwk, "e")? != EXPONENT {
        return Err(ClientKeyFault::Numbers);
    }
    // RFC 7518 §3.1 recommends the other, but this is what everybody has who says nothing.
    Ok(Half::Rsa { n, is_pss: text(jwk, "alg") == Some("PS256") })
}

/// Whether a key that says what it is for is for this.
fn demand_purpose(key: &ClientKey, jwk: &Map<String, Value>) -> Result<(), ClientKeyFault> {
    let signs = match jwk.get("use") {
        None => true,
        Some(word) => word == "sig",
    };
    let verifies = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(words)) => words.iter().all(|word| word == "verify") && !words.is_empty(),
        Some(_) => false,
    };
    let algorithm = match jwk.get("alg") {
        None => true,
        Some(word) => word.as_str().is_some_and(|word| key.is_used_by(word)),
    };
    if signs && verifies && algorithm { Ok(()) } else { Err(ClientKeyFault::Purpose) }
}

fn text<'j>(jwk: &'j Map<String, Value>, name: &str) -> Option<&'j str> {
    jwk.get(name)?.as_str()
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, ClientKeyFault> {
    let text = text(jwk, name).filter(|text| text.len() <= 1024).ok_or(ClientKeyFault::Numbers)?;
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| ClientKeyFault::Numbers)
}

fn number<const LENGTH: usize>(jwk: &Map<String, Value>, name: &str) -> Result<[u8; LENGTH], ClientKeyFault> {
    bytes(jwk, name)?.try_into().map_err(|_| ClientKeyFault::Numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdKey, SigningKey, id_token::RSA_EXPONENT};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static RSA: LazyLock<String> = LazyLock::new(|| IdKey::generate().unwrap().0.n);

    fn ed() -> Value {
        let x = SigningKey::generate().unwrap().verifying_key().x.clone();
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "e", "x": x })
    }

    fn ec() -> Value {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "kid": "c", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    }

    fn rsa() -> Value {
        json!({ "kty": "RSA", "kid": "r", "n": *RSA, "e": RSA_EXPONENT })
    }

    /// A key with changed members; `null` takes one away.
    fn changed(mut key: Value, change: &Value) -> Value {
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(key.as_object_mut().unwrap().remove(name)),
                value => key[name] = value.clone(),
            }
        }
        key
    }

    #[test]
    fn a_key_is_read_with_its_one_algorithm_and_kept_as_it_was_read() {
        let check = |jwk: Value, algorithm: &str| {
            let key = ClientKey::read(&jwk).unwrap();
            assert_eq!((key.algorithm(), Some(key.kid())), (algorithm, jwk["kid"].as_str()), "{jwk}");
            assert_eq!(ClientKey::read(&key.jwk()), Ok(key), "{jwk}");
        };
        check(ed(), "EdDSA");
        check(changed(ed(), &json!({ "alg": "Ed25519", "use": "sig", "key_ops": ["verify"] })), "EdDSA");
        check(ec(), "ES256");
        check(rsa(), "RS256");
        check(changed(rsa(), &json!({ "alg": "PS256", "x5t": "of no meaning" })), "PS256");
    }

    #[test]
    fn private_shared_weak_and_foreign_keys_are_refused() {
        use ClientKeyFault::{Form, Kid, Kind, Numbers, Private, Purpose};
        let check = |key: Value, change: Value, fault: ClientKeyFault| {
            assert_eq!(ClientKey::read(&changed(key, &change)), Err(fault), "{change}");
        };
        for name in PRIVATE {
            check(rsa(), json!({ name: "AAAA" }), Private);
        }
        check(ed(), json!({ "d": "AAAA" }), Private);
        check(json!({}), json!({ "kty": "oct", "k": "AAAA", "kid": "s" }), Private);
        check(json!({}), json!({ "kty": "oct", "kid": "s" }), Kind);
        check(ec(), json!({ "crv": "P-384" }), Kind);
        check(ec(), json!({ "crv": "secp256k1" }), Kind);
        check(ed(), json!({ "crv": "X25519" }), Kind);
        check(ed(), json!({ "kty": 1 }), Kind);
        for kid in [json!(null), json!(""), json!(7), json!("a/b"), json!("ä"), json!("..")] {
            check(ed(), json!({ "kid": kid }), Kid);
        }
        check(ed(), json!({ "kid": "x".repeat(101) }), Kid);
        for purpose in [
            json!({ "use": "enc" }),
            json!({ "alg": "ES256" }),
            json!({ "alg": "none" }),
            json!({ "alg": 1 }),
            json!({ "key_ops": ["sign"] }),
            json!({ "key_ops": ["verify", "sign"] }),
            json!({ "key_ops": [] }),
        ] {
            check(ed(), purpose, Purpose);
        }
        check(rsa(), json!({ "alg": "RS512" }), Purpose);
        check(rsa(), json!({ "alg": "HS256" }), Purpose);
        let short = BASE64_URL_SAFE_NO_PAD.encode([0xff; 128]);
        let even = BASE64_URL_SAFE_NO_PAD.encode([0xfe; 256]);
        let zeros = BASE64_URL_SAFE_NO_PAD.encode([&[0][..], &[0xff; 256]].concat());
        let long = BASE64_URL_SAFE_NO_PAD.encode([0xff; 513]);
        for n in [short, even, zeros, long, String::new(), "é".into(), format!("{}=", *RSA)] {
            check(rsa(), json!({ "n": n }), Numbers);
        }
        for e in ["Aw", "AAEAAQ", "", "AQAA"] {
            check(rsa(), json!({ "e": e }), Numbers);
        }
        check(ec(), json!({ "x": ec()["x"] }), Numbers);
        check(ec(), json!({ "y": null }), Numbers);
        check(ed(), json!({ "x": "AAAA" }), Numbers);
        assert_eq!(ClientKey::read(&json!([])), Err(Form));
    }

    #[test]
    fn a_set_holds_a_few_keys_with_different_ids() {
        use ClientKeyFault::{Count, Form, Repeated};
        let check = |keys: Value, expected: Result<usize, ClientKeyFault>| {
            let read = ClientKey::read_all(&json!({ "keys": keys })).map(|keys| keys.len());
            assert_eq!(read, expected, "{keys}");
        };
        let named = |kid: &str| changed(ed(), &json!({ "kid": kid }));
        check(json!([ed(), ec(), rsa()]), Ok(3));
        check(json!([]), Err(Count));
        check(json!([named("1"), named("2"), named("3"), named("4"), named("5")]), Err(Count));
        check(json!([named("1"), named("2"), named("1")]), Err(Repeated));
        check(json!([named("1"), 7]), Err(Form));
        check(json!({}), Err(Form));
        assert_eq!(ClientKey::read_all(&ed()).unwrap().len(), 1);
        assert_eq!(ClientKey::read_all(&json!("x")), Err(Form));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_read_again_and_nothing_panics(
            kty in "(EC|OKP|RSA|oct)", crv in "(P-256|Ed25519)", kid in ".{0,4}",
            x in proptest::collection::vec(any::<u8>(), 31..34), y in proptest::collection::vec(any::<u8>(), 32..33),
            n in proptest::collection::vec(any::<u8>(), 255..258),
        ) {
            let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
            let jwk = json!({
                "kty": kty, "crv": crv, "kid": kid, "x": encode(&x), "y": encode(&y), "n": encode(&n), "e": "AQAB",
            });
            if let Ok(key) = ClientKey::read(&jwk) {
                prop_assert_eq!(ClientKey::read(&key.jwk()), Ok(key));
            }
        }
    }
}
