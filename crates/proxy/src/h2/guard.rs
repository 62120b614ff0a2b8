//! A budget for frames that cost us more than the client: floods of them end the connection.
//!
//! `h2` answers PING and SETTINGS by itself and bounds what it queues, but not how often it is asked. So the
//! heads of incoming frames are counted here, beneath it. A connection earns by what is written to it (a client
//! that downloads acknowledges windows all the time) and by waiting.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// What a connection may spend at once.
const BURST: u32 = 4_000;
/// What it earns in a second.
const PER_SECOND: u32 = 200;
/// Bytes written to it for each further unit.
const BYTES_PER_UNIT: usize = 512;
/// Length of the client's preface (RFC 9113 §3.4).
const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

/// Whether a connection has spent too much.
#[derive(Debug, Clone, Default)]
pub(super) struct Exhausted(Arc<AtomicBool>);

impl Exhausted {
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection whose incoming frames are counted.
pub(super) struct Guarded<IO> {
    io: IO,
    frames: Frames,
    exhausted: Exhausted,
}

impl<IO> Guarded<IO> {
    pub(super) fn new(io: IO, now: Instant) -> (Self, Exhausted) {
        let exhausted = Exhausted::default();
        (Self { io, frames: Frames::new(now), exhausted: exhausted.clone() }, exhausted)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Guarded<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.exhausted.is_so() {
            // Nothing more is read; whoever drives the connection ends it.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        if !self.frames.see(read, Instant::now()) {
            self.exhausted.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Guarded<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.frames.earn(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bytes))?;
        self.frames.earn(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Reads the heads of frames out of a stream of bytes and keeps the account.
struct Frames {
    /// Bytes to pass over: the preface, then payloads.
    skip: usize,
    head: [u8; FRAME_HEAD],
    have: usize,
    left: u32,
    /// Bytes written that have not become units yet.
    written: usize,
    earned: Instant,
}

impl Frames {
    fn new(now: Instant) -> Self {
        Self { skip: PREFACE, head: [0; FRAME_HEAD], have: 0, left: BURST, written: 0, earned: now }
    }

    fn earn(&mut self, written: usize) {
        self.written += written;
        let units = self.written / BYTES_PER_UNIT;
        self.written %= BYTES_PER_UNIT;
        self.left = self.left.saturating_add(u32::try_from(units).unwrap_or(BURST)).min(BURST);
    }

    /// False when the account is overdrawn.
    fn see(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.earned).as_secs();
        if seconds > 0 {
            self.earned = now;
            let earned = PER_SECOND.saturating_mul(u32::try_from(seconds).unwrap_or(u32::MAX));
            self.left = self.left.saturating_add(earned).min(BURST);
        }
        while !bytes.is_empty() {
            if self.skip > 0 {
                let passed = self.skip.min(bytes.len());
                self.skip -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (FRAME_HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < FRAME_HEAD {
                break;
            }
            self.have = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            match self.left.checked_sub(price(kind, flags, self.skip)) {
                Some(left) => self.left = left,
                None => return false,
            }
        }
        true
    }
}

/// What a frame costs (RFC 9113 §6).
fn price(kind: u8, flags: u8, length: usize) -> u32 {
    const END_STREAM: u8 = 1;
    const ACK: u8 = 1;
    match kind {
        // DATA: only what carries nothing.
        0 if length == 0 && flags & END_STREAM == 0 => 4,
        0 => 0,
        // HEADERS: bounded by the streams that may be open; PUSH_PROMISE and GOAWAY end the connection.
        1 | 5 | 7 => 0,
        // RST_STREAM: work was begun for nothing.
        3 => 10,
        // SETTINGS and PING are answered; our own that come back cost nothing.
        4 | 6 if flags & ACK != 0 => 0,
        4 => 20,
        6 => 4,
        // WINDOW_UPDATE: many, as long as there is something to acknowledge.
        8 => 1,
        // CONTINUATION: a head in crumbs.
        9 => 20,
        // PRIORITY, and kinds that nobody knows.
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 0], payload].concat()
    }

    /// How many of these a connection may send at once.
    fn taken(kind: u8, flags: u8, payload: &[u8]) -> usize {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        assert!(frames.see(&[b'P'; PREFACE], now));
        let bytes = frame(kind, flags, payload);
        (0..100_000).take_while(|_| frames.see(&bytes, now)).count()
    }

    #[test]
    fn floods_are_cut_and_work_is_not() {
        assert!(taken(6, 0, &[0; 8]) <= 1_000, "PING");
        assert!(taken(4, 0, &[]) <= 200, "SETTINGS");
        assert!(taken(2, 0, &[0; 5]) <= 1_000, "PRIORITY");
        assert!(taken(0, 0, &[]) <= 1_000, "empty DATA");
        assert!(taken(3, 0, &[0; 4]) <= 400, "RST_STREAM");
        assert!(taken(9, 0, &[]) <= 200, "CONTINUATION");
        assert!(taken(8, 0, &[0; 4]) <= 4_000, "WINDOW_UPDATE");
        assert!(taken(0x55, 0, &[]) <= 1_000, "unknown");
        assert_eq!(taken(0, 0, &[0; 100]), 100_000, "DATA");
        assert_eq!(taken(1, 4, &[0; 100]), 100_000, "HEADERS");
    }

    #[test]
    fn a_client_that_downloads_may_acknowledge() {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        assert!(frames.see(&[b'P'; PREFACE], now));
        for _ in 0..100_000 {
            frames.earn(16 * 1024);
            assert!(frames.see(&frame(8, 0, &[0; 4]), now) && frames.see(&frame(8, 0, &[0; 4]), now));
        }
    }

    #[test]
    fn waiting_earns() {
        let mut now = Instant::now();
        let mut frames = Frames::new(now);
        assert!(frames.see(&[b'P'; PREFACE], now));
        for _ in 0..1_000 {
            now += Duration::from_secs(1);
            assert!((0..20).all(|_| frames.see(&frame(6, 0, &[0; 8]), now)));
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_changes_nothing(
            kinds in proptest::collection::vec((0_u8..12, 0_u8..2, 0_usize..40), 0..80), size in 1_usize..50
        ) {
            let now = Instant::now();
            let mut bytes = vec![b'P'; PREFACE];
            for (kind, flags, length) in kinds {
                bytes.extend(frame(kind, flags, &vec![0; length]));
            }
            let (mut whole, mut parts) = (Frames::new(now), Frames::new(now));
            prop_assert_eq!(whole.see(&bytes, now), bytes.chunks(size).all(|part| parts.see(part, now)));
            prop_assert_eq!(whole.left, parts.left);
        }
    }
}
