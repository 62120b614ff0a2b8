//! The side towards clients: one task per connection, one per stream.

use super::{
    guard::{Exhausted, Guarded},
    head,
    held::{Held, Holds},
    stream::{Duplex, RecvBody, Stalled, send_body},
};
use crate::{
    Body, HeadFault, Limits, Peer, Prepared, RefusedHead, Request, Response, Service, date,
    h1::head::Framing, headers::strip_hop_by_hop, interim::Interim, upgrade,
};
use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderValue, Method, StatusCode, Version, header};
use std::{
    future::poll_fn,
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// Header list of one request, decoded.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// What `h2` holds of one stream's answer while its client does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// How long the last words of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);

type Connection<IO> = h2::server::Connection<Guarded<Held<IO>>, Bytes>;

/// What all streams of a connection share.
struct Shared<S> {
    peer: Arc<Peer>,
    service: Arc<S>,
    limits: Arc<Limits>,
}

/// What came of waiting for a stream.
enum Next {
    Stream(http::Request<RecvStream>, SendResponse<Bytes>),
    Flood,
    Closed,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S, IO>(
    io: IO,
    peer: Arc<Peer>,
    service: Arc<S>,
    limits: Arc<Limits>,
    stop: CancellationToken,
) where
    S: Service,
    IO: Holds,
{
    let held = Held::new(io);
    let (io, exhausted) = Guarded::new(held.clone(), Instant::now());
    let handshake = builder(&limits).handshake::<_, Bytes>(io);
    let Ok(Ok(mut connection)) = timeout(limits.head_timeout, handshake).await else { return };
    held.hold();
    let shared = Arc::new(Shared { peer, service, limits: limits.clone() });
    // Streams end with their connection, however it ends.
    let mut streams = JoinSet::new();
    let mut leaving = false;
    let stopped = stop.cancelled();
    let idle = tokio::time::sleep(limits.idle_timeout);
    tokio::pin!(stopped, idle);
    loop {
        tokio::select! {
            biased;
            next = accept(&mut connection, &held, &exhausted) => match next {
                Next::Stream(request, respond) => {
                    let shared = shared.clone();
                    streams.spawn(async move { shared.answer(request, respond).await });
                }
                Next::Flood => {
                    tracing::debug!(addr = %shared.peer.addr, "a flood of control frames was cut");
                    return farewell(connection, &held).await;
                }
                Next::Closed => return,
            },
            Some(_) = streams.join_next() => {
                if streams.is_empty() {
                    let wait = if leaving { limits.head_timeout } else { limits.idle_timeout };
                    idle.as_mut().reset(Instant::now() + wait);
                }
            }
            () = &mut stopped, if !leaving => {
                leaving = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + limits.head_timeout);
            }
            () = &mut idle, if streams.is_empty() => {
                if leaving {
                    // The client does not answer our farewell; nothing of it is in flight.
                    return;
                }
                leaving = true;
                connection.graceful_shutdown();
                idle.as_mut().reset(Instant::now() + limits.head_timeout);
            }
        }
    }
}

fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(64)
        .max_local_error_reset_streams(Some(256))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .initial_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .enable_connect_protocol();
    builder
}

async fn accept<IO: Holds>(connection: &mut Connection<IO>, held: &Held<IO>, exhausted: &Exhausted) -> Next {
    poll_fn(|cx| match connection.poll_accept(cx) {
        Poll::Ready(Some(Ok((request, respond)))) => Poll::Ready(Next::Stream(request, respond)),
        // How a client leaves is its own business; nothing is lost that is ours.
        Poll::Ready(Some(Err(_)) | None) => Poll::Ready(Next::Closed),
        Poll::Pending if exhausted.is_so() => Poll::Ready(Next::Flood),
        // All that is ready is written: now it goes out. What does not yet wakes us when it can.
        Poll::Pending => match held.poll_send(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Next::Closed),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        },
    })
    .await
}

async fn farewell<IO: Holds>(mut connection: Connection<IO>, held: &Held<IO>) {
    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
    let closed = poll_fn(|cx| {
        let closed = connection.poll_closed(cx).map(drop);
        ready!(held.poll_send(cx)).map_or(Poll::Ready(()), |()| closed)
    });
    let _ = timeout(FAREWELL, closed).await;
}

impl<S: Service> Shared<S> {
    /// One request and its answer.
    async fn answer(&self, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (mut head, recv) = request.into_parts();
        let raw = head::raw(&head);
        let wants_tunnel = head::as_upgrade(&mut head);
        let method = head.method.clone();
        let (mut tunnel, mut stalled) = (None, None);
        let interim = Interim::default();
        let answered = match head::settle(&mut head, &self.limits) {
            Err(reason) => self.until_reset(self.refuse(raw.clone(), reason), &interim, &mut respond).await,
            Ok(about) => {
                let body = if wants_tunnel {
                    tunnel = Some(recv);
                    Body::empty()
                } else if recv.is_end_stream() {
                    Body::empty()
                } else {
                    let length =
                        if let Framing::Length(length) = about.framing { Some(length) } else { None };
                    let waits = about.expects_continue.then(|| interim.clone());
                    let body = RecvBody::new(recv, length, ()).waited_for(waits);
                    let (body, stall) = body.paused_at_most(self.limits.body_idle_timeout);
                    stalled = Some(stall);
                    Body::stream(body)
                };
                head.extensions.insert(self.peer.clone());
                head.extensions.insert(Arc::new(raw.clone()));
                head.extensions.insert(interim.clone());
                let request = Request::from_parts(head, body);
                self.until_reset(self.service.call(request), &interim, &mut respond).await
            }
        };
        let Some(mut response) = answered else { return };
        // What failed behind us failed because the client stopped sending: 408, not 502.
        if response.status().is_server_error() && stalled.as_ref().is_some_and(Stalled::is_so) {
            response = self.refuse(raw, HeadFault::Timeout).await;
        }
        match tunnel {
            None => self.send(response, &method, respond).await,
            Some(recv) => self.open(response, &method, respond, recv).await,
        }
    }

    async fn refuse(&self, raw: crate::RawHead, reason: HeadFault) -> Response {
        let status = reason.status();
        self.service
            .refuse(RefusedHead { peer: self.peer.clone(), raw, bytes: Bytes::new(), status, reason })
            .await
    }

    /// Waits for the answer, passing interim responses on; nobody waits for one whose stream was reset.
    async fn until_reset(
        &self,
        answer: impl Future<Output = Response>,
        interim: &Interim,
        respond: &mut SendResponse<Bytes>,
    ) -> Option<Response> {
        tokio::pin!(answer);
        poll_fn(|cx| {
            let answered = answer.as_mut().poll(cx);
            // What came with the answer goes before it.
            while let Poll::Ready((status, headers)) = interim.poll_next(cx) {
                let mut early = http::Response::new(());
                (*early.status_mut(), *early.headers_mut()) = (status, headers);
                // A client that does not take it has ended its stream, which is seen next.
                let _ = respond.send_informational(early);
            }
            match answered {
                Poll::Ready(response) => Poll::Ready(Some(response)),
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            }
        })
        .await
    }

    async fn send(&self, response: Response, method: &Method, mut respond: SendResponse<Bytes>) {
        let (head, body) = response.into_parts();
        let status = head.status;
        let Some((head, length, empty)) = answer_head(head, method, &body) else {
            return respond.send_reset(Reason::INTERNAL_ERROR);
        };
        if status == StatusCode::SWITCHING_PROTOCOLS || status.is_informational() {
            // Nobody asked for it.
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
        match respond.send_response(head, empty) {
            Ok(mut stream) if !empty => {
                // The client sees a reset instead of an end; the cause was logged where it arose.
                let _ = send_body(&mut stream, body, length, self.limits.body_idle_timeout).await;
            }
            Ok(_) => {}
            Err(_) => respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    /// An extended CONNECT: a tunnel after the upstream's 101, an ordinary answer otherwise.
    async fn open(
        &self,
        mut response: Response,
        method: &Method,
        mut respond: SendResponse<Bytes>,
        recv: RecvStream,
    ) {
        let tunnel = response.extensions_mut().remove::<upgrade::Tunnel>();
        let (true, Some(tunnel)) = (response.status() == StatusCode::SWITCHING_PROTOCOLS, tunnel) else {
            if response.status().is_success() {
                // A success would open a tunnel (RFC 9113 §8.5); an ordinary page is none.
                *response.status_mut() = StatusCode::BAD_GATEWAY;
            }
            return self.send(response, method, respond).await;
        };
        let (head, _) = response.into_parts();
        let mut opened = http::Response::new(());
        *opened.headers_mut() = head.headers;
        strip_hop_by_hop(opened.headers_mut());
        opened.headers_mut().remove(header::CONTENT_LENGTH);
        if let Ok(send) = respond.send_response(opened, false) {
            upgrade::carry(Duplex::new(send, recv, ()), &tunnel, self.limits.tunnel_idle_timeout).await;
        }
    }
}

/// The head to send, the length that was promised in it, and whether no body follows. None when the body is
/// not as long as the head says.
fn answer_head(
    head: http::response::Parts,
    method: &Method,
    body: &Body,
) -> Option<(http::Response<()>, Option<u64>, bool)> {
    let mut response = http::Response::new(());
    *response.version_mut() = Version::HTTP_2;
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    let headers = response.headers_mut();
    strip_hop_by_hop(headers);
    if let Some(prepared) = head.extensions.get::<Prepared>() {
        *headers = prepared.with(std::mem::take(headers));
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date::now());
    }
    let said = headers.remove(header::CONTENT_LENGTH);
    let said = said.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let exact = http_body::Body::size_hint(body).exact();
    let bodiless = head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = match (said, exact) {
        _ if bodiless => None,
        (said, exact) if *method == Method::HEAD => said.or(exact.filter(|length| *length > 0)),
        (Some(said), Some(exact)) if said != exact => return None,
        (said, exact) => said.or(exact),
    };
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let empty = bodiless || *method == Method::HEAD || http_body::Body::is_end_stream(body);
    if empty && !bodiless && *method != Method::HEAD && length.is_some_and(|length| length > 0) {
        return None;
    }
    Some((response, length, empty))
}
