//! HTTP/2 towards clients: hyper's, with limits; requests look the same as those of HTTP/1.

use crate::{
    Body, HeadFault, Limits, Peer, RawHead, RefusedHead, Response, Service, h1::head::is_host, upgrade,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Header list of one request, decoded.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// Flow-control windows: enough for a fast upload, bounded per connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Serves one connection to its end.
pub(crate) async fn serve<S, IO>(
    io: IO,
    peer: Arc<Peer>,
    service: Arc<S>,
    limits: Arc<Limits>,
    stop: CancellationToken,
) where
    S: Service,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let tunnels = Tunnels { idle: limits.tunnel_idle_timeout, ended: CancellationToken::new() };
    // Tunnels end with their connection, however it ends.
    let _end = tunnels.ended.clone().drop_guard();
    let start = Instant::now();
    let used_ms = Arc::new(AtomicU64::new(0));
    let used = used_ms.clone();
    let answer = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (peer, service, tunnels, used) = (peer.clone(), service.clone(), tunnels.clone(), used.clone());
        async move {
            used.store(millis_since(start), Ordering::Relaxed);
            Ok::<_, Infallible>(answer(request, peer, &*service, &tunnels).await)
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(64)
        .max_local_error_reset_streams(256)
        .enable_connect_protocol()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Some(limits.idle_timeout))
        .keep_alive_timeout(limits.head_timeout);
    let connection = builder.serve_connection(TokioIo::new(io), answer);
    tokio::pin!(connection);
    loop {
        let idle_until = start + Duration::from_millis(used_ms.load(Ordering::Relaxed)) + limits.idle_timeout;
        tokio::select! {
            // How a client leaves is its own business; nothing is lost that is ours.
            _ = connection.as_mut() => return,
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(idle_until) => {
                // No new request for so long: what is in flight may end, nothing new begins.
                if millis_since(start) >= used_ms.load(Ordering::Relaxed) + millis(limits.idle_timeout) {
                    break;
                }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

fn millis_since(start: Instant) -> u64 {
    millis(start.elapsed())
}

/// What the tunnels of a connection share (RFC 8441).
#[derive(Clone)]
struct Tunnels {
    idle: Duration,
    ended: CancellationToken,
}

impl Tunnels {
    /// Carries a tunnel once the client's end is there, as long as the connection lasts.
    fn open(&self, client: OnUpgrade, tunnel: upgrade::Tunnel) {
        let Self { idle, ended } = self.clone();
        let carry = async move {
            if let Ok(client) = client.await {
                upgrade::carry(TokioIo::new(client), &tunnel, idle).await;
            }
        };
        // Owned by `ended`, which its connection cancels.
        tokio::spawn(async move { ended.run_until_cancelled(carry).await });
    }
}

/// An extended CONNECT for a protocol that may be tunnelled looks like the upgrade of HTTP/1.
fn as_upgrade(request: &mut http::Request<Incoming>) -> Option<OnUpgrade> {
    let protocol = request.extensions().get::<hyper::ext::Protocol>()?;
    let wanted = upgrade::Wanted::from_field(&HeaderValue::from_str(protocol.as_str()).ok()?)?;
    let client = hyper::upgrade::on(&mut *request);
    *request.method_mut() = Method::GET;
    request.extensions_mut().clear();
    request.extensions_mut().insert(wanted);
    Some(client)
}

async fn answer<S: Service>(
    mut request: http::Request<Incoming>,
    peer: Arc<Peer>,
    service: &S,
    tunnels: &Tunnels,
) -> Response {
    let client = if request.method() == Method::CONNECT { as_upgrade(&mut request) } else { None };
    let (mut head, body) = request.into_parts();
    let raw = raw(&head);
    let fault = settle_host(&mut head);
    let response = match fault {
        None => {
            let wanted = head.extensions.remove::<upgrade::Wanted>();
            head.extensions.clear();
            wanted.map(|wanted| head.extensions.insert(wanted));
            head.extensions.insert(peer);
            head.extensions.insert(Arc::new(raw));
            service.call(http::Request::from_parts(head, Body::from(body))).await
        }
        Some(reason) => {
            let refused = RefusedHead { peer, raw, bytes: Bytes::new(), status: reason.status(), reason };
            service.refuse(refused).await
        }
    };
    let (mut head, body) = response.into_parts();
    crate::headers::strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_2;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        match (client, head.extensions.remove::<upgrade::Tunnel>()) {
            (Some(client), Some(tunnel)) => {
                head.status = StatusCode::OK;
                tunnels.open(client, tunnel);
            }
            _ => head.status = StatusCode::BAD_GATEWAY,
        }
        return http::Response::from_parts(head, Body::empty());
    }
    if client.is_some() && head.status.is_success() {
        // A success would open a tunnel (RFC 9113 §8.5); an ordinary page is none.
        head.status = StatusCode::BAD_GATEWAY;
    }
    http::Response::from_parts(head, body)
}

/// The authority becomes the Host field; the target becomes path and query.
fn settle_host(head: &mut http::request::Parts) -> Option<HeadFault> {
    if head.method == http::Method::CONNECT {
        return Some(HeadFault::Connect);
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return Some(HeadFault::DuplicateHost);
    }
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes().to_vec());
    let host = match (authority, host) {
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(&authority) => {
            return Some(HeadFault::TargetHost);
        }
        (Some(authority), _) => match HeaderValue::from_bytes(&authority) {
            Ok(host) => host,
            Err(_) => return Some(HeadFault::MalformedHost),
        },
        (None, Some(host)) => host,
        (None, None) => return Some(HeadFault::MissingHost),
    };
    if !is_host(host.as_bytes()) {
        return Some(HeadFault::MalformedHost);
    }
    head.headers.insert(header::HOST, host);
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = head.uri.path_and_query().cloned();
    match Uri::from_parts(parts) {
        Ok(uri) => head.uri = uri,
        Err(_) => return Some(HeadFault::Target),
    }
    None
}

fn raw(head: &http::request::Parts) -> RawHead {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (bytes(name.as_str()), Bytes::copy_from_slice(value.as_bytes()))
    };
    let mut headers: Vec<_> = head.headers.iter().map(field).collect();
    if let Some(authority) = head.uri.authority()
        && !head.headers.contains_key(header::HOST)
    {
        headers.insert(0, (Bytes::from_static(b"host"), bytes(authority.as_str())));
    }
    RawHead {
        method: bytes(head.method.as_str()),
        target: bytes(head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)),
        version: Version::HTTP_2,
        headers,
        bytes: None,
    }
}
