//! Whether a token still counts: what the session feed says, and how long the Platform has been silent.

use crate::refusal::Refusal;
use bastide_bus::sessions::FeedReader;
use bastide_identity::{Claims, Revoked, TokenFault, Took};
use bastide_types::{
    Code,
    feed::{Entry, Feed, What},
};
use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// How long a request waits for the first word of the feed after a start.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// Seconds after a start from which on nobody waits: the word is not about to come.
const STARTING_S: u64 = 5;

/// What this gateway knows of revoked tokens.
pub(crate) struct Liveness {
    revoked: RwLock<Revoked>,
    /// Changes when something was revoked, and with the first word.
    changes: watch::Sender<()>,
    silence_max_s: u64,
    began_s: u64,
    /// Whether members are refused now; only for the log.
    silent: AtomicBool,
}

impl Liveness {
    /// Knows nothing yet. After `silence_max_s` without a word of the Platform, members are refused.
    pub(crate) fn new(silence_max_s: u64) -> Arc<Self> {
        let (changes, _) = watch::channel(());
        let (revoked, silent) = (RwLock::default(), AtomicBool::new(false));
        Arc::new(Self { revoked, changes, silence_max_s, began_s: now_s(), silent })
    }

    /// Whether the token still counts, as far as is known.
    pub(crate) fn check(&self, claims: &Claims) -> Result<(), TokenFault> {
        self.revoked().check(claims)
    }

    /// Refuses members while it is not known what was revoked in the last moment.
    pub(crate) async fn demand_word(&self, now_s: u64) -> Result<(), Refusal> {
        if self.silence_max_s == u64::MAX {
            return Ok(());
        }
        self.first_word().await;
        let is_stale = self.revoked().is_stale(self.silence_max_s, now_s);
        if is_stale != self.silent.swap(is_stale, Ordering::Relaxed) {
            if is_stale {
                tracing::error!(limit_s = self.silence_max_s, "the Platform is silent: members are refused");
            } else {
                tracing::info!("the Platform is heard again: members may pass");
            }
        }
        if is_stale { Err(unknown()) } else { Ok(()) }
    }

    /// Refuses a token that may have been revoked before this gateway began to listen. One that was made since is as
    /// good as any while nothing is heard.
    pub(crate) async fn demand_first_word(&self, claims: &Claims) -> Result<(), Refusal> {
        if claims.iat >= self.began_s || self.revoked().is_known() {
            return Ok(());
        }
        self.first_word().await;
        if self.revoked().is_known() { Ok(()) } else { Err(unknown()) }
    }

    /// Whether a token that counted then, and has ended since, can still be judged.
    pub(crate) fn remembers_since(&self, at_s: u64) -> bool {
        self.revoked().remembers_since(at_s)
    }

    /// Waits until this token no longer counts.
    pub(crate) async fn until_revoked(self: Arc<Self>, claims: Arc<Claims>) {
        let mut changes = self.changes.subscribe();
        while self.check(&claims).is_ok() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn first_word(&self) {
        if now_s() > self.began_s.saturating_add(STARTING_S) {
            return;
        }
        let mut changes = self.changes.subscribe();
        let heard = async { while !self.revoked().is_known() && changes.changed().await.is_ok() {} };
        let _ = timeout(FIRST_WORD, heard).await;
    }

    fn revoked(&self) -> RwLockReadGuard<'_, Revoked> {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, part: &Feed) -> bool {
        let took = {
            let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
            revoked.take(part, now_s())
        };
        if took == Took::Fits(true) {
            self.changes.send_replace(());
        }
        took != Took::Missing
    }

    fn replace(&self, parts: &[Feed]) {
        {
            let mut revoked = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
            revoked.replace(parts, now_s());
            revoked.sweep(now_s());
        }
        self.changes.send_replace(());
    }
}

/// Brings the feed from the bus.
pub(crate) struct Reader {
    pub(crate) liveness: Arc<Liveness>,
    /// Where sessions that began are looked after.
    pub(crate) began: mpsc::Sender<Entry>,
}

impl FeedReader for Reader {
    fn position(&self) -> (u64, u64) {
        self.liveness.revoked().position()
    }

    fn take(&mut self, part: Feed) -> bool {
        let (_, known) = self.position();
        let fits = self.liveness.take(&part);
        let news = part.entries.into_iter().filter(|entry| entry.what == What::Began && entry.number > known);
        for entry in news.filter(|_| fits) {
            // When there is no room, the session is asked for when it comes.
            let _ = self.began.try_send(entry);
        }
        fits
    }

    fn replace(&mut self, parts: Vec<Feed>) {
        self.liveness.replace(&parts);
    }
}

fn unknown() -> Refusal {
    Refusal::new(Code::RevocationUnknown).with("retry-after", "1")
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
