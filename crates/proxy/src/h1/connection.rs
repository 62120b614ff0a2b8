//! One client connection: heads are read, requests answered in order, until one side has enough.

use super::{
    framing::{Decoder, GivenBack, Reader, WireBody},
    head::{self, Framing, Head},
    response::{self, Asked, WriteError},
};
use crate::{Body, HeadFault, Limits, Peer, RawHead, RefusedHead, Request, Response, Service, upgrade};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version};
use std::{io, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// A whole tunnel may live this long; within it only silence of both ends counts for nothing.
const TUNNEL_LONGEST: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// What came of waiting for a head.
enum Next {
    Head(Bytes),
    Refused(Bytes, HeadFault),
    Closed,
}

/// What follows a request.
enum After<R> {
    Next(Reader<R>),
    Close,
    Tunnel(Reader<R>, upgrade::Tunnel),
}

/// Serves one connection to its end.
pub async fn serve<S, IO>(
    io: IO,
    peer: Arc<Peer>,
    service: Arc<S>,
    limits: Arc<Limits>,
    stop: CancellationToken,
) where
    S: Service,
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (read, mut write) = tokio::io::split(io);
    let mut reader = Reader { io: read, buffer: BytesMut::new() };
    let mut out = BytesMut::with_capacity(4096);
    loop {
        let next = tokio::select! {
            biased;
            next = next_head(&mut reader, &limits) => next,
            () = stop.cancelled() => break,
        };
        let head = match next {
            Ok(Next::Head(bytes)) => match head::parse(&bytes, &limits) {
                Ok(head) => head,
                Err(fault) => {
                    refuse(&mut write, &mut reader, bytes, fault, &peer, &*service, &limits, &mut out).await;
                    break;
                }
            },
            Ok(Next::Refused(bytes, fault)) => {
                refuse(&mut write, &mut reader, bytes, fault, &peer, &*service, &limits, &mut out).await;
                break;
            }
            Ok(Next::Closed) | Err(_) => break,
        };
        match exchange(&mut write, reader, head, &peer, &*service, &limits, &stop, &mut out).await {
            After::Next(back) => reader = back,
            After::Close => break,
            After::Tunnel(back, tunnel) => {
                // Bytes that the client sent early belong to the tunnel.
                let client =
                    tokio::io::join(std::io::Cursor::new(back.buffer.freeze()).chain_with(back.io), write);
                upgrade::carry(client, &tunnel, TUNNEL_LONGEST).await;
                return;
            }
        }
    }
    let _ = timeout(limits.body_idle_timeout, write.shutdown()).await;
}

trait ChainWith: Sized {
    fn chain_with<R: AsyncRead + Unpin>(self, rest: R) -> tokio::io::Chain<Self, R>;
}

impl ChainWith for std::io::Cursor<Bytes> {
    fn chain_with<R: AsyncRead + Unpin>(self, rest: R) -> tokio::io::Chain<Self, R> {
        tokio::io::AsyncReadExt::chain(self, rest)
    }
}

async fn next_head<R: AsyncRead + Unpin>(reader: &mut Reader<R>, limits: &Limits) -> io::Result<Next> {
    // Until the first byte the connection is idle; from then on the head has its own, shorter time.
    if reader.buffer.is_empty() {
        match timeout(limits.idle_timeout, reader.more()).await {
            Ok(Ok(0)) | Err(_) => return Ok(Next::Closed),
            Ok(read) => read?,
        };
    }
    let deadline = Instant::now() + limits.head_timeout;
    let mut searched = 0;
    loop {
        if searched == 0 {
            let empty = head::skip_empty_lines(&reader.buffer);
            let _ = reader.buffer.split_to(empty);
        }
        if let Some(end) = head::end_of_head(&reader.buffer, searched) {
            let bytes = reader.buffer.split_to(end).freeze();
            return Ok(if end > limits.head_bytes_max {
                Next::Refused(bytes, HeadFault::TooLarge)
            } else {
                Next::Head(bytes)
            });
        }
        searched = reader.buffer.len();
        if searched > limits.head_bytes_max {
            let bytes = reader.buffer.split().freeze();
            let fault = if memchr::memchr(b'\n', &bytes).is_none_or(|line| line > limits.target_bytes_max) {
                HeadFault::TargetTooLong
            } else {
                HeadFault::TooLarge
            };
            return Ok(Next::Refused(bytes, fault));
        }
        match timeout_at(deadline, reader.more()).await {
            Err(_) if reader.buffer.is_empty() => return Ok(Next::Closed),
            Err(_) => return Ok(Next::Refused(reader.buffer.split().freeze(), HeadFault::Timeout)),
            Ok(Ok(0)) => return Ok(Next::Closed),
            Ok(read) => read?,
        };
    }
}

#[allow(clippy::too_many_arguments)] // one call, and each argument is another part of the connection
async fn refuse<S, R, W>(
    write: &mut W,
    reader: &mut Reader<R>,
    bytes: Bytes,
    fault: HeadFault,
    peer: &Arc<Peer>,
    service: &S,
    limits: &Limits,
    out: &mut BytesMut,
) where
    S: Service,
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let raw = RawHead::salvage(&bytes);
    let method = Method::from_bytes(&raw.method).unwrap_or(Method::GET);
    let status = fault.status();
    let response =
        service.refuse(RefusedHead { peer: peer.clone(), raw, bytes, status, reason: fault }).await;
    let asked = Asked { method, version: Version::HTTP_11, keep_alive: false };
    if response::write(write, response, &asked, out, limits.body_idle_timeout).await.is_ok() {
        let _ = write.shutdown().await;
        linger(reader, limits).await;
    }
}

/// Reads on for a moment after the answer, so that the client sees it instead of a reset.
async fn linger<R: AsyncRead + Unpin>(reader: &mut Reader<R>, limits: &Limits) {
    let read_on = async {
        let mut seen = 0;
        while let Ok(read) = reader.more().await {
            seen += read as u64;
            reader.buffer.clear();
            if read == 0 || seen > limits.discard_bytes_max {
                break;
            }
        }
    };
    let _ = timeout(std::time::Duration::from_secs(1), read_on).await;
}

#[allow(clippy::too_many_arguments)] // one call, and each argument is another part of the connection
async fn exchange<S, R, W>(
    write: &mut W,
    reader: Reader<R>,
    head: Head,
    peer: &Arc<Peer>,
    service: &S,
    limits: &Limits,
    stop: &CancellationToken,
    out: &mut BytesMut,
) -> After<R>
where
    S: Service,
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Unpin,
{
    let asked = Asked { method: head.method.clone(), version: head.version, keep_alive: head.keep_alive };
    let wants_upgrade = head.upgrade.is_some();
    let framing = head.framing;
    let (mut kept, mut given, mut continue_wanted) = (None, None, None);
    let body = if framing == Framing::None {
        kept = Some(reader);
        Body::empty()
    } else {
        let wants = head.expects_continue.then(|| {
            let (wants, wanted) = oneshot::channel();
            continue_wanted = Some(wanted);
            wants
        });
        let (body, back) = WireBody::new(reader, framing, limits.body_idle_timeout, wants);
        given = Some(back);
        Body::stream(body)
    };
    let request = request(head, body, peer);
    let answer = service.call(request);
    let Ok(response) = answer_with_continue(answer, continue_wanted, write, limits).await else {
        return After::Close;
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(write, response, kept, wants_upgrade, limits).await;
    }
    // A request that is not read to its end by now will hardly be: its rest is discarded or the
    // connection closes. A connection that was asked to upgrade and did not is not trusted further.
    let keep_alive = asked.keep_alive && !stop.is_cancelled() && !wants_upgrade;
    let asked = Asked { keep_alive, ..asked };
    let written = response::write(write, response, &asked, out, limits.body_idle_timeout).await;
    match written {
        Ok(true) => match (kept, given) {
            (Some(reader), _) => After::Next(reader),
            (None, Some(back)) => settle(back, limits).await,
            (None, None) => After::Close,
        },
        Ok(false) => {
            if let Some(Ok(mut back)) = given.map(|mut back| back.try_recv()) {
                let _ = write.shutdown().await;
                linger(&mut back.reader, limits).await;
            }
            After::Close
        }
        Err(WriteError::Client | WriteError::Body) => After::Close,
    }
}

fn request(head: Head, body: Body, peer: &Arc<Peer>) -> Request {
    let mut request = http::Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    let extensions = request.extensions_mut();
    extensions.insert(peer.clone());
    extensions.insert(Arc::new(head.raw));
    if let Some(protocol) = head.upgrade {
        extensions.insert(upgrade::Wanted(protocol));
    }
    request
}

/// Waits for the answer; says `100 Continue` once, when the body is first wanted.
async fn answer_with_continue<W: AsyncWrite + Unpin>(
    answer: impl Future<Output = Response>,
    wanted: Option<oneshot::Receiver<()>>,
    write: &mut W,
    limits: &Limits,
) -> io::Result<Response> {
    let Some(wanted) = wanted else { return Ok(answer.await) };
    tokio::pin!(answer);
    tokio::select! {
        biased;
        wanted = wanted => {
            if wanted.is_ok() {
                response::write_continue(write, limits.body_idle_timeout).await?;
            }
            Ok(answer.await)
        }
        response = &mut answer => Ok(response),
    }
}

async fn switch<R, W>(
    write: &mut W,
    response: Response,
    kept: Option<Reader<R>>,
    wanted: bool,
    limits: &Limits,
) -> After<R>
where
    W: AsyncWrite + Unpin,
{
    let tunnel = response.extensions().get::<upgrade::Tunnel>().cloned();
    let (Some(tunnel), Some(reader), true) = (tunnel, kept, wanted) else { return After::Close };
    let (head, _) = response.into_parts();
    match response::write_switch(write, head.status, &head.headers, limits.body_idle_timeout).await {
        Ok(()) => After::Tunnel(reader, tunnel),
        Err(_) => After::Close,
    }
}

/// Gets the reader back after the answer; a short rest of the body is read and thrown away.
async fn settle<R>(back: oneshot::Receiver<GivenBack<R>>, limits: &Limits) -> After<R>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let wait = limits.body_idle_timeout;
    let Ok(Ok(GivenBack { reader, decoder, failed })) = timeout(wait, back).await else {
        return After::Close;
    };
    if failed {
        return After::Close;
    }
    match timeout(wait, discard(reader, decoder, limits.discard_bytes_max)).await {
        Ok(Some(reader)) => After::Next(reader),
        _ => After::Close,
    }
}

async fn discard<R>(mut reader: Reader<R>, mut decoder: Decoder, most: u64) -> Option<Reader<R>>
where
    R: AsyncRead + Unpin,
{
    let mut seen = 0;
    loop {
        match decoder.skip(&mut reader.buffer).ok()? {
            super::framing::Skipped::End => return Some(reader),
            super::framing::Skipped::Bytes(bytes) => seen += bytes,
            super::framing::Skipped::More => {
                if reader.more().await.ok()? == 0 {
                    return None;
                }
            }
        }
        if seen > most {
            return None;
        }
    }
}
