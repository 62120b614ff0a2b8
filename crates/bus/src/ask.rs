//! A question to all edges at once: each answers for itself, and whoever is silent is not waited for.

use crate::account::ASK_CACHE;
use crate::request::{DEADLINE, decode, encode, now_ms};
use crate::{Bus, BusError};
use async_nats::{HeaderMap, StatusCode};
use bastide_types::cache::{CacheAnswer, CacheQuestion};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Longest wait for the first answer.
const FIRST: Duration = Duration::from_secs(2);
/// Longest wait for a further one: edges answer from memory, and the first one shows that they can.
const NEXT: Duration = Duration::from_millis(300);
/// Edges whose answers are gathered.
const EDGES_MAX: usize = 256;

/// Platform: asks all edges. Those that do not answer within 0.3 s of the one before are not in the list.
///
/// # Errors
/// [`BusError::NoResponders`] when no edge is there, [`BusError::TimedOut`] when none answers.
pub async fn edges(bus: &Bus, question: &CacheQuestion) -> Result<Vec<CacheAnswer>, BusError> {
    let payload = encode(question)?;
    bus.connected(FIRST).await?;
    let inbox = bus.client.new_inbox();
    let mut answers = bus.client.subscribe(inbox.clone()).await.map_err(|_| BusError::Closed)?;
    let mut headers = HeaderMap::new();
    headers.insert(DEADLINE, (now_ms() + FIRST.as_millis() as u64).to_string());
    let asked = bus.client.publish_with_reply_and_headers(ASK_CACHE, inbox, headers, payload);
    asked.await.map_err(|_| BusError::Closed)?;
    let mut found: Vec<CacheAnswer> = Vec::new();
    let mut until = Instant::now() + FIRST;
    while found.len() < EDGES_MAX
        && let Ok(Some(message)) = timeout_at(until, answers.next()).await
    {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(BusError::NoResponders(ASK_CACHE.into()));
        }
        found.push(decode(&message.payload)?);
        until = Instant::now() + NEXT;
    }
    if found.is_empty() { Err(BusError::TimedOut(ASK_CACHE.into())) } else { Ok(found) }
}

/// Edge: answers until `stop` or until the bus closes. One question after the other: each is answered from memory.
pub fn answer(
    bus: &Bus,
    stop: CancellationToken,
    answer: impl Fn(CacheQuestion) -> CacheAnswer + Send + 'static,
) {
    let own = bus.clone();
    bus.spawn(async move {
        let closing = own.closing().clone();
        let Ok(mut questions) = own.client.subscribe(ASK_CACHE).await else { return };
        loop {
            let question = tokio::select! {
                () = stop.cancelled() => return,
                () = closing.cancelled() => return,
                question = questions.next() => question,
            };
            let Some(question) = question else { return };
            let Some(reply) = question.reply else { continue };
            let answered = decode(&question.payload).and_then(|question| encode(&answer(question)));
            match answered {
                Ok(payload) => drop(own.client.publish(reply, payload).await),
                Err(error) => tracing::warn!(%error, "a question about the cache was not answered"),
            }
        }
    });
}
