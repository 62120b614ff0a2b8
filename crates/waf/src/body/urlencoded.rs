//! `name=value&name=value`.

use super::Pair;
use crate::transform::url_decode;

/// Reads at most `most` pairs; true when there were more.
pub(crate) fn parse(text: &[u8], most: usize) -> (Vec<Pair>, bool) {
    let mut pairs = Vec::new();
    for pair in text.split(|b| *b == b'&') {
        if pair.is_empty() {
            continue;
        }
        if pairs.len() >= most {
            return (pairs, true);
        }
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        pairs.push((url_decode(name, false), url_decode(value, false)));
    }
    (pairs, false)
}
