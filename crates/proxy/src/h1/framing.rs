//! The body of a request on the wire: a length or chunks, read strictly, handed on as it comes.
//!
//! The reading half of the connection travels with the body and comes back to the connection when the
//! body has ended or nobody wants more of it.

use super::head::Framing;
use crate::{BodyError, HeadFault};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{io::AsyncRead, sync::oneshot, time::Sleep};
use tokio_util::io::poll_read_buf;

/// Longest chunk-size line, extensions included.
const SIZE_LINE_MAX: usize = 256;
/// Most bytes of chunk extensions in a body: nobody reads them, and each costs us more than the client.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of trailers.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
const TRAILER_COUNT_MAX: usize = 32;
/// Room for one read: small while heads come, larger while bodies fill it.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 64 * 1024;

/// The reading half of a connection and what was read but not used yet.
pub(crate) struct Reader<R> {
    pub(crate) io: R,
    pub(crate) buffer: BytesMut,
    room: usize,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new(), room: READ_BYTES_MIN }
    }

    /// Holds as little as can be until more comes.
    pub(crate) fn rest(&mut self) {
        self.room = READ_BYTES_MIN;
        if self.buffer.capacity() > READ_BYTES_MIN {
            self.buffer = BytesMut::new();
        }
    }

    /// Reads more; 0 at the end of the connection.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A little room is enough to read on; a new block is only taken when there is next to none.
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN / 2 {
            self.buffer.reserve(self.room);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let read = ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.buffer))?;
        if read == room {
            self.room = (self.room * 2).min(READ_BYTES_MAX);
        } else if read < self.room / 4 {
            self.room = (self.room / 2).max(READ_BYTES_MIN);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads more; 0 at the end of the connection.
    pub(crate) async fn more(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_more(cx)).await
    }
}

/// Where the decoder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Bytes of a length-framed body that are still to come.
    Length(u64),
    /// Before a chunk-size line.
    Size,
    /// Bytes of a chunk that are still to come.
    Chunk(u64),
    /// Before the line end after a chunk.
    ChunkEnd,
    /// Before or in the trailers.
    Trailers,
    /// Nothing more.
    End,
}

/// What one step of the decoder gave.
#[derive(Debug)]
pub(super) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    More,
    End,
}

/// What [`Decoder::skip`] found.
pub(crate) enum Skipped {
    /// This many bytes of data.
    Bytes(u64),
    /// More must be read first.
    More,
    /// The body has ended.
    End,
}

/// Decodes a body from a buffer. Plain: it does no I/O.
#[derive(Debug)]
pub struct Decoder {
    part: Part,
    extensions_left: usize,
}

impl Decoder {
    /// A decoder for this framing.
    pub fn new(framing: Framing) -> Self {
        let part = match framing {
            Framing::None => Part::End,
            Framing::Length(length) => Part::Length(length),
            Framing::Chunked => Part::Size,
        };
        Self { part, extensions_left: EXTENSION_BYTES_MAX }
    }

    pub(super) fn is_end(&self) -> bool {
        self.part == Part::End
    }

    /// Bytes that are still to come at least.
    pub(crate) fn left_at_least(&self) -> u64 {
        match self.part {
            Part::Length(left) | Part::Chunk(left) => left,
            Part::Size | Part::ChunkEnd | Part::Trailers | Part::End => 0,
        }
    }

    pub(super) fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, BodyError> {
        loop {
            match self.part {
                Part::End => return Ok(Step::End),
                Part::Length(left) | Part::Chunk(left) if buffer.is_empty() && left > 0 => {
                    return Ok(Step::More);
                }
                Part::Length(left) => {
                    let data = take(buffer, left);
                    let left = left - data.len() as u64;
                    self.part = if left == 0 { Part::End } else { Part::Length(left) };
                    return Ok(Step::Data(data));
                }
                Part::Chunk(left) => {
                    let data = take(buffer, left);
                    let left = left - data.len() as u64;
                    self.part = if left == 0 { Part::ChunkEnd } else { Part::Chunk(left) };
                    return Ok(Step::Data(data));
                }
                Part::ChunkEnd => match &buffer[..] {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.part = Part::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(BodyError::Framing),
                },
                Part::Size => {
                    let Some((size, extension)) = size_line(buffer)? else { return Ok(Step::More) };
                    self.extensions_left =
                        self.extensions_left.checked_sub(extension).ok_or(BodyError::Framing)?;
                    self.part = if size == 0 { Part::Trailers } else { Part::Chunk(size) };
                }
                Part::Trailers => {
                    let Some(trailers) = trailers(buffer)? else { return Ok(Step::More) };
                    self.part = Part::End;
                    return Ok(if trailers.is_empty() { Step::End } else { Step::Trailers(trailers) });
                }
            }
        }
    }

    /// One step whose data nobody wants.
    pub(crate) fn skip(&mut self, buffer: &mut BytesMut) -> Result<Skipped, BodyError> {
        Ok(match self.step(buffer)? {
            Step::Data(data) => Skipped::Bytes(data.len() as u64),
            Step::Trailers(_) | Step::End => Skipped::End,
            Step::More => Skipped::More,
        })
    }

    /// Decodes a whole buffer, for tests and fuzzing: the data of all chunks.
    pub fn decode_all(framing: Framing, bytes: &[u8]) -> Result<Option<Vec<u8>>, BodyError> {
        Self::decode_pieces(framing, [bytes])
    }

    /// The same, with the bytes as they came in several reads.
    pub fn decode_pieces<'a>(
        framing: Framing,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Vec<u8>>, BodyError> {
        let (mut decoder, mut data, mut buffer) = (Self::new(framing), Vec::new(), BytesMut::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.step(&mut buffer)? {
                    Step::Data(bytes) => data.extend_from_slice(&bytes),
                    Step::Trailers(_) => {}
                    Step::More => break,
                    Step::End => return Ok(Some(data)),
                }
            }
        }
        Ok(None)
    }
}

fn take(buffer: &mut BytesMut, most: u64) -> Bytes {
    let length = usize::try_from(most).map_or(buffer.len(), |most| most.min(buffer.len()));
    buffer.split_to(length).freeze()
}

/// Reads `hex[;extension]CRLF`; nothing else ends it, nothing else stands in it. Gives the size and the length
/// of the extension.
fn size_line(buffer: &mut BytesMut) -> Result<Option<(u64, usize)>, BodyError> {
    let Some(end) = memchr::memchr(b'\n', &buffer[..buffer.len().min(SIZE_LINE_MAX)]) else {
        return if buffer.len() >= SIZE_LINE_MAX { Err(BodyError::Framing) } else { Ok(None) };
    };
    let line = buffer.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(BodyError::Framing)?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if !(1..=15).contains(&digits) {
        return Err(BodyError::Framing);
    }
    let extension = &line[digits..];
    let extension_good = match extension.iter().find(|b| !matches!(b, b' ' | b'\t')) {
        None => extension.is_empty(),
        Some(first) => *first == b';' && extension.iter().all(|b| (*b >= b' ' && *b != 0x7f) || *b == b'\t'),
    };
    if !extension_good {
        return Err(BodyError::Framing);
    }
    let size = line[..digits]
        .iter()
        .fold(0_u64, |size, b| size << 4 | u64::from(char::from(*b).to_digit(16).unwrap_or_default()));
    Ok(Some((size, extension.len())))
}

fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, BodyError> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let Some(end) = memchr::memmem::find(&buffer[..buffer.len().min(TRAILER_BYTES_MAX)], b"\r\n\r\n") else {
        return if buffer.len() >= TRAILER_BYTES_MAX { Err(BodyError::Framing) } else { Ok(None) };
    };
    let section = buffer.split_to(end + 4);
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_COUNT_MAX];
    let bare_lf = memchr::memchr_iter(b'\n', &section).any(|at| at == 0 || section[at - 1] != b'\r');
    let fields = match httparse::parse_headers(&section, &mut fields) {
        Ok(httparse::Status::Complete((end, fields))) if end == section.len() && !bare_lf => fields,
        _ => return Err(BodyError::Framing),
    };
    let mut map = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BodyError::Framing)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| BodyError::Framing)?;
        map.append(name, value);
    }
    clean_trailers(&mut map);
    Ok(Some(map))
}

/// Removes what must not come after a body: what belongs into a head, and what only we may say. Servers that
/// put trailers among the fields of the head would believe it.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    let bad = |name: &HeaderName| FORBIDDEN_TRAILERS.contains(&name.as_str());
    let bad: Vec<HeaderName> = trailers.keys().filter(|name| bad(name)).cloned().collect();
    for name in bad {
        trailers.remove(name);
    }
    crate::headers::strip_spoofable(trailers);
}

/// Fields that must not come in trailers: framing, routing, authentication (RFC 9110 §6.5.1).
const FORBIDDEN_TRAILERS: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "host",
    "authorization",
    "cookie",
    "set-cookie",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "content-encoding",
    "content-type",
    "content-range",
    "cache-control",
    "expect",
];

/// What comes back to the connection.
pub(crate) struct GivenBack<R> {
    pub(crate) reader: Reader<R>,
    pub(crate) decoder: Decoder,
    /// Whether reading it failed; then the connection is of no more use.
    pub(crate) failed: bool,
    /// What the client did wrong, when that is why it failed.
    pub(crate) fault: Option<HeadFault>,
}

/// A request's body on the wire.
pub(crate) struct WireBody<R: AsyncRead + Unpin> {
    inner: Option<(Reader<R>, Decoder)>,
    back: Option<oneshot::Sender<GivenBack<R>>>,
    wants_more: Option<oneshot::Sender<()>>,
    length: Option<u64>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    failed: bool,
    fault: Option<HeadFault>,
}

impl<R: AsyncRead + Unpin> WireBody<R> {
    pub(crate) fn new(
        reader: Reader<R>,
        framing: Framing,
        idle: Duration,
        wants_more: Option<oneshot::Sender<()>>,
    ) -> (Self, oneshot::Receiver<GivenBack<R>>) {
        let (back, given) = oneshot::channel();
        let length = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        };
        let inner = Some((reader, Decoder::new(framing)));
        let body = Self {
            inner,
            back: Some(back),
            wants_more,
            length,
            idle,
            timer: None,
            failed: false,
            fault: None,
        };
        (body, given)
    }

    fn give_back(&mut self) {
        if let (Some((reader, decoder)), Some(back)) = (self.inner.take(), self.back.take()) {
            // The connection may have gone; then the reader goes too.
            let _ = back.send(GivenBack { reader, decoder, failed: self.failed, fault: self.fault });
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.failed = true;
        self.fault = match error {
            BodyError::Framing => Some(HeadFault::Chunk),
            BodyError::TimedOut => Some(HeadFault::Timeout),
            _ => None,
        };
        self.give_back();
        Poll::Ready(Some(Err(error)))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BodyError>> {
        let Some((reader, _)) = &mut self.inner else { return Poll::Ready(Ok(0)) };
        if let Poll::Ready(read) = reader.poll_more(cx) {
            self.timer = None;
            return Poll::Ready(read.map_err(BodyError::Io));
        }
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(BodyError::TimedOut))
    }
}

impl<R: AsyncRead + Unpin> http_body::Body for WireBody<R> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(wants_more) = this.wants_more.take() {
            let _ = wants_more.send(());
        }
        loop {
            let Some((reader, decoder)) = &mut this.inner else { return Poll::Ready(None) };
            match decoder.step(&mut reader.buffer) {
                Ok(Step::Data(data)) => {
                    if decoder.is_end() {
                        this.give_back();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Step::Trailers(trailers)) => {
                    this.give_back();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Step::End) => {
                    this.give_back();
                    return Poll::Ready(None);
                }
                Ok(Step::More) => match ready!(this.poll_read(cx)) {
                    Ok(0) => return this.fail(BodyError::Incomplete),
                    Ok(_) => {}
                    Err(error) => return this.fail(error),
                },
                Err(error) => return this.fail(error),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|(_, decoder)| decoder.is_end())
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.inner, self.length) {
            (Some((_, Decoder { part: Part::Length(left), .. })), _) => SizeHint::with_exact(*left),
            (None, _) | (_, Some(_)) => SizeHint::with_exact(0),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl<R: AsyncRead + Unpin> Drop for WireBody<R> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunks(text: &str) -> Result<Option<Vec<u8>>, BodyError> {
        Decoder::decode_all(Framing::Chunked, text.as_bytes())
    }

    #[test]
    fn chunks_are_read_strictly() {
        assert_eq!(chunks("3\r\nabc\r\n2;x=\"y\"\r\nde\r\n0\r\n\r\n").unwrap().unwrap(), b"abcde");
        assert_eq!(chunks("0\r\nA: b\r\n\r\n").unwrap().unwrap(), b"");
        assert_eq!(chunks("3\r\nab").unwrap(), None);
        for broken in [
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n",
            "3;x\nabc\r\n",
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x3\r\nabc\r\n",
            "3 4\r\nabc\r\n",
            "10000000000000000\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3;a\rb\r\nabc\r\n",
            " 3\r\nabc\r\n",
            "3 \r\nabc\r\n",
            "0\r\na: b\n\nGET / HTTP/1.1\r\n\r\n",
            "0\r\na: b\nc: d\r\n\r\n",
            "0\r\nno colon\r\n\r\n",
        ] {
            assert!(chunks(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn extensions_of_chunks_are_bounded() {
        let chunk = format!("1;{}\r\nx\r\n", "e".repeat(200));
        assert!(chunks(&format!("{}0\r\n\r\n", chunk.repeat(80))).unwrap().is_some());
        assert!(chunks(&format!("{}0\r\n\r\n", chunk.repeat(90))).is_err());
    }

    #[test]
    fn trailers_say_nothing_that_a_head_or_only_we_may_say() {
        let mut buffer = BytesMut::from(
            &b"0\r\nX-Sum: 7\r\nX-Bastide-User: root\r\nx_forwarded_for: 1\r\nContent-Length: 9\r\n\r\n"[..],
        );
        let Ok(Step::Trailers(trailers)) = Decoder::new(Framing::Chunked).step(&mut buffer) else { panic!() };
        assert_eq!((trailers.len(), trailers["x-sum"].as_bytes()), (1, &b"7"[..]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = Decoder::decode_all(Framing::Chunked, &bytes);
        }
        #[test]
        fn how_the_bytes_arrive_changes_nothing(
            pieces in proptest::collection::vec("(3\r\nabc\r\n|0\r\n|\r\n|a: b\r\n|[0-9a-f;\r\n]{0,3})", 0..8),
            size in 1_usize..5,
        ) {
            let bytes = pieces.concat().into_bytes();
            let whole = Decoder::decode_all(Framing::Chunked, &bytes);
            let parts = Decoder::decode_pieces(Framing::Chunked, bytes.chunks(size));
            prop_assert_eq!(whole.as_ref().ok(), parts.as_ref().ok());
        }
        #[test]
        fn what_is_chunked_reads_back(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6)) {
            let mut wire = Vec::new();
            for piece in &pieces {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(Decoder::decode_all(Framing::Chunked, &wire).unwrap(), Some(pieces.concat()));
        }
    }
}
