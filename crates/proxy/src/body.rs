//! Bodies: streamed with back-pressure, and readable ahead for inspection.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

type Boxed = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// A request's or response's body.
#[derive(Default)]
pub struct Body {
    front: VecDeque<Frame<Bytes>>,
    // The mutex is never contended: it only lets a shared reference to a request cross threads, as
    // stations hold one over their waits.
    rest: Option<Mutex<Boxed>>,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The bytes break the framing: chunk sizes, line ends.
    #[error("the body's framing is broken")]
    Framing,
    /// The peer stopped in the middle.
    #[error("the body ended early")]
    Incomplete,
    /// A pause was too long.
    #[error("the body paused for too long")]
    TimedOut,
    /// More bytes than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// Reading failed.
    #[error("the body could not be read")]
    Io(#[source] io::Error),
    /// The same, of a stream of HTTP/2.
    #[error("the stream failed")]
    Stream(#[source] h2::Error),
}

/// The beginning of a body, read ahead.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// The bytes.
    pub bytes: Bytes,
    /// Whether this is the whole body.
    pub complete: bool,
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body that is all there.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Self::empty();
        }
        Self { front: VecDeque::from([Frame::data(bytes)]), rest: None }
    }

    /// A body that is all there, in pieces.
    pub fn pieces(pieces: Vec<Bytes>) -> Self {
        let front = pieces.into_iter().filter(|piece| !piece.is_empty()).map(Frame::data).collect();
        Self { front, rest: None }
    }

    /// A body that comes from elsewhere.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self { front: VecDeque::new(), rest: Some(Mutex::new(Box::pin(body))) }
    }

    /// Reads up to `max` bytes ahead; the body still starts at its beginning afterwards.
    ///
    /// `max` bounds what is held: a frame that crosses it is kept whole but no further one is read.
    pub async fn prefix(&mut self, max: usize) -> Result<Prefix, BodyError> {
        let mut held: usize = self.front.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        while held <= max {
            let Some(rest) = &mut self.rest else { break };
            match inner(rest).frame().await {
                None => self.rest = None,
                Some(Err(error)) => {
                    // Whoever goes on with it must not see a clean end.
                    self.rest = Some(Mutex::new(Box::pin(Broken)));
                    return Err(error);
                }
                Some(Ok(frame)) => {
                    held += frame.data_ref().map_or(0, Bytes::len);
                    self.front.push_back(frame);
                }
            }
        }
        Ok(self.held(max))
    }

    fn held(&self, max: usize) -> Prefix {
        let mut frames = self.front.iter().filter_map(Frame::data_ref);
        let total: usize = frames.clone().map(Bytes::len).sum();
        let complete = self.rest.is_none() && total <= max;
        let bytes = if self.front.len() == 1 {
            frames.next().map(|data| data.slice(..data.len().min(max))).unwrap_or_default()
        } else {
            let mut joined = BytesMut::with_capacity(total.min(max));
            for data in frames {
                let room = max - joined.len();
                joined.extend_from_slice(&data[..data.len().min(room)]);
            }
            joined.freeze()
        };
        Prefix { bytes, complete }
    }

    /// The bytes, when the whole body is there in at most one piece.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        match self.front.front() {
            _ if self.rest.is_some() || self.front.len() > 1 => None,
            None => Some(Bytes::new()),
            Some(frame) => frame.data_ref().cloned(),
        }
    }

    /// Reads the whole body, at most `max` bytes.
    pub async fn collect_up_to(mut self, max: usize) -> Result<Bytes, BodyError> {
        if http_body::Body::size_hint(&self).lower() > max as u64 {
            return Err(BodyError::TooLarge);
        }
        let prefix = self.prefix(max).await?;
        if prefix.complete { Ok(prefix.bytes) } else { Err(BodyError::TooLarge) }
    }

    /// The same body, which fails once more than `max` bytes came.
    #[must_use]
    pub fn limited(self, max: u64) -> Self {
        Self::stream(Limited { body: self, left: max })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.front.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let frame = ready!(inner(rest).as_mut().poll_frame(cx));
        if frame.is_none() {
            self.rest = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.front.is_empty() && self.rest.as_ref().is_none_or(|rest| lock(rest).is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let front: u64 =
            self.front.iter().filter_map(Frame::data_ref).map(|data| data.remaining() as u64).sum();
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), |rest| lock(rest).size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(front));
        // Trailers need a framing with room for them: that of a length has none.
        let upper = rest.upper().filter(|_| !self.front.iter().any(Frame::is_trailers));
        if let Some(upper) = upper {
            hint.set_upper(upper.saturating_add(front));
        }
        hint
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::full(text)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({:?})", http_body::Body::size_hint(self))
    }
}

fn inner(rest: &mut Mutex<Boxed>) -> &mut Boxed {
    rest.get_mut().unwrap_or_else(PoisonError::into_inner)
}

fn lock(rest: &Mutex<Boxed>) -> MutexGuard<'_, Boxed> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left of a body that failed.
struct Broken;

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(Some(Err(BodyError::Incomplete)))
    }
}

struct Limited {
    body: Body,
    left: u64,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(BodyError::TooLarge))),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

/// Trailers that a frame holds, if it is one.
pub(crate) fn trailers(frame: Frame<Bytes>) -> Option<HeaderMap> {
    frame.into_trailers().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    fn pieces(pieces: &[&'static str]) -> Body {
        let frames: Vec<Result<_, BodyError>> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).collect();
        Body::stream(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn a_prefix_leaves_the_body_whole() {
        let mut body = pieces(&["ab", "cd", "ef"]);
        let prefix = body.prefix(3).await.unwrap();
        assert_eq!((&prefix.bytes[..], prefix.complete), (&b"abc"[..], false));
        let all = body.prefix(100).await.unwrap();
        assert_eq!((&all.bytes[..], all.complete), (&b"abcdef"[..], true));
        assert_eq!(&body.collect_up_to(6).await.unwrap()[..], b"abcdef");
    }

    #[tokio::test]
    async fn a_body_that_failed_ahead_has_no_clean_end() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"ab"))), Err(BodyError::Framing)];
        let mut body = Body::stream(StreamBody::new(futures_util::stream::iter(frames)));
        assert!(body.prefix(10).await.is_err());
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn trailers_that_were_read_ahead_leave_no_exact_length() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"ab"))), Ok(Frame::trailers(HeaderMap::new()))];
        let mut body = Body::stream(StreamBody::new(futures_util::stream::iter(frames)));
        assert!(body.prefix(10).await.unwrap().complete);
        assert_eq!(http_body::Body::size_hint(&body).exact(), None);
        assert!(body.whole().is_none());
    }

    #[tokio::test]
    async fn what_is_too_large_is_an_error_and_not_a_cut() {
        assert!(matches!(pieces(&["ab", "cd"]).collect_up_to(3).await, Err(BodyError::TooLarge)));
        let mut limited = pieces(&["ab", "cd"]).limited(3);
        assert!(limited.frame().await.unwrap().is_ok());
        assert!(matches!(limited.frame().await, Some(Err(BodyError::TooLarge))));
    }
}
