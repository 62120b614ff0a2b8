//! HTTP/2 upstreams: a few connections per upstream carry all requests of a worker.
//!
//! A connection takes only as many requests as its window has room for, so that answers nobody reads cannot
//! stop the others; further requests get a further connection.

use super::{Key, Pool, PoolLimits, Upstream, connect::connect, sent, unsent};
use crate::{
    Body, Request, Response, SendFailure, UpstreamError,
    h2::stream::{Duplex, RecvBody, send_body},
    interim::Interim,
    upgrade::{Tunnel, Wanted},
};
use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body::Body as _;
use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    task::AbortHandle,
    time::{Instant, timeout_at},
};

/// Requests at once in a connection.
const STREAMS_MAX: usize = 100;
/// What one answer may be ahead of its reader.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Room for all streams at once.
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW * STREAMS_MAX as u32;
const SEND_BUFFER_BYTES: usize = 64 * 1024;
const HEADER_LIST_BYTES_MAX: u32 = 128 * 1024;
/// A connection over which nothing comes is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(10);
const PONG_WITHIN: Duration = Duration::from_secs(5);
/// Longest pause of a request's body; whoever sends it is watched by the listener, too.
const BODY_PAUSE: Duration = Duration::from_mins(10);

/// Connections by upstream.
#[derive(Default)]
pub(super) struct Connections(Mutex<HashMap<Key, Arc<Slot>>>);

/// The connections to one upstream.
#[derive(Default)]
struct Slot {
    open: Mutex<Vec<Connection>>,
    /// Held while a new one is made: one at a time, others wait for it and look again.
    making: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Connection {
    sender: SendRequest<Bytes>,
    load: Arc<Load>,
}

#[derive(Default)]
struct Load {
    streams: AtomicUsize,
    ended: AtomicBool,
}

/// A place in a connection, given back when it is dropped.
struct Place(Arc<Load>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What ends with an answer: its place, and the upload of its request.
struct Exchange {
    _place: Place,
    upload: Option<AbortHandle>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abort();
        }
    }
}

impl Slot {
    /// A connection with room, and a place in it.
    fn find(&self) -> Option<(SendRequest<Bytes>, Place)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| !connection.load.ended.load(Ordering::Relaxed));
        let connection = open.iter().find(|connection| {
            let room = connection.sender.current_max_send_streams().min(STREAMS_MAX);
            connection.load.streams.load(Ordering::Relaxed) < room
        })?;
        connection.load.streams.fetch_add(1, Ordering::Relaxed);
        Some((connection.sender.clone(), Place(connection.load.clone())))
    }

    fn is_unused(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().all(|connection| connection.load.ended.load(Ordering::Relaxed))
    }
}

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
        let interim = request.extensions().get::<Interim>().cloned();
        let request = match prepare(request) {
            Ok(request) => request,
            Err(request) => {
                let error = std::io::Error::new(std::io::ErrorKind::InvalidInput, "the request has no host");
                return Err(unsent(UpstreamError::Connect(error), request));
            }
        };
        let (sender, place) = match ready(pool, to, &slot, deadline).await {
            Ok(ready) => ready,
            Err(error) => return Err(unsent(UpstreamError::Connect(error), restore(request))),
        };
        let answer = exchange(pool, sender, place, request, upgrade.is_some(), interim);
        match timeout_at(deadline, answer).await {
            Err(_) => Err(Box::new(sent(UpstreamError::TimedOut))),
            Ok(Err(error)) => Err(Box::new(sent(UpstreamError::BeforeHead(error.into())))),
            Ok(Ok((response, exchange, send))) => {
                Ok(answered(response, exchange, send.zip(upgrade.map(|Wanted(protocol)| protocol))))
            }
        }
    }

    fn slot(&self, key: Key) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&key) {
            return slot.clone();
        }
        // A new upstream is rare; then those whose connections have ended are forgotten.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || !slot.is_unused());
        slots.entry(key).or_default().clone()
    }
}

/// A connection that takes a request now. One that the peer is closing is passed over.
async fn ready(
    pool: &Pool,
    to: &Upstream,
    slot: &Slot,
    deadline: Instant,
) -> std::io::Result<(SendRequest<Bytes>, Place)> {
    loop {
        let (sender, place) = match slot.find() {
            Some(found) => found,
            None => {
                let making = timeout_at(deadline, slot.making.lock()).await;
                let _making = making.map_err(|_| std::io::ErrorKind::TimedOut)?;
                // Whoever was first may have made one with room for us.
                match slot.find() {
                    Some(found) => found,
                    None => {
                        let connection = open(pool, to, deadline).await?;
                        slot.open.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                        continue;
                    }
                }
            }
        };
        match timeout_at(deadline, sender.ready()).await {
            Ok(Ok(sender)) => return Ok((sender, place)),
            Ok(Err(_)) => place.0.ended.store(true, Ordering::Relaxed),
            Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
        }
    }
}

async fn open(pool: &Pool, to: &Upstream, deadline: Instant) -> std::io::Result<Connection> {
    let io = connect(to, &pool.limits, deadline).await?.whole();
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .enable_push(false);
    let until = deadline.min(Instant::now() + pool.limits.connect_timeout);
    let handshake = timeout_at(until, builder.handshake::<_, Bytes>(io)).await;
    let (sender, mut connection) =
        handshake.map_err(|_| std::io::ErrorKind::TimedOut)?.map_err(std::io::Error::other)?;
    let load = Arc::<Load>::default();
    let (limits, ended) = (pool.limits.clone(), load.clone());
    let ping = connection.ping_pong();
    pool.tasks.spawn(async move {
        tokio::select! {
            // Its errors reach whoever waits for an answer on it.
            _ = &mut connection => {}
            () = until_useless(ping, &ended, &limits) => {}
        }
        ended.ended.store(true, Ordering::Relaxed);
    });
    Ok(Connection { sender, load })
}

/// Ends when the peer does not answer any more, or the connection was not used for long.
async fn until_useless(ping: Option<h2::PingPong>, load: &Load, limits: &PoolLimits) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    let mut used = Instant::now();
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if load.streams.load(Ordering::Relaxed) > 0 {
            used = Instant::now();
        } else if used.elapsed() > limits.idle_timeout {
            return;
        }
        let pong = ping.ping(h2::Ping::opaque());
        if !matches!(tokio::time::timeout(PONG_WITHIN, pong).await, Ok(Ok(_))) {
            return;
        }
    }
}

type Answered = (http::Response<RecvStream>, Exchange, Option<h2::SendStream<Bytes>>);

/// Sends the request and waits for the head of its answer; interim responses are passed on meanwhile.
async fn exchange(
    pool: &Pool,
    mut sender: SendRequest<Bytes>,
    place: Place,
    request: Request,
    tunnel: bool,
    interim: Option<Interim>,
) -> Result<Answered, h2::Error> {
    let (head, body) = request.into_parts();
    let empty = !tunnel && body.is_end_stream();
    let length = body.size_hint().exact();
    let (mut response, mut send) = sender.send_request(http::Request::from_parts(head, ()), empty)?;
    let mut exchange = Exchange { _place: place, upload: None };
    let mut tunnelled = None;
    if tunnel {
        tunnelled = Some(send);
    } else if !empty {
        let upload = pool.tasks.spawn(async move {
            // The peer sees a reset when it breaks; whoever waits for the answer learns it from there.
            let _ = send_body(&mut send, body, length, BODY_PAUSE).await;
        });
        exchange.upload = Some(upload.abort_handle());
    }
    let response = poll_fn(|cx| {
        if let Some(interim) = &interim {
            while let Poll::Ready(Some(Ok(early))) = response.poll_informational(cx) {
                let (head, ()) = early.into_parts();
                interim.say(head.status, head.headers);
            }
        }
        Pin::new(&mut response).poll(cx)
    })
    .await?;
    Ok((response, exchange, tunnelled))
}

/// The answer as stations see it. An extended CONNECT that was accepted (RFC 8441) looks like the 101 of HTTP/1.
fn answered(
    response: http::Response<RecvStream>,
    exchange: Exchange,
    tunnel: Option<(h2::SendStream<Bytes>, HeaderValue)>,
) -> Response {
    let (mut head, recv) = response.into_parts();
    match tunnel {
        Some((send, protocol)) if head.status == StatusCode::OK => {
            head.status = StatusCode::SWITCHING_PROTOCOLS;
            head.headers.insert(header::UPGRADE, protocol);
            head.extensions.insert(Tunnel::new(Duplex::new(send, recv, exchange)));
            http::Response::from_parts(head, Body::empty())
        }
        _ if recv.is_end_stream() => http::Response::from_parts(head, Body::empty()),
        _ => {
            let said = head.headers.get(header::CONTENT_LENGTH);
            let length = said.and_then(|value| value.to_str().ok()?.parse().ok());
            http::Response::from_parts(head, Body::stream(RecvBody::new(recv, length, exchange)))
        }
    }
}

/// The Host field becomes the authority.
fn prepare(mut request: Request) -> Result<Request, Request> {
    *request.version_mut() = Version::HTTP_2;
    let protocol = request.extensions().get::<Wanted>().and_then(|wanted| wanted.0.to_str().ok());
    if let Some(protocol) = protocol.map(h2::ext::Protocol::from) {
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
    if request.extensions_mut().remove::<h2::ext::Protocol>().is_some() {
        *request.method_mut() = Method::GET;
    }
    request
}
