//! `Cache-Control` (RFC 9111 §5.2), read as leniently as the RFC asks and no further.

use http::{HeaderMap, HeaderName, header};

/// Most seconds that a directive can say; more saturates (RFC 9111 §1.2.2).
pub const SECONDS_MAX: u64 = 1 << 31;

/// Directives of one message. A lifetime that is there but not valid counts as 0: stale.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `max-age`, in seconds.
    pub max_age: Option<u64>,
    /// `s-maxage`, in seconds.
    pub s_maxage: Option<u64>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`.
    pub no_cache: Named,
    /// `private`.
    pub private: Named,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `stale-while-revalidate`, in seconds (RFC 5861 §3).
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error`, in seconds (RFC 5861 §4).
    pub stale_if_error: Option<u64>,
    /// `only-if-cached` (request).
    pub only_if_cached: bool,
    /// `min-fresh` (request), in seconds.
    pub min_fresh: Option<u64>,
    /// `max-stale` (request), in seconds; without an argument any staleness will do.
    pub max_stale: Option<u64>,
}

/// What a directive that may name fields applies to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Named {
    /// The directive is not there.
    #[default]
    No,
    /// These fields.
    Fields(Vec<HeaderName>),
    /// The whole response.
    All,
}

impl Named {
    /// Whether it is there and names no fields.
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// The fields that it names.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(fields) => fields,
            Self::No | Self::All => &[],
        }
    }

    /// Adds another occurrence: the stricter one wins, names add up.
    pub(crate) fn add(&mut self, names: Option<&[u8]>) {
        let names = names.and_then(field_names);
        match (&mut *self, names) {
            (Self::All, _) | (_, None) => *self = Self::All,
            (Self::Fields(own), Some(names)) => own.extend(names),
            (Self::No, Some(names)) => *self = Self::Fields(names),
        }
    }
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
        // A space beside the `=` makes the argument invalid, not the directive unknown.
        let spaced = name.ends_with(b" ") || name.ends_with(b"\t");
        let value = if spaced { value.map(|_| &b" "[..]) } else { value };
        // The first of several counts; for flags there is no difference.
        let first = |slot: &mut Option<u64>| {
            slot.get_or_insert_with(|| value.and_then(seconds).unwrap_or(0));
        };
        let mut lower = [0; 24];
        let name = name.trim_ascii_end();
        let Some(lower) = lower.get_mut(..name.len()) else { return };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        match &*lower {
            b"max-age" => first(&mut self.max_age),
            b"s-maxage" => first(&mut self.s_maxage),
            b"min-fresh" => first(&mut self.min_fresh),
            b"stale-while-revalidate" => first(&mut self.stale_while_revalidate),
            b"stale-if-error" => first(&mut self.stale_if_error),
            b"max-stale" if value.is_none() => {
                self.max_stale.get_or_insert(u64::MAX);
            }
            b"max-stale" => first(&mut self.max_stale),
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache.add(value.map(unquoted).as_deref()),
            b"private" => self.private.add(value.map(unquoted).as_deref()),
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"no-transform" => self.no_transform = true,
            b"only-if-cached" => self.only_if_cached = true,
            _ => {}
        }
    }
}

/// Members of a list; commas inside quotes do not split.
pub(crate) fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
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
            .min(SECONDS_MAX),
    )
}

/// The text of a quoted string; anything else as it is.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let [b'"', inner @ .., b'"'] = value else { return value.to_vec() };
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => text.extend(bytes.next()),
            other => text.push(*other),
        }
    }
    text
}

/// A list of field names; `None` when it is empty or one of them is none: then all fields are meant.
fn field_names(text: &[u8]) -> Option<Vec<HeaderName>> {
    let names = text.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
    let names: Vec<_> = names.map(HeaderName::from_bytes).collect::<Result<_, _>>().ok()?;
    (!names.is_empty()).then_some(names)
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
        let control =
            read(&["Max-Age=\"60\", public", "S-MAXAGE=007,,no-cache=\"a, max-age=1\", ,\tNO-store"]);
        assert_eq!((control.max_age, control.s_maxage), (Some(60), Some(7)));
        assert!(control.public && control.no_store);
        assert!(control.no_cache.is_all(), "`max-age=1` is no field name: all are meant");
    }

    #[test]
    fn quotes_hide_commas_and_equal_signs_and_may_be_escaped() {
        let control = read(&["ext=\"no-store, \\\", max-age=9\", max-age=5, x='no-store"]);
        assert_eq!((control.max_age, control.no_store), (Some(5), false));
        assert_eq!(read(&["extension=\"max-age=3600\", max-age=1"]).max_age, Some(1));
        assert_eq!(read(&["max-age='3600'"]).max_age, Some(0), "an apostrophe is no quote");
    }

    #[test]
    fn invalid_lifetimes_are_stale_and_the_first_counts() {
        for invalid in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=1.5",
            "max-age=3600.0",
            "max-age= 1",
            "max-age =1",
            "max-age\t=1",
            "max-age=1s",
            "max-age=a1",
            "max-age=+1",
            "max-age=\"1",
            "max-age=\"\"",
            "max-age=\" 1\"",
            "max-age=0x10",
            "max-age=1 0",
        ] {
            assert_eq!(read(&[invalid]).max_age, Some(0), "{invalid}");
        }
        assert_eq!(read(&["max-age=1, max-age=2"]).max_age, Some(1));
        assert_eq!(read(&["max-age=x", "max-age=2"]).max_age, Some(0));
        assert_eq!(read(&["max-age=003600"]).max_age, Some(3600));
    }

    #[test]
    fn seconds_that_overflow_saturate() {
        for large in ["2147483648", "2147483649", "99999999999", "99999999999999999999999999"] {
            assert_eq!(read(&[&format!("max-age={large}")]).max_age, Some(SECONDS_MAX), "{large}");
        }
        assert_eq!(read(&["max-age=2147483647"]).max_age, Some(SECONDS_MAX - 1));
    }

    #[test]
    fn the_most_restrictive_of_conflicting_directives_wins() {
        let control = read(&["no-cache=\"a\", no-cache, private=\"b, C\""]);
        assert!(control.no_cache.is_all());
        assert_eq!(control.private.fields(), ["b", "c"].map(HeaderName::from_static));
        for all in ["private=\"\"", "private=\"a b\"", "private="] {
            assert!(read(&[all]).private.is_all(), "{all}");
        }
        assert_eq!(read(&["no-cache=set-cookie"]).no_cache.fields(), [header::SET_COOKIE]);
    }

    #[test]
    fn unknown_directives_say_nothing() {
        let known_max =
            read(&["foobar, x=\"y\", stale-while-revalidates=60, max-age2=1, xmax-age=1, immutable"]);
        assert_eq!(known_max, CacheControl::default());
        assert_eq!(read(&["a-very-long-name-of-an-unknown-directive=1, max-age=1"]).max_age, Some(1));
    }

    #[test]
    fn requests_and_stale_extensions_have_their_own() {
        let control =
            read(&["max-stale, min-fresh=5, only-if-cached, stale-if-error=3, stale-while-revalidate=x"]);
        assert_eq!((control.max_stale, control.min_fresh), (Some(u64::MAX), Some(5)));
        assert_eq!((control.stale_if_error, control.stale_while_revalidate), (Some(3), Some(0)));
        assert!(control.only_if_cached);
        assert_eq!(read(&["max-stale=7"]).max_stale, Some(7));
        assert_eq!(read(&["max-stale=x"]).max_stale, Some(0), "what is not understood allows nothing");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0x20_u8..0x7f, 0..80)) {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_bytes(&bytes).unwrap());
            CacheControl::read(&headers);
        }

        #[test]
        fn what_is_written_is_read_back(age in 0_u64..SECONDS_MAX, stale in 0_u64..SECONDS_MAX, quoted: bool, no_store: bool) {
            let quote = if quoted { "\"" } else { "" };
            let flag = if no_store { ", no-store" } else { "" };
            let control = read(&[&format!("s-maxage={quote}{age}{quote},ext=\"no-store,\"{flag}"), &format!("max-stale={stale}")]);
            prop_assert_eq!((control.s_maxage, control.max_stale, control.no_store), (Some(age), Some(stale), no_store));
        }
    }
}
