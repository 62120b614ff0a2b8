//! Ranges (RFC 9110 §14): which bytes a client asks for, and which ones an answer holds.

use http::{HeaderMap, header};

/// Most ranges that are answered one by one.
const RANGES_MAX: usize = 16;

/// One range as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    /// From the first to the last byte, both included.
    From(u64, u64),
    /// So many bytes at the end.
    Last(u64),
}

/// Ranges as asked; only `bytes` is a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges(Vec<Spec>);

/// What ranges come to for a length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// The whole, as if no range were asked for.
    Whole,
    /// These bytes, first to last, both included; at least one.
    Parts(Vec<(u64, u64)>),
    /// None of them lies within the length: 416.
    Unsatisfiable,
}

impl Ranges {
    /// Reads `Range`; `None` when there is none that counts: another unit, wrong syntax, several lines.
    pub fn read(asked: &HeaderMap) -> Option<Self> {
        let mut lines = asked.get_all(header::RANGE).iter();
        let line = lines.next()?.as_bytes();
        if lines.next().is_some() {
            return None;
        }
        let at = line.iter().position(|b| *b == b'=')?;
        if !line[..at].trim_ascii().eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let specs =
            line[at + 1..].split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|spec| !spec.is_empty());
        let specs: Vec<_> = specs.map(spec).collect::<Option<_>>()?;
        (!specs.is_empty()).then_some(Self(specs))
    }

    /// The bytes of a body of this length.
    ///
    /// Ranges that overlap or touch become one; more than 16 are not worth it and mean the whole.
    pub fn resolve(&self, length: u64) -> Resolved {
        if self.0.len() > RANGES_MAX {
            return Resolved::Whole;
        }
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for spec in &self.0 {
            let Some(mut part) = within(*spec, length) else { continue };
            // What it touches becomes part of it, at the place of the earlier one.
            while let Some(at) = parts.iter().position(|other| touches(*other, part)) {
                let other = parts.remove(at);
                part = (part.0.min(other.0), part.1.max(other.1));
            }
            parts.push(part);
        }
        if parts.is_empty() { Resolved::Unsatisfiable } else { Resolved::Parts(parts) }
    }
}

fn spec(text: &[u8]) -> Option<Spec> {
    let at = text.iter().position(|b| *b == b'-')?;
    let (first, last) = (&text[..at], &text[at + 1..]);
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => Some(Spec::Last(number(last)?)),
        (false, true) => Some(Spec::From(number(first)?, u64::MAX)),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::From(first, last))
        }
    }
}

fn within(spec: Spec, length: u64) -> Option<(u64, u64)> {
    let end = length.checked_sub(1)?;
    match spec {
        Spec::From(first, last) if first <= end => Some((first, last.min(end))),
        Spec::Last(count) if count > 0 => Some((length.saturating_sub(count), end)),
        Spec::From(..) | Spec::Last(_) => None,
    }
}

fn touches(one: (u64, u64), other: (u64, u64)) -> bool {
    one.0 <= other.1.saturating_add(1) && other.0 <= one.1.saturating_add(1)
}

/// Digits only; what overflows saturates.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0_u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0'))))
}

/// Which bytes of how many a 206 holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte.
    pub first: u64,
    /// Last byte, included.
    pub last: u64,
    /// Length of the whole.
    pub total: u64,
}

impl ContentRange {
    /// Reads `Content-Range`; `None` when it is not valid, or the length of the whole is not said.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(header::CONTENT_RANGE).iter();
        let line = lines.next()?.as_bytes();
        if lines.next().is_some() {
            return None;
        }
        let (unit, rest) = line.split_at_checked(line.iter().position(|b| *b == b' ')?)?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return None;
        }
        let rest = rest.trim_ascii();
        let slash = rest.iter().position(|b| *b == b'/')?;
        let dash = rest[..slash].iter().position(|b| *b == b'-')?;
        let (first, last) = (number(&rest[..dash])?, number(&rest[dash + 1..slash])?);
        let total = number(&rest[slash + 1..])?;
        (first <= last && last < total && total < u64::MAX).then_some(Self { first, last, total })
    }

    /// Bytes that it spans.
    pub fn length(self) -> u64 {
        self.last - self.first + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn map(name: http::HeaderName, value: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(name, HeaderValue::from_str(value).unwrap());
        map
    }

    fn check(range: &str, length: u64, expected: Option<Resolved>) {
        let found = Ranges::read(&map(header::RANGE, range)).map(|ranges| ranges.resolve(length));
        assert_eq!(found, expected, "{range} of {length}");
    }

    #[test]
    fn ranges_are_clamped_and_never_overflow() {
        let parts = |parts: &[(u64, u64)]| Some(Resolved::Parts(parts.to_vec()));
        check("bytes=0-1", 11, parts(&[(0, 1)]));
        check("bytes=1-", 11, parts(&[(1, 10)]));
        check("bytes=-1", 11, parts(&[(10, 10)]));
        check("bytes=-99", 11, parts(&[(0, 10)]));
        check("bytes=5-99999999999999999999999999", 11, parts(&[(5, 10)]));
        check("Bytes = 0-0 , ,-1", 11, parts(&[(0, 0), (10, 10)]));
        check("bytes=11-", 11, Some(Resolved::Unsatisfiable));
        check("bytes=-0", 11, Some(Resolved::Unsatisfiable));
        check("bytes=99999999999999999999999999-", 11, Some(Resolved::Unsatisfiable));
        check("bytes=0-", 0, Some(Resolved::Unsatisfiable));
        check("bytes=-5", 0, Some(Resolved::Unsatisfiable));
        check("bytes=20-, 3-4", 11, parts(&[(3, 4)]));
    }

    #[test]
    fn what_is_no_range_of_bytes_is_ignored() {
        for wrong in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "items=0-1",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=-",
            "bytes=1",
            "bytes=0-1,x",
            "bytes=+1-2",
            "bytes=0 - 1",
            "bytes 0-1",
        ] {
            check(wrong, 11, None);
        }
        let mut twice = map(header::RANGE, "bytes=0-1");
        twice.append(header::RANGE, HeaderValue::from_static("bytes=2-3"));
        assert_eq!(Ranges::read(&twice), None);
    }

    #[test]
    fn ranges_that_overlap_become_one_and_too_many_mean_the_whole() {
        check("bytes=0-4,2-6", 11, Some(Resolved::Parts(vec![(0, 6)])));
        check("bytes=0-1,2-3", 11, Some(Resolved::Parts(vec![(0, 3)])));
        check("bytes=8-9,0-1,1-8", 11, Some(Resolved::Parts(vec![(0, 9)])));
        check("bytes=8-9,0-1", 11, Some(Resolved::Parts(vec![(8, 9), (0, 1)])));
        check(&format!("bytes={}", vec!["0-0"; 17].join(",")), 11, Some(Resolved::Whole));
    }

    #[test]
    fn content_range_is_exact_or_nothing() {
        let read = |text: &str| ContentRange::read(&map(header::CONTENT_RANGE, text));
        assert_eq!(read("bytes 4-9/10"), Some(ContentRange { first: 4, last: 9, total: 10 }));
        assert_eq!(read("bytes 4-9/10").unwrap().length(), 6);
        for wrong in [
            "",
            "bytes",
            "bytes 4-9/*",
            "bytes */10",
            "bytes 9-4/10",
            "bytes 4-10/10",
            "items 4-9/10",
            "bytes=4-9/10",
            "bytes 4-9",
            "bytes 4-9/10 x",
            "bytes 0-0/99999999999999999999999",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn parts_lie_within_the_length_and_apart(range in "bytes=([0-9]{0,20}-[0-9]{0,20},?){0,18}", length: u64) {
            if let Some(ranges) = Ranges::read(&map(header::RANGE, &range)) && let Resolved::Parts(parts) = ranges.resolve(length) {
                prop_assert!(!parts.is_empty());
                for (at, (first, last)) in parts.iter().enumerate() {
                    prop_assert!(first <= last && *last < length);
                    for other in &parts[at + 1..] {
                        prop_assert!(!touches((*first, *last), *other));
                    }
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0x20_u8..0x7f, 0..40), length: u64) {
            let mut headers = HeaderMap::new();
            for name in [header::RANGE, header::CONTENT_RANGE] {
                headers.insert(name, HeaderValue::from_bytes(&bytes).unwrap());
            }
            let _ = Ranges::read(&headers).map(|ranges| ranges.resolve(length));
            let _ = ContentRange::read(&headers);
        }
    }
}
