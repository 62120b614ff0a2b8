//! Tokens of other providers: ID tokens and logout tokens, checked against the keys that they publish.
//!
//! The key decides the algorithm, never the token. Only asymmetric ones count: nobody shares a secret with a stranger.

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use serde_json::{Map, Value};

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Most keys of a provider.
const KEYS_MAX: usize = 64;
/// How far clocks of others may be off, in seconds.
pub(crate) const LEEWAY_S: u64 = 30;
/// How old a logout token may be, in seconds.
const LOGOUT_AGE_MAX_S: u64 = 300;
/// What a logout token says (OpenID Connect Back-Channel Logout 1.0 §2.4).
pub const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Why a token of another provider does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamFault {
    /// Not a token, or too long.
    #[error("it is no token")]
    Malformed,
    /// None of the published keys.
    #[error("no published key signed it")]
    UnknownKey,
    /// The signature, or a claim that every token has.
    #[error("it is not signed by the provider for this client")]
    Refused,
    /// Its time.
    #[error("its time is not now")]
    Time,
    /// It answers another request.
    #[error("it answers another request")]
    Nonce,
    /// It says nothing about a sign-out.
    #[error("it says nothing about a sign-out")]
    NoLogout,
}

/// The keys that a provider publishes.
#[derive(Debug, Clone)]
pub struct UpstreamKeys(Vec<Jwk>);

impl UpstreamKeys {
    /// Reads a JWK set. Keys of kinds that are not known here are left out.
    pub fn read(json: &[u8]) -> Option<Self> {
        let set: Value = serde_json::from_slice(json).ok()?;
        let keys = set.get("keys")?.as_array()?;
        if keys.len() > KEYS_MAX {
            return None;
        }
        let known = keys.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
        let signs = |key: &Jwk| !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
        Some(Self(JwkSet { keys: known.filter(signs).collect() }.keys))
    }

    /// Whether there is a key of this id.
    pub fn knows(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.common.key_id.as_deref() == Some(kid))
    }

    /// The key that a token names; without a name, the only one that fits.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Jwk> {
        let mut fitting = self.0.iter().filter(|key| {
            fits(key, algorithm) && kid.is_none_or(|kid| key.common.key_id.as_deref() == Some(kid))
        });
        let found = fitting.next()?;
        (kid.is_some() || fitting.next().is_none()).then_some(found)
    }
}

/// Whether a key makes signatures of this kind.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match &key.algorithm {
        AlgorithmParameters::RSA(_) => {
            matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512)
        }
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => algorithm == ES256,
            EllipticCurve::P384 => algorithm == ES384,
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(_) => algorithm == EdDSA,
        _ => false,
    }
}

/// The id of the key that a token names.
pub fn key_id(token: &str) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    decode_header(token).ok()?.kid
}

/// What is demanded of a token.
#[derive(Debug, Clone, Copy)]
pub struct Upstream<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// Our id there.
    pub client_id: &'a str,
    /// Its keys.
    pub keys: &'a UpstreamKeys,
}

/// A sign-out that a provider tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logout {
    /// Who, by the provider's id.
    pub sub: Option<String>,
    /// Which of the provider's sessions.
    pub sid: Option<String>,
    /// Id of the token: it counts once.
    pub jti: String,
}

impl Upstream<'_> {
    /// Claims of an ID token (OpenID Connect Core §3.1.3.7) that answers the request with this nonce.
    ///
    /// # Errors
    /// [`UpstreamFault`].
    pub fn id_token(&self, token: &str, nonce: &str, now: u64) -> Result<Map<String, Value>, UpstreamFault> {
        let claims = self.claims(token, now)?;
        if claims.get("nonce").and_then(Value::as_str) != Some(nonce) {
            return Err(UpstreamFault::Nonce);
        }
        let subject = claims.get("sub").and_then(Value::as_str);
        if !subject.is_some_and(|sub| (1..=255).contains(&sub.len())) {
            return Err(UpstreamFault::Refused);
        }
        Ok(claims)
    }

    /// The sign-out that a logout token tells (OpenID Connect Back-Channel Logout 1.0 §2.6).
    ///
    /// # Errors
    /// [`UpstreamFault`].
    pub fn logout(&self, token: &str, now: u64) -> Result<Logout, UpstreamFault> {
        let claims = self.claims(token, now)?;
        let event = claims.get("events").and_then(|events| events.get(LOGOUT_EVENT));
        // With a nonce it could be an ID token that somebody caught.
        if !event.is_some_and(Value::is_object) || claims.contains_key("nonce") {
            return Err(UpstreamFault::NoLogout);
        }
        let issued = claims.get("iat").and_then(Value::as_u64).ok_or(UpstreamFault::Time)?;
        if now.saturating_sub(issued) > LOGOUT_AGE_MAX_S {
            return Err(UpstreamFault::Time);
        }
        let text = |name: &str| {
            let value = claims.get(name)?.as_str()?;
            (1..=255).contains(&value.len()).then(|| value.to_owned())
        };
        let (sub, sid) = (text("sub"), text("sid"));
        let jti = text("jti").ok_or(UpstreamFault::NoLogout)?;
        if sub.is_none() && sid.is_none() {
            return Err(UpstreamFault::NoLogout);
        }
        Ok(Logout { sub, sid, jti })
    }

    /// Claims of a token that the provider signed for us and whose time is now.
    fn claims(&self, token: &str, now: u64) -> Result<Map<String, Value>, UpstreamFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(UpstreamFault::Malformed);
        }
        let header = decode_header(token).map_err(|_| UpstreamFault::Malformed)?;
        let key = self.keys.find(header.kid.as_deref(), header.alg).ok_or(UpstreamFault::UnknownKey)?;
        let decoding = DecodingKey::from_jwk(key).map_err(|_| UpstreamFault::UnknownKey)?;
        let mut rules = Validation::new(header.alg);
        // Times and audience by hand: `now` is an argument, and every one of several audiences has its say.
        rules.validate_exp = false;
        rules.validate_nbf = false;
        rules.validate_aud = false;
        rules.set_issuer(&[self.issuer]);
        rules.set_required_spec_claims(&["iss", "aud"]);
        let claims = decode::<Map<String, Value>>(token, &decoding, &rules);
        let claims = claims.map_err(|_| UpstreamFault::Refused)?.claims;
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer) || !self.is_for_us(&claims) {
            return Err(UpstreamFault::Refused);
        }
        let second = |name: &str| claims.get(name).and_then(Value::as_u64);
        let is_over = second("exp").is_none_or(|exp| now >= exp.saturating_add(LEEWAY_S));
        let is_early = |name| second(name).is_some_and(|at| at > now + LEEWAY_S);
        if is_over || second("iat").is_none() || is_early("iat") || is_early("nbf") {
            return Err(UpstreamFault::Time);
        }
        Ok(claims)
    }

    /// Whether a token is for this client, and for no other one that is not named as such (§3.1.3.7, 3 to 5).
    fn is_for_us(&self, claims: &Map<String, Value>) -> bool {
        let party = claims.get("azp").map(|azp| azp.as_str() == Some(self.client_id));
        match claims.get("aud") {
            Some(Value::String(one)) => one == self.client_id && party != Some(false),
            Some(Value::Array(all)) => {
                let named = all.iter().any(|one| one.as_str() == Some(self.client_id));
                named && (all.len() == 1 && party != Some(false) || party == Some(true))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id_token::{IdKey, RSA_EXPONENT};
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::LazyLock;

    const NOW: u64 = 1_000_000;
    static KEY: LazyLock<IdKey> = LazyLock::new(|| IdKey::generate().unwrap().0);

    fn keys() -> UpstreamKeys {
        let key = json!({ "kty": "RSA", "kid": KEY.kid, "n": KEY.n, "e": RSA_EXPONENT, "use": "sig" });
        let odd = [json!({ "kty": "new" }), json!(1), json!({ "kty": "oct", "k": "AAAA", "kid": KEY.kid })];
        let all = [&odd[..], &[key]].concat();
        UpstreamKeys::read(json!({ "keys": all }).to_string().as_bytes()).unwrap()
    }

    fn claims() -> Value {
        json!({ "iss": "https://op", "aud": "us", "sub": "ann", "nonce": "n", "iat": NOW, "exp": NOW + 300 })
    }

    /// A token with changed claims; `null` takes one away.
    fn token(change: Value) -> String {
        let mut all = claims();
        for (name, value) in change.as_object().unwrap() {
            if value.is_null() {
                all.as_object_mut().unwrap().remove(name);
            } else {
                all[name] = value.clone();
            }
        }
        KEY.sign("JWT", &all).unwrap()
    }

    #[test]
    fn an_id_token_counts_only_as_the_answer_of_its_provider_to_our_request() {
        let keys = keys();
        let ours = Upstream { issuer: "https://op", client_id: "us", keys: &keys };
        let check = |change: Value, expected: Option<UpstreamFault>| {
            let fault = ours.id_token(&token(change.clone()), "n", NOW).err();
            assert_eq!(fault, expected, "{change}");
        };
        use UpstreamFault::{Nonce, Refused, Time};
        check(json!({}), None);
        check(json!({ "aud": ["us"] }), None);
        check(json!({ "aud": ["us", "them"], "azp": "us" }), None);
        check(json!({ "aud": ["us", "them"] }), Some(Refused));
        check(json!({ "aud": "them" }), Some(Refused));
        check(json!({ "azp": "them" }), Some(Refused));
        check(json!({ "aud": null }), Some(Refused));
        check(json!({ "iss": "https://op/" }), Some(Refused));
        check(json!({ "iss": ["https://op"] }), Some(Refused));
        check(json!({ "iss": null }), Some(Refused));
        check(json!({ "sub": null }), Some(Refused));
        check(json!({ "sub": 7 }), Some(Refused));
        check(json!({ "sub": "x".repeat(256) }), Some(Refused));
        check(json!({ "nonce": "other" }), Some(Nonce));
        check(json!({ "nonce": null }), Some(Nonce));
        check(json!({ "exp": NOW - 29 }), None);
        check(json!({ "exp": NOW - 30 }), Some(Time));
        check(json!({ "exp": null }), Some(Time));
        check(json!({ "exp": "soon" }), Some(Time));
        check(json!({ "iat": NOW + 31 }), Some(Time));
        check(json!({ "iat": null }), Some(Time));
        check(json!({ "nbf": NOW + 31 }), Some(Time));
    }

    #[test]
    fn the_key_decides_the_algorithm_and_a_stranger_s_key_signs_nothing() {
        let keys = keys();
        let ours = Upstream { issuer: "https://op", client_id: "us", keys: &keys };
        let other = IdKey::generate().unwrap().0;
        let foreign = other.sign("JWT", &claims()).unwrap();
        assert_eq!(ours.id_token(&foreign, "n", NOW), Err(UpstreamFault::UnknownKey));
        let good = token(json!({}));
        let (head, rest) = good.split_once('.').unwrap();
        let _ = head;
        for alg in ["none", "HS256", "ES256", "EdDSA", "RS512"] {
            use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
            let head = json!({ "alg": alg, "kid": KEY.kid }).to_string();
            let forged = format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(head));
            assert!(ours.id_token(&forged, "n", NOW).is_err(), "{alg}");
        }
        // Without a name of a key, only the one that fits.
        let two = json!({ "keys": [
            { "kty": "RSA", "kid": "a", "n": KEY.n, "e": RSA_EXPONENT },
            { "kty": "RSA", "kid": "b", "n": other.n, "e": RSA_EXPONENT },
        ]});
        let two = UpstreamKeys::read(two.to_string().as_bytes()).unwrap();
        assert!(
            two.find(None, Algorithm::RS256).is_none() && two.find(Some("a"), Algorithm::RS256).is_some()
        );
        assert!(keys.find(None, Algorithm::RS256).is_some());
    }

    #[test]
    fn a_logout_token_says_who_and_cannot_be_an_id_token() {
        let keys = keys();
        let ours = Upstream { issuer: "https://op", client_id: "us", keys: &keys };
        let event = json!({ LOGOUT_EVENT: {} });
        let out = |change: Value| {
            let mut all = json!({ "nonce": null, "events": event, "jti": "1", "sid": "s" });
            all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            ours.logout(&token(all), NOW)
        };
        let said = out(json!({})).unwrap();
        assert_eq!(
            (said.sub.as_deref(), said.sid.as_deref(), said.jti.as_str()),
            (Some("ann"), Some("s"), "1")
        );
        use UpstreamFault::{NoLogout, Refused, Time};
        assert_eq!(out(json!({ "sub": null, "sid": null })), Err(NoLogout));
        assert_eq!(out(json!({ "nonce": "n" })), Err(NoLogout));
        assert_eq!(out(json!({ "jti": null })), Err(NoLogout));
        assert_eq!(out(json!({ "events": {} })), Err(NoLogout));
        assert_eq!(out(json!({ "events": null })), Err(NoLogout));
        assert_eq!(out(json!({ "iat": NOW - 301 })), Err(Time));
        assert_eq!(out(json!({ "aud": "them" })), Err(Refused));
        assert_eq!(ours.logout(&token(json!({})), NOW), Err(NoLogout), "an ID token is none");
    }

    proptest! {
        #[test]
        fn no_text_passes_or_panics(text in ".{0,300}", json in ".{0,300}") {
            let keys = keys();
            let ours = Upstream { issuer: "https://op", client_id: "us", keys: &keys };
            prop_assert!(ours.id_token(&text, "n", NOW).is_err() && ours.logout(&text, NOW).is_err());
            let _ = (UpstreamKeys::read(json.as_bytes()), key_id(&text));
        }
    }
}
