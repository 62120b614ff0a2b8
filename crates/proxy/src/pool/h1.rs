//! HTTP/1.1 upstreams: one request at a time per connection, idle ones kept.

use super::{
    Key, Pool, PoolLimits, Upstream,
    connect::{Io, clear, connect},
    sent, unsent,
};
use crate::{Body, BodyError, Request, Response, SendFailure, UpstreamError, interim::Interim, upgrade};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// Idle connections by upstream.
#[derive(Clone)]
pub(super) struct Connections(Arc<Mutex<Kept>>);

struct Kept {
    idle: HashMap<Key, Vec<Idle>>,
    pruned: Instant,
}

impl Default for Connections {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Kept { idle: HashMap::new(), pruned: Instant::now() })))
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn send(
        &self,
        pool: &Pool,
        to: &Upstream,
        mut request: Request,
        deadline: Instant,
    ) -> Result<Response, Box<SendFailure>> {
        let key = to.key();
        prepare(&mut request);
        // An idle connection may have died meanwhile; then another takes the request, which was not sent.
        while let Some(sender) = self.take(&key, pool).await {
            match self.exchange(pool, Some(&key), sender, request, deadline).await {
                Err(failure)
                    if failure.unsent.is_some() && !matches!(failure.error, UpstreamError::TimedOut) =>
                {
                    request = failure.unsent.expect("checked just now");
                }
                other => return other,
            }
        }
        let io = match connect(to, &pool.limits, deadline).await {
            Ok(io) => io,
            Err(error) => return Err(unsent(UpstreamError::Connect(error), request)),
        };
        match handshake(pool, io).await {
            Ok(sender) => self.exchange(pool, Some(&key), sender, request, deadline).await,
            Err(error) => Err(unsent(UpstreamError::BeforeHead(error.into()), request)),
        }
    }

    pub(super) async fn send_over(
        &self,
        pool: &Pool,
        stream: TcpStream,
        mut request: Request,
        deadline: Instant,
    ) -> Result<Response, Box<SendFailure>> {
        prepare(&mut request);
        let io = match clear(stream) {
            Ok(io) => io,
            Err(error) => return Err(unsent(UpstreamError::Connect(error), request)),
        };
        match handshake(pool, io).await {
            Ok(sender) => self.exchange(pool, None, sender, request, deadline).await,
            Err(error) => Err(unsent(UpstreamError::BeforeHead(error.into()), request)),
        }
    }

    async fn exchange(
        &self,
        pool: &Pool,
        key: Option<&Key>,
        mut sender: SendRequest<Body>,
        request: Request,
        deadline: Instant,
    ) -> Result<Response, Box<SendFailure>> {
        let wants_upgrade = request.extensions().get::<upgrade::Wanted>().is_some();
        let response = match timeout_at(deadline, sender.try_send_request(request)).await {
            Err(_) => return Err(sent(UpstreamError::TimedOut)),
            Ok(Err(mut error)) => {
                let request = error.take_message();
                let error = UpstreamError::BeforeHead(error.into_error().into());
                return Err(Box::new(SendFailure { error, unsent: request }));
            }
            Ok(Ok(response)) => response,
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switched(response, wants_upgrade, deadline).await;
        }
        let (head, body) = response.into_parts();
        let back = key.map(|key| (self.clone(), key.clone(), sender, pool.limits.clone()));
        Ok(http::Response::from_parts(head, Body::stream(Lent { body, back })))
    }

    async fn take(&self, key: &Key, pool: &Pool) -> Option<SendRequest<Body>> {
        loop {
            let idle = self.lock().idle.get_mut(key)?.pop()?;
            if idle.since.elapsed() > pool.limits.idle_timeout || idle.sender.is_closed() {
                continue;
            }
            let mut sender = idle.sender;
            if sender.is_ready() || sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn give(&self, key: Key, sender: SendRequest<Body>, limits: &PoolLimits) {
        if sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut all = self.lock();
        if now.duration_since(all.pruned) > limits.idle_timeout {
            // Upstreams come and go: what nobody takes any more must not stay for ever.
            all.pruned = now;
            all.idle.retain(|_, idle| {
                idle.retain(|idle| now.duration_since(idle.since) <= limits.idle_timeout);
                !idle.is_empty()
            });
        }
        let idle = all.idle.entry(key).or_default();
        if idle.len() < limits.idle_max {
            idle.push(Idle { sender, since: now });
        }
    }
}

async fn handshake(pool: &Pool, io: Io) -> hyper::Result<SendRequest<Body>> {
    let (sender, connection) = hyper::client::conn::http1::handshake::<_, Body>(io).await?;
    pool.tasks.spawn(async move {
        // Its errors reach whoever waits for an answer on it.
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}

fn prepare(request: &mut Request) {
    *request.version_mut() = Version::HTTP_11;
    if request.body().size_hint().exact().is_none() {
        // Said outright, since hyper would otherwise leave out the body of a GET.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(interim) = request.extensions().get::<Interim>().cloned() {
        hyper::ext::on_informational(request, move |early| {
            interim.say(early.status(), early.headers().clone());
        });
    }
    if let Some(upgrade::Wanted(protocol)) = request.extensions().get::<upgrade::Wanted>().cloned() {
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(header::UPGRADE, protocol);
        request.headers_mut().remove(header::TE);
    } else if request.headers().contains_key(header::TE) {
        // RFC 9110 §10.1.4: TE is for this connection, and must be nominated.
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

/// A 101 that was asked for becomes a tunnel; one that was not is a broken answer.
async fn switched(
    mut response: http::Response<Incoming>,
    wanted: bool,
    deadline: Instant,
) -> Result<Response, Box<SendFailure>> {
    let upgraded = timeout_at(deadline, hyper::upgrade::on(&mut response)).await;
    let upgraded = match upgraded {
        Err(_) => return Err(sent(UpstreamError::TimedOut)),
        Ok(Err(error)) => return Err(sent(UpstreamError::BeforeHead(error.into()))),
        Ok(Ok(upgraded)) => upgraded,
    };
    let (mut head, _) = response.into_parts();
    if wanted {
        head.extensions.insert(upgrade::Tunnel::new(TokioIo::new(upgraded)));
    } else {
        head.status = StatusCode::BAD_GATEWAY;
        head.headers.clear();
    }
    Ok(http::Response::from_parts(head, Body::empty()))
}

/// A response's body; its connection goes back to the pool when the body has ended.
struct Lent {
    body: Incoming,
    back: Option<(Connections, Key, SendRequest<Body>, PoolLimits)>,
}

impl Lent {
    fn finish(&mut self) {
        if let Some((connections, key, sender, limits)) = self.back.take() {
            connections.give(key, sender, &limits);
        }
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.finish(),
            Some(Ok(_)) if self.body.is_end_stream() => self.finish(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.back = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Connection)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if http_body::Body::is_end_stream(&self.body) {
            self.finish();
        }
    }
}
