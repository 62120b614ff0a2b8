//! Reading the head of an answer: exactly one meaning, or the answer is broken (RFC 9112).

use super::head::{Framing, connection_has, said_framing};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use std::mem::MaybeUninit;

/// Most fields of an answer.
const FIELDS_MAX: usize = 100;

/// The head of an answer.
#[derive(Debug)]
pub struct AnswerHead {
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub headers: HeaderMap,
    /// How its body is framed.
    pub body: AnswerBody,
    /// Whether the connection may carry another request once the body has ended.
    pub keep_alive: bool,
}

/// How the body of an answer is framed (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerBody {
    /// By itself.
    Framed(Framing),
    /// By the end of the connection.
    UntilClose,
}

/// Why an answer has no one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// It does not begin with `HTTP/1.x` and a status.
    #[error("the answer has no status line")]
    StatusLine,
    /// A field has a name or value that cannot be one.
    #[error("the answer has a malformed field")]
    Field,
    /// Too many bytes or fields.
    #[error("the head of the answer is too large")]
    TooLarge,
    /// Nobody can say how long its body is.
    #[error("the answer says in no one way how long it is")]
    Length,
    /// Bytes came that nothing was asked for.
    #[error("the peer sent what nobody asked for")]
    Unasked,
}

/// Reads a whole head of an answer to a request with this method.
///
/// # Errors
/// The first [`AnswerFault`] found.
pub fn parse(bytes: &Bytes, method: &Method) -> Result<AnswerHead, AnswerFault> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut answer, bytes, &mut fields) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        // Both ways of finding the end must agree, or the rest would be read as something else.
        Ok(_) => return Err(AnswerFault::StatusLine),
        Err(error) => return Err(fault(error)),
    }
    let version = if answer.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(AnswerFault::StatusLine)?;
    let mut headers = HeaderMap::with_capacity(answer.headers.len() + 8);
    for field in answer.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| AnswerFault::Field)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        headers.append(name, value.map_err(|_| AnswerFault::Field)?);
    }
    let body = body(status, &headers, version, method)?;
    let closes = version != Version::HTTP_11 || connection_has(&headers, "close");
    Ok(AnswerHead { status, headers, body, keep_alive: !closes && body != AnswerBody::UntilClose })
}

fn fault(error: httparse::Error) -> AnswerFault {
    match error {
        httparse::Error::TooManyHeaders => AnswerFault::TooLarge,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => AnswerFault::Field,
        _ => AnswerFault::StatusLine,
    }
}

fn body(
    status: StatusCode,
    headers: &HeaderMap,
    version: Version,
    method: &Method,
) -> Result<AnswerBody, AnswerFault> {
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if status.is_informational() || bodiless || method == Method::HEAD {
        return Ok(AnswerBody::Framed(Framing::None));
    }
    match said_framing(headers, version).map_err(|_| AnswerFault::Length)? {
        Framing::None if !headers.contains_key(header::CONTENT_LENGTH) => Ok(AnswerBody::UntilClose),
        framing => Ok(AnswerBody::Framed(framing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(head: &str, method: Method) -> Result<AnswerHead, AnswerFault> {
        parse(&Bytes::copy_from_slice(head.as_bytes()), &method)
    }

    fn framed(head: &str) -> Result<(AnswerBody, bool), AnswerFault> {
        read(&format!("HTTP/1.1 {head}\r\n\r\n"), Method::GET).map(|head| (head.body, head.keep_alive))
    }

    #[test]
    fn the_length_is_known_in_one_way_or_the_answer_is_broken() {
        use AnswerBody::{Framed, UntilClose};
        assert_eq!(framed("200 OK\r\nContent-Length: 5"), Ok((Framed(Framing::Length(5)), true)));
        assert_eq!(framed("200\r\nContent-Length: 0"), Ok((Framed(Framing::None), true)));
        assert_eq!(framed("200 OK\r\nTransfer-Encoding: Chunked"), Ok((Framed(Framing::Chunked), true)));
        assert_eq!(framed("200 OK"), Ok((UntilClose, false)));
        assert_eq!(framed("204 No\r\nContent-Length: 5"), Ok((Framed(Framing::None), true)));
        assert_eq!(framed("304 No\r\nTransfer-Encoding: chunked"), Ok((Framed(Framing::None), true)));
        assert_eq!(framed("103 Early\r\nLink: x"), Ok((Framed(Framing::None), true)));
        for broken in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: -1",
            "Content-Length:",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            assert_eq!(framed(&format!("200 OK\r\n{broken}")), Err(AnswerFault::Length), "{broken}");
        }
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(old, Method::GET).err(), Some(AnswerFault::Length));
    }

    #[test]
    fn an_answer_to_head_has_no_body_whatever_it_says() {
        let head = read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::HEAD).unwrap();
        assert_eq!((head.body, head.keep_alive), (AnswerBody::Framed(Framing::None), true));
        assert_eq!(head.headers["content-length"], "5");
    }

    #[test]
    fn a_peer_that_closes_is_believed() {
        assert!(!framed("200 OK\r\nConnection: x, Close\r\nContent-Length: 1").unwrap().1);
        let old = read("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n", Method::GET);
        assert!(!old.unwrap().keep_alive);
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        for line in ["", "HTTP/2 200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 099 OK", "ICY 200 OK", "HTTP/1.1 OK"] {
            assert_eq!(
                read(&format!("{line}\r\nA: b\r\n\r\n"), Method::GET).err(),
                Some(AnswerFault::StatusLine)
            );
        }
        for field in ["A : b", "no colon", "A: b\r\n folded", "A: b\0c", "A\u{e9}: b"] {
            assert_eq!(framed(&format!("200 OK\r\n{field}")), Err(AnswerFault::Field), "{field:?}");
        }
        let many = "A: b\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(
            read(&format!("HTTP/1.1 200 OK\r\n{many}\r\n"), Method::GET).err(),
            Some(AnswerFault::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes.into(), &Method::GET);
        }
        #[test]
        fn no_answer_panics(line in "HTTP/1\\.[01] [0-9]{3}[ -~]{0,9}", fields in "([a-zA-Z-]{1,17}: ?[ -~]{0,12}\r\n){0,5}") {
            let _ = parse(&format!("{line}\r\n{fields}\r\n").into(), &Method::GET);
        }
    }
}
