//! What `h2` writes is held until it has written all that is ready: answers to requests that came together go out
//! together. `h2` itself flushes after each frame of data.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A connection that can take bytes without sending them yet, as many as it has room for.
pub(crate) trait Holds: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Takes some bytes; sends only what must go to make room.
    fn poll_hold(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;
}

impl Holds for TlsStream<TcpStream> {
    fn poll_hold(&mut self, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        use io::Write;
        loop {
            // The session encrypts into a buffer with a limit of its own (64 KiB).
            match self.get_mut().1.writer().write_vectored(bytes)? {
                0 if bytes.iter().any(|part| !part.is_empty()) => {
                    ready!(Pin::new(&mut *self).poll_flush(cx))?;
                }
                taken => return Poll::Ready(Ok(taken)),
            }
        }
    }
}

/// The connection, shared by `h2` and whoever sends. Both are polled by one task, so nobody ever waits for the lock.
pub(super) struct Held<IO>(Arc<Mutex<Inner<IO>>>);

struct Inner<IO> {
    io: IO,
    /// Until then every flush is one: a client may wait for our first words.
    holds: bool,
}

impl<IO> Clone for Held<IO> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<IO: Holds> Held<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self(Arc::new(Mutex::new(Inner { io, holds: false })))
    }

    /// From now on what is written waits for [`Self::poll_send`].
    pub(super) fn hold(&self) {
        self.inner().holds = true;
    }

    /// Sends what is held.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner().io).poll_flush(cx)
    }

    fn inner(&self) -> MutexGuard<'_, Inner<IO>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO: Holds> AsyncRead for Held<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner().io).poll_read(cx, buffer)
    }
}

impl<IO: Holds> AsyncWrite for Held<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().io.poll_hold(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().io.poll_hold(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.inner().holds { Poll::Ready(Ok(())) } else { self.poll_send(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner().io).poll_shutdown(cx)
    }
}
