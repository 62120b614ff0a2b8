//! Connections to what stands behind: kept, reused, made anew.

mod connect;
mod h1;
mod h2;

pub(crate) use connect::Wire;

use crate::{Broker, Request, Response, SendFailure, UpstreamError};
use bastide_types::ReplicaId;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::Instant};
use tokio_util::task::TaskTracker;

/// Limits of a pool.
#[derive(Debug, Clone)]
pub struct PoolLimits {
    /// Longest wait for a connection. Default 2 s.
    pub connect_timeout: Duration,
    /// Idle HTTP/1 connections kept per upstream. Default 64.
    pub idle_max: usize,
    /// How long an idle connection is kept. Default 30 s: shorter than what servers keep.
    pub idle_timeout: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(2), idle_max: 64, idle_timeout: Duration::from_secs(30) }
    }
}

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Where it is.
    pub place: Place,
    /// TLS, and who must answer; clear without it.
    pub tls: Option<UpstreamTls>,
    /// HTTP/2 instead of HTTP/1.1.
    pub http2: bool,
}

/// Where an upstream is.
#[derive(Debug, Clone)]
pub enum Place {
    /// At an address.
    Address(SocketAddr),
    /// In a namespace of its own: connections are made by the broker. They are kept by replica, so a kept one
    /// costs no more than any other.
    Replica(ReplicaId, Broker),
}

/// Under what connections are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Address(SocketAddr, String),
    Replica(ReplicaId),
}

/// TLS towards an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// Configuration; it also checks the peer's role. ALPN must fit [`Upstream::http2`].
    pub config: Arc<rustls::ClientConfig>,
    /// Name of the peer.
    pub server_name: rustls::pki_types::ServerName<'static>,
}

impl Upstream {
    /// Clear HTTP/1.1, as apps speak it.
    pub const fn clear(place: Place) -> Self {
        Self { place, tls: None, http2: false }
    }

    fn key(&self) -> Key {
        match &self.place {
            Place::Address(addr) => {
                let name = self.tls.as_ref().map(|tls| tls.server_name.to_str().into_owned());
                Key::Address(*addr, name.unwrap_or_default())
            }
            Place::Replica(replica, _) => Key::Replica(*replica),
        }
    }
}

/// A pool. One per worker: connections never change threads.
pub struct Pool {
    limits: PoolLimits,
    h1: h1::Connections,
    h2: h2::Connections,
    tasks: TaskTracker,
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Self {
        Self {
            limits,
            h1: h1::Connections::default(),
            h2: h2::Connections::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Sends a request and waits for the head of its answer, at most until `deadline`.
    ///
    /// A connection that turns out to be stale before anything was sent is replaced silently.
    ///
    /// # Errors
    /// [`SendFailure`]; it holds the request when nothing of it was sent.
    pub async fn send(
        &self,
        to: &Upstream,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, Box<SendFailure>> {
        if to.http2 {
            self.h2.send(self, to, request, deadline).await
        } else {
            self.h1.send(self, to, request, deadline).await
        }
    }

    /// Sends one request over a connection that is there already and is closed afterwards: for probes.
    ///
    /// # Errors
    /// As [`Pool::send`].
    pub async fn send_over(
        &self,
        stream: TcpStream,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, Box<SendFailure>> {
        self.h1.send_over(self, stream, request, deadline).await
    }
}

pub(crate) fn unsent(error: UpstreamError, request: Request) -> Box<SendFailure> {
    Box::new(SendFailure { error, unsent: Some(request) })
}

pub(crate) fn sent(error: UpstreamError) -> SendFailure {
    SendFailure { error, unsent: None }
}
