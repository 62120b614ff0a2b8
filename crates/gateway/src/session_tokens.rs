//! The access tokens of browser sessions: asked for once, remembered until they end.
//!
//! Only hashes of session secrets are held. What a stranger can fill (secrets that are no session) is
//! apart from what users need, so that a flood of made-up cookies pushes nobody's session out.

use crate::{
    platform_client::{Ask, Given, PLATFORM_WAIT, Platform, away},
    refusal::Refusal,
};
use bastide_identity::opaque;
use bastide_types::CustomerName;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::timeout;

/// A token is asked for anew this many seconds before it ends.
const RENEW_BEFORE_S: u64 = 5;
/// How long a dead session is remembered as dead.
const DEAD_FOR_S: u64 = 2;
const SESSIONS_MAX: usize = 100_000;
const DEAD_MAX: usize = 10_000;
/// Apps of one session whose tokens are kept.
const APPS_MAX: usize = 64;

/// Hash of a session's secret, its customer and an app's address.
type Hash = [u8; 32];

/// The tokens of the sessions that this gateway has seen.
#[derive(Default)]
pub(crate) struct SessionTokens(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    /// By session, then by app.
    living: HashMap<Hash, HashMap<Hash, Held>>,
    dead: HashMap<Hash, u64>,
    asking: HashMap<Hash, Flight>,
}

#[derive(Clone)]
struct Held {
    token: Arc<str>,
    expires_at: u64,
}

/// One question under way; others with the same question wait for it. True once it has failed.
type Flight = Arc<tokio::sync::Mutex<bool>>;

/// What is known without asking.
enum Known {
    Token(Arc<str>),
    Dead,
    Nothing,
}

impl SessionTokens {
    /// An access token for a session, from memory or from the Platform; `None` when the session is dead.
    pub(crate) async fn get(
        &self,
        platform: &Platform<'_>,
        customer: &CustomerName,
        secret: &str,
        resource: Option<&str>,
        now_s: u64,
    ) -> Result<Option<Arc<str>>, Refusal> {
        if !opaque::has_form(secret) {
            return Ok(None);
        }
        let (session, question) = keys(customer, secret, resource);
        match self.known(&session, &question, now_s) {
            Known::Token(token) => return Ok(Some(token)),
            Known::Dead => return Ok(None),
            Known::Nothing => {}
        }
        let flight = self.memory().asking.entry(question).or_default().clone();
        // Whoever asks holds the lock; it is freed also when its client hangs up, and the next one asks.
        let Ok(mut failed) = timeout(PLATFORM_WAIT, flight.lock()).await else { return Err(away()) };
        let _landing = Landing { tokens: self, question, flight: &flight };
        if *failed {
            return self.still_valid(&session, &question, now_s).map(Some).ok_or_else(away);
        }
        match self.known(&session, &question, now_s) {
            Known::Token(token) => return Ok(Some(token)),
            Known::Dead => return Ok(None),
            Known::Nothing => {}
        }
        match platform.token(&Ask { customer, session: secret, resource }).await {
            Ok(given) => Ok(self.remember(session, question, given, now_s)),
            Err(refusal) => {
                *failed = true;
                // The Platform is away, but this token has some seconds left.
                self.still_valid(&session, &question, now_s).map(Some).ok_or(refusal)
            }
        }
    }

    /// Forgets one session: it was closed, or its token is no longer good.
    pub(crate) fn forget(&self, customer: &CustomerName, secret: &str) {
        let (session, _) = keys(customer, secret, None);
        self.memory().living.remove(&session);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, session: &Hash, question: &Hash, now_s: u64) -> Known {
        let memory = self.memory();
        if let Some(held) = memory.living.get(session).and_then(|apps| apps.get(question))
            && now_s + RENEW_BEFORE_S < held.expires_at
        {
            return Known::Token(held.token.clone());
        }
        match memory.dead.get(question) {
            Some(until) if now_s < *until => Known::Dead,
            _ => Known::Nothing,
        }
    }

    fn still_valid(&self, session: &Hash, question: &Hash, now_s: u64) -> Option<Arc<str>> {
        let memory = self.memory();
        let held = memory.living.get(session)?.get(question)?;
        (now_s < held.expires_at).then(|| held.token.clone())
    }

    fn remember(&self, session: Hash, question: Hash, given: Option<Given>, now_s: u64) -> Option<Arc<str>> {
        let mut memory = self.memory();
        let Some(given) = given else {
            memory.living.remove(&session);
            if memory.dead.len() >= DEAD_MAX {
                memory.dead.clear();
            }
            memory.dead.insert(question, now_s + DEAD_FOR_S);
            return None;
        };
        if memory.living.len() >= SESSIONS_MAX && !memory.living.contains_key(&session) {
            memory.living.retain(|_, apps| apps.values().any(|held| now_s < held.expires_at));
            if memory.living.len() >= SESSIONS_MAX {
                memory.living.clear();
            }
        }
        let token: Arc<str> = given.access_token.into();
        let apps = memory.living.entry(session).or_default();
        if apps.len() >= APPS_MAX {
            apps.clear();
        }
        apps.insert(question, Held { token: token.clone(), expires_at: given.expires_at });
        Some(token)
    }
}

/// Takes a question off the list when it is answered or given up.
struct Landing<'a> {
    tokens: &'a SessionTokens,
    question: Hash,
    flight: &'a Flight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut memory = self.tokens.memory();
        if memory.asking.get(&self.question).is_some_and(|flight| Arc::ptr_eq(flight, self.flight)) {
            memory.asking.remove(&self.question);
        }
    }
}

fn keys(customer: &CustomerName, secret: &str, resource: Option<&str>) -> (Hash, Hash) {
    let session = format!("{customer}\n{secret}");
    let question = format!("{session}\n{}", resource.unwrap_or_default());
    (opaque::hash(&session), opaque::hash(&question))
}
