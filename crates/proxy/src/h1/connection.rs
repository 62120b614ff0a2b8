//! One client connection: heads are read, requests answered in order, until one side has enough.

use super::{
    Transport,
    framing::{Decoder, GivenBack, Reader, Skipped, WireBody},
    head::{self, Framing, Head},
    response::{self, Asked, WriteError},
};
use crate::{
    Body, HeadFault, Interim, Limits, Peer, RawHead, RefusedHead, Request, Response, Service,
    listener::Ending, upgrade,
};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};
use std::{io, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, Sleep, sleep, timeout, timeout_at},
};

/// After the last answer the client's bytes are read for so long and thrown away, so that a client in the
/// middle of an upload sees the answer instead of a reset.
const LINGER: Duration = Duration::from_secs(30);
/// A client that is silent for so long has seen the answer.
const LINGER_PAUSE: Duration = Duration::from_secs(1);

/// What came of waiting for a head.
enum Next {
    Head(Bytes),
    Refused(Bytes, HeadFault),
    Closed,
}

/// What follows a request.
enum After<R> {
    /// Another one.
    Next(Reader<R>),
    /// A clean end; the reader is there when the client may still be sending.
    Close(Option<Reader<R>>),
    /// An end that the client must notice.
    Cut { unmarked: bool },
    /// No more HTTP.
    Tunnel(Reader<R>, upgrade::Tunnel),
}

/// What all requests of a connection share.
struct Connection<S, W> {
    write: W,
    out: BytesMut,
    peer: Arc<Peer>,
    service: Arc<S>,
    limits: Arc<Limits>,
    ending: Ending,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S: Service, T: Transport>(
    io: T,
    peer: Arc<Peer>,
    service: Arc<S>,
    limits: Arc<Limits>,
    ending: Ending,
) {
    let (read, write) = io.halves();
    let out = BytesMut::with_capacity(2048);
    let mut connection = Connection { write, out, peer, service, limits, ending };
    let after = connection.requests(Reader::new(read)).await;
    let Connection { mut write, limits, ending, .. } = connection;
    match after {
        After::Next(_) => {}
        After::Close(reader) => {
            // A client that does not take the end of the connection has no use for a clean one.
            let _ = timeout(limits.body_idle_timeout, write.shutdown()).await;
            if let Some(reader) = reader {
                tokio::select! {
                    () = linger(reader) => {}
                    () = ending.stop.cancelled() => {}
                }
            }
        }
        After::Cut { unmarked: false } => drop(write),
        After::Cut { unmarked: true } => T::break_off(write),
        After::Tunnel(reader, tunnel) => {
            // Bytes that the client sent early belong to the tunnel.
            let early = std::io::Cursor::new(reader.buffer.freeze());
            let read = tokio::io::AsyncReadExt::chain(early, reader.io);
            upgrade::carry(tokio::io::join(read, write), &tunnel, limits.tunnel_idle_timeout).await;
        }
    }
}

impl<S: Service, W: AsyncWrite + Unpin> Connection<S, W> {
    /// Answers one request after the other, in order.
    async fn requests<R>(&mut self, mut reader: Reader<R>) -> After<R>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let stop = self.ending.stop.clone();
        // One wait for all requests: each wait has a place in a list with a lock.
        let stopped = stop.cancelled();
        let silence = sleep(self.limits.idle_timeout);
        tokio::pin!(stopped, silence);
        loop {
            let next = tokio::select! {
                biased;
                next = next_head(&mut reader, &self.limits, silence.as_mut()) => next,
                () = &mut stopped => return After::Close(None),
            };
            let (bytes, fault) = match next {
                Ok(Next::Head(bytes)) => match head::parse(&bytes, &self.limits) {
                    Ok(head) => match self.exchange(reader, head).await {
                        After::Next(back) => {
                            reader = back;
                            continue;
                        }
                        other => return other,
                    },
                    Err(fault) => (bytes, fault),
                },
                Ok(Next::Refused(bytes, fault)) => (bytes, fault),
                Ok(Next::Closed) | Err(_) => return After::Close(None),
            };
            let raw = RawHead::salvage(&bytes);
            return match self.refuse(raw, bytes, fault).await {
                Ok(()) => After::Close(Some(reader)),
                Err(_) => After::Close(None),
            };
        }
    }

    /// Lets the service answer what is not valid; the connection closes afterwards.
    async fn refuse(&mut self, raw: RawHead, bytes: Bytes, reason: HeadFault) -> Result<(), WriteError> {
        let method = Method::from_bytes(&raw.method).unwrap_or(Method::GET);
        let refused = RefusedHead { peer: self.peer.clone(), raw, bytes, status: reason.status(), reason };
        let response = self.service.refuse(refused).await;
        let asked = Asked { method, version: Version::HTTP_11, keep_alive: false };
        self.write(response, &asked).await.map(drop)
    }

    async fn write(&mut self, response: Response, asked: &Asked) -> Result<bool, WriteError> {
        response::write(&mut self.write, response, asked, &mut self.out, self.limits.body_idle_timeout).await
    }

    /// One request and its answer.
    async fn exchange<R>(&mut self, reader: Reader<R>, head: Head) -> After<R>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let mut asked =
            Asked { method: head.method.clone(), version: head.version, keep_alive: head.keep_alive };
        let (asks_upgrade, may_upgrade) = (head.asks_upgrade, head.upgrade.is_some());
        let expects_continue = head.expects_continue;
        let raw = head.raw.clone();
        let (mut kept, mut given, mut continue_wanted) = (None, None, None);
        let body = if head.framing == Framing::None {
            kept = Some(reader);
            Body::empty()
        } else {
            let wants = expects_continue.then(|| {
                let (wants, wanted) = oneshot::channel();
                continue_wanted = Some(wanted);
                wants
            });
            let (body, back) = WireBody::new(reader, head.framing, self.limits.body_idle_timeout, wants);
            given = Some(back);
            Body::stream(body)
        };
        let mut request = request(head, body, &self.peer);
        let interim = Interim::default();
        if asked.version == Version::HTTP_11 {
            request.extensions_mut().insert(interim.clone());
        }
        let service = self.service.clone();
        let answer = service.call(request);
        let Ok((response, continued)) = self.answer(answer, continue_wanted, &interim).await else {
            return After::Close(None);
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, kept, may_upgrade).await;
        }
        let back = given.as_mut().and_then(|given| given.try_recv().ok());
        let fault = back.as_ref().and_then(|back| back.fault).filter(|_| response.status().is_server_error());
        if let Some(fault) = fault {
            // What failed behind us failed because of the client's own bytes: 400 or 408, not 502.
            let bytes = raw.bytes.clone().unwrap_or_default();
            let refused = self.refuse((*raw).clone(), bytes, fault).await;
            return After::Close(refused.ok().and(back).map(|back| back.reader));
        }
        // A client that asked to upgrade and was not let may already speak something else; one that was
        // not told to continue may or may not send its body: nobody can know what comes next.
        let open_end = asks_upgrade || (expects_continue && !continued);
        let short_rest = back
            .as_ref()
            .is_none_or(|back| !back.failed && back.decoder.left_at_least() <= self.limits.discard_bytes_max);
        asked.keep_alive &= !self.ending.leave.is_cancelled() && !open_end && short_rest;
        match self.write(response, &asked).await {
            Ok(true) => match (kept, back, given) {
                (Some(reader), _, _) => After::Next(reader),
                (None, Some(back), _) => self.settle(back).await,
                (None, None, Some(given)) => match timeout(self.limits.body_idle_timeout, given).await {
                    Ok(Ok(back)) => self.settle(back).await,
                    _ => After::Close(None),
                },
                (None, None, None) => After::Close(None),
            },
            Ok(false) => After::Close(kept.or(back.map(|back| back.reader))),
            Err(WriteError::Client) => After::Close(None),
            Err(WriteError::Body) => After::Cut { unmarked: false },
            Err(WriteError::BodyUntilClose) => After::Cut { unmarked: true },
        }
    }

    /// Waits for the answer; says `100 Continue` once, when the body is first wanted, and passes other interim
    /// responses on.
    async fn answer(
        &mut self,
        answer: impl Future<Output = Response>,
        wanted: Option<oneshot::Receiver<()>>,
        interim: &Interim,
    ) -> io::Result<(Response, bool)> {
        tokio::pin!(answer);
        let (mut wanted, mut continued) = (wanted, false);
        let idle = self.limits.body_idle_timeout;
        loop {
            let (status, headers) = tokio::select! {
                biased;
                wanted = async { wanted.as_mut().expect("checked").await }, if wanted.is_some() => {
                    continued = wanted.is_ok();
                    (StatusCode::CONTINUE, HeaderMap::new())
                }
                response = &mut answer => {
                    // What came with the answer goes before it.
                    while let Some((status, headers)) = interim.now() {
                        response::write_interim(&mut self.write, status, &headers, idle).await?;
                    }
                    return Ok((response, continued));
                }
                early = interim.next() => early,
            };
            if status == StatusCode::CONTINUE {
                wanted = None;
                if !continued {
                    continue;
                }
            }
            response::write_interim(&mut self.write, status, &headers, idle).await?;
        }
    }

    async fn switch<R>(
        &mut self,
        response: Response,
        kept: Option<Reader<R>>,
        may_upgrade: bool,
    ) -> After<R> {
        let tunnel = response.extensions().get::<upgrade::Tunnel>().cloned();
        let (Some(tunnel), Some(reader), true) = (tunnel, kept, may_upgrade) else {
            return After::Close(None);
        };
        let (head, _) = response.into_parts();
        let idle = self.limits.body_idle_timeout;
        match response::write_switch(&mut self.write, head.status, &head.headers, idle).await {
            Ok(()) => After::Tunnel(reader, tunnel),
            Err(_) => After::Close(None),
        }
    }

    /// After the answer, a short rest of the body is read and thrown away.
    async fn settle<R>(&self, back: GivenBack<R>) -> After<R>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let GivenBack { mut reader, decoder, failed, .. } = back;
        if failed {
            return After::Close(Some(reader));
        }
        let rest = discard(&mut reader, decoder, self.limits.discard_bytes_max);
        match timeout(self.limits.body_idle_timeout, rest).await {
            Ok(Some(())) => After::Next(reader),
            _ => After::Close(Some(reader)),
        }
    }
}

async fn next_head<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
    limits: &Limits,
    silence: Pin<&mut Sleep>,
) -> io::Result<Next> {
    // Until the first byte the connection is idle; from then on the head has its own, shorter time.
    if reader.buffer.is_empty() {
        match within(silence, limits.idle_timeout, reader.more()).await {
            Some(Ok(0)) | None => return Ok(Next::Closed),
            Some(read) => read?,
        };
    }
    let (mut searched, mut deadline) = (0, None);
    loop {
        let empty = head::skip_empty_lines(&reader.buffer);
        if empty > 0 {
            reader.buffer.advance(empty);
            searched = 0;
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
        // Most heads come whole: those need no deadline.
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.head_timeout);
        match timeout_at(deadline, reader.more()).await {
            Err(_) if reader.buffer.is_empty() => return Ok(Next::Closed),
            Err(_) => return Ok(Next::Refused(reader.buffer.split().freeze(), HeadFault::Timeout)),
            Ok(Ok(0)) => return Ok(Next::Closed),
            Ok(read) => read?,
        };
    }
}

/// Waits for work at most `limit`. The timer is one that goes off in that time or earlier; it is set anew only when it
/// has gone off too early, which costs less than to set it for each wait.
async fn within<T>(mut timer: Pin<&mut Sleep>, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let until = Instant::now() + limit;
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = timer.as_mut() => {
                if Instant::now() >= until {
                    return None;
                }
                timer.as_mut().reset(until);
            }
        }
    }
}

/// Reads on after the last answer, until the client has nothing more to send or time is up.
async fn linger<R: AsyncRead + Unpin>(mut reader: Reader<R>) {
    let read_on = async {
        while let Ok(Ok(1..)) = timeout(LINGER_PAUSE, reader.more()).await {
            reader.buffer.clear();
        }
    };
    // The end of the pause is as good as the end of the connection.
    let _ = timeout(LINGER, read_on).await;
}

fn request(head: Head, body: Body, peer: &Arc<Peer>) -> Request {
    let mut request = http::Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    let extensions = request.extensions_mut();
    extensions.insert(peer.clone());
    extensions.insert(head.raw);
    if let Some(wanted) = head.upgrade {
        extensions.insert(wanted);
    }
    request
}

async fn discard<R>(reader: &mut Reader<R>, mut decoder: Decoder, most: u64) -> Option<()>
where
    R: AsyncRead + Unpin,
{
    let mut seen = 0;
    loop {
        match decoder.skip(&mut reader.buffer).ok()? {
            Skipped::End => return Some(()),
            Skipped::Bytes(bytes) => seen += bytes,
            Skipped::More => {
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
