//! HTTP/2 upstreams: one connection per upstream carries all requests of a worker.

use super::{Key, Pool, Upstream, connect::connect, sent, unsent};
use crate::{
    Body, Request, Response, SendFailure, UpstreamError,
    upgrade::{Tunnel, Wanted},
};
use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};

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
        let slot = self.slot(to.key());
        let upgrade = request.extensions().get::<Wanted>().cloned();
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
                Err(error) => return Err(unsent(UpstreamError::Connect(error), restore(request))),
            };
            match timeout_at(deadline, sender.try_send_request(request)).await {
                Err(_) => return Err(sent(UpstreamError::TimedOut)),
                Ok(Ok(response)) => {
                    return match upgrade {
                        Some(Wanted(protocol)) => switched(response, protocol, deadline).await,
                        None => Ok(response.map(Body::from)),
                    };
                }
                Ok(Err(mut error)) => {
                    let back = error.take_message();
                    let error = error.into_error();
                    match back {
                        Some(back) if attempts > 0 => request = back,
                        unsent => {
                            return Err(Box::new(SendFailure {
                                error: UpstreamError::BeforeHead(error),
                                unsent: unsent.map(restore),
                            }));
                        }
                    }
                }
            }
        }
    }
}

impl Connections {
    fn slot(&self, key: Key) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&key) {
            return slot.clone();
        }
        // A new upstream is rare; then those whose connection has ended are forgotten.
        slots.retain(|_, slot| {
            slot.try_lock().map_or(true, |sender| sender.as_ref().is_some_and(|sender| !sender.is_closed()))
        });
        slots.entry(key).or_default().clone()
    }
}

/// An extended CONNECT that was accepted (RFC 8441) looks like the 101 of HTTP/1.
async fn switched(
    mut response: http::Response<Incoming>,
    protocol: HeaderValue,
    deadline: Instant,
) -> Result<Response, Box<SendFailure>> {
    if response.status() != StatusCode::OK {
        return Ok(response.map(Body::from));
    }
    let upgraded = match timeout_at(deadline, hyper::upgrade::on(&mut response)).await {
        Err(_) => return Err(sent(UpstreamError::TimedOut)),
        Ok(Err(error)) => return Err(sent(UpstreamError::BeforeHead(error))),
        Ok(Ok(upgraded)) => upgraded,
    };
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.headers.insert(header::UPGRADE, protocol);
    head.extensions.insert(Tunnel::new(upgraded));
    Ok(http::Response::from_parts(head, Body::empty()))
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
    let protocol = request.extensions().get::<Wanted>().and_then(|wanted| wanted.0.to_str().ok());
    if let Some(protocol) = protocol.map(hyper::ext::Protocol::from) {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(protocol);
    }
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

/// Undoes [`prepare`], so that the request may go elsewhere, also over HTTP/1.
fn restore(mut request: Request) -> Request {
    let authority = request.uri().authority().and_then(|name| HeaderValue::from_str(name.as_str()).ok());
    if let Some(host) = authority {
        request.headers_mut().insert(header::HOST, host);
    }
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    if request.extensions_mut().remove::<hyper::ext::Protocol>().is_some() {
        *request.method_mut() = Method::GET;
    }
    request
}
