//! One request and its answer over a connection to an upstream, on the task that asks.
//!
//! A body that is whole goes out with the head. Any other is sent while the answer is waited for, and, when the answer
//! begins before its end, beside the answer's body.

use super::{
    answer::{self, AnswerBody, AnswerFault, AnswerHead},
    ask::{self, SendError, Start},
    framing::{Decoder, Reader, Step},
    head::{Framing, end_of_head},
};
use crate::{Body, BodyError, Interim, Request, Response, upgrade};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, Method, StatusCode, request::Parts};
use http_body::{Frame, SizeHint};
use std::{
    error::Error,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The longest body that goes out before the answer is looked for.
const WHOLE_BYTES_MAX: usize = 64 * 1024;
/// An upstream that takes nothing of a body for so long is given up.
const PAUSE: Duration = Duration::from_mins(10);

type Incoming = Box<dyn AsyncRead + Send + Unpin>;
type Outgoing = Box<dyn AsyncWrite + Send + Unpin>;
type Upload = Pin<Box<dyn Future<Output = (Outgoing, Result<(), SendError>)> + Send>>;

/// A connection to an upstream, between two requests.
pub(crate) struct Link {
    reader: Reader<Incoming>,
    write: Outgoing,
    out: BytesMut,
}

impl Link {
    /// Over these two directions.
    pub(crate) fn new(read: Incoming, write: Outgoing) -> Self {
        Self { reader: Reader::new(read), write, out: BytesMut::new() }
    }

    /// Whether it may carry a request: the peer has neither closed it nor said what nobody asked for.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.reader.buffer.is_empty() && self.reader.more().now_or_never().is_none()
    }
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// Nothing was sent: the request may go elsewhere.
    Unsent(Request, io::Error),
    /// The upstream may have seen the request.
    Sent(Box<dyn Error + Send + Sync>),
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Sent(error.into())
    }
}

/// What of a request decides how its answer is read.
struct Asked {
    method: Method,
    interim: Option<Interim>,
    upgrade: bool,
}

/// Where the sending of a request stands.
enum Sending {
    /// All is sent; the connection may take another request.
    Done(Outgoing),
    /// A body is on its way.
    Body(Upload),
    /// The same, on a task of its own, beside the body of the answer.
    Beside(Beside),
    /// The upstream takes no more.
    Broken,
}

/// Sends a request and waits for the head of its answer; `home` gets the connection when it may be used again.
///
/// # Errors
/// [`Failure`], with the request when nothing of it was sent.
pub(crate) async fn exchange<H>(
    link: Link,
    request: Request,
    tasks: &TaskTracker,
    home: H,
) -> Result<Response, Failure>
where
    H: FnOnce(Link) + Send + Unpin + 'static,
{
    let (head, body) = request.into_parts();
    let asked = Asked {
        method: head.method.clone(),
        interim: head.extensions.get::<Interim>().cloned(),
        upgrade: head.extensions.get::<upgrade::Wanted>().is_some(),
    };
    let Link { mut reader, write, mut out } = link;
    let mut sending = send(write, &mut out, head, body).await?;
    let head = answer_head(&mut reader, &mut sending, &asked).await?;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(switched(head, reader, sending, asked.upgrade));
    }
    let AnswerHead { status, headers, body, keep_alive } = head;
    let mut rest =
        Rest { reader: Some(reader), sending, body: body.into(), out, keep_alive, home: Some(home) };
    let body = match rest.whole() {
        Some(data) => Body::full(data),
        None => {
            rest.sending.go_on_beside(tasks);
            Body::stream(rest)
        }
    };
    Ok(response(status, headers, body))
}

fn response(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Sends the head, and the body if it is there.
async fn send(mut write: Outgoing, out: &mut BytesMut, head: Parts, body: Body) -> Result<Sending, Failure> {
    let framing = ask::framing(&body);
    out.clear();
    ask::push_head(out, &head, framing);
    let whole = body.whole().filter(|data| data.len() <= WHOLE_BYTES_MAX);
    match ask::start(&mut write, out, whole.as_deref().unwrap_or_default(), PAUSE).await {
        Start::Unsent(error) => Err(Failure::Unsent(Request::from_parts(head, body), error)),
        Start::Broken => Ok(Sending::Broken),
        Start::Sent if whole.is_some() => Ok(Sending::Done(write)),
        Start::Sent => Ok(Sending::Body(Box::pin(async move {
            let outcome = ask::send_body(&mut write, body, framing, PAUSE).await;
            (write, outcome)
        }))),
    }
}

impl Sending {
    /// Ends when there is news: a body that has gone out, or will not.
    async fn news(&mut self) -> Result<(), BodyError> {
        let Self::Body(upload) = self else { return std::future::pending().await };
        let (write, outcome) = upload.await;
        *self = match outcome {
            Ok(()) => Self::Done(write),
            // It may have answered before it closed.
            Err(SendError::Upstream) => Self::Broken,
            Err(SendError::Body(error)) => {
                *self = Self::Broken;
                return Err(error);
            }
        };
        Ok(())
    }

    /// From now on a body that is still on its way is sent by a task.
    fn go_on_beside(&mut self, tasks: &TaskTracker) {
        *self = match std::mem::replace(self, Self::Broken) {
            Self::Body(upload) => Self::Beside(Beside(tasks.spawn(async move {
                let (write, outcome) = upload.await;
                // Of a body that failed the upstream sees no clean end.
                outcome.is_ok().then_some(write)
            }))),
            other => other,
        };
    }

    /// The outgoing direction, when all is sent.
    fn into_write(self) -> Option<Outgoing> {
        match self {
            Self::Done(write) => Some(write),
            Self::Beside(mut task) => (&mut task.0).now_or_never()?.ok()?,
            Self::Body(_) | Self::Broken => None,
        }
    }
}

/// A body that is sent by a task, which ends with it.
struct Beside(JoinHandle<Option<Outgoing>>);

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for the head of the answer; interim responses are passed on meanwhile.
async fn answer_head(
    reader: &mut Reader<Incoming>,
    sending: &mut Sending,
    asked: &Asked,
) -> Result<AnswerHead, Failure> {
    loop {
        let bytes = tokio::select! {
            biased;
            news = sending.news() => {
                news?;
                continue;
            }
            bytes = next_head(reader) => bytes?,
        };
        let head = answer::parse(&bytes, &asked.method)?;
        if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(head);
        }
        if let Some(interim) = &asked.interim {
            interim.say(head.status, head.headers);
        }
    }
}

async fn next_head(reader: &mut Reader<Incoming>) -> Result<Bytes, Failure> {
    let mut searched = 0;
    loop {
        if let Some(end) = end_of_head(&reader.buffer, searched) {
            return Ok(reader.buffer.split_to(end).freeze());
        }
        searched = reader.buffer.len();
        if searched > HEAD_BYTES_MAX {
            return Err(AnswerFault::TooLarge.into());
        }
        if reader.more().await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// A 101 that was asked for becomes a tunnel; one that was not is a broken answer.
fn switched(head: AnswerHead, reader: Reader<Incoming>, sending: Sending, wanted: bool) -> Response {
    let Some(write) = sending.into_write().filter(|_| wanted) else {
        return response(StatusCode::BAD_GATEWAY, HeaderMap::new(), Body::empty());
    };
    // Bytes that the upstream sent early belong to the tunnel.
    let read = io::Cursor::new(reader.buffer.freeze()).chain(reader.io);
    let mut response = response(head.status, head.headers, Body::empty());
    response.extensions_mut().insert(upgrade::Tunnel::new(tokio::io::join(read, write)));
    response
}

/// How the rest of an answer is read.
enum Reading {
    Framed(Decoder, Framing),
    UntilClose,
}

impl From<AnswerBody> for Reading {
    fn from(body: AnswerBody) -> Self {
        match body {
            AnswerBody::Framed(framing) => Self::Framed(Decoder::new(framing), framing),
            AnswerBody::UntilClose => Self::UntilClose,
        }
    }
}

/// The body of an answer on the wire; its connection goes home when the body has ended.
struct Rest<H: FnOnce(Link)> {
    reader: Option<Reader<Incoming>>,
    sending: Sending,
    body: Reading,
    out: BytesMut,
    keep_alive: bool,
    home: Option<H>,
}

impl<H: FnOnce(Link)> Rest<H> {
    /// The body, when all of it has come with the head.
    fn whole(&mut self) -> Option<Bytes> {
        let Reading::Framed(_, framing) = self.body else { return None };
        let length = match framing {
            Framing::None => 0,
            Framing::Length(length) => usize::try_from(length).ok()?,
            Framing::Chunked => return None,
        };
        let buffer = &mut self.reader.as_mut()?.buffer;
        let data = (buffer.len() >= length).then(|| buffer.split_to(length).freeze())?;
        self.finish();
        Some(data)
    }

    fn finish(&mut self) {
        let (reader, home) = (self.reader.take(), self.home.take());
        let write = std::mem::replace(&mut self.sending, Sending::Broken).into_write();
        let (Some(mut reader), Some(home), Some(write)) = (reader, home, write) else { return };
        if self.keep_alive && reader.buffer.is_empty() {
            reader.rest();
            home(Link { reader, write, out: std::mem::take(&mut self.out) });
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        match &mut self.reader {
            Some(reader) => reader.poll_more(cx).map_err(BodyError::Io),
            None => Poll::Ready(Ok(0)),
        }
    }

    /// What the next bytes are.
    fn step(&mut self) -> Result<Step, BodyError> {
        let Some(reader) = &mut self.reader else { return Ok(Step::End) };
        match &mut self.body {
            Reading::Framed(decoder, _) => decoder.step(&mut reader.buffer),
            Reading::UntilClose if reader.buffer.is_empty() => Ok(Step::More),
            Reading::UntilClose => Ok(Step::Data(reader.buffer.split().freeze())),
        }
    }

    /// The end of the connection is the end of the body, or comes too early.
    fn closed(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.reader = None;
        match self.body {
            Reading::UntilClose => None,
            Reading::Framed(..) => Some(Err(BodyError::Incomplete)),
        }
    }
}

impl<H: FnOnce(Link) + Unpin> http_body::Body for Rest<H> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            let step = this.step().inspect_err(|_| this.reader = None)?;
            match step {
                Step::Data(data) => {
                    if matches!(&this.body, Reading::Framed(decoder, _) if decoder.is_end()) {
                        this.finish();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Step::Trailers(trailers) => {
                    this.finish();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Step::End => {
                    this.finish();
                    return Poll::Ready(None);
                }
                Step::More => match ready!(this.poll_more(cx)) {
                    Ok(0) => return Poll::Ready(this.closed()),
                    Ok(_) => {}
                    Err(error) => {
                        this.reader = None;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            _ if self.reader.is_none() => SizeHint::with_exact(0),
            Reading::Framed(decoder, Framing::Length(_)) => SizeHint::with_exact(decoder.left_at_least()),
            Reading::Framed(..) | Reading::UntilClose => SizeHint::default(),
        }
    }
}
