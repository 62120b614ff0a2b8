//! Ends what a revoked token began: long answers and tunnels.

use bastide_proxy::{Body, BodyError, Response, upgrade::Tunnel};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The same answer, which breaks off when `end` comes before it is through.
pub(crate) fn cut(mut response: Response, end: impl Future<Output = ()> + Send + 'static) -> Response {
    if let Some(tunnel) = response.extensions().get::<Tunnel>() {
        tunnel.end_with(end);
        return response;
    }
    if response.body().is_end_stream() {
        return response;
    }
    let body = std::mem::take(response.body_mut());
    *response.body_mut() = Body::stream(Cut { body, end: Box::pin(end), over: false });
    response
}

struct Cut {
    body: Body,
    end: End,
    over: bool,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.end.as_mut().poll(cx).is_ready() {
            self.over = true;
            self.body = Body::empty();
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    #[tokio::test]
    async fn an_answer_breaks_off_at_its_end_and_not_before() {
        let (more, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, BodyError>>(4);
        let frames =
            futures_util::stream::unfold(frames, async |mut frames| Some((frames.recv().await?, frames)));
        let (end, ends) = tokio::sync::oneshot::channel::<()>();
        let response = Response::new(Body::stream(StreamBody::new(Box::pin(frames))));
        let mut response = cut(response, async { drop(ends.await) });
        let data = || Ok(Frame::data(Bytes::from_static(b"x")));
        more.send(data()).await.unwrap();
        assert!(response.body_mut().frame().await.unwrap().is_ok());
        more.send(data()).await.unwrap();
        end.send(()).unwrap();
        assert!(matches!(response.body_mut().frame().await, Some(Err(BodyError::Incomplete))));
        assert!(response.body_mut().frame().await.is_none());
        more.closed().await; // the upstream is let go
    }

    #[tokio::test]
    async fn a_short_answer_keeps_its_length() {
        let response = cut(Response::new(Body::full("abc")), std::future::pending());
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(3));
        assert_eq!(&response.into_body().collect_up_to(9).await.unwrap()[..], b"abc");
    }
}
