//! The word by which a client proves who it is with its private key (`private_key_jwt`; RFC 7523 §3, OpenID Connect
//! Core §9).
//!
//! The client's registered key decides the algorithm, never the word. The one audience is the issuer, so that a word for
//! another server opens nothing here, and none of ours there. That each word counts once, its [`Proven::jti`] is for the
//! caller to see to.

use crate::{client_key::ClientKey, upstream::LEEWAY_S};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};

/// What a client says its word is (RFC 7523 §2.2).
pub const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Longest word, in bytes. The longest key of a client needs about a quarter of it.
pub const ASSERTION_BYTES_MAX: usize = 4096;
/// Longest time that a word is good, in seconds.
pub const ASSERTION_LIFE_MAX_S: u64 = 300;
/// Longest id of a word, in bytes.
const JTI_BYTES_MAX: usize = 255;

/// Why a client's word does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssertionFault {
    /// Longer than [`ASSERTION_BYTES_MAX`].
    #[error("the assertion is too large")]
    TooLarge,
    /// Not a signed token of our form, or a claim is missing.
    #[error("the assertion is malformed")]
    Malformed,
    /// Another kind of token.
    #[error("the assertion is of another type")]
    WrongType,
    /// The header holds more than algorithm, type and key.
    #[error("the assertion's header says more than it may")]
    HeaderNotAllowed,
    /// It names no key of this client.
    #[error("the assertion names no key of this client")]
    UnknownKey,
    /// Not the algorithm of its key.
    #[error("the assertion's algorithm is not its key's")]
    WrongAlgorithm,
    /// The signature is not the key's.
    #[error("the assertion's signature is not its key's")]
    BadSignature,
    /// Of another client, or about one.
    #[error("the assertion is another client's")]
    WrongClient,
    /// For somebody else.
    #[error("the assertion's audience is not this issuer")]
    WrongAudience,
    /// No longer good.
    #[error("the assertion has expired")]
    Expired,
    /// Not good yet, or made in the future.
    #[error("the assertion is not valid yet")]
    NotYetValid,
    /// Good for too long.
    #[error("the assertion lives too long")]
    TooLongLived,
}

/// Nothing in a header may name a key's place or change the rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default)]
    typ: Option<String>,
}

/// Each claim has one form; those that nobody here knows mean nothing (RFC 7519 §4).
#[derive(Deserialize)]
struct Words {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    jti: String,
    #[serde(default)]
    iat: Option<u64>,
    #[serde(default)]
    nbf: Option<u64>,
}

/// A word whose signature nobody has looked at: it says of which client it wants to be, and by which key.
pub struct Unproven<'a> {
    header: Header,
    words: Words,
    signed: &'a str,
    signature: Vec<u8>,
}

/// What is known of a word that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Its id: it counts once.
    pub jti: String,
    /// Seconds since 1970 until which it could be shown again.
    pub until_s: u64,
}

impl<'a> Unproven<'a> {
    /// Reads a word.
    ///
    /// # Errors
    /// [`AssertionFault`], for what is wrong with its form.
    pub fn read(text: &'a str) -> Result<Self, AssertionFault> {
        if text.len() > ASSERTION_BYTES_MAX {
            return Err(AssertionFault::TooLarge);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(AssertionFault::Malformed)?;
        let (header, words) = signed.split_once('.').ok_or(AssertionFault::Malformed)?;
        let header = read_header(&decode(header)?)?;
        Ok(Self { header, words: parse(&decode(words)?)?, signed, signature: decode(signature)? })
    }

    /// The client that it says it is.
    pub fn client(&self) -> &str {
        &self.words.sub
    }

    /// The key that it says it is signed with.
    pub fn kid(&self) -> &str {
        &self.header.kid
    }

    /// Checks it with the key of the client that it names.
    ///
    /// # Errors
    /// The first [`AssertionFault`] found.
    pub fn prove(&self, key: &ClientKey, issuer: &str, now_s: u64) -> Result<Proven, AssertionFault> {
        if key.kid() != self.header.kid {
            return Err(AssertionFault::UnknownKey);
        }
        if !key.is_used_by(&self.header.alg) {
            return Err(AssertionFault::WrongAlgorithm);
        }
        if !key.has_signed(self.signed.as_bytes(), &self.signature) {
            return Err(AssertionFault::BadSignature);
        }
        if self.words.iss != self.words.sub {
            return Err(AssertionFault::WrongClient);
        }
        if self.words.aud != issuer {
            return Err(AssertionFault::WrongAudience);
        }
        self.words.demand_time(now_s)?;
        let jti = self.words.jti.clone();
        if !(1..=JTI_BYTES_MAX).contains(&jti.len()) {
            return Err(AssertionFault::Malformed);
        }
        Ok(Proven { jti, until_s: self.words.exp.saturating_add(LEEWAY_S) })
    }
}

impl Words {
    fn demand_time(&self, now_s: u64) -> Result<(), AssertionFault> {
        let soon = now_s.saturating_add(LEEWAY_S);
        if now_s >= self.exp.saturating_add(LEEWAY_S) {
            return Err(AssertionFault::Expired);
        }
        if self.exp > soon.saturating_add(ASSERTION_LIFE_MAX_S) {
            return Err(AssertionFault::TooLongLived);
        }
        if self.iat.is_some_and(|at| at > soon) || self.nbf.is_some_and(|at| at > soon) {
            return Err(AssertionFault::NotYetValid);
        }
        Ok(())
    }
}

fn read_header(bytes: &[u8]) -> Result<Header, AssertionFault> {
    let loose: serde_json::Value = parse(bytes)?;
    let members = loose.as_object().ok_or(AssertionFault::Malformed)?;
    if members.keys().any(|name| !matches!(name.as_str(), "alg" | "typ" | "kid")) {
        return Err(AssertionFault::HeaderNotAllowed);
    }
    if !members.contains_key("kid") {
        return Err(AssertionFault::UnknownKey);
    }
    // Read again in the strict form, which also refuses repeated members.
    let header: Header = parse(bytes)?;
    match header.typ.as_deref() {
        None | Some("JWT" | "client-authentication+jwt") => Ok(header),
        Some(_) => Err(AssertionFault::WrongType),
    }
}

fn decode(part: &str) -> Result<Vec<u8>, AssertionFault> {
    BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| AssertionFault::Malformed)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AssertionFault> {
    serde_json::from_slice(bytes).map_err(|_| AssertionFault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdKey, id_token::RSA_EXPONENT};
    use aws_lc_rs::{
        rand::SystemRandom,
        rsa::KeySize,
        signature::{
            ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
            RSA_PSS_SHA256, RsaKeyPair,
        },
    };
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    const NOW: u64 = 1_000_000;
    const ISSUER: &str = "https://acme.platform.localhost/identity";
    static ED: LazyLock<Ed25519KeyPair> = LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

    fn encode(bytes: impl AsRef<[u8]>) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    fn key() -> ClientKey {
        let x = encode(ED.public_key());
        ClientKey::read(&json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x })).unwrap()
    }

    /// `base` with changed members; `null` takes one away.
    fn changed(mut base: Value, change: &Value) -> Value {
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(base.as_object_mut().unwrap().remove(name)),
                value => base[name] = value.clone(),
            }
        }
        base
    }

    fn header(change: &Value) -> String {
        changed(json!({ "alg": "EdDSA", "kid": "k" }), change).to_string()
    }

    fn words(change: &Value) -> String {
        let base = json!({ "iss": "robot", "sub": "robot", "aud": ISSUER, "exp": NOW + 60, "iat": NOW, "nbf": NOW, "jti": "1" });
        changed(base, change).to_string()
    }

    /// Signed by the client's key, whatever it says.
    fn signed(header: &str, words: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(words));
        format!("{signed}.{}", encode(ED.sign(signed.as_bytes())))
    }

    fn outcome(text: &str) -> Result<Proven, AssertionFault> {
        Unproven::read(text)?.prove(&key(), ISSUER, NOW)
    }

    #[test]
    fn a_word_counts_only_with_every_claim_as_it_must_be() {
        use AssertionFault::{Expired, Malformed, NotYetValid, TooLongLived, WrongAudience, WrongClient};
        let check = |change: Value, expected: Result<(), AssertionFault>| {
            let found = outcome(&signed(&header(&json!({})), &words(&change))).map(drop);
            assert_eq!(found, expected, "{change}");
        };
        check(json!({}), Ok(()));
        check(json!({ "iat": null, "nbf": null, "more": { "x": 1 } }), Ok(()));
        for claim in ["iss", "sub", "aud", "exp", "jti"] {
            check(json!({ claim: null }), Err(Malformed));
            check(json!({ claim: [] }), Err(Malformed));
        }
        check(json!({ "iss": "other" }), Err(WrongClient));
        check(json!({ "aud": format!("{ISSUER}/") }), Err(WrongAudience));
        check(json!({ "aud": format!("{ISSUER}/token") }), Err(WrongAudience));
        check(json!({ "aud": format!("{ISSUER}/s/development") }), Err(WrongAudience));
        check(json!({ "aud": [ISSUER] }), Err(Malformed));
        check(json!({ "exp": NOW - 29 }), Ok(()));
        check(json!({ "exp": NOW - 30 }), Err(Expired));
        check(json!({ "exp": NOW + 330 }), Ok(()));
        check(json!({ "exp": NOW + 331 }), Err(TooLongLived));
        check(json!({ "exp": u64::MAX }), Err(TooLongLived));
        check(json!({ "exp": "soon" }), Err(Malformed));
        check(json!({ "exp": 1_000_060.5 }), Err(Malformed));
        for claim in ["iat", "nbf"] {
            check(json!({ claim: NOW + 30 }), Ok(()));
            check(json!({ claim: NOW + 31 }), Err(NotYetValid));
            check(json!({ claim: "now" }), Err(Malformed));
        }
        check(json!({ "jti": "" }), Err(Malformed));
        check(json!({ "jti": "x".repeat(256) }), Err(Malformed));
        let proven = outcome(&signed(&header(&json!({})), &words(&json!({})))).unwrap();
        assert_eq!(proven, Proven { jti: "1".into(), until_s: NOW + 90 });
    }

    #[test]
    fn a_header_says_algorithm_key_and_type_and_nothing_else() {
        use AssertionFault::{HeaderNotAllowed, Malformed, UnknownKey, WrongAlgorithm, WrongType};
        let check = |change: Value, expected: Result<(), AssertionFault>| {
            let found = outcome(&signed(&header(&change), &words(&json!({})))).map(drop);
            assert_eq!(found, expected, "{change}");
        };
        check(json!({ "typ": "JWT" }), Ok(()));
        check(json!({ "typ": "client-authentication+jwt" }), Ok(()));
        check(json!({ "alg": "Ed25519" }), Ok(()));
        for typ in ["at+jwt", "logout+jwt", "dpop+jwt", ""] {
            check(json!({ "typ": typ }), Err(WrongType));
        }
        for more in ["crit", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "zip", "b64", "cty"] {
            check(json!({ more: "x" }), Err(HeaderNotAllowed));
        }
        for alg in ["none", "HS256", "ES256", "RS256", "PS256", "eddsa", ""] {
            check(json!({ "alg": alg }), Err(WrongAlgorithm));
        }
        check(json!({ "alg": null }), Err(Malformed));
        check(json!({ "kid": null }), Err(UnknownKey));
        check(json!({ "kid": "other" }), Err(UnknownKey));
        check(json!({ "kid": 1 }), Err(Malformed));
    }

    #[test]
    fn forms_that_could_be_read_in_two_ways_are_refused() {
        use AssertionFault::{BadSignature, Malformed, TooLarge};
        let good = signed(&header(&json!({})), &words(&json!({})));
        assert!(outcome(&good).is_ok());
        let check = |text: &str, fault: AssertionFault| assert_eq!(outcome(text), Err(fault), "{text}");
        let (unsigned, signature) = good.rsplit_once('.').unwrap();
        for text in ["", ".", "..", "...", "a.b", unsigned, &format!("{good}="), &format!("{good}.")] {
            check(text, Malformed);
        }
        check(&format!("{unsigned}."), BadSignature);
        let flipped = signature.replace(&signature[..1], if signature.starts_with('A') { "B" } else { "A" });
        check(&format!("{unsigned}.{flipped}"), BadSignature);
        let (head, rest) = good.split_once('.').unwrap();
        check(&format!("{}.{rest}", encode(header(&json!({ "typ": "JWT" })))), BadSignature);
        let other = signed(&header(&json!({})), &words(&json!({ "jti": "2" })));
        let spliced = format!("{head}.{}.{signature}", other.split('.').nth(1).unwrap());
        check(&spliced, BadSignature);
        check(&signed(r#"{"alg":"EdDSA","kid":"k","kid":"k"}"#, &words(&json!({}))), Malformed);
        let twice = words(&json!({})).replacen('{', r#"{"sub":"boss","#, 1);
        check(&signed(&header(&json!({})), &twice), Malformed);
        check(&signed("[]", &words(&json!({}))), Malformed);
        check(&"x".repeat(ASSERTION_BYTES_MAX + 1), TooLarge);
    }

    #[test]
    fn every_kind_of_key_proves_its_own_words_and_no_other_s() {
        let random = SystemRandom::new();
        let curve = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = curve.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let n = encode(rsa.public_key().modulus().big_endian_without_leading_zero());
        let of_rsa = |rule: &'static dyn aws_lc_rs::signature::RsaEncoding, message: &[u8]| {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(rule, &random, message, &mut signature).unwrap();
            signature
        };
        let foreign = IdKey::generate().unwrap().0.n;
        let jwks = [
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": encode(ED.public_key()) }),
            json!({ "kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y }),
            json!({ "kty": "RSA", "kid": "k", "n": n, "e": RSA_EXPONENT }),
            json!({ "kty": "RSA", "kid": "k", "n": n, "e": RSA_EXPONENT, "alg": "PS256" }),
            json!({ "kty": "RSA", "kid": "k", "n": foreign, "e": RSA_EXPONENT }),
        ];
        let keys = jwks.map(|jwk| ClientKey::read(&jwk).unwrap());
        for (at, alg) in ["EdDSA", "ES256", "RS256", "PS256"].into_iter().enumerate() {
            let head = encode(header(&json!({ "alg": alg })));
            let message = format!("{head}.{}", encode(words(&json!({}))));
            let signature = match alg {
                "EdDSA" => ED.sign(message.as_bytes()).as_ref().to_vec(),
                "ES256" => curve.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
                "RS256" => of_rsa(&RSA_PKCS1_SHA256, message.as_bytes()),
                _ => of_rsa(&RSA_PSS_SHA256, message.as_bytes()),
            };
            let text = format!("{message}.{}", encode(signature));
            for (other, key) in keys.iter().enumerate() {
                let found = Unproven::read(&text).unwrap().prove(key, ISSUER, NOW).map(drop);
                let expected = match () {
                    () if other == at => Ok(()),
                    () if key.is_used_by(alg) => Err(AssertionFault::BadSignature),
                    () => Err(AssertionFault::WrongAlgorithm),
                };
                assert_eq!(found, expected, "{alg} by {other}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_passes_or_panics(text in ".{0,300}", head in ".{0,100}", words in ".{0,200}", signature: Vec<u8>) {
            prop_assert!(outcome(&text).is_err());
            let made = format!("{}.{}.{}", encode(head), encode(words), encode(signature));
            prop_assert!(outcome(&made).is_err());
        }

        #[test]
        fn whoever_has_not_the_key_changes_nothing(at in 0usize..400, bit in 0u8..8) {
            let mut bytes = signed(&header(&json!({})), &words(&json!({}))).into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(outcome(&text).is_err());
            }
        }
    }
}
