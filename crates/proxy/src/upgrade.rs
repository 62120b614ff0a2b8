//! Upgrades: a tunnel only after the upstream's 101, with back-pressure both ways and an end to silence.
//!
//! Over HTTP/2 an upgrade travels as an extended CONNECT (RFC 8441); stations see the same on both.
//! `h2c` is never an upgrade here: its tunnel would carry requests past every station.

use crate::pool::Wire;
use http::HeaderValue;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    time::Instant,
};

/// Marks a request that asks for an upgrade; in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted(
    /// Value of the Upgrade field.
    pub HeaderValue,
);

impl Wanted {
    /// The upgrade that an Upgrade field asks for: exactly one protocol, and none that carries HTTP.
    pub fn from_field(value: &HeaderValue) -> Option<Self> {
        let name = value.as_bytes();
        let token = !name.is_empty()
            && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'/'));
        let lower = name.to_ascii_lowercase();
        let carries_http =
            lower.starts_with(b"h2") || lower.starts_with(b"http") || lower.starts_with(b"tls");
        (token && !carries_http).then(|| Self(value.clone()))
    }
}

/// The upstream's end of a tunnel; in the extensions of a 101 response.
#[derive(Clone)]
pub struct Tunnel {
    io: Arc<Mutex<Option<Far>>>,
    end: Arc<Mutex<Option<End>>>,
}

/// The upstream's end.
type Far = Pin<Box<dyn Wire>>;
/// What ends a tunnel from outside.
type End = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Tunnel {
    /// Wraps the upstream's end.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { io: Arc::new(Mutex::new(Some(Box::pin(io)))), end: Arc::default() }
    }

    /// The tunnel ends when this does, if not before.
    pub fn end_with(&self, end: impl Future<Output = ()> + Send + 'static) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(end));
    }

    fn take(&self) -> Option<(Far, End)> {
        let io = self.io.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        Some((io, end.unwrap_or_else(|| Box::pin(std::future::pending()))))
    }
}

/// Carries bytes both ways until both sides ended, one broke, something cut it, or neither sent anything for `idle`.
pub(crate) async fn carry<C>(client: C, tunnel: &Tunnel, idle: Duration)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let Some((upgraded, end)) = tunnel.take() else { return };
    let start = Instant::now();
    let heard_ms = AtomicU64::new(0);
    let mut client = Watched { io: client, start, heard_ms: &heard_ms };
    let mut upstream = Watched { io: upgraded, start, heard_ms: &heard_ms };
    let silence = async {
        loop {
            let due = start + Duration::from_millis(heard_ms.load(Ordering::Relaxed)) + idle;
            if Instant::now() >= due {
                break;
            }
            tokio::time::sleep_until(due).await;
        }
    };
    tokio::select! {
        // Either side may hang up at any time: that is how tunnels end.
        _ = copy_bidirectional(&mut client, &mut upstream) => {}
        () = end => tracing::debug!("a tunnel was cut"),
        () = silence => tracing::debug!("a tunnel was silent for too long"),
    }
}

/// One end of a tunnel; remembers when it was last heard.
struct Watched<'a, IO> {
    io: IO,
    start: Instant,
    heard_ms: &'a AtomicU64,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<'_, IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_read(cx, buffer);
        if outcome.is_ready() {
            let heard = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.heard_ms.store(heard, Ordering::Relaxed);
        }
        outcome
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<'_, IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_protocol_that_does_not_carry_http_is_an_upgrade() {
        for good in ["websocket", "WebSocket", "foo/2"] {
            assert!(Wanted::from_field(&HeaderValue::from_static(good)).is_some(), "{good}");
        }
        for bad in ["h2c", "H2C", "websocket, h2c", "HTTP/2.0", "TLS/1.2", "", "a b"] {
            assert!(Wanted::from_field(&HeaderValue::from_static(bad)).is_none(), "{bad}");
        }
    }
}
