//! A response on its way into the store: everybody for whom it is reads it while it comes.
//!
//! One task pumps the body in, whoever may leave meanwhile. Up to a limit all of it stays, to be stored. A body
//! that turns out to be larger is stored by nobody; then only what not all readers have seen is held, and the
//! slowest of them sets the pace.

use bastide_cache::Stored;
use bastide_proxy::{Body, BodyError};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

/// What is held for the slowest reader of a body that is too large to store.
const WINDOW_BYTES: usize = 256 * 1024;

/// A response on its way.
pub(crate) struct Fill {
    pub(crate) status: StatusCode,
    /// Fields as they go to the clients.
    pub(crate) fields: HeaderMap,
    /// What will be stored, without its content.
    pub(crate) draft: Stored,
    length: Option<u64>,
    state: Mutex<State>,
    budget: Budget,
}

/// Bytes that all fills together hold, and how many they may.
#[derive(Clone)]
pub(crate) struct Budget {
    held: Arc<AtomicUsize>,
    all_max: usize,
    one_max: usize,
}

#[derive(Default)]
struct State {
    /// Number of the first chunk that is held.
    first: usize,
    chunks: VecDeque<Bytes>,
    held: usize,
    /// It will not be stored: what all have seen may go.
    is_passing: bool,
    end: Option<End>,
    readers: HashMap<u64, Place>,
    next_reader: u64,
    pump: Option<Waker>,
}

struct Place {
    next: usize,
    waker: Option<Waker>,
}

#[derive(Clone)]
enum End {
    Whole(Option<HeaderMap>),
    Broken,
}

/// What came of a body.
pub(crate) enum Pumped {
    /// All of it.
    Whole(Bytes),
    /// It broke off after this.
    Broken(Bytes),
    /// It was too large, or nobody wanted it any more.
    TooLarge,
}

impl Budget {
    pub(crate) fn new(all_max: usize, one_max: usize) -> Self {
        Self { held: Arc::default(), all_max, one_max }
    }
}

impl Fill {
    pub(crate) fn new(
        status: StatusCode,
        fields: HeaderMap,
        draft: Stored,
        length: Option<u64>,
        budget: Budget,
    ) -> Arc<Self> {
        Arc::new(Self { status, fields, draft, length, state: Mutex::default(), budget })
    }

    /// The body from its beginning; `None` when that is not there any more.
    pub(crate) fn body(self: &Arc<Self>) -> Option<Body> {
        let mut state = self.state();
        if state.first > 0 {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, Place { next: 0, waker: None });
        drop(state);
        Some(Body::stream(Reader { fill: self.clone(), id, left: self.length }))
    }

    /// Takes the body in, to its end.
    pub(crate) async fn pump(&self, mut body: Body) -> Pumped {
        loop {
            if !poll_fn(|cx| self.poll_room(cx)).await {
                self.finish(End::Broken);
                return Pumped::TooLarge;
            }
            match body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.push(data),
                    // Trailers pass to those who read along, and are not stored (RFC 9111 §3.1).
                    Err(frame) => {
                        self.finish(End::Whole(frame.into_trailers().ok()));
                        return self.all(Pumped::Whole);
                    }
                },
                None => {
                    self.finish(End::Whole(None));
                    return self.all(Pumped::Whole);
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a response broke off while it was stored");
                    self.finish(End::Broken);
                    return self.all(Pumped::Broken);
                }
            }
        }
    }

    fn all(&self, outcome: fn(Bytes) -> Pumped) -> Pumped {
        let state = self.state();
        if state.is_passing {
            return Pumped::TooLarge;
        }
        if let [one] = state.chunks.iter().collect::<Vec<_>>()[..]
            && one.len() == state.held
        {
            // Its own copy: what came from a connection may be a small part of a large buffer.
            return outcome(Bytes::copy_from_slice(one));
        }
        let mut joined = BytesMut::with_capacity(state.held);
        state.chunks.iter().for_each(|chunk| joined.extend_from_slice(chunk));
        outcome(joined.freeze())
    }

    fn push(&self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let all = self.budget.held.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        let mut state = self.state();
        state.held += data.len();
        state.chunks.push_back(data);
        if state.held > self.budget.one_max || all > self.budget.all_max {
            state.is_passing = true;
        }
        self.trim(&mut state);
        wake_readers(&mut state);
    }

    fn finish(&self, end: End) {
        let mut state = self.state();
        state.end = Some(end);
        wake_readers(&mut state);
    }

    /// Waits until more may be taken in; false when nobody wants it.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state();
        if !state.is_passing {
            return Poll::Ready(true);
        }
        if state.readers.is_empty() {
            return Poll::Ready(false);
        }
        if state.held <= WINDOW_BYTES {
            return Poll::Ready(true);
        }
        state.pump = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Lets go what all readers have seen, where nothing will be stored.
    fn trim(&self, state: &mut State) {
        if !state.is_passing {
            return;
        }
        let seen = state.readers.values().map(|place| place.next).min().unwrap_or(usize::MAX);
        while state.first < seen
            && let Some(chunk) = state.chunks.pop_front()
        {
            state.first += 1;
            state.held -= chunk.len();
            self.budget.held.fetch_sub(chunk.len(), Ordering::Relaxed);
        }
        if (state.held <= WINDOW_BYTES || state.readers.is_empty())
            && let Some(pump) = state.pump.take()
        {
            pump.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        let held = self.state().held;
        self.budget.held.fetch_sub(held, Ordering::Relaxed);
    }
}

fn wake_readers(state: &mut State) {
    for place in state.readers.values_mut() {
        if let Some(waker) = place.waker.take() {
            waker.wake();
        }
    }
}

/// One reader's place in a fill.
struct Reader {
    fill: Arc<Fill>,
    id: u64,
    left: Option<u64>,
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let fill = self.fill.clone();
        let mut state = fill.state();
        let first = state.first;
        let Some(place) = state.readers.get(&self.id) else { return Poll::Ready(None) };
        let chunk = state.chunks.get(place.next - first).cloned();
        if let Some(chunk) = chunk {
            self.left = self.left.map(|left| left.saturating_sub(chunk.len() as u64));
            if let Some(place) = state.readers.get_mut(&self.id) {
                place.next += 1;
            }
            fill.trim(&mut state);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match state.end.clone() {
            Some(End::Broken) => {
                state.readers.remove(&self.id);
                Poll::Ready(Some(Err(BodyError::Incomplete)))
            }
            Some(End::Whole(trailers)) => {
                state.readers.remove(&self.id);
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            None => {
                if let Some(place) = state.readers.get_mut(&self.id) {
                    place.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.fill.state();
        state.readers.remove(&self.id);
        self.fill.trim(&mut state);
    }
}
