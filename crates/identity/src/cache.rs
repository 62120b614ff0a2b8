//! Tokens that were checked already.
//!
//! The key is the SHA-256 of the whole token; only good tokens are kept, so nobody can fill it with rubbish
//! or make a bad token known as good. Each hit repeats every check that the route, the time or a newer
//! Snapshot may have changed; only the signature is not computed again.

use crate::{
    claims::Claims,
    fault::TokenFault,
    opaque,
    verify::{Expect, TOKEN_BYTES_MAX, is_live, verify_by_key},
};
use bastide_types::snapshot::{Issuer, VerifyingKey};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

const SHARDS: usize = 64;

/// A bounded, sharded cache.
pub struct TokenCache {
    shards: [RwLock<HashMap<[u8; 32], Checked>>; SHARDS],
    per_shard_max: usize,
}

/// A token whose signature was good, and the key that says so.
#[derive(Clone)]
struct Checked {
    claims: Arc<Claims>,
    key: Arc<VerifyingKey>,
}

impl TokenCache {
    /// Keeps at most about `tokens_max` tokens.
    pub fn new(tokens_max: usize) -> Self {
        let shards = std::array::from_fn(|_| RwLock::default());
        Self { shards, per_shard_max: tokens_max.div_ceil(SHARDS).max(1) }
    }

    /// Checks a token as [`crate::verify()`] does, without repeating the signature check for one that passed.
    pub fn verify(
        &self,
        token: &str,
        issuer: &Issuer,
        expect: &Expect<'_>,
        now_s: u64,
    ) -> Result<Arc<Claims>, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::TooLarge);
        }
        let hash = opaque::hash(token);
        let shard = &self.shards[usize::from(hash[0]) % SHARDS];
        let known = shard.read().unwrap_or_else(PoisonError::into_inner).get(&hash).cloned();
        if let Some(checked) = known {
            still_good(&checked, issuer, expect, now_s)?;
            return Ok(checked.claims);
        }
        let (claims, key) = verify_by_key(token, issuer, expect, now_s)?;
        let claims = Arc::new(claims);
        let checked = Checked { claims: claims.clone(), key: Arc::new(key.clone()) };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= self.per_shard_max {
            shard.retain(|_, checked| checked.claims.exp > now_s);
            if shard.len() >= self.per_shard_max {
                shard.clear();
            }
        }
        shard.insert(hash, checked);
        Ok(claims)
    }
}

/// What may differ from the moment of the signature check: the route, the time, the issuer's keys.
fn still_good(checked: &Checked, issuer: &Issuer, expect: &Expect<'_>, now_s: u64) -> Result<(), TokenFault> {
    let claims = &checked.claims;
    // The whole key, not only its id: the same id may name another key in another issuer or Snapshot.
    if !issuer.keys.contains(&checked.key) {
        return Err(TokenFault::UnknownKey);
    }
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
    is_live(claims, issuer, expect.life_max_s, now_s)
}
