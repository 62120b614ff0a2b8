//! Upgrades: a tunnel only after the upstream's 101, with back-pressure both ways.

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

/// Marks a request that asks for an upgrade; in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted(
    /// Value of the Upgrade field.
    pub http::HeaderValue,
);

/// The upstream's end of a tunnel; in the extensions of a 101 response.
#[derive(Clone)]
pub struct Tunnel(Arc<Mutex<Option<Upgraded>>>);

impl Tunnel {
    /// Wraps the upstream's end.
    pub fn new(upgraded: Upgraded) -> Self {
        Self(Arc::new(Mutex::new(Some(upgraded))))
    }

    fn take(&self) -> Option<Upgraded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Carries bytes both ways until one side ends or nobody spoke for `idle`... whichever is first.
pub(crate) async fn carry<C>(mut client: C, tunnel: &Tunnel, longest: Duration)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let Some(upgraded) = tunnel.take() else { return };
    let mut upstream = TokioIo::new(upgraded);
    // Either side may hang up at any time: that is how tunnels end.
    let _ = tokio::time::timeout(longest, copy_bidirectional(&mut client, &mut upstream)).await;
}
