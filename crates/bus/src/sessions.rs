//! The session feed on its way to gateways: told at once, with a heartbeat each second; what was missed is asked for.
//!
//! Every part is signed, so whoever takes over the broker can delay it, which is noticed, but neither make nor change any.

use crate::request::decode;
use crate::{Bus, BusError, VerifyKey};
use bastide_types::feed::{Feed, FeedQuery};
use bastide_types::message::Signed;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Subject on which parts are told.
pub(crate) const HINT: &str = "hint.sessions";
const ASK: &str = "platform.session.feed";
/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(2);
/// After so long a silence the feed is asked for.
const SILENCE: Duration = Duration::from_secs(5);
/// Pause after a failure to get it.
const AGAIN: Duration = Duration::from_millis(500);
/// Parts of a whole feed that are taken at most: more than there can be of tokens that live.
const PARTS_MAX: usize = 2000;

/// Who keeps what the feed says.
pub trait FeedReader: Send + Sync + 'static {
    /// Which life and which number are known last.
    fn position(&self) -> (u64, u64);
    /// Takes a part; false when something before it is missing.
    fn take(&mut self, part: Feed) -> bool;
    /// Takes the whole feed in place of what is known.
    fn replace(&mut self, parts: Vec<Feed>);
}

/// Gateway: follows the feed until `stop` or until the bus closes.
pub fn follow(bus: &Bus, key: VerifyKey, reader: impl FeedReader, stop: CancellationToken) {
    let follower = Follower { bus: bus.clone(), key, reader };
    bus.spawn(follower.run(stop));
}

struct Follower<R> {
    bus: Bus,
    key: VerifyKey,
    reader: R,
}

impl<R: FeedReader> Follower<R> {
    async fn run(mut self, stop: CancellationToken) {
        let closing = self.bus.closing().clone();
        let mut connection = self.bus.connection_changes();
        let Ok(mut told) = self.bus.client.subscribe(HINT).await else { return };
        let mut ask_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = closing.cancelled() => return,
                message = told.next() => {
                    let Some(message) = message else { return };
                    ask_at = if self.told(&message.payload) { Instant::now() + SILENCE } else { Instant::now() };
                }
                // Whatever was told while the connection was away is missing.
                _ = connection.changed() => ask_at = Instant::now(),
                () = sleep_until(ask_at) => {
                    let pause = if self.catch_up().await { SILENCE } else { AGAIN };
                    ask_at = Instant::now() + pause;
                }
            }
        }
    }

    /// Takes what was told; false when the feed must be asked for.
    fn told(&mut self, payload: &[u8]) -> bool {
        let part = decode::<Signed>(payload).and_then(|signed| self.checked(&signed));
        match part {
            Ok(part) => self.reader.take(part),
            Err(error) => {
                tracing::warn!(%error, "a part of the session feed was refused");
                // Nothing is known to be missing; silence will show it.
                true
            }
        }
    }

    fn checked(&self, signed: &Signed) -> Result<Feed, BusError> {
        let part: Feed = self.key.verify(signed)?;
        part.check().map_err(|why| BusError::Malformed(why.into()))?;
        Ok(part)
    }

    /// Asks for all that is missing. Returns whether nothing is.
    async fn catch_up(&mut self) -> bool {
        if !self.bus.is_connected() {
            return false;
        }
        match self.ask_for_all().await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the session feed was not caught up with"
                );
                false
            }
        }
    }

    async fn ask_for_all(&mut self) -> Result<(), BusError> {
        let (life, known) = self.reader.position();
        let first = self.ask(life, known).await?;
        let continues = first.life == life && first.after == known;
        // What is known may be of another life, or nothing yet: then the whole feed replaces it at once.
        if continues && self.reader.take(first.clone()) {
            let mut part = first;
            while part.more {
                part = self.ask(part.life, part.last).await?;
                if !self.reader.take(part.clone()) {
                    return Err(BusError::Malformed("the feed does not continue".into()));
                }
            }
            return Ok(());
        }
        let mut parts = vec![if first.after == 0 { first } else { self.ask(life, 0).await? }];
        while let Some(part) = parts.last().filter(|part| part.more) {
            let next = self.ask(part.life, part.last).await?;
            if next.after != part.last || next.life != part.life || parts.len() >= PARTS_MAX {
                return Err(BusError::Malformed("the feed does not continue".into()));
            }
            parts.push(next);
        }
        self.reader.replace(parts);
        Ok(())
    }

    async fn ask(&self, life: u64, after: u64) -> Result<Feed, BusError> {
        let signed: Signed = self.bus.request(ASK, &FeedQuery { life, after }, LIMIT).await?;
        self.checked(&signed)
    }
}
