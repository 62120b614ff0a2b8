//! `Cache-Control` (RFC 9111 §5.2), read as leniently as the RFC asks and no further.

use http::{HeaderMap, header};

/// Directives of one message. A lifetime that is there but not valid counts as 0: stale.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `max-age`, in seconds.
    pub max_age: Option<u64>,
    /// `s-maxage`, in seconds.
    pub s_maxage: Option<u64>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, with or without fields.
    pub no_cache: bool,
    /// `private`, with or without fields.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `only-if-cached` (request).
    pub only_if_cached: bool,
    /// `min-fresh` (request), in seconds.
    pub min_fresh: Option<u64>,
}

impl CacheControl {
    /// Reads all `Cache-Control` lines of a message as one list.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        for line in headers.get_all(header::CACHE_CONTROL) {
            for member in members(line.as_bytes()) {
                control.apply(member);
            }
        }
        control
    }

    fn apply(&mut self, member: &[u8]) {
        let (name, value) = match member.iter().position(|b| *b == b'=') {
            Some(at) => (&member[..at], Some(&member[at + 1..])),
            None => (member, None),
        };
        // The first of several counts; for flags there is no difference.
        let first = |slot: &mut Option<u64>| {
            slot.get_or_insert_with(|| value.and_then(seconds).unwrap_or(0));
        };
        match name.to_ascii_lowercase().as_slice() {
            b"max-age" => first(&mut self.max_age),
            b"s-maxage" => first(&mut self.s_maxage),
            b"min-fresh" => first(&mut self.min_fresh),
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = true,
            b"private" => self.private = true,
            b"public" => self.public = true,
            b"must-revalidate" | b"proxy-revalidate" => self.must_revalidate = true,
            b"only-if-cached" => self.only_if_cached = true,
            _ => {}
        }
    }
}

/// Members of a list; commas inside quotes do not split.
fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.iter().position(|b| {
            match b {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => return true,
                _ => {}
            }
            false
        });
        let (member, after) = match end {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        rest = after;
        Some(member.trim_ascii())
    })
    .filter(|member| !member.is_empty())
}

/// delta-seconds (§1.2.2): digits only, as a token or quoted; what overflows saturates.
pub(crate) fn seconds(value: &[u8]) -> Option<u64> {
    let digits = match value {
        [b'"', inner @ .., b'"'] => inner,
        plain => plain,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0_u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0')))
            .min(1 << 31),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn read(lines: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        CacheControl::read(&headers)
    }

    #[test]
    fn directives_are_read_in_any_spelling_and_over_lines() {
        let control = read(&["Max-Age=\"60\", public", "S-MAXAGE=007,,no-cache=\"a, max-age=1\""]);
        assert_eq!((control.max_age, control.s_maxage), (Some(60), Some(7)));
        assert!(control.public && control.no_cache);
    }

    #[test]
    fn invalid_lifetimes_are_stale_and_the_first_counts() {
        for invalid in
            ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age= 1", "max-age=1s", "max-age=+1"]
        {
            assert_eq!(read(&[invalid]).max_age, Some(0), "{invalid}");
        }
        assert_eq!(read(&["max-age=1, max-age=2"]).max_age, Some(1));
        assert_eq!(read(&["max-age=99999999999999999999999"]).max_age, Some(1 << 31));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0x20_u8..0x7f, 0..80)) {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_bytes(&bytes).unwrap());
            CacheControl::read(&headers);
        }
    }
}
