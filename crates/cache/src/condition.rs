//! Validators and conditions (RFC 9110 §8.8, §13): what a client says that it has.

use crate::{Moment, control::members, date};
use http::{HeaderMap, HeaderValue, header};

/// What tells one version of a response from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// Entity tag, as it was sent.
    pub etag: Option<HeaderValue>,
    /// Seconds since 1970.
    pub last_modified: Option<i64>,
    /// The same, as it was sent.
    pub last_modified_text: Option<HeaderValue>,
    /// When the response was generated.
    pub date: i64,
}

impl Validators {
    /// Validators of a response.
    pub fn of(headers: &HeaderMap, received: Moment) -> Self {
        let last_modified = date::read(headers, &header::LAST_MODIFIED, received.wall_s());
        let text = headers.get(header::LAST_MODIFIED).filter(|_| last_modified.is_some());
        Self {
            etag: headers.get(header::ETAG).filter(|tag| !tag.is_empty()).cloned(),
            last_modified,
            last_modified_text: text.cloned(),
            date: crate::freshness::generated(headers, received),
        }
    }

    /// The entity tag, if it is one that means the same bytes.
    pub fn strong_etag(&self) -> Option<&HeaderValue> {
        self.etag.as_ref().filter(|tag| is_strong(tag.as_bytes()))
    }

    /// Whether there is anything to validate with.
    pub fn is_any(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }

    /// Whether `Last-Modified` means the same bytes: the origin could not have changed it again within that
    /// second (RFC 9110 §8.8.2.2).
    pub fn is_date_strong(&self) -> bool {
        self.last_modified.is_some_and(|modified| self.date > modified)
    }

    /// Whether both surely name the same bytes.
    pub fn same_bytes(&self, other: &Self) -> bool {
        match (&self.etag, &other.etag) {
            (Some(own), Some(other)) => is_strong(own.as_bytes()) && own == other,
            (None, None) => {
                self.is_date_strong() && other.is_date_strong() && self.last_modified == other.last_modified
            }
            _ => false,
        }
    }
}

/// Whether a tag is well-formed and not weak.
pub fn is_strong(tag: &[u8]) -> bool {
    matches!(tag, [b'"', inner @ .., b'"'] if !inner.contains(&b'"'))
}

/// Weak comparison (RFC 9110 §8.8.3.2): the opaque parts are the same.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    let opaque = |tag| <[u8]>::strip_prefix(tag, b"W/").unwrap_or(tag).to_vec();
    opaque(one) == opaque(other)
}

/// Tags of all `If-None-Match` lines.
pub fn if_none_match(asked: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    asked.get_all(header::IF_NONE_MATCH).iter().flat_map(|line| members(line.as_bytes()))
}

/// Whether the client's condition says that it has this response already (RFC 9111 §4.3.2): then the answer
/// is 304. `If-None-Match` beats `If-Modified-Since`; a date that is none is ignored.
pub fn is_known(asked: &HeaderMap, own: &Validators, now: Moment) -> bool {
    if asked.contains_key(header::IF_NONE_MATCH) {
        return if_none_match(asked)
            .any(|tag| tag == b"*" || own.etag.as_ref().is_some_and(|own| is_same(own.as_bytes(), tag)));
    }
    let since = date::read(asked, &header::IF_MODIFIED_SINCE, now.wall_s());
    since.is_some_and(|since| own.last_modified.unwrap_or(own.date) <= since)
}

/// Whether a request for a range still means this response (RFC 9110 §13.1.5): no `If-Range`, a strong tag
/// that is the same, or exactly a strong Last-Modified.
pub fn is_range_meant(asked: &HeaderMap, own: &Validators, now: Moment) -> bool {
    let mut lines = asked.get_all(header::IF_RANGE).iter();
    let Some(line) = lines.next() else { return true };
    if lines.next().is_some() {
        return false;
    }
    let text = line.as_bytes().trim_ascii();
    if text.starts_with(b"\"") || text.starts_with(b"W/") {
        return own.strong_etag().is_some_and(|own| own.as_bytes() == text);
    }
    let date = date::parse(text, now.wall_s());
    own.is_date_strong() && date.is_some() && date == own.last_modified
}

/// Whether the origin alone can answer: the condition protects against a lost update.
pub fn is_origins(asked: &HeaderMap) -> bool {
    asked.contains_key(header::IF_MATCH) || asked.contains_key(header::IF_UNMODIFIED_SINCE)
}

/// Whether the client sent a condition that a cache may answer.
pub fn has_own(asked: &HeaderMap) -> bool {
    asked.contains_key(header::IF_NONE_MATCH) || asked.contains_key(header::IF_MODIFIED_SINCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    const NOW: Moment = Moment { wall_ms: 1_795_564_800_000, steady_ms: 0 };

    fn day(offset: i64) -> String {
        date::value(NOW.wall_s() + offset).to_str().unwrap().to_owned()
    }

    fn map(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn own(fields: &[(HeaderName, &str)]) -> Validators {
        Validators::of(&map(fields), NOW)
    }

    #[test]
    fn entity_tags_are_compared_weakly_and_over_lines() {
        let check = |etag: &str, tags: &[&str], expected| {
            let fields: Vec<_> = tags.iter().map(|tag| (header::IF_NONE_MATCH, *tag)).collect();
            assert_eq!(
                is_known(&map(&fields), &own(&[(header::ETAG, etag)]), NOW),
                expected,
                "{etag} {tags:?}"
            );
        };
        check("\"a\"", &["\"a\""], true);
        check("\"a\"", &["W/\"a\""], true);
        check("W/\"a\"", &["\"a\""], true);
        check("\"a\"", &["\"1\", \"a\", \"2\""], true);
        check("\"a\"", &["\"1\"", "\"2\",\"a\""], true);
        check("\"a\"", &["*"], true);
        check("\"a,b\"", &["\"x\", \"a,b\""], true);
        check("\"a,b\"", &["\"a"], false);
        check("\"a\"", &["a"], false);
        check("\"a\"", &["\"A\""], false);
        check("\"abcdefü\"", &["\"abcdefü\""], true);
        check("\"a\"", &[""], false);
    }

    #[test]
    fn if_none_match_beats_if_modified_since() {
        let modified = (header::LAST_MODIFIED, &*day(-5000));
        let tagged = own(&[modified.clone(), (header::ETAG, "\"a\"")]);
        let old = (header::IF_MODIFIED_SINCE, &*day(-10_000));
        let new = (header::IF_MODIFIED_SINCE, &*day(0));
        assert!(is_known(&map(&[(header::IF_NONE_MATCH, "\"a\""), old.clone()]), &tagged, NOW));
        assert!(!is_known(&map(&[(header::IF_NONE_MATCH, "\"b\""), new.clone()]), &tagged, NOW));
        assert!(!is_known(&map(&[(header::IF_NONE_MATCH, "\"b\""), new]), &own(&[modified]), NOW));
    }

    #[test]
    fn if_modified_since_compares_with_last_modified_or_date_or_receipt() {
        let check = |fields: &[(HeaderName, &str)], since: &str, expected| {
            let asked = map(&[(header::IF_MODIFIED_SINCE, since)]);
            assert_eq!(is_known(&asked, &own(fields), NOW), expected, "{fields:?} {since}");
        };
        let modified = (header::LAST_MODIFIED, &*day(-3000));
        check(std::slice::from_ref(&modified), &day(-3000), true);
        check(std::slice::from_ref(&modified), &day(-2000), true);
        check(std::slice::from_ref(&modified), &day(-3001), false);
        check(std::slice::from_ref(&modified), "yesterday", false);
        check(&[(header::DATE, &day(-50))], &day(-50), true);
        check(&[(header::DATE, &day(-50))], &day(-51), false);
        check(&[], &day(0), true);
        check(&[], &day(-1), false);
    }

    #[test]
    fn if_range_wants_a_strong_validator_and_exactly_that() {
        let check = |fields: &[(HeaderName, &str)], range: &str, expected| {
            let asked = map(&[(header::IF_RANGE, range)]);
            assert_eq!(is_range_meant(&asked, &own(fields), NOW), expected, "{fields:?} {range}");
        };
        check(&[(header::ETAG, "\"a\"")], "\"a\"", true);
        check(&[(header::ETAG, "\"a\"")], "W/\"a\"", false);
        check(&[(header::ETAG, "W/\"a\"")], "W/\"a\"", false);
        check(&[(header::ETAG, "\"a\"")], "\"b\"", false);
        check(&[], "\"b\"", false);
        let modified = (header::LAST_MODIFIED, &*day(-60));
        check(std::slice::from_ref(&modified), &day(-60), true);
        check(std::slice::from_ref(&modified), &day(-59), false);
        check(&[(header::LAST_MODIFIED, &day(0))], &day(0), false);
        check(&[modified], "garbage", false);
        assert!(is_range_meant(&map(&[]), &own(&[]), NOW));
    }

    #[test]
    fn only_strong_validators_name_the_same_bytes() {
        let tag = |tag| own(&[(header::ETAG, tag)]);
        assert!(tag("\"a\"").same_bytes(&tag("\"a\"")));
        assert!(!tag("W/\"a\"").same_bytes(&tag("W/\"a\"")) && !tag("a").same_bytes(&tag("a")));
        let modified = |at: &str| own(&[(header::LAST_MODIFIED, at)]);
        assert!(modified(&day(-60)).same_bytes(&modified(&day(-60))));
        assert!(!modified(&day(0)).same_bytes(&modified(&day(0))), "it may change again within this second");
        let both = own(&[(header::ETAG, "\"a\""), (header::LAST_MODIFIED, &day(-60))]);
        assert!(!both.same_bytes(&modified(&day(-60))), "one has a tag, the other none");
        assert!(!own(&[]).same_bytes(&own(&[])));
    }
}
