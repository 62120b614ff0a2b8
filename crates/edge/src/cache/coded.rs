//! Stored answers in the coding that a client prefers: made once per answer and coding, and stored beside it.

use super::{Plot, Store, made};
use crate::{
    compress::{self, encoded, encoded_head, fits},
    context::Context,
};
use bastide_cache::{
    Ask, Key, Moment, Stored,
    coding::{Coding, chosen},
    stored::Content,
};
use bastide_proxy::{Body, Response, allowed_cores};
use bytes::Bytes;
use http::{StatusCode, header};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OnceCell, Semaphore};

/// Longer bodies go out as they are: encoding them would keep a core busy for too long.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What encodes, one answer at a time per core.
pub(super) struct Coder {
    permits: Semaphore,
    /// What is being encoded now: whoever wants the same waits for it.
    begun: Mutex<HashMap<Key, Arc<OnceCell<Option<Bytes>>>>>,
}

impl Coder {
    pub(super) fn new() -> Self {
        Self { permits: Semaphore::new(allowed_cores()), begun: Mutex::default() }
    }

    fn begun(&self, key: &Key) -> Arc<OnceCell<Option<Bytes>>> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.entry(key.clone()).or_default().clone()
    }

    /// Encodes a body; nothing when that does not make it shorter.
    async fn encode(&self, coding: Coding, body: Bytes) -> Option<Bytes> {
        let _permit = self.permits.acquire().await.ok()?;
        let work = tokio::task::spawn_blocking(move || {
            let made = encoded(coding, &body);
            let made =
                made.inspect_err(|error| tracing::warn!(%error, "an answer is not compressed")).ok()?;
            (made.len() < body.len()).then_some(made)
        });
        work.await.ok()?
    }
}

/// Forgets that something is being encoded, also when its client hangs up.
struct Done<'c>(&'c Coder, &'c Key);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(self.1);
    }
}

impl Store {
    /// The answer of a stored response, encoded where the client prefers that and it gains by it.
    pub(super) async fn hit(
        &self,
        cx: &Context,
        plot: &Plot,
        key: &Key,
        stored: &Stored,
        ask: &Ask<'_>,
        now: Moment,
    ) -> Response {
        let plain = |ask: &Ask<'_>| made(cx.id, stored, None, ask, now, false);
        let Some(coder) = &self.coder else { return plain(ask) };
        let Content::Whole(body) = &stored.content else { return plain(ask) };
        let fields = stored.head.fields();
        if !fits(stored.status, fields, Some(body.len() as u64)) {
            return plain(ask);
        }
        let coding = if body.len() as u64 > BYTES_MAX || compress::forbids(ask.headers) {
            None
        } else {
            chosen(ask.headers)
        };
        let mut response = match coding {
            // Parts of the plain bytes and of encoded ones are never put together.
            Some(_) if ask.ranges.is_some() && !is_of_plain_bytes(stored, ask) => {
                plain(&Ask { ranges: None, ..ask.clone() })
            }
            _ => plain(ask),
        };
        let is_whole = response.status() == stored.status;
        let encoded = match coding {
            Some(coding) if is_whole => self.encoded(coder, plot, key, stored, (coding, body)).await,
            _ => None,
        };
        if let (Some(coding), Some(encoded)) = (coding, encoded) {
            compress::settle(&mut response);
            encoded_head(response.headers_mut(), coding);
            if *ask.method != http::Method::HEAD {
                *response.body_mut() = Body::full(encoded);
            }
            return response;
        }
        if coding.is_some() && response.status() == StatusCode::NOT_MODIFIED {
            compress::weaken(response.headers_mut());
        }
        if !compress::varies(fields) {
            compress::vary(response.headers_mut());
        }
        response
    }

    async fn encoded(
        &self,
        coder: &Coder,
        plot: &Plot,
        key: &Key,
        stored: &Stored,
        (coding, body): (Coding, &Bytes),
    ) -> Option<Bytes> {
        let key = key.derived(stored.content_id, coding.name());
        if let Some(found) = self.cache.look_up(&key)
            && let Some(Content::Whole(made)) = found.variants.first().map(|made| &made.content)
        {
            // What gains nothing is remembered as nothing.
            return Some(made.clone()).filter(|made| !made.is_empty());
        }
        let cell = coder.begun(&key);
        let ticket = self.cache.begin(&key);
        let made = cell
            .get_or_init(|| async {
                let _done = Done(coder, &key);
                let made = coder.encode(coding, body.clone()).await;
                let kept = stored.remade(made.clone().unwrap_or_default());
                // Without room for it, it is made again when it is wanted again.
                let _ = self.cache.store(&plot.space, &key, kept, ticket);
                made
            })
            .await;
        made.clone()
    }
}

/// Whether a client that takes codings can only mean the plain bytes by its ranges: their tag is a strong one, which no
/// encoded answer has.
fn is_of_plain_bytes(stored: &Stored, ask: &Ask<'_>) -> bool {
    stored
        .validators
        .strong_etag()
        .is_some_and(|tag| ask.headers.get(header::IF_RANGE).is_none_or(|condition| condition == tag))
}
