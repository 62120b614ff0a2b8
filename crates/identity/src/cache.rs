//! Tokens that were checked already.
//!
//! The key is the SHA-256 of the whole token; only good tokens are kept. Each hit repeats the checks
//! that time or a Snapshot may have changed.

use crate::{
    claims::Claims,
    fault::TokenFault,
    opaque,
    verify::{Expect, is_live, verify},
};
use bastide_types::snapshot::Issuer;
use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

const SHARDS: usize = 16;

/// A bounded, sharded cache.
pub struct TokenCache {
    shards: [RwLock<HashMap<[u8; 32], Arc<Claims>>>; SHARDS],
    per_shard_max: usize,
}

impl TokenCache {
    /// Keeps at most `tokens_max` tokens.
    pub fn new(tokens_max: usize) -> Self {
        Self { shards: Default::default(), per_shard_max: tokens_max.div_ceil(SHARDS).max(1) }
    }

    /// Checks a token as [`verify`] does, without repeating the signature check for one that passed.
    pub fn verify(
        &self,
        token: &str,
        issuer: &Issuer,
        expect: &Expect<'_>,
        now_s: u64,
    ) -> Result<Arc<Claims>, TokenFault> {
        let hash = opaque::hash(token);
        let shard = &self.shards[usize::from(hash[0]) % SHARDS];
        let known = shard.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&hash).cloned();
        if let Some(claims) = known {
            still_good(token, &claims, issuer, expect, now_s)?;
            return Ok(claims);
        }
        let claims = Arc::new(verify(token, issuer, expect, now_s)?);
        let mut shard = shard.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if shard.len() >= self.per_shard_max {
            shard.retain(|_, claims| claims.exp > now_s);
            if shard.len() >= self.per_shard_max {
                shard.clear();
            }
        }
        shard.insert(hash, claims.clone());
        Ok(claims)
    }
}

/// What may differ from the moment of the signature check: the route, the time, the issuer's keys.
fn still_good(
    token: &str,
    claims: &Claims,
    issuer: &Issuer,
    expect: &Expect<'_>,
    now_s: u64,
) -> Result<(), TokenFault> {
    if claims.iss != issuer.url {
        return Err(TokenFault::WrongIssuer);
    }
    if claims.aud != expect.audience {
        return Err(TokenFault::WrongAudience);
    }
    if claims.org != expect.org {
        return Err(TokenFault::WrongCustomer);
    }
    if claims.stage != expect.stage {
        return Err(TokenFault::WrongStage);
    }
    let kid = crate::verify::header(token, crate::key::ACCESS_TYPE)?.kid;
    if !issuer.keys.iter().any(|key| key.kid == kid) {
        return Err(TokenFault::UnknownKey);
    }
    is_live(claims, issuer, expect.life_max_s, now_s)
}
