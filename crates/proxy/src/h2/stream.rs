//! What flows in a stream: bodies read with back-pressure, bodies sent with back-pressure, tunnels.

use crate::{Body, BodyError, body::trailers, h1::framing::clean_trailers, interim::Interim};
use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, timeout},
};

/// Most bytes that are put into a stream at once: what a slow reader makes us hold beside `h2`'s own buffer.
const PIECE_BYTES: usize = 16 * 1024;

/// Whether a body stopped coming.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stalled(Arc<AtomicBool>);

impl Stalled {
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The incoming body of a stream. What belongs to its stream (`with`) is dropped when it has ended.
pub(crate) struct RecvBody<T> {
    stream: RecvStream,
    part: Part,
    left: Option<u64>,
    /// Longest pause, where the other side is a client.
    idle: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    stalled: Stalled,
    /// Told to go on when the body is first wanted.
    waits: Option<Interim>,
    with: Option<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Data,
    Trailers,
    End,
}

impl<T: Send + Unpin + 'static> RecvBody<T> {
    /// The body of `length` bytes, when that was said.
    pub(crate) fn new(stream: RecvStream, length: Option<u64>, with: T) -> Self {
        Self {
            stream,
            part: Part::Data,
            left: length,
            idle: None,
            timer: None,
            stalled: Stalled::default(),
            waits: None,
            with: Some(with),
        }
    }

    /// The same, which fails when it pauses for longer than `idle`.
    pub(crate) fn paused_at_most(mut self, idle: Duration) -> (Self, Stalled) {
        self.idle = Some(idle);
        let stalled = self.stalled.clone();
        (self, stalled)
    }

    /// The same, whose client waits for `100 Continue`.
    pub(crate) fn waited_for(mut self, waits: Option<Interim>) -> Self {
        self.waits = waits;
        self
    }

    fn end(&mut self) {
        self.part = Part::End;
        self.with = None;
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(idle) = self.idle else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        timer.as_mut().poll(cx)
    }

    fn poll_some(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        loop {
            match self.part {
                Part::End => return Poll::Ready(None),
                Part::Data => match ready!(self.stream.poll_data(cx)) {
                    None => self.part = Part::Trailers,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(Ok(data)) => {
                        // Whoever takes it has room for it; the next piece may come.
                        let _ = self.stream.flow_control().release_capacity(data.len());
                        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                },
                Part::Trailers => match ready!(self.stream.poll_trailers(cx)) {
                    Err(error) => return Poll::Ready(Some(Err(error))),
                    Ok(None) => self.end(),
                    Ok(Some(mut trailers)) => {
                        self.end();
                        clean_trailers(&mut trailers);
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                },
            }
        }
    }
}

impl<T: Send + Unpin + 'static> http_body::Body for RecvBody<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(client) = this.waits.take() {
            client.go_on();
        }
        if let Poll::Ready(frame) = this.poll_some(cx) {
            this.timer = None;
            return Poll::Ready(frame.map(|frame| {
                frame.map_err(|error| {
                    this.end();
                    BodyError::Stream(error)
                })
            }));
        }
        ready!(this.poll_stall(cx));
        this.stalled.0.store(true, Ordering::Relaxed);
        this.end();
        Poll::Ready(Some(Err(BodyError::TimedOut)))
    }

    fn is_end_stream(&self) -> bool {
        self.part == Part::End || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

/// Why a body was not sent to its end.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The stream or its connection ended, or nobody read for too long.
    Peer,
    /// The body failed, or was not as long as was said.
    Body,
}

/// Sends a body as far as the peer takes it. The stream is reset when that fails.
pub(crate) async fn send_body(
    stream: &mut SendStream<Bytes>,
    body: Body,
    length: Option<u64>,
    idle: Duration,
) -> Result<(), SendError> {
    let sent = send_frames(stream, body, length, idle).await;
    if sent.is_err() {
        stream.send_reset(Reason::INTERNAL_ERROR);
    }
    sent
}

async fn send_frames(
    stream: &mut SendStream<Bytes>,
    mut body: Body,
    length: Option<u64>,
    idle: Duration,
) -> Result<(), SendError> {
    let mut left = length;
    loop {
        let frame = tokio::select! {
            biased;
            frame = timeout(idle, body.frame()) => frame.map_err(|_| SendError::Body)?,
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return Err(SendError::Peer),
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| SendError::Body)?;
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                if let Some(left) = &mut left {
                    *left = left.checked_sub(data.len() as u64).ok_or(SendError::Body)?;
                }
                let last = body.is_end_stream() && left.is_none_or(|left| left == 0);
                send_data(stream, data, last, idle).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                let Some(trailers) = trailers(frame) else { continue };
                whole(left)?;
                return stream.send_trailers(trailers).map_err(|_| SendError::Peer);
            }
        }
    }
    whole(left)?;
    stream.send_data(Bytes::new(), true).map_err(|_| SendError::Peer)
}

fn whole(left: Option<u64>) -> Result<(), SendError> {
    if left.is_some_and(|left| left > 0) { Err(SendError::Body) } else { Ok(()) }
}

async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    last: bool,
    idle: Duration,
) -> Result<(), SendError> {
    while !data.is_empty() {
        // Capacity is asked for only when there is something to send: what one stream has, others lack.
        stream.reserve_capacity(data.len().min(PIECE_BYTES));
        let capacity = match stream.capacity() {
            0 => {
                let more = timeout(idle, poll_fn(|cx| stream.poll_capacity(cx))).await;
                let more = more.map_err(|_| SendError::Peer)?.ok_or(SendError::Peer)?;
                more.map_err(|_| SendError::Peer)?
            }
            there => there,
        };
        let piece = data.split_to(data.len().min(capacity));
        stream.send_data(piece, last && data.is_empty()).map_err(|_| SendError::Peer)?;
    }
    Ok(())
}

/// Both directions of a stream that became a tunnel.
pub(crate) struct Duplex<T> {
    send: SendStream<Bytes>,
    recv: RecvStream,
    rest: Bytes,
    _with: T,
}

impl<T> Duplex<T> {
    pub(crate) fn new(send: SendStream<Bytes>, recv: RecvStream, with: T) -> Self {
        Self { send, recv, rest: Bytes::new(), _with: with }
    }
}

impl<T: Unpin> AsyncRead for Duplex<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.recv.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        let _ = self.recv.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl<T: Unpin> AsyncWrite for Duplex<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(bytes.len().min(PIECE_BYTES));
        let capacity = match self.send.capacity() {
            0 => match ready!(self.send.poll_capacity(cx)) {
                Some(more) => more.map_err(to_io)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            there => there,
        };
        let length = capacity.min(bytes.len());
        self.send.send_data(Bytes::copy_from_slice(&bytes[..length]), false).map_err(to_io)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(to_io))
    }
}

fn to_io(error: h2::Error) -> io::Error {
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    } else {
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}
