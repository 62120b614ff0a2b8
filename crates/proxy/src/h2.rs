//! HTTP/2 towards clients: hyper's, with limits; requests look the same as those of HTTP/1.

use crate::{Body, HeadFault, Limits, Peer, RawHead, RefusedHead, Response, Service, h1::head::is_host};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri, Version, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{convert::Infallible, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
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
    let answer = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (peer, service) = (peer.clone(), service.clone());
        async move { Ok::<_, Infallible>(answer(request, peer, &*service).await) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(64)
        .max_local_error_reset_streams(256)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Some(limits.idle_timeout))
        .keep_alive_timeout(limits.head_timeout);
    let connection = builder.serve_connection(TokioIo::new(io), answer);
    tokio::pin!(connection);
    tokio::select! {
        // How a client leaves is its own business; nothing is lost that is ours.
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer<S: Service>(request: http::Request<Incoming>, peer: Arc<Peer>, service: &S) -> Response {
    let (mut head, body) = request.into_parts();
    let raw = raw(&head);
    let fault = settle_host(&mut head);
    let response = match fault {
        None => {
            head.extensions.clear();
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
        (Some(authority), _) => HeaderValue::from_bytes(&authority).ok()?,
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
    if let Some(authority) = head.uri.authority() {
        if !head.headers.contains_key(header::HOST) {
            headers.insert(0, (Bytes::from_static(b"host"), bytes(authority.as_str())));
        }
    }
    RawHead {
        method: bytes(head.method.as_str()),
        target: bytes(head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)),
        version: Version::HTTP_2,
        headers,
        bytes: None,
    }
}
