//! HTTP/2 upstreams: one connection per upstream carries all requests of a worker.

use super::{Pool, Upstream, connect::connect, sent, unsent};
use crate::{Body, Request, Response, SendFailure, UpstreamError};
use http::{Uri, Version, header};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

type Key = (SocketAddr, String);
type Slot = Arc<tokio::sync::Mutex<Option<SendRequest<Body>>>>;

const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
const HEADER_LIST_BYTES_MAX: u32 = 128 * 1024;

/// The connection of each upstream; its lock is held only while a new one is made.
#[derive(Default)]
pub(super) struct Connections(Mutex<HashMap<Key, Slot>>);

impl Connections {
    pub(super) async fn send(
        &self,
        pool: &Pool,
        to: &Upstream,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, Box<SendFailure>> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(to.key()).or_default().clone();
        let mut request = match prepare(request) {
            Ok(request) => request,
            Err(request) => {
                let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the request has no host");
                return Err(unsent(UpstreamError::Connect(error), request));
            }
        };
        // A connection that the peer has just closed gives the request back unsent: once more, anew.
        let mut attempts = 2;
        loop {
            attempts -= 1;
            let mut sender = match sender(pool, to, &slot, deadline).await {
                Ok(sender) => sender,
                Err(error) => return Err(unsent(UpstreamError::Connect(error), request)),
            };
            match timeout_at(deadline, sender.try_send_request(request)).await {
                Err(_) => return Err(sent(UpstreamError::TimedOut)),
                Ok(Ok(response)) => return Ok(response.map(Body::from)),
                Ok(Err(mut error)) => {
                    let back = error.take_message();
                    let error = error.into_error();
                    match back {
                        Some(back) if attempts > 0 => request = back,
                        unsent => {
                            return Err(Box::new(SendFailure {
                                error: UpstreamError::BeforeHead(error),
                                unsent,
                            }));
                        }
                    }
                }
            }
        }
    }
}

async fn sender(
    pool: &Pool,
    to: &Upstream,
    slot: &Slot,
    deadline: Instant,
) -> std::io::Result<SendRequest<Body>> {
    let locked = timeout_at(deadline, slot.lock()).await;
    let mut slot = locked.map_err(|_| std::io::ErrorKind::TimedOut)?;
    if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
        return Ok(sender.clone());
    }
    let io = connect(to, &pool.limits, deadline).await?;
    let handshake = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .keep_alive_timeout(Duration::from_secs(5))
        .handshake(io);
    let handshake = timeout_at(deadline, handshake).await.map_err(|_| std::io::ErrorKind::TimedOut)?;
    let (sender, connection) = handshake.map_err(std::io::Error::other)?;
    pool.tasks.spawn(async move {
        // Its errors reach whoever waits for an answer on it.
        let _ = connection.await;
    });
    *slot = Some(sender.clone());
    Ok(sender)
}

/// The Host field becomes the authority.
fn prepare(mut request: Request) -> Result<Request, Request> {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(header::HOST);
    let authority = host.as_ref().and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok());
    let Some(authority) = authority else { return Err(request) };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTPS);
    parts.authority = Some(authority);
    parts.path_and_query = request.uri().path_and_query().cloned();
    match Uri::from_parts(parts) {
        Ok(uri) => {
            *request.uri_mut() = uri;
            Ok(request)
        }
        Err(_) => Err(request),
    }
}
