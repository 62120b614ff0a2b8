//! Answers made of a stored response: whole, in parts, or the word that the client has it already.

use crate::{
    Moment,
    ask::Ask,
    condition,
    range::Resolved,
    stored::{Content, Stored},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// Fields of a 304 (RFC 9110 §15.4.5), beside `Age`. `Last-Modified` only where there is no tag.
const OF_A_304: [HeaderName; 7] = [
    header::DATE,
    header::ETAG,
    header::VARY,
    header::CACHE_CONTROL,
    crate::targeted::CDN_CACHE_CONTROL,
    header::EXPIRES,
    header::CONTENT_LOCATION,
];

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// All fields, or only those beside the stored ones.
    pub fields: HeaderMap,
    /// The stored head goes out as it is, `fields` beside it.
    pub head_as_stored: bool,
    /// The body, piece after piece.
    pub body: Vec<Bytes>,
    /// Length to state where there is no body to count: the answer to a HEAD.
    pub length: Option<u64>,
}

/// What an answer is made for.
#[derive(Clone, Copy)]
pub struct Making<'m> {
    /// Now.
    pub now: Moment,
    /// The origin has just said that this response holds, or sent it: no age is stated (RFC 9111 §5.1).
    pub validated: bool,
    /// Separates the parts of several ranges; nobody must be able to guess it.
    pub boundary: &'m dyn Fn() -> String,
}

/// Makes the answer to a GET or HEAD from a stored response that may be used for it.
///
/// A partial response must hold what is asked for. `head` replaces the stored fields where an update brought
/// some that are not stored.
pub fn reply(stored: &Stored, head: Option<&HeaderMap>, ask: &Ask<'_>, making: Making<'_>) -> Reply {
    let now = making.now;
    let age = (!making.validated).then(|| HeaderValue::from(stored.age_s(now)));
    let full = || head.cloned().unwrap_or_else(|| stored.head.to_map());
    let is_ok = stored.status == StatusCode::OK;
    if is_ok && condition::has_own(ask.headers) && condition::is_known(ask.headers, &stored.validators, now) {
        let mut fields = picked(&full(), &OF_A_304);
        if !fields.contains_key(header::ETAG)
            && let Some(modified) = stored.head.get(&header::LAST_MODIFIED)
        {
            fields.insert(header::LAST_MODIFIED, modified.clone());
        }
        return Reply::with(StatusCode::NOT_MODIFIED, aged(fields, age), Vec::new());
    }
    if is_ok
        && let Some(ranges) = &ask.ranges
        && condition::is_range_meant(ask.headers, &stored.validators, now)
    {
        match ranges.resolve(stored.content.length()) {
            Resolved::Whole => {}
            Resolved::Unsatisfiable => {
                let mut fields = HeaderMap::new();
                let range = format!("bytes */{}", stored.content.length());
                fields.insert(header::CONTENT_RANGE, text(range));
                return Reply::with(StatusCode::RANGE_NOT_SATISFIABLE, aged(fields, age), Vec::new());
            }
            Resolved::Parts(parts) => {
                // RFC 9110 §15.3.7: who sent If-Range has the other fields already.
                let head = full();
                let mut fields = if ask.headers.contains_key(header::IF_RANGE) {
                    picked(&head, &OF_A_304)
                } else {
                    head.clone()
                };
                fields.remove(header::CONTENT_RANGE);
                if let Some(body) = parted(&stored.content, &parts, &head, &mut fields, making.boundary) {
                    return Reply::with(StatusCode::PARTIAL_CONTENT, aged(fields, age), body);
                }
            }
        }
    }
    let length = (*ask.method == Method::HEAD && has_length(stored.status)).then(|| stored.content.length());
    let body = match &stored.content {
        Content::Whole(body) if *ask.method != Method::HEAD => vec![body.clone()],
        Content::Whole(_) | Content::Pieces(..) => Vec::new(),
    };
    let (fields, head_as_stored) = match head {
        Some(head) => (head.clone(), false),
        None => (HeaderMap::new(), true),
    };
    Reply { head_as_stored, length, ..Reply::with(stored.status, aged(fields, age), body) }
}

impl Reply {
    fn with(status: StatusCode, fields: HeaderMap, body: Vec<Bytes>) -> Self {
        Self { status, fields, head_as_stored: false, body, length: None }
    }
}

/// Whether an answer with this status has a length to state.
pub fn has_length(status: StatusCode) -> bool {
    status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

fn aged(mut fields: HeaderMap, age: Option<HeaderValue>) -> HeaderMap {
    if let Some(age) = age {
        fields.insert(header::AGE, age);
    }
    fields
}

fn picked(head: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for name in names {
        for value in head.get_all(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

/// The bytes of one range, or of several as multipart/byteranges; one part alone is never multipart.
fn parted(
    content: &Content,
    parts: &[(u64, u64)],
    head: &HeaderMap,
    fields: &mut HeaderMap,
    boundary: &dyn Fn() -> String,
) -> Option<Vec<Bytes>> {
    let range = |first: u64, last: u64| format!("bytes {first}-{last}/{}", content.length());
    if let [(first, last)] = parts {
        fields.insert(header::CONTENT_RANGE, text(range(*first, *last)));
        return Some(vec![content.slice(*first, *last)?]);
    }
    let boundary = boundary();
    let kind = head.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let mut body = Vec::new();
    for (at, (first, last)) in parts.iter().enumerate() {
        let begin = if at == 0 { "" } else { "\r\n" };
        let mut lines = format!("{begin}--{boundary}\r\n").into_bytes();
        if let Some(kind) = kind {
            lines.extend_from_slice(b"content-type: ");
            lines.extend_from_slice(kind);
            lines.extend_from_slice(b"\r\n");
        }
        lines.extend_from_slice(format!("content-range: {}\r\n\r\n", range(*first, *last)).as_bytes());
        body.push(lines.into());
        body.push(content.slice(*first, *last)?);
    }
    body.push(format!("\r\n--{boundary}--\r\n").into());
    fields.insert(header::CONTENT_TYPE, text(format!("multipart/byteranges; boundary={boundary}")));
    Some(body)
}

fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""))
}
