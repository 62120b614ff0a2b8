//! A request's head before anything was normalised: what the WAF must see.

use crate::{HeadFault, Peer};
use bytes::Bytes;
use http::{StatusCode, Version};
use std::sync::Arc;

/// A head in its original spelling; in the extensions of every request as `Arc<RawHead>`.
#[derive(Debug, Clone)]
pub struct RawHead {
    /// Method.
    pub method: Bytes,
    /// Request target, exactly as sent.
    pub target: Bytes,
    /// Version.
    pub version: Version,
    /// Fields in order, names and values exactly as sent. In HTTP/2 the authority stands as `host`.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The bytes of the head (HTTP/1).
    pub bytes: Option<Bytes>,
}

/// A head that is refused.
#[derive(Debug, Clone)]
pub struct RefusedHead {
    /// Who sent it.
    pub peer: Arc<Peer>,
    /// As much as could be read of it.
    pub raw: RawHead,
    /// Its bytes, up to the limit.
    pub bytes: Bytes,
    /// Status of the answer.
    pub status: StatusCode,
    /// What is wrong with it.
    pub reason: HeadFault,
}

impl RawHead {
    /// The protocol as the request line names it; `HTTP/0.9` when it names none.
    pub fn protocol(&self) -> &[u8] {
        let named = self.bytes.as_deref().map(|bytes| {
            let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            line.splitn(3, |b| *b == b' ').nth(2).unwrap_or_default()
        });
        match (named, self.version) {
            (Some(b""), _) => b"HTTP/0.9",
            (Some(named), _) => named,
            (None, Version::HTTP_2) => b"HTTP/2.0",
            (None, Version::HTTP_10) => b"HTTP/1.0",
            (None, _) => b"HTTP/1.1",
        }
    }

    /// Reads what can be read of a head that is not valid: lines at LF, names before the first colon.
    pub fn salvage(bytes: &Bytes) -> Self {
        let mut lines = bytes.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let first = lines.next().unwrap_or_default();
        let mut words = first.splitn(3, |b| *b == b' ');
        let method = words.next().unwrap_or_default();
        let target = words.next().unwrap_or_default();
        let headers = lines
            .take_while(|line| !line.is_empty())
            .take(200)
            .map(|line| {
                let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
                let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
                (bytes.slice_ref(&line[..colon]), bytes.slice_ref(value))
            })
            .collect();
        Self {
            method: bytes.slice_ref(method),
            target: bytes.slice_ref(target),
            version: Version::HTTP_11,
            headers,
            bytes: Some(bytes.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_broken_head_still_shows_its_parts() {
        let head =
            RawHead::salvage(&Bytes::from_static(b"GET /?q=<x> HTTP/9\r\nHost: a\r\nno colon\r\n\r\n"));
        assert_eq!((&head.method[..], &head.target[..]), (&b"GET"[..], &b"/?q=<x>"[..]));
        assert_eq!(head.headers.len(), 2);
        assert_eq!(&head.headers[0].1[..], b"a");
        assert_eq!(head.protocol(), b"HTTP/9");
        assert_eq!(RawHead::salvage(&Bytes::from_static(b"GET / \r\n\r\n")).protocol(), b"HTTP/0.9");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            RawHead::salvage(&bytes.into());
        }
    }
}
