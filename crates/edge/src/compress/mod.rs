//! Compression at the edge (RFC 9110 §8.4, §12.5.3): answers that are worth it, for clients that ask for it.
//!
//! The cache keeps an answer as the app sent it, and beside it what was made of it, once per coding. What is not kept
//! is encoded while it passes. Ranges are always of the plain bytes: an encoded answer has a weak tag, so that no
//! client puts parts of the two together (§13.1.5).

mod body;
mod encoder;

pub(crate) use encoder::encoded;

use bastide_cache::{
    CacheControl,
    coding::{Coding, chosen},
};
use bastide_proxy::{Body, Prepared, Request, Response};
use body::Encoded;
use encoder::{Effort, Encoder};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Shorter bodies gain nothing: with its head an answer fits into one packet either way.
const BYTES_MIN: u64 = 860;
/// Digests over the bytes of a body (RFC 9530, RFC 3230, RFC 1864), which would not hold any more.
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// What a request lets us do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// The coding that it prefers.
    pub(crate) coding: Option<Coding>,
    /// It shows who is asking, so that its answer may hold secrets.
    has_secrets: bool,
}

impl Wish {
    /// Of a request.
    pub(crate) fn of(request: &Request) -> Self {
        let headers = request.headers();
        let has_secrets = headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::COOKIE);
        // RFC 9111 §5.2.1.6: a client may forbid it, too.
        let coding = if forbids(headers) { None } else { chosen(headers) };
        Self { coding, has_secrets }
    }
}

/// Whether an answer may be encoded: what it is, whether it is long enough and not encoded yet, and nothing forbids it.
pub(crate) fn fits(status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> bool {
    let is_whole = matches!(status.as_u16(), 200 | 203 | 400..=451 | 500..=504);
    is_whole
        && length.is_none_or(|length| length >= BYTES_MIN)
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !headers.contains_key(header::CONTENT_RANGE)
        && Kind::of(headers).is_some()
        && !forbids(headers)
        && !DIGESTS.iter().any(|name| headers.contains_key(*name))
}

/// `no-transform`, in a request or an answer.
pub(crate) fn forbids(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CACHE_CONTROL).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// What kind of content gains from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Made for everybody: scripts, styles, pictures, fonts.
    Asset,
    /// What may be made for one user: pages, data.
    Text,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
        let essence = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let essence = std::str::from_utf8(essence).ok()?.to_ascii_lowercase();
        match &*essence {
            "text/css"
            | "text/javascript"
            | "application/javascript"
            | "application/x-javascript"
            | "application/wasm"
            | "application/manifest+json"
            | "application/vnd.ms-fontobject"
            | "font/ttf"
            | "font/otf"
            | "image/svg+xml"
            | "image/bmp"
            | "image/x-icon"
            | "image/vnd.microsoft.icon" => Some(Self::Asset),
            // Events must not wait for each other; each is short anyway.
            "text/event-stream" => None,
            "application/json" | "application/xml" | "application/x-ndjson" => Some(Self::Text),
            other if other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml") => {
                Some(Self::Text)
            }
            _ => None,
        }
    }
}

/// Encodes an answer while it passes, if that is wanted and right.
///
/// An answer that may hold a secret beside something that the client sent is left as it is, since its length would
/// tell of the secret (BREACH): one to a request with credentials, unless it is for everybody or an asset.
pub(crate) fn pass(wish: Wish, is_head: bool, mut response: Response) -> Response {
    // What is short shows its end at once, also where no length was said.
    let _ = response.body_mut().prefix(BYTES_MIN as usize).now_or_never();
    let length = http_body::Body::size_hint(response.body()).exact();
    let length = length.filter(|_| !is_head).or_else(|| said_length(response.headers()));
    settle(&mut response);
    if !fits(response.status(), response.headers(), length) {
        return response;
    }
    let is_safe = !wish.has_secrets || Kind::of(response.headers()) == Some(Kind::Asset) || {
        let control = CacheControl::read(response.headers());
        control.public || control.s_maxage.is_some()
    };
    let encoder = wish.coding.filter(|_| is_safe).and_then(|coding| {
        let encoder = Encoder::new(coding, Effort::Once);
        encoder
            .inspect_err(|error| tracing::warn!(%error, "an answer is not compressed"))
            .ok()
            .map(|own| (coding, own))
    });
    let Some((coding, encoder)) = encoder else {
        vary(response.headers_mut());
        return response;
    };
    let (mut head, body) = response.into_parts();
    encoded_head(&mut head.headers, coding);
    let body = if is_head { body } else { Body::stream(Encoded::new(body, encoder)) };
    Response::from_parts(head, body)
}

fn said_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Gives a response all its fields back.
pub(crate) fn settle(response: &mut Response) {
    if let Some(prepared) = response.extensions_mut().remove::<Prepared>() {
        let own = std::mem::take(response.headers_mut());
        *response.headers_mut() = prepared.with(own);
    }
}

/// The head of an encoded answer.
pub(crate) fn encoded_head(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT_RANGES);
    weaken(headers);
    vary(headers);
}

/// Makes a strong tag weak: it is true for what the answer means, not for its bytes (RFC 9110 §8.8.1).
pub(crate) fn weaken(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(header::ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
}

/// Says that others may get another coding.
pub(crate) fn vary(headers: &mut HeaderMap) {
    if !varies(headers) {
        headers.append(header::VARY, HeaderValue::from(HeaderName::from_static("accept-encoding")));
    }
}

/// Whether that is said already.
pub(crate) fn varies(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::VARY).iter();
    lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).any(|name| {
        let name = name.trim_ascii();
        name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use encoder::decoded;
    use http_body_util::{BodyExt, StreamBody};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn response(fields: &[(&'static str, &'static str)], body: &str) -> Response {
        let mut response = Response::new(Body::from(body.to_owned()));
        *response.headers_mut() = headers(fields);
        response
    }

    fn wish(fields: &[(&'static str, &'static str)]) -> Wish {
        let mut request = Request::new(Body::empty());
        *request.headers_mut() = headers(fields);
        Wish::of(&request)
    }

    #[test]
    fn what_gains_is_encoded_and_what_must_not_be_is_not() {
        let check = |status: u16, fields: &[(&'static str, &'static str)], length, expected| {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(fits(status, &headers(fields), length), expected, "{status} {fields:?} {length:?}");
        };
        let html = ("content-type", "text/HTML; charset=utf-8");
        check(200, &[html], Some(860), true);
        check(200, &[html], None, true);
        check(404, &[html], Some(5000), true);
        check(200, &[html], Some(859), false);
        check(206, &[html], Some(5000), false);
        check(304, &[html], None, false);
        check(204, &[html], None, false);
        check(200, &[html, ("content-encoding", "gzip")], Some(5000), false);
        check(200, &[html, ("cache-control", "max-age=5, No-Transform")], Some(5000), false);
        check(200, &[html, ("content-digest", "sha-256=:x:")], Some(5000), false);
        for (kind, expected) in [
            ("application/json", true),
            ("application/problem+json", true),
            ("image/svg+xml", true),
            ("application/wasm", true),
            ("text/event-stream", false),
            ("image/png", false),
            ("video/mp4", false),
            ("application/grpc", false),
            ("application/zip", false),
            ("font/woff2", false),
        ] {
            check(200, &[("content-type", kind)], Some(5000), expected);
        }
        check(200, &[], Some(5000), false);
    }

    #[tokio::test]
    async fn an_answer_is_encoded_while_it_passes() {
        let text = "All work and no play. ".repeat(500);
        for coding in Coding::ALL {
            let wish = Wish { coding: Some(coding), has_secrets: false };
            let fields = [
                ("content-type", "text/html"),
                ("etag", "\"a\""),
                ("content-length", "11000"),
                ("accept-ranges", "bytes"),
                ("vary", "cookie"),
            ];
            let made = pass(wish, false, response(&fields, &text));
            assert_eq!(made.headers()[header::CONTENT_ENCODING], coding.name());
            assert_eq!(made.headers()[header::ETAG], "W/\"a\"");
            for gone in [header::CONTENT_LENGTH, header::ACCEPT_RANGES] {
                assert!(!made.headers().contains_key(gone));
            }
            assert!(varies(made.headers()));
            let bytes = made.into_body().collect().await.unwrap().to_bytes();
            assert!(bytes.len() < text.len() / 10);
            assert_eq!(decoded(coding.name(), &bytes), text.as_bytes());
        }
    }

    #[tokio::test]
    async fn what_came_before_a_pause_can_be_read() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<_, bastide_proxy::BodyError>>(1);
        let stream = futures_util::stream::unfold(receiver, async |mut own| {
            own.recv().await.map(|frame| (frame, own))
        });
        let mut slow = Response::new(Body::stream(StreamBody::new(Box::pin(stream))));
        slow.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        let mut body = pass(wish(&[("accept-encoding", "gzip")]), false, slow).into_body();
        sender.send(Ok(http_body::Frame::data("{\"n\":1}\n".into()))).await.unwrap();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let mut plain = [0; 8];
        std::io::Read::read_exact(&mut flate2::read::GzDecoder::new(&first[..]), &mut plain).unwrap();
        assert_eq!(&plain, b"{\"n\":1}\n");
        drop(sender);
        assert!(body.frame().await.unwrap().is_ok());
    }

    #[test]
    fn secrets_are_not_encoded_beside_what_a_client_sends() {
        let text = "x".repeat(2000);
        let is_encoded = |asked: &[(&'static str, &'static str)], fields: &[(&'static str, &'static str)]| {
            let made = pass(wish(asked), false, response(fields, &text));
            assert!(varies(made.headers()), "{fields:?}");
            made.headers().contains_key(header::CONTENT_ENCODING)
        };
        let (br, html) = (("accept-encoding", "br"), ("content-type", "text/html"));
        assert!(is_encoded(&[br], &[html]));
        assert!(!is_encoded(&[], &[html]));
        for secret in [("cookie", "session=1"), ("authorization", "Bearer x")] {
            assert!(!is_encoded(&[br, secret], &[html]));
            assert!(!is_encoded(&[br, secret], &[("content-type", "application/json")]));
            assert!(is_encoded(&[br, secret], &[html, ("cache-control", "public, max-age=5")]));
            assert!(is_encoded(&[br, secret], &[("content-type", "text/css")]));
        }
        assert!(!is_encoded(&[br, ("cache-control", "no-transform")], &[html]));
    }
}
