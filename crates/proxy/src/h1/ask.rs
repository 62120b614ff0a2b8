//! Writing a request to an upstream: the head, and a body that is framed as it is.

use super::{
    head::Framing,
    response::{GATHER_BYTES, flush, push_fields_but, push_hex, within, write_all},
};
use crate::{Body, BodyError, body::trailers};
use bytes::BytesMut;
use futures_util::FutureExt;
use http::{HeaderName, Method, header, request::Parts};
use http_body::Body as _;
use http_body_util::BodyExt;
use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    time::Duration,
};
use tokio::io::AsyncWrite;

/// Fields that are written anew: they say how the body is framed.
const FRAMING_FIELDS: &[HeaderName] = &[header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// Why a body was not sent to its end.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The upstream takes no more; it may still answer.
    Upstream,
    /// The body failed: the upstream must see a broken end, never a clean one.
    Body(BodyError),
}

impl From<io::Error> for SendError {
    fn from(_: io::Error) -> Self {
        Self::Upstream
    }
}

/// How a body goes out: with its length, where it is known.
pub(crate) fn framing(body: &Body) -> Framing {
    match body.size_hint().exact() {
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// Writes the head of a request.
pub(crate) fn push_head(out: &mut BytesMut, head: &Parts, framing: Framing) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(head.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    push_fields_but(out, &head.headers, FRAMING_FIELDS);
    // Where a body has a meaning, its absence is said (RFC 9110 §8.6).
    let may_have_one = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    match framing {
        Framing::Length(length) => push_length(out, length),
        Framing::None if may_have_one => push_length(out, 0),
        Framing::None => {}
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn push_length(out: &mut BytesMut, length: u64) {
    out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
}

/// How the sending of a request began.
pub(crate) enum Start {
    /// Nothing was sent.
    Unsent(io::Error),
    /// Something was sent, and then the upstream took no more.
    Broken,
    /// All was sent.
    Sent,
}

/// Sends the head of a request, and a body that is whole, in one write if the upstream takes it.
pub(crate) async fn start<W>(io: &mut W, head: &[u8], body: &[u8], idle: Duration) -> Start
where
    W: AsyncWrite + Unpin,
{
    let both = [IoSlice::new(head), IoSlice::new(body)];
    let first = poll_fn(|cx| match body {
        [] => Pin::new(&mut *io).poll_write(cx, head),
        _ => Pin::new(&mut *io).poll_write_vectored(cx, &both),
    });
    let written = match within(idle, first).await {
        Ok(0) => return Start::Unsent(io::ErrorKind::WriteZero.into()),
        Ok(written) => written,
        Err(error) => return Start::Unsent(error),
    };
    let of_head = written.min(head.len());
    for rest in [&head[of_head..], &body[written - of_head..]] {
        if write_all(io, rest, idle).await.is_err() {
            return Start::Broken;
        }
    }
    Start::Sent
}

/// Sends a body as it comes. What is ready goes out in one write; before a pause, what is there is sent.
///
/// # Errors
/// [`SendError`]; then the connection must not be used for another request.
pub(crate) async fn send_body<W>(
    io: &mut W,
    mut body: Body,
    framing: Framing,
    idle: Duration,
) -> Result<(), SendError>
where
    W: AsyncWrite + Unpin,
{
    let mut out = BytesMut::new();
    let mut left = if let Framing::Length(length) = framing { length } else { u64::MAX };
    loop {
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                flush(io, &mut out, idle).await?;
                body.frame().await
            }
        };
        let Some(frame) = frame else { break };
        match frame.map_err(SendError::Body)?.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                left = left.checked_sub(data.len() as u64).ok_or(SendError::Body(BodyError::TooLarge))?;
                if framing == Framing::Chunked {
                    push_hex(&mut out, data.len());
                }
                if data.len() > GATHER_BYTES {
                    flush(io, &mut out, idle).await?;
                    write_all(io, &data, idle).await?;
                } else {
                    out.extend_from_slice(&data);
                }
                if framing == Framing::Chunked {
                    out.extend_from_slice(b"\r\n");
                }
            }
            Err(frame) => {
                if let (Some(trailers), Framing::Chunked) = (trailers(frame), framing) {
                    out.extend_from_slice(b"0\r\n");
                    push_fields_but(&mut out, &trailers, &[]);
                    out.extend_from_slice(b"\r\n");
                    return Ok(flush(io, &mut out, idle).await?);
                }
            }
        }
        if out.len() >= GATHER_BYTES {
            flush(io, &mut out, idle).await?;
        }
    }
    match framing {
        Framing::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
        Framing::Length(_) if left > 0 => return Err(SendError::Body(BodyError::Incomplete)),
        Framing::Length(_) | Framing::None => {}
    }
    Ok(flush(io, &mut out, idle).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};
    use http_body::Frame;
    use http_body_util::StreamBody;

    const IDLE: Duration = Duration::from_secs(60);

    fn head(method: Method, framing: Framing) -> String {
        let request = http::Request::builder().method(method).uri("/a?b").header("host", "a");
        let request = request.header("content-length", "999").header("transfer-encoding", "x").body(());
        let mut out = BytesMut::new();
        push_head(&mut out, &request.unwrap().into_parts().0, framing);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_framing_is_said_once_and_is_what_is_sent() {
        let begin = |method: &str| format!("{method} /a?b HTTP/1.1\r\nhost: a\r\n");
        assert_eq!(head(Method::GET, Framing::None), begin("GET") + "\r\n");
        assert_eq!(head(Method::POST, Framing::None), begin("POST") + "content-length: 0\r\n\r\n");
        assert_eq!(head(Method::GET, Framing::Length(7)), begin("GET") + "content-length: 7\r\n\r\n");
        let chunked = begin("PUT") + "transfer-encoding: chunked\r\n\r\n";
        assert_eq!(head(Method::PUT, Framing::Chunked), chunked);
    }

    async fn sent(frames: Vec<Result<Frame<Bytes>, BodyError>>, framing: Framing) -> (bool, String) {
        let body = Body::stream(StreamBody::new(futures_util::stream::iter(frames)));
        let mut wire = Vec::new();
        let good = send_body(&mut wire, body, framing, IDLE).await.is_ok();
        (good, String::from_utf8(wire).unwrap())
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, BodyError> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn chunks_and_trailers_are_framed_anew() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        let frames = vec![data("abc"), data(""), data("0123456789abcdef"), Ok(Frame::trailers(trailers))];
        let wire = "3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nx-sum: 7\r\n\r\n";
        assert_eq!(sent(frames, Framing::Chunked).await, (true, wire.to_owned()));
    }

    #[tokio::test]
    async fn a_body_that_breaks_or_is_not_as_long_as_it_said_has_no_clean_end() {
        let broken = sent(vec![data("abc"), Err(BodyError::Incomplete)], Framing::Chunked).await;
        assert!(!broken.0 && !broken.1.contains("0\r\n\r\n"));
        assert!(!sent(vec![data("abc")], Framing::Length(4)).await.0);
        let long = sent(vec![data("abc"), data("de")], Framing::Length(4)).await;
        assert!(!long.0 && long.1.len() <= 4);
        assert_eq!(sent(vec![data("abc")], Framing::Length(3)).await, (true, "abc".to_owned()));
    }
}
