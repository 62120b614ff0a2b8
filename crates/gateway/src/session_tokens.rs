//! The access tokens of browser sessions: asked for once, remembered until they end.
//!
//! Only hashes of session secrets are held. What a stranger can fill (secrets that are no session) is
//! apart from what users need, so that a flood of made-up cookies pushes nobody's session out.

use crate::{
    liveness::Liveness,
    platform_client::{Ask, Given, Opened, PLATFORM_WAIT, Platform, away},
    refusal::Refusal,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::opaque;
use bastide_types::CustomerName;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::timeout;

/// A token is asked for anew this many seconds before it ends.
const RENEW_BEFORE_S: u64 = 5;
/// How long a Platform that did not answer is left alone by sessions that can do without.
const AWAY_FOR_S: u64 = 2;
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
    living: HashMap<Hash, Session>,
    dead: HashMap<Hash, u64>,
    asking: HashMap<Hash, Flight>,
    /// Until then the Platform is not asked for what can do without.
    away_until_s: u64,
}

#[derive(Default)]
struct Session {
    /// By app.
    tokens: HashMap<Hash, Held>,
    /// Seconds since 1970 at which it was last used here.
    used_s: u64,
    until_s: u64,
    idle_s: u64,
}

#[derive(Clone)]
struct Held {
    token: Arc<str>,
    expires_at: u64,
}

/// A token, and the time at which it must be good.
pub(crate) struct Token {
    pub(crate) text: Arc<str>,
    /// Seconds since 1970: now, or the last second of a token that outlives its Platform.
    pub(crate) as_of_s: u64,
    /// Seconds since 1970 at which its session ends at the latest.
    pub(crate) until_s: u64,
    /// The secret that took the place of the one that was asked with. The browser must hear of it.
    pub(crate) renewed: Option<Opened>,
}

/// Whose session a token is wanted of, and for which app.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) customer: &'a CustomerName,
    /// SHA-256 of the session's secret, base64url.
    pub(crate) hash: &'a str,
    /// Address of the app; `None`: the Platform.
    pub(crate) resource: Option<&'a str>,
    /// Whether a browser waits, which can be given another secret.
    pub(crate) renew: bool,
}

/// One question under way; others with the same question wait for it. True once it has failed.
type Flight = Arc<tokio::sync::Mutex<bool>>;

/// What is known without asking.
enum Known {
    Token(Arc<str>, u64),
    Dead,
    Nothing,
}

/// The hash of a session's secret, as gateways and Platform name it to each other.
pub(crate) fn hash_of(secret: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(opaque::hash(secret))
}

impl SessionTokens {
    /// An access token for a session, from memory or from the Platform; `None` when the session is dead.
    ///
    /// While the Platform is away, a session at an app goes on with the token that it has, up to its own limits.
    pub(crate) async fn get(
        &self,
        platform: &Platform<'_>,
        liveness: &Liveness,
        wanted: Wanted<'_>,
        now_s: u64,
    ) -> Result<Option<Token>, Refusal> {
        let (session, question) = wanted.keys();
        let fresh = |text, until_s| Ok(Some(Token { text, as_of_s: now_s, until_s, renewed: None }));
        match self.known(&session, &question, now_s) {
            Known::Token(text, until_s) => return fresh(text, until_s),
            Known::Dead => return Ok(None),
            Known::Nothing => {}
        }
        let for_app = wanted.resource.is_some();
        let may_outlive = |used_s| for_app && liveness.remembers_since(used_s);
        let outlives = || self.outlives(&session, &question, may_outlive, now_s);
        if now_s < self.memory().away_until_s
            && let Some(token) = outlives()
        {
            return Ok(Some(token));
        }
        let flight = self.memory().asking.entry(question).or_default().clone();
        // Whoever asks holds the lock; it is freed also when its client hangs up, and the next one asks.
        let Ok(mut failed) = timeout(PLATFORM_WAIT, flight.lock()).await else { return Err(away()) };
        let _landing = Landing { tokens: self, question, flight: &flight };
        if *failed {
            return outlives().map(Some).ok_or_else(away);
        }
        match self.known(&session, &question, now_s) {
            Known::Token(text, until_s) => return fresh(text, until_s),
            Known::Dead => return Ok(None),
            Known::Nothing => {}
        }
        let Wanted { customer, hash, resource, renew } = wanted;
        let used_s = self.memory().living.get(&session).map_or(0, |session| session.used_s);
        match platform.token(&Ask { customer, hash, resource, used_s, renew }).await {
            Ok(Some(Given { renewed: Some(renewed), access_token, expires_at, until_s, idle_s }))
                if opaque::has_form(&renewed.session) =>
            {
                // From now on it is the new secret's; who waits here with the old one asks again.
                self.memory().living.remove(&session);
                let hash = &hash_of(&renewed.session);
                let (session, question) = Wanted { customer, hash, resource, renew }.keys();
                let given = Given { access_token, expires_at, until_s, idle_s, renewed: None };
                let held = self.remember(session, question, Some(given), now_s);
                Ok(held.map(|(text, until_s)| Token {
                    text,
                    as_of_s: now_s,
                    until_s,
                    renewed: Some(renewed),
                }))
            }
            Ok(given) => match self.remember(session, question, given, now_s) {
                Some((text, until_s)) => fresh(text, until_s),
                None => Ok(None),
            },
            Err(refusal) => {
                *failed = true;
                self.memory().away_until_s = now_s + AWAY_FOR_S;
                outlives().map(Some).ok_or(refusal)
            }
        }
    }

    /// Forgets one session: it was closed, or its token is no longer good.
    pub(crate) fn forget(&self, customer: &CustomerName, hash: &str) {
        let (session, _) = Wanted { customer, hash, resource: None, renew: false }.keys();
        self.memory().living.remove(&session);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, session: &Hash, question: &Hash, now_s: u64) -> Known {
        let mut memory = self.memory();
        if let Some(session) = memory.living.get_mut(session)
            && let Some(held) = session.tokens.get(question)
            && now_s + RENEW_BEFORE_S < held.expires_at
        {
            session.used_s = now_s;
            return Known::Token(held.token.clone(), session.until_s);
        }
        match memory.dead.get(question) {
            Some(until) if now_s < *until => Known::Dead,
            _ => Known::Nothing,
        }
    }

    /// The token that is held while nobody gives a newer one; also after its end, as long as the session may last and
    /// is used, if a token that was last used then may outlive the Platform.
    fn outlives(
        &self,
        session: &Hash,
        question: &Hash,
        may_outlive: impl Fn(u64) -> bool,
        now_s: u64,
    ) -> Option<Token> {
        let mut memory = self.memory();
        let session = memory.living.get_mut(session)?;
        let held = session.tokens.get(question)?.clone();
        let lasts = now_s < session.until_s && now_s <= session.used_s.saturating_add(session.idle_s);
        if now_s >= held.expires_at && !(lasts && may_outlive(session.used_s)) {
            return None;
        }
        session.used_s = now_s;
        let as_of_s = now_s.min(held.expires_at.saturating_sub(1));
        Some(Token { text: held.token, as_of_s, until_s: session.until_s, renewed: None })
    }

    /// Its token, and when the session ends at the latest.
    fn remember(
        &self,
        session: Hash,
        question: Hash,
        given: Option<Given>,
        now_s: u64,
    ) -> Option<(Arc<str>, u64)> {
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
            memory.living.retain(|_, session| session.tokens.values().any(|held| now_s < held.expires_at));
            if memory.living.len() >= SESSIONS_MAX {
                memory.living.clear();
            }
        }
        let token: Arc<str> = given.access_token.into();
        let session = memory.living.entry(session).or_default();
        (session.used_s, session.until_s, session.idle_s) = (now_s, given.until_s, given.idle_s);
        if session.tokens.len() >= APPS_MAX {
            session.tokens.clear();
        }
        session.tokens.insert(question, Held { token: token.clone(), expires_at: given.expires_at });
        Some((token, given.until_s))
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

impl Wanted<'_> {
    fn keys(&self) -> (Hash, Hash) {
        let session = format!("{}\n{}", self.customer, self.hash);
        let question = format!("{session}\n{}", self.resource.unwrap_or_default());
        (opaque::hash(&session), opaque::hash(&question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_outlives_the_platform_within_the_limits_of_its_session_and_of_what_is_remembered() {
        let tokens = SessionTokens::default();
        let (session, question) = ([1; 32], [2; 32]);
        let given =
            Given { access_token: "t".into(), expires_at: 100, until_s: 1000, idle_s: 50, renewed: None };
        tokens.remember(session, question, Some(given), 80);
        let as_of = |may_outlive: bool, now_s| {
            tokens.outlives(&session, &question, |_| may_outlive, now_s).map(|token| token.as_of_s)
        };
        assert_eq!(as_of(false, 99), Some(99), "it has not ended");
        assert_eq!(as_of(false, 100), None);
        assert_eq!(as_of(true, 149), Some(99), "judged as of its last second");
        assert_eq!(as_of(true, 199), Some(99), "each use counts");
        assert_eq!(as_of(true, 250), None, "it was idle");
        let given =
            Given { access_token: "t".into(), expires_at: 100, until_s: 110, idle_s: 50, renewed: None };
        tokens.remember(session, question, Some(given), 80);
        assert_eq!((as_of(true, 109), as_of(true, 110)), (Some(99), None), "its session is over");
    }
}
