//! The strict check of an access token.
//!
//! The library checks the signature, issuer and audience. Everything that it would let through by
//! default (clock skew, absent claims, foreign `typ`, header tricks) is checked here, with `now` given.

use crate::{claims::Claims, fault::TokenFault, key::ACCESS_TYPE};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_types::snapshot::{Issuer, VerifyingKey};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use serde::{Deserialize, de::DeserializeOwned};

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Clock skew that is forgiven inside a machine or cluster, in seconds.
pub const LEEWAY_S: u64 = 5;

/// What the route demands of a token.
#[derive(Debug, Clone, Copy)]
pub struct Expect<'a> {
    /// Audience.
    pub audience: &'a str,
    /// Customer.
    pub org: &'a str,
    /// Stage, or `platform`.
    pub stage: &'a str,
    /// Longest life that the route takes, in seconds. That of the token's kind bounds it further: a
    /// person's token lives at most [`crate::claims::USER_LIFE_S`] wherever it is shown.
    pub life_max_s: u64,
}

/// Checks a token against the issuer that the *route* names, never the one that the token names.
///
/// Costs one signature check (about 40 µs); [`crate::TokenCache`] spares it for repeated tokens.
///
/// # Errors
/// The first [`TokenFault`] found.
pub fn verify(token: &str, issuer: &Issuer, expect: &Expect<'_>, now_s: u64) -> Result<Claims, TokenFault> {
    verify_by_key(token, issuer, expect, now_s).map(|(claims, _)| claims)
}

/// As [`verify`]; also tells which key signed.
pub(crate) fn verify_by_key<'i>(
    token: &str,
    issuer: &'i Issuer,
    expect: &Expect<'_>,
    now_s: u64,
) -> Result<(Claims, &'i VerifyingKey), TokenFault> {
    let header = header(token, ACCESS_TYPE)?;
    let key = issuer.keys.iter().find(|key| key.kid == header.kid).ok_or(TokenFault::UnknownKey)?;
    let mut rules = rules();
    rules.set_issuer(&[&issuer.url]);
    rules.set_audience(&[expect.audience]);
    rules.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    let claims: Claims = signed(token, key, &rules)?;
    belongs(&claims, expect)?;
    is_live(&claims, issuer, expect.life_max_s, now_s)?;
    Ok((claims, key))
}

fn belongs(claims: &Claims, expect: &Expect<'_>) -> Result<(), TokenFault> {
    if claims.org != expect.org {
        return Err(TokenFault::WrongCustomer);
    }
    if claims.stage != expect.stage {
        return Err(TokenFault::WrongStage);
    }
    if claims.sid.is_empty() || claims.sub.is_empty() {
        return Err(TokenFault::Malformed);
    }
    Ok(())
}

/// The checks that depend on `now` and on the issuer's present epoch; repeated at every cache hit.
pub(crate) fn is_live(
    claims: &Claims,
    issuer: &Issuer,
    life_max_s: u64,
    now_s: u64,
) -> Result<(), TokenFault> {
    if now_s >= claims.exp.saturating_add(LEEWAY_S) {
        return Err(TokenFault::Expired);
    }
    let soon = now_s.saturating_add(LEEWAY_S);
    if claims.nbf > soon || claims.iat > soon {
        return Err(TokenFault::NotYetValid);
    }
    if claims.exp < claims.iat || claims.exp - claims.iat > life_max_s.min(claims.kind_life_s()) {
        return Err(TokenFault::TooLongLived);
    }
    if claims.epoch < issuer.token_epoch {
        return Err(TokenFault::Revoked);
    }
    Ok(())
}

/// The only header members that we allow: nothing in a header may name a key's place or change rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StrictHeader {
    alg: String,
    typ: String,
    pub(crate) kid: String,
}

pub(crate) fn header(token: &str, typ: &str) -> Result<StrictHeader, TokenFault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenFault::TooLarge);
    }
    let first = token.split('.').next().unwrap_or_default();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(first).map_err(|_| TokenFault::Malformed)?;
    let loose: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| TokenFault::Malformed)?;
    let members = loose.as_object().ok_or(TokenFault::Malformed)?;
    if members.keys().any(|name| !matches!(name.as_str(), "alg" | "typ" | "kid")) {
        return Err(TokenFault::HeaderNotAllowed);
    }
    // Read again in the strict form, which also refuses repeated members.
    let header: StrictHeader = serde_json::from_slice(&bytes).map_err(|_| match members.get("kid") {
        None => TokenFault::UnknownKey,
        Some(_) if !members.contains_key("typ") => TokenFault::WrongType,
        Some(_) => TokenFault::Malformed,
    })?;
    if header.typ != typ {
        return Err(TokenFault::WrongType);
    }
    // One algorithm per key: every key of ours is Ed25519.
    if header.alg != "EdDSA" {
        return Err(TokenFault::BadSignature);
    }
    Ok(header)
}

/// Rules without the library's clock: times are checked here, with `now` given.
pub(crate) fn rules() -> Validation {
    let mut rules = Validation::new(Algorithm::EdDSA);
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules
}

pub(crate) fn signed<T: DeserializeOwned>(
    token: &str,
    key: &VerifyingKey,
    rules: &Validation,
) -> Result<T, TokenFault> {
    let public = BASE64_URL_SAFE_NO_PAD.decode(&key.x).map_err(|_| TokenFault::UnknownKey)?;
    if public.len() != 32 {
        return Err(TokenFault::UnknownKey);
    }
    let key = DecodingKey::from_ed_der(&public);
    decode::<T>(token, &key, rules).map(|data| data.claims).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => TokenFault::BadSignature,
        ErrorKind::InvalidIssuer => TokenFault::WrongIssuer,
        ErrorKind::InvalidAudience => TokenFault::WrongAudience,
        _ => TokenFault::Malformed,
    })
}
