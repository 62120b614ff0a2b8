//! Variants (RFC 9111 §4.1): which request fields a response was chosen by, and what they said.

use crate::control::members;
use http::{HeaderMap, HeaderName, header};

/// Values that a request must have for a stored response to be its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Variant(Vec<(HeaderName, Option<Vec<u8>>)>);

impl Variant {
    /// The variant that a response is of the request `asked`; `None` when it is never another's answer:
    /// `*` stands anywhere, or a name that is none.
    pub fn of(asked: &HeaderMap, response: &HeaderMap) -> Option<Self> {
        Some(Self::by(asked, nominated(response)?))
    }

    /// The variant of a request by these fields.
    pub fn by(asked: &HeaderMap, names: impl IntoIterator<Item = HeaderName>) -> Self {
        Self(names.into_iter().map(|name| (name.clone(), normal(&name, asked))).collect())
    }

    /// Whether the request has all these values.
    pub fn matches(&self, asked: &HeaderMap) -> bool {
        self.0.iter().all(|(name, value)| normal(name, asked) == *value)
    }

    /// The fields that count.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Whether there are none: one response for everybody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that it takes.
    pub fn weight(&self) -> usize {
        self.0.iter().map(|(name, value)| 64 + name.as_str().len() + value.as_ref().map_or(0, Vec::len)).sum()
    }
}

/// Fields that a response nominates, sorted, each once; `None` when it varies on everything.
pub fn nominated(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for line in headers.get_all(header::VARY) {
        for name in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            match name {
                b"" => {}
                b"*" => return None,
                name => names.push(HeaderName::from_bytes(name).ok()?),
            }
        }
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Some(names)
}

/// What the request says in a field, brought into one spelling as far as its meaning certainly stays the
/// same; absent is not empty. Bytes, because two values that are no text are still two values.
pub fn normal(name: &HeaderName, asked: &HeaderMap) -> Option<Vec<u8>> {
    let mut lines = asked.get_all(name).iter().map(|line| line.as_bytes().trim_ascii());
    let mut joined = lines.next()?.to_vec();
    for line in lines {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line);
    }
    let spelled = match *name {
        header::ACCEPT | header::ACCEPT_ENCODING => ranked(&joined, false),
        header::ACCEPT_LANGUAGE => ranked(&joined, true),
        _ => None,
    };
    Some(spelled.unwrap_or_else(|| if is_single(name) { joined } else { spaced(&joined) }))
}

/// Fields whose value is no list: a comma in them is a comma.
fn is_single(name: &HeaderName) -> bool {
    [
        header::AUTHORIZATION,
        header::COOKIE,
        header::DATE,
        header::FROM,
        header::HOST,
        header::IF_MODIFIED_SINCE,
        header::IF_RANGE,
        header::LOCATION,
        header::ORIGIN,
        header::PROXY_AUTHORIZATION,
        header::REFERER,
        header::USER_AGENT,
    ]
    .contains(name)
}

/// A list with one space after each comma. Commas inside quotes are no separators.
fn spaced(text: &[u8]) -> Vec<u8> {
    let members: Vec<_> = members(text).collect();
    members.join(&b", "[..])
}

/// A list of names with qualities in one spelling: lower case, no `q=1`, as few digits as will do.
///
/// Codings and media types are sorted: their order means nothing. Languages are put in the order of their
/// qualities, and those of one quality keep theirs, since origins take the first one.
/// `None` when it is not such a list.
fn ranked(text: &[u8], in_order: bool) -> Option<Vec<u8>> {
    let mut ranked = Vec::new();
    for member in members(text) {
        // A quoted parameter keeps its letters: then the member is not worth the trouble.
        if member.contains(&b'"') {
            return None;
        }
        let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let mut name = parts.next()?.to_ascii_lowercase();
        if name.is_empty() || name.contains(&b' ') || name.contains(&b'\t') {
            return None;
        }
        let mut quality = 1000;
        for part in parts {
            let (parameter, value) = part.split_at_checked(part.iter().position(|b| *b == b'=')?)?;
            let (parameter, value) = (parameter.to_ascii_lowercase(), &value[1..]);
            if parameter == b"q" {
                quality = thousandths(value)?;
            } else if in_order || !is_token(&parameter) || !is_token(value) {
                return None;
            } else {
                name.push(b';');
                name.extend_from_slice(&parameter);
                name.push(b'=');
                name.extend_from_slice(value);
            }
        }
        ranked.push((quality, name));
    }
    if in_order {
        ranked.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    } else {
        ranked.sort();
    }
    let mut spelled = Vec::with_capacity(text.len());
    for (quality, name) in ranked {
        if !spelled.is_empty() {
            spelled.extend_from_slice(b", ");
        }
        spelled.extend_from_slice(&name);
        if quality < 1000 {
            let digits = format!(";q=0.{quality:03}");
            spelled.extend_from_slice(digits.trim_end_matches('0').trim_end_matches('.').as_bytes());
        }
    }
    Some(spelled)
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(b))
}

/// A quality (RFC 9110 §12.4.2) in thousandths.
pub(crate) fn thousandths(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text {
        [whole] => (*whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        _ => return None,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = (0..3).fold(0, |n, at| n * 10 + fraction.get(at).map_or(0, |d| u16::from(d - b'0')));
    match (whole, digits) {
        (b'0', digits) => Some(digits),
        (b'1', 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    fn check(name: &str, one: &str, other: &str, same: bool) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let normal = |value| normal(&name, &map(&[(name.as_str(), value)])).unwrap();
        assert_eq!(normal(one) == normal(other), same, "{name}: {one} / {other}");
    }

    #[test]
    fn a_star_anywhere_is_never_another_requests_answer() {
        for vary in [
            &["*"][..],
            &["*, *"],
            &["*", "*"],
            &[", *"],
            &["", "*"],
            &["*, Foo"],
            &["Foo, *"],
            &["Foo", "Bar,*"],
            &["a b"],
            &["a;b"],
        ] {
            let fields: Vec<_> = vary.iter().map(|value| ("vary", *value)).collect();
            assert_eq!(nominated(&map(&fields)), None, "{vary:?}");
        }
        assert_eq!(nominated(&map(&[])), Some(vec![]));
        assert_eq!(nominated(&map(&[("vary", ""), ("vary", " , ")])), Some(vec![]));
        let names = nominated(&map(&[("vary", "Foo,ACCEPT"), ("vary", "foo")])).unwrap();
        assert_eq!(names, ["accept", "foo"].map(HeaderName::from_static));
    }

    #[test]
    fn every_nominated_field_must_match_and_absent_is_not_empty() {
        let asked = map(&[("foo", "1"), ("baz", "789")]);
        let variant = Variant::of(&asked, &map(&[("vary", "Foo, Bar, Baz")])).unwrap();
        let matches = |fields: &[(&str, &str)]| variant.matches(&map(fields));
        assert!(matches(&[("baz", "789"), ("foo", "1"), ("other", "x")]));
        assert!(!matches(&[("foo", "1")]) && !matches(&[("foo", "1"), ("baz", "78")]));
        assert!(!matches(&[("foo", "1"), ("baz", "789"), ("bar", "")]), "absent matches only absent");
        let empty = Variant::of(&map(&[("foo", "")]), &map(&[("vary", "foo")])).unwrap();
        assert!(empty.matches(&map(&[("foo", " ")])) && !empty.matches(&map(&[])));
    }

    #[test]
    fn unknown_fields_are_compared_without_their_white_space() {
        let name = HeaderName::from_static("foo");
        let lines = normal(&name, &map(&[("foo", "1"), ("foo", "2 ")]));
        assert_eq!(lines, normal(&name, &map(&[("foo", "1, 2")])));
        check("foo", "1,2", " 1 , 2 ", true);
        check("foo", "1,,2", "1,2", true);
        check("foo", "a", "A", false);
        check("foo", "\"1,2\"", "\"1, 2\"", false);
        check("cookie", "a=1,2", "a=1, 2", false);
        check("user-agent", "x (like,y)", "x (like, y)", false);
    }

    #[test]
    fn codings_and_types_are_compared_by_what_they_mean() {
        for name in ["accept-encoding", "accept"] {
            check(name, "gzip, br", "BR,gzip;q=1.000", true);
            check(name, "gzip;q=0.5, br", "br, gzip ; q=0.500", true);
            check(name, "gzip;q=0.5, br", "br;q=0.5, gzip", false);
            check(name, "gzip;q=0", "gzip;q=0.000", true);
            check(name, "gzip;q=0", "gzip", false);
            check(name, "gzip", "gzip, br", false);
            check(name, "gzip;q=2", "gzip", false);
        }
        check("accept", "text/html;level=1", "Text/HTML;Level=1", true);
        check("accept", "text/html;level=1", "text/html;level=2", false);
        check("accept", "text/html;p=\"A\"", "text/html;p=\"a\"", false);
    }

    #[test]
    fn languages_are_ordered_by_quality_and_keep_the_order_of_equals() {
        check("accept-language", "en, de", " EN ,   de;q=1", true);
        check("accept-language", "de;q=0.5, en;q=0.9", "en;q=0.90, de;q=0.5", true);
        check("accept-language", "en, de", "de, en", false);
        check("accept-language", "fr;q=0.5, de", "de, fr;q=0.5", true);
    }

    #[test]
    fn qualities_have_at_most_three_digits() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("0", Some(0)),
            ("0.5", Some(500)),
            ("0.001", Some(1)),
            ("0.", Some(0)),
        ] {
            assert_eq!(thousandths(text.as_bytes()), expected, "{text}");
        }
        for wrong in ["", "1.001", "2", ".5", "0.0001", "-0", "0,5", "0.5x"] {
            assert_eq!(thousandths(wrong.as_bytes()), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_spelling_is_its_own_spelling(text in "[a-c*;=q0-9., \"-]{0,30}") {
            for name in [header::ACCEPT, header::ACCEPT_LANGUAGE, header::ACCEPT_ENCODING, HeaderName::from_static("foo")] {
                let asked = map(&[(name.as_str(), &text)]);
                let once = normal(&name, &asked).unwrap();
                let mut again = HeaderMap::new();
                again.insert(name.clone(), HeaderValue::from_bytes(&once).unwrap());
                prop_assert_eq!(normal(&name, &again).unwrap(), once);
            }
        }

        #[test]
        fn a_request_is_its_own_variant(vary in "[a-c, ]{0,8}", a in "[ -~]{0,12}", b in proptest::option::of("[ -~]{0,12}")) {
            let mut asked = map(&[("a", &a)]);
            if let Some(b) = b {
                asked.append("b", HeaderValue::from_str(&b).unwrap());
            }
            if let Some(variant) = Variant::of(&asked, &map(&[("vary", &vary)])) {
                prop_assert!(variant.matches(&asked));
            }
        }
    }
}
