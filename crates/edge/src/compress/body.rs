//! A body that is encoded while it comes. Before it pauses, all that came can be read by the client.

use super::encoder::Encoder;
use bastide_proxy::{Body, BodyError};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

/// Coded bytes that are handed on at once.
const PIECE_BYTES: usize = 16 * 1024;

/// The body.
pub(super) struct Encoded {
    plain: Body,
    encoder: Option<Encoder>,
    /// Bytes came in that the client could not read yet.
    is_behind: bool,
    trailers: Option<HeaderMap>,
}

impl Encoded {
    pub(super) fn new(plain: Body, encoder: Encoder) -> Self {
        Self { plain, encoder: Some(encoder), is_behind: false, trailers: None }
    }

    /// What has come out, if it is anything.
    fn out(&mut self, flush: bool) -> Result<Option<Bytes>, BodyError> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        if flush && self.is_behind {
            encoder.flush().map_err(BodyError::Io)?;
            self.is_behind = false;
        }
        let is_enough = encoder.held() >= PIECE_BYTES || (flush && encoder.held() > 0);
        Ok(is_enough.then(|| encoder.take()))
    }

    fn take_in(&mut self, data: &[u8]) -> io::Result<()> {
        self.is_behind |= !data.is_empty();
        self.encoder.as_mut().map_or(Ok(()), |encoder| encoder.write(data))
    }

    fn end(&mut self) -> Result<Option<Bytes>, BodyError> {
        let last = self.encoder.take().map(Encoder::finish).transpose().map_err(BodyError::Io)?;
        Ok(last.filter(|bytes| !bytes.is_empty()))
    }
}

impl http_body::Body for Encoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        while this.encoder.is_some() {
            match this.out(false) {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let frame = match Pin::new(&mut this.plain).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    return match this.out(true) {
                        Ok(Some(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                        Ok(None) => Poll::Pending,
                        Err(error) => Poll::Ready(Some(Err(error))),
                    };
                }
            };
            let ended = match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(Ok(data))) => {
                    if let Err(error) = this.take_in(&data) {
                        return Poll::Ready(Some(Err(BodyError::Io(error))));
                    }
                    continue;
                }
                Some(Ok(Err(trailers))) => {
                    this.trailers = trailers.into_trailers().ok();
                    this.end()
                }
                None => this.end(),
            };
            match ended {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }
}
