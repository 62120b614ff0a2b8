//! Reading a head: exactly one meaning, or refused (RFC 9112).

use crate::{HeadFault, Limits, RawHead, headers::list, upgrade::Wanted};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, uri::PathAndQuery};
use std::{mem::MaybeUninit, net::Ipv6Addr, sync::Arc};

/// How the body of a request is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A head that has one meaning.
#[derive(Debug)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Normalised target: path and query only.
    pub uri: Uri,
    /// Version.
    pub version: Version,
    /// Fields.
    pub headers: HeaderMap,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the connection may serve another request.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// Whether the client asks for an upgrade, ours to grant or not.
    pub asks_upgrade: bool,
    /// The upgrade that may be granted.
    pub upgrade: Option<Wanted>,
    /// The original spelling.
    pub raw: Arc<RawHead>,
}

/// Fields that are parsed without the heap.
const FEW: usize = 128;

/// Where the head ends in `bytes`: the index after its empty line. Empty lines before it are skipped by
/// [`skip_empty_lines`] first.
pub fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    // The end may straddle what was read before and what came now.
    let from = from.saturating_sub(3);
    memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| at + from).find_map(|at| match &bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// How many bytes of empty lines stand before a request line (RFC 9112 §2.2 lets a server skip them).
pub fn skip_empty_lines(bytes: &[u8]) -> usize {
    let mut skipped = 0;
    while let Some(rest) = bytes.get(skipped..) {
        skipped += match rest {
            [b'\r', b'\n', ..] => 2,
            _ => break,
        };
    }
    skipped
}

/// Reads a whole head.
///
/// # Errors
/// The first [`HeadFault`] found.
pub fn parse(bytes: &Bytes, limits: &Limits) -> Result<Head, HeadFault> {
    // Most listeners allow 100 fields: those need no heap.
    let (mut few, mut many);
    let fields: &mut [MaybeUninit<httparse::Header<'_>>] = if limits.header_count_max <= FEW {
        few = [const { MaybeUninit::uninit() }; FEW];
        &mut few[..limits.header_count_max]
    } else {
        many = vec![MaybeUninit::uninit(); limits.header_count_max];
        &mut many
    };
    let mut request = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_request_with_uninit_headers(&mut request, bytes, fields) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        // Both ways of finding the end must agree, or the rest would be read as something else.
        Ok(_) => return Err(HeadFault::RequestLine),
        Err(error) => return Err(fault(error, bytes)),
    }
    let target = request.path.unwrap_or_default().as_bytes();
    if target.len() > limits.target_bytes_max {
        return Err(HeadFault::TargetTooLong);
    }
    let version = if request.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let method_text = request.method.unwrap_or_default().as_bytes();
    let raw = RawHead {
        method: bytes.slice_ref(method_text),
        target: bytes.slice_ref(target),
        version,
        headers: request
            .headers
            .iter()
            .map(|field| (bytes.slice_ref(field.name.as_bytes()), bytes.slice_ref(field.value)))
            .collect(),
        bytes: Some(bytes.clone()),
    };
    if has_bare_lf(bytes) {
        return Err(HeadFault::BareLf);
    }
    let method = Method::from_bytes(method_text).map_err(|_| HeadFault::RequestLine)?;
    let headers = header_map(&raw, bytes)?;
    build(method, version, headers, raw)
}

fn build(method: Method, version: Version, mut headers: HeaderMap, raw: RawHead) -> Result<Head, HeadFault> {
    if method == Method::CONNECT && !is_host_and_port(&raw.target) {
        return Err(HeadFault::Target);
    }
    check_method(&method)?;
    let host = host(&headers)?;
    let uri = uri(&raw.target, &method, host)?;
    let framing = framing(&mut headers, version)?;
    let expects_continue = expects_continue(&headers)? && version == Version::HTTP_11;
    let keep_alive = match version {
        Version::HTTP_11 => !connection_has(&headers, "close"),
        _ => connection_has(&headers, "keep-alive"),
    };
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    let (upgrade, asks_upgrade) = match (upgrades.next(), upgrades.next()) {
        (None, _) => (None, false),
        (Some(one), None) if version == Version::HTTP_11 && connection_has(&headers, "upgrade") => {
            (Wanted::from_field(one), true)
        }
        _ => (None, true),
    };
    Ok(Head {
        method,
        uri,
        version,
        headers,
        framing,
        keep_alive,
        expects_continue,
        asks_upgrade,
        upgrade,
        raw: Arc::new(raw),
    })
}

/// Methods are capital letters, as all registered ones are: an origin that reads `get` as GET and a rule that
/// does not would differ.
pub(crate) fn check_method(method: &Method) -> Result<(), HeadFault> {
    match method {
        &Method::CONNECT => Err(HeadFault::Connect),
        &Method::TRACE => Err(HeadFault::Trace),
        other if other.as_str().bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_')) => Ok(()),
        _ => Err(HeadFault::Method),
    }
}

/// Whether the client waits for `100 Continue`; nobody knows how to meet any other expectation.
pub(crate) fn expects_continue(headers: &HeaderMap) -> Result<bool, HeadFault> {
    let mut expectations = headers.get_all(header::EXPECT).iter();
    if expectations.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        Ok(headers.contains_key(header::EXPECT))
    } else {
        Err(HeadFault::Expectation)
    }
}

/// Whether a line ends without CR: servers differ in whether that ends it (RFC 9112 §2.2).
fn has_bare_lf(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r')
}

fn fault(error: httparse::Error, bytes: &[u8]) -> HeadFault {
    match error {
        httparse::Error::TooManyHeaders => HeadFault::TooLarge,
        httparse::Error::Version => HeadFault::Version,
        httparse::Error::HeaderName if folds(bytes) => HeadFault::ObsFold,
        httparse::Error::HeaderName => HeadFault::HeaderName,
        httparse::Error::HeaderValue if folds(bytes) => HeadFault::ObsFold,
        httparse::Error::HeaderValue => HeadFault::HeaderValue,
        httparse::Error::NewLine => HeadFault::BareCr,
        _ => HeadFault::RequestLine,
    }
}

/// Whether a line begins with white space.
fn folds(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| matches!(bytes.get(at + 1), Some(b' ' | b'\t')))
}

fn header_map(raw: &RawHead, bytes: &Bytes) -> Result<HeaderMap, HeadFault> {
    // httparse takes a CR that is followed by LF; a CR anywhere else never gets here, and neither does
    // NUL. White space around values is gone already.
    let mut headers = HeaderMap::with_capacity(raw.headers.len() + 8);
    for (name, value) in &raw.headers {
        let name = HeaderName::from_bytes(name).map_err(|_| HeadFault::HeaderName)?;
        let value =
            HeaderValue::from_maybe_shared(bytes.slice_ref(value)).map_err(|_| HeadFault::HeaderValue)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The one Host field. HTTP/1.0 may leave it out, but here it says whose request this is.
fn host(headers: &HeaderMap) -> Result<&[u8], HeadFault> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => Err(HeadFault::MissingHost),
        (Some(_), Some(_)) => Err(HeadFault::DuplicateHost),
        (Some(host), None) if is_host(host.as_bytes()) => Ok(host.as_bytes()),
        (Some(_), None) => Err(HeadFault::MalformedHost),
    }
}

/// The one form of target that CONNECT may have (RFC 9112 §3.2.3).
fn is_host_and_port(target: &[u8]) -> bool {
    is_host(target) && target.contains(&b':') && target.last().is_some_and(u8::is_ascii_digit)
}

/// Whether this is `host[:port]` as we serve it: a DNS name, an IPv4 address or a bracketed IPv6 one.
pub fn is_host(text: &[u8]) -> bool {
    let (name, port) = match text {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            if !std::str::from_utf8(&rest[..end]).is_ok_and(|inner| inner.parse::<Ipv6Addr>().is_ok()) {
                return false;
            }
            (&b"v6"[..], rest.get(end + 1..).unwrap_or_default())
        }
        _ => text.split_at(memchr::memchr(b':', text).unwrap_or(text.len())),
    };
    let name_good = !name.is_empty()
        && name.len() <= 255
        && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let port_good = match port {
        [] => true,
        [b':', digits @ ..] => {
            (1..=5).contains(&digits.len())
                && digits.iter().all(u8::is_ascii_digit)
                && digits.iter().fold(0_u32, |n, d| n * 10 + u32::from(d - b'0')) <= 65_535
        }
        _ => false,
    };
    name_good && port_good
}

/// The target as path and query. An absolute target must name the host of the Host field.
fn uri(target: &[u8], method: &Method, host: &[u8]) -> Result<Uri, HeadFault> {
    if target == b"*" {
        return if *method == Method::OPTIONS { Ok(Uri::from_static("*")) } else { Err(HeadFault::Target) };
    }
    if target.first() == Some(&b'/') {
        return path_and_query(target);
    }
    let lower = target.get(..8).unwrap_or(target).to_ascii_lowercase();
    let rest = if lower.starts_with(b"http://") {
        &target[7..]
    } else if lower.starts_with(b"https://") {
        &target[8..]
    } else {
        return Err(HeadFault::Target);
    };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !host.eq_ignore_ascii_case(authority) {
        return Err(HeadFault::TargetHost);
    }
    match path.first() {
        Some(b'/') => path_and_query(path),
        _ => path_and_query(&[b"/", path].concat()),
    }
}

/// What the URI grammar does not know is percent-encoded; the raw target keeps the original.
fn path_and_query(target: &[u8]) -> Result<Uri, HeadFault> {
    // A fragment never belongs into a request; who reads it as path and who does not would differ.
    if target.contains(&b'#') {
        return Err(HeadFault::Target);
    }
    let foreign =
        |b: &u8| matches!(b, b'"' | b'<' | b'>' | b'`' | b'{' | b'}' | b'\\' | b'^' | b'|') || *b >= 0x7f;
    let path = if target.iter().any(foreign) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let mut encoded = Vec::with_capacity(target.len() + 32);
        for b in target {
            if foreign(b) {
                encoded.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            } else {
                encoded.push(*b);
            }
        }
        PathAndQuery::from_maybe_shared(Bytes::from(encoded))
    } else {
        PathAndQuery::try_from(target)
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path.map_err(|_| HeadFault::Target)?);
    Uri::from_parts(parts).map_err(|_| HeadFault::Target)
}

/// How the body is framed. The length is written anew as a plain number, since some read `010` as eight.
fn framing(headers: &mut HeaderMap, version: Version) -> Result<Framing, HeadFault> {
    let framing = said_framing(headers, version)?;
    if let Some(said) = headers.get_mut(header::CONTENT_LENGTH)
        && said.len() > 1
        && said.as_bytes()[0] == b'0'
    {
        let length = if let Framing::Length(length) = framing { length } else { 0 };
        *said = HeaderValue::from(length);
    }
    Ok(framing)
}

pub(crate) fn said_framing(headers: &HeaderMap, version: Version) -> Result<Framing, HeadFault> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lengths.next(), encodings.next()) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(HeadFault::BothLengths),
        (Some(length), None) => {
            let digits = length.as_bytes();
            let plain = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
            if !plain || lengths.next().is_some() {
                return Err(HeadFault::ContentLength);
            }
            Ok(match digits.iter().fold(0_u64, |n, d| n * 10 + u64::from(d - b'0')) {
                0 => Framing::None,
                length => Framing::Length(length),
            })
        }
        (None, Some(encoding)) => {
            let chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !chunked || encodings.next().is_some() || version != Version::HTTP_11 {
                return Err(HeadFault::TransferEncoding);
            }
            Ok(Framing::Chunked)
        }
    }
}

pub(crate) fn connection_has(headers: &HeaderMap, word: &str) -> bool {
    list(headers, header::CONNECTION).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(head: &str) -> Result<Head, HeadFault> {
        parse(&Bytes::copy_from_slice(head.as_bytes()), &Limits::default())
    }

    #[test]
    fn each_ambiguous_head_is_refused_for_its_reason() {
        let refuse = |lines: &str, fault| {
            let head = format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n");
            assert_eq!(read(&head).err(), Some(fault), "{lines:?}");
        };
        refuse("A: b", HeadFault::MissingHost);
        refuse("Host: a\r\nHost: a", HeadFault::DuplicateHost);
        refuse("Host: a\r\nhost: b", HeadFault::DuplicateHost);
        for host in ["", "a b", "a/b", "a@b", "a:x", "a:99999", "[::1", "a,b", "a:1:2", "[]"] {
            refuse(&format!("Host: {host}"), HeadFault::MalformedHost);
        }
        for length in ["+5", "-1", "0x5", "5, 5", "5 5", "", "9999999999999999999"] {
            refuse(&format!("Host: a\r\nContent-Length: {length}"), HeadFault::ContentLength);
        }
        refuse("Host: a\r\nContent-Length: 5\r\nContent-Length: 5", HeadFault::ContentLength);
        refuse("Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", HeadFault::BothLengths);
        refuse("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", HeadFault::BothLengths);
        for encoding in ["identity, chunked", "chunked, identity", "gzip", "chunked, chunked", "xchunked"] {
            refuse(&format!("Host: a\r\nTransfer-Encoding: {encoding}"), HeadFault::TransferEncoding);
        }
        refuse("Host: a\r\nA: b\r\n folded", HeadFault::ObsFold);
        refuse("Host: a\r\nA : b", HeadFault::HeaderName);
        refuse("Host: a\r\nno colon", HeadFault::HeaderName);
        refuse("Host: a\r\nA: b\0c", HeadFault::HeaderValue);
        refuse("Host: a\r\nA: b\rc", HeadFault::HeaderValue);
        refuse("Host: a\r\nExpect: tea", HeadFault::Expectation);
        refuse("Host: a\r\nExpect: 100-continue\r\nExpect: tea", HeadFault::Expectation);
        refuse("Host: a\nA: b", HeadFault::BareLf);
        for host in
            ["", "a b", "a,b", "a:", "a:b", "a:70000", "u@a", "a/b", "[::1", "[:::]", "[1.2.3.4]", "[::1]x"]
        {
            refuse(&format!("Host: {host}"), HeadFault::MalformedHost);
        }
    }

    #[test]
    fn request_lines_have_one_form() {
        let check = |line: &str, fault| {
            assert_eq!(read(&format!("{line}\r\nHost: a\r\n\r\n")).err(), fault, "{line}");
        };
        check("GET / HTTP/1.1", None);
        check("GET / HTTP/1.2", Some(HeadFault::Version));
        check("GET / HTTP/2.0", Some(HeadFault::Version));
        check("GET http://a/x HTTP/1.1", None);
        check("GET http://b/x HTTP/1.1", Some(HeadFault::TargetHost));
        check("GET http://a@b/ HTTP/1.1", Some(HeadFault::TargetHost));
        check("GET x HTTP/1.1", Some(HeadFault::Target));
        check("GET * HTTP/1.1", Some(HeadFault::Target));
        check("GET /x#f HTTP/1.1", Some(HeadFault::Target));
        check("OPTIONS * HTTP/1.1", None);
        check("CONNECT a:443 HTTP/1.1", Some(HeadFault::Connect));
        check("TRACE / HTTP/1.1", Some(HeadFault::Trace));
        check("get / HTTP/1.1", Some(HeadFault::Method));
        check("M-SEARCH / HTTP/1.1", None);
    }

    #[test]
    fn raw_targets_reach_us_normalised_and_in_the_original() {
        let head = read("GET /a<b>?q=\"x\" HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(head.uri, "/a%3Cb%3E?q=%22x%22");
        assert_eq!(&head.raw.target[..], b"/a<b>?q=\"x\"");
    }

    #[test]
    fn http_1_0_closes_and_has_no_transfer_encoding() {
        let head = read("GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
        assert!(!head.keep_alive);
        assert_eq!(read("GET / HTTP/1.0\r\n\r\n").err(), Some(HeadFault::MissingHost));
        let chunked = read("GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(chunked.err(), Some(HeadFault::TransferEncoding));
    }

    #[test]
    fn a_length_is_passed_on_as_a_plain_number() {
        for (said, told) in [("010", "10"), ("000", "0"), ("7", "7")] {
            let head =
                read(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {said}\r\n\r\n")).unwrap();
            assert_eq!(head.headers["content-length"], told);
        }
    }

    #[test]
    fn the_end_of_a_head_is_found_across_reads_and_line_ends() {
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\n\r\nx", 0), Some(18));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\n\nx", 15), Some(16));
        assert_eq!(end_of_head(b"GET / HTTP/1.1\r\n\r", 0), None);
        assert_eq!(skip_empty_lines(b"\r\n\r\nGET"), 4);
        assert_eq!(skip_empty_lines(b"\nGET"), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes.into(), &Limits::default());
        }
        #[test]
        fn a_head_that_passes_reads_the_same_when_written_again(
            path in "/[a-z%<>\"0-9]{0,20}", name in "x-[a-z]{1,8}", value in "[ -~]{0,20}", length in proptest::option::of(0_u32..9999)
        ) {
            let length = length.map(|n| format!("Content-Length: {n}\r\n")).unwrap_or_default();
            let Ok(head) = read(&format!("POST {path} HTTP/1.1\r\nHost: a\r\n{length}{name}: {value}\r\n\r\n")) else { return Ok(()) };
            let mut again = format!("{} {} HTTP/1.1\r\n", head.method, head.uri).into_bytes();
            for (name, value) in &head.headers {
                again.extend_from_slice(name.as_str().as_bytes());
                again.extend_from_slice(b": ");
                again.extend_from_slice(value.as_bytes());
                again.extend_from_slice(b"\r\n");
            }
            again.extend_from_slice(b"\r\n");
            let second = parse(&again.into(), &Limits::default()).unwrap();
            prop_assert_eq!(head.uri, second.uri);
            prop_assert_eq!(head.headers, second.headers);
            prop_assert_eq!(head.framing, second.framing);
        }
    }
}
