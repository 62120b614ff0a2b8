//! Interim responses (RFC 9110 §15.2) on their way from an upstream to the client: in order, before the answer.
//!
//! `100 Continue` is never passed on: it was met when the body was first wanted. `101` is no interim response
//! but an answer.

use crate::headers::{strip_hop_by_hop, strip_spoofable};
use futures_util::task::AtomicWaker;
use http::{HeaderMap, StatusCode, header};
use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

/// Most interim responses that wait for a client; nobody needs more, so the rest is dropped.
const WAITING_MAX: usize = 8;

/// Where the interim responses of a request go; in its extensions.
#[derive(Debug, Clone, Default)]
pub struct Interim(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<VecDeque<(StatusCode, HeaderMap)>>,
    waker: AtomicWaker,
}

impl Interim {
    /// Passes one on, without what belongs to the connection it came over.
    pub fn say(&self, status: StatusCode, mut headers: HeaderMap) {
        if !status.is_informational() || matches!(status.as_u16(), 100 | 101) {
            return;
        }
        strip_hop_by_hop(&mut headers);
        strip_spoofable(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        self.push(status, headers);
    }

    /// Tells a client that waits for it to send its body.
    pub(crate) fn go_on(&self) {
        self.push(StatusCode::CONTINUE, HeaderMap::new());
    }

    fn push(&self, status: StatusCode, headers: HeaderMap) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX {
            waiting.push_back((status, headers));
        }
        drop(waiting);
        self.0.waker.wake();
    }

    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<(StatusCode, HeaderMap)> {
        self.0.waker.register(cx.waker());
        self.now().map_or(Poll::Pending, Poll::Ready)
    }

    /// The next one that is there already.
    pub(crate) fn now(&self) -> Option<(StatusCode, HeaderMap)> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub(crate) async fn next(&self) -> (StatusCode, HeaderMap) {
        poll_fn(|cx| self.poll_next(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[tokio::test]
    async fn they_keep_their_order_and_say_nothing_that_is_not_theirs() {
        let interim = Interim::default();
        let mut headers = HeaderMap::new();
        headers.insert("link", HeaderValue::from_static("</a.css>"));
        headers.insert("connection", HeaderValue::from_static("x-hop"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert("x-bastide-user", HeaderValue::from_static("root"));
        interim.say(StatusCode::CONTINUE, HeaderMap::new());
        interim.say(StatusCode::SWITCHING_PROTOCOLS, HeaderMap::new());
        interim.say(StatusCode::EARLY_HINTS, headers);
        interim.say(StatusCode::PROCESSING, HeaderMap::new());
        let (status, headers) = interim.next().await;
        assert_eq!((status, headers.len()), (StatusCode::EARLY_HINTS, 1));
        assert_eq!(interim.next().await.0, StatusCode::PROCESSING);
        for _ in 0..100 {
            interim.say(StatusCode::EARLY_HINTS, HeaderMap::new());
        }
        assert_eq!(interim.0.waiting.lock().unwrap().len(), WAITING_MAX);
    }
}
