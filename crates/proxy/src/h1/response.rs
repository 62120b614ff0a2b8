//! Writing a response: head and first bytes together, then the body as it comes.

use crate::{BodyError, Prepared, Response, body::trailers, date};
use bytes::BytesMut;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    time::Duration,
};
use tokio::io::AsyncWrite;

/// Bytes that are gathered before a write.
pub(crate) const GATHER_BYTES: usize = 32 * 1024;
/// The last bytes of a body are copied behind the head up to this length; longer ones go out beside it as they are.
const COPY_BYTES: usize = 1024;

/// How the body is framed on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the request means for its response.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
}

/// Why a response was not written to its end.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The client is gone or does not read.
    Client,
    /// The body failed: the client must see a broken end, never a clean one.
    Body,
    /// The same, and the framing itself would not show it: only a reset does.
    BodyUntilClose,
}

impl From<io::Error> for WriteError {
    fn from(_: io::Error) -> Self {
        Self::Client
    }
}

/// Writes a response; true when the connection may serve another request.
pub(crate) async fn write<W>(
    io: &mut W,
    response: Response,
    asked: &Asked,
    out: &mut BytesMut,
    idle: Duration,
) -> Result<bool, WriteError>
where
    W: AsyncWrite + Unpin,
{
    let (mut head, mut body) = response.into_parts();
    crate::headers::strip_hop_by_hop(&mut head.headers);
    let prepared = head.extensions.remove::<Prepared>();
    let framing = framing(head.status, &mut head.headers, asked, body.size_hint().exact())?;
    let keep_alive = asked.keep_alive && framing != Out::UntilClose;
    out.clear();
    write_head(out, head.status, &head.headers, prepared.as_ref(), framing, asked, keep_alive);
    if framing == Out::None || asked.method == Method::HEAD {
        flush(io, out, idle).await?;
        return Ok(keep_alive);
    }
    let mut left = if let Out::Length(length) = framing { length } else { u64::MAX };
    loop {
        // Whatever is ready now goes out in one write; before a pause, what is there is sent.
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                flush(io, out, idle).await?;
                tokio::time::timeout(idle, body.frame()).await.unwrap_or(Some(Err(BodyError::TimedOut)))
            }
        };
        let Some(frame) = frame else { break };
        let Ok(frame) = frame else {
            // What was promised cannot be kept: the connection closes without a clean end.
            flush(io, out, idle).await?;
            return Err(if framing == Out::UntilClose {
                WriteError::BodyUntilClose
            } else {
                WriteError::Body
            });
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                left = left.checked_sub(data.len() as u64).ok_or(WriteError::Body)?;
                if framing == Out::Chunked {
                    push_hex(out, data.len());
                }
                if left == 0 && data.len() > COPY_BYTES {
                    write_both(io, out, &data, idle).await?;
                } else if data.len() > GATHER_BYTES {
                    flush(io, out, idle).await?;
                    write_all(io, &data, idle).await?;
                } else {
                    out.extend_from_slice(&data);
                }
                if framing == Out::Chunked {
                    out.extend_from_slice(b"\r\n");
                }
            }
            Err(frame) => {
                if let (Some(trailers), Out::Chunked) = (trailers(frame), framing) {
                    out.extend_from_slice(b"0\r\n");
                    push_fields(out, &trailers);
                    out.extend_from_slice(b"\r\n");
                    flush(io, out, idle).await?;
                    return Ok(keep_alive);
                }
            }
        }
        if out.len() >= GATHER_BYTES {
            flush(io, out, idle).await?;
        }
    }
    match framing {
        Out::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
        Out::Length(_) if left > 0 => {
            flush(io, out, idle).await?;
            return Err(WriteError::Body);
        }
        _ => {}
    }
    flush(io, out, idle).await?;
    Ok(keep_alive)
}

/// Writes only the head of a response that switches protocols.
pub(crate) async fn write_switch<W>(
    io: &mut W,
    status: StatusCode,
    headers: &HeaderMap,
    idle: Duration,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut out = BytesMut::new();
    push_status(&mut out, status);
    push_fields(&mut out, headers);
    out.extend_from_slice(b"connection: upgrade\r\n\r\n");
    flush(io, &mut out, idle).await
}

/// Writes an interim response: `100 Continue` and the like.
pub(crate) async fn write_interim<W: AsyncWrite + Unpin>(
    io: &mut W,
    status: StatusCode,
    headers: &HeaderMap,
    idle: Duration,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    push_status(&mut out, status);
    push_fields(&mut out, headers);
    out.extend_from_slice(b"\r\n");
    flush(io, &mut out, idle).await
}

fn framing(
    status: StatusCode,
    headers: &mut HeaderMap,
    asked: &Asked,
    exact: Option<u64>,
) -> Result<Out, WriteError> {
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
        return Ok(Out::None);
    }
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    headers.remove(header::CONTENT_LENGTH);
    if status == StatusCode::NOT_MODIFIED {
        return Ok(Out::None);
    }
    if asked.method == Method::HEAD {
        // The length of what a GET would bring, if it is known; an unknown one is left out.
        return Ok(said.or(exact.filter(|length| *length > 0)).map_or(Out::None, Out::Length));
    }
    match (said, exact) {
        (Some(said), Some(exact)) if said != exact => Err(WriteError::Body),
        (Some(length), _) | (None, Some(length)) => Ok(Out::Length(length)),
        (None, None) if asked.version == Version::HTTP_11 => Ok(Out::Chunked),
        (None, None) => Ok(Out::UntilClose),
    }
}

fn write_head(
    out: &mut BytesMut,
    status: StatusCode,
    headers: &HeaderMap,
    prepared: Option<&Prepared>,
    framing: Out,
    asked: &Asked,
    keep_alive: bool,
) {
    push_status(out, status);
    if let Some(prepared) = prepared {
        out.extend_from_slice(&prepared.wire);
    }
    push_fields(out, headers);
    if prepared.is_none() && !headers.contains_key(header::DATE) {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date::now().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    match framing {
        Out::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(length.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Out::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Out::None | Out::UntilClose => {}
    }
    if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    } else if asked.version == Version::HTTP_10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn push_status(out: &mut BytesMut, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or("Unknown").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_fields(out: &mut BytesMut, headers: &HeaderMap) {
    push_fields_but(out, headers, &[]);
}

/// Writes the fields of a map, except some.
pub(crate) fn push_fields_but(out: &mut BytesMut, headers: &HeaderMap, but: &[HeaderName]) {
    for (name, value) in headers.iter().filter(|(name, _)| !but.contains(name)) {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

pub(crate) fn push_hex(out: &mut BytesMut, length: usize) {
    out.extend_from_slice(format!("{length:x}\r\n").as_bytes());
}

/// Writes what is gathered and the bytes behind it at once, without a copy where the connection can do that.
pub(crate) async fn write_both<W: AsyncWrite + Unpin>(
    io: &mut W,
    out: &mut BytesMut,
    data: &[u8],
    idle: Duration,
) -> io::Result<()> {
    let (mut first, mut rest) = (&out[..], data);
    while !first.is_empty() {
        let both = [IoSlice::new(first), IoSlice::new(rest)];
        let written = within(idle, poll_fn(|cx| Pin::new(&mut *io).poll_write_vectored(cx, &both))).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_first = written.min(first.len());
        (first, rest) = (&first[of_first..], &rest[written - of_first..]);
    }
    out.clear();
    write_all(io, rest, idle).await
}

pub(crate) async fn flush<W: AsyncWrite + Unpin>(
    io: &mut W,
    out: &mut BytesMut,
    idle: Duration,
) -> io::Result<()> {
    if !out.is_empty() {
        write_all(io, out, idle).await?;
        out.clear();
    }
    Ok(())
}

/// Writes everything; a client that reads nothing for `idle` is given up.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    io: &mut W,
    bytes: &[u8],
    idle: Duration,
) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = within(idle, poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, rest))).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = &rest[written..];
    }
    within(idle, poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx))).await
}

/// Waits at most `idle`; the time is only taken when there is something to wait for.
pub(crate) async fn within<T>(
    idle: Duration,
    work: impl Future<Output = io::Result<T>> + Unpin,
) -> io::Result<T> {
    let mut work = work;
    if let Some(done) = (&mut work).now_or_never() {
        return done;
    }
    tokio::time::timeout(idle, work).await.map_err(|_| io::ErrorKind::TimedOut)?
}
