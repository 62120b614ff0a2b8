//! Structured fields (RFC 9651), as much as the cache reads: Dictionaries for targeted Cache-Control and
//! Lists of Strings for cache groups. The whole syntax is checked; one fault makes the field absent.

use http::{HeaderMap, HeaderName};

/// A member's value. Parameters are checked and dropped: no directive has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `?1`, or a member without a value.
    Boolean(bool),
    /// At most 15 digits.
    Integer(i64),
    /// A quoted string.
    String(String),
    /// Decimal, Token, Byte Sequence, Date, Display String, Inner List: no directive takes these.
    Other,
}

/// Longest field that is read, in bytes.
const BYTES_MAX: usize = 16 * 1024;

/// Reads all lines of a field as a Dictionary. The last of several members with one key counts.
///
/// `None` when the field is absent or not valid.
pub fn dictionary(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<(String, Value)>> {
    let text = joined(headers, name)?;
    let mut reader = Reader { rest: &text };
    let mut members: Vec<(String, Value)> = Vec::new();
    reader.spaces();
    while !reader.rest.is_empty() {
        let key = reader.key()?;
        let value = if reader.take(b'=') { reader.item_or_inner_list()? } else { Value::Boolean(true) };
        reader.parameters()?;
        members.retain(|(known, _)| *known != key);
        members.push((key, value));
        reader.next_member()?;
    }
    Some(members)
}

/// Reads all lines of a field as a List; `None` when it is absent or not valid.
pub fn list(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<Value>> {
    let text = joined(headers, name)?;
    let mut reader = Reader { rest: &text };
    let mut members = Vec::new();
    reader.spaces();
    while !reader.rest.is_empty() {
        members.push(reader.item_or_inner_list()?);
        reader.parameters()?;
        reader.next_member()?;
    }
    Some(members)
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<_> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    let text = lines.join(&b", "[..]);
    (!lines.is_empty() && text.len() <= BYTES_MAX && text.is_ascii()).then_some(text)
}

struct Reader<'t> {
    rest: &'t [u8],
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.next();
        }
        found
    }

    fn spaces(&mut self) {
        while self.take(b' ') {}
    }

    fn blanks(&mut self) {
        while self.take(b' ') || self.take(b'\t') {}
    }

    /// Up to the next member: a comma must be followed by one.
    fn next_member(&mut self) -> Option<()> {
        self.blanks();
        if self.rest.is_empty() {
            return Some(());
        }
        if !self.take(b',') {
            return None;
        }
        self.blanks();
        (!self.rest.is_empty()).then_some(())
    }

    fn key(&mut self) -> Option<String> {
        let first = |b: u8| b.is_ascii_lowercase() || b == b'*';
        let more = |b: u8| first(b) || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
        if !self.peek().is_some_and(first) {
            return None;
        }
        Some(self.word(more))
    }

    fn word(&mut self, more: impl Fn(u8) -> bool) -> String {
        let end = self.rest.iter().position(|b| !more(*b)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        String::from_utf8_lossy(word).into_owned()
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.spaces();
            self.key()?;
            if self.take(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    fn item_or_inner_list(&mut self) -> Option<Value> {
        if !self.take(b'(') {
            return self.item();
        }
        loop {
            self.spaces();
            if self.take(b')') {
                return Some(Value::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Value> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => {
                self.next();
                match self.next()? {
                    b'0' => Some(Value::Boolean(false)),
                    b'1' => Some(Value::Boolean(true)),
                    _ => None,
                }
            }
            b':' => self.bytes(),
            b'@' => {
                self.next();
                matches!(self.number()?, Value::Integer(_)).then_some(Value::Other)
            }
            b'%' => self.display_string(),
            b if b.is_ascii_alphabetic() || b == b'*' => {
                self.word(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
                Some(Value::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let sign = if self.take(b'-') { -1 } else { 1 };
        let whole = self.word(|b| b.is_ascii_digit());
        if whole.is_empty() {
            return None;
        }
        if self.take(b'.') {
            let fraction = self.word(|b| b.is_ascii_digit());
            return (whole.len() <= 12 && (1..=3).contains(&fraction.len())).then_some(Value::Other);
        }
        let value = (whole.len() <= 15).then(|| whole.parse::<i64>().ok()).flatten()?;
        Some(Value::Integer(sign * value))
    }

    fn string(&mut self) -> Option<Value> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next()? {
                b'"' => return Some(Value::String(text)),
                b'\\' => match self.next()? {
                    escaped @ (b'"' | b'\\') => text.push(escaped as char),
                    _ => return None,
                },
                plain @ 0x20..=0x7e => text.push(plain as char),
                _ => return None,
            }
        }
    }

    fn bytes(&mut self) -> Option<Value> {
        self.next();
        self.word(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
        self.take(b':').then_some(Value::Other)
    }

    fn display_string(&mut self) -> Option<Value> {
        self.next();
        if !self.take(b'"') {
            return None;
        }
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => return std::str::from_utf8(&text).is_ok().then_some(Value::Other),
                b'%' => {
                    let hex = |b: u8| match b {
                        b'0'..=b'9' => Some(b - b'0'),
                        b'a'..=b'f' => Some(b - b'a' + 10),
                        _ => None,
                    };
                    text.push(hex(self.next()?)? << 4 | hex(self.next()?)?);
                }
                plain @ 0x20..=0x7e => text.push(plain),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const NAME: HeaderName = HeaderName::from_static("cdn-cache-control");

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (NAME, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn read(lines: &[&str]) -> Option<Vec<(String, Value)>> {
        dictionary(&headers(lines), &NAME)
    }

    fn one(text: &str) -> Option<Value> {
        Some(read(&[&format!("a={text}")])?.pop()?.1)
    }

    #[test]
    fn values_keep_their_types() {
        use Value::{Boolean, Integer, Other, String};
        let check = |text: &str, expected| assert_eq!(one(text), expected, "{text}");
        check("10", Some(Integer(10)));
        check("-0010", Some(Integer(-10)));
        check("999999999999999", Some(Integer(999_999_999_999_999)));
        check("1000000000000000", None);
        for other in [
            "1.5",
            "-1.125",
            "token",
            "*a/b:c",
            ":aGk=:",
            "@1659578233",
            "(1 2;x  \"a\" )",
            "()",
            "%\"f%c3%bc\"",
        ] {
            check(other, Some(Other));
        }
        check("\"a\\\"b\\\\\"", Some(String("a\"b\\".into())));
        check("?0", Some(Boolean(false)));
        check("1;x=1;y", Some(Integer(1)));
        for fault in [
            "",
            " 1",
            "1.",
            "1.1234",
            "1234567890123.1",
            "-",
            "\"a",
            "\"a\\b\"",
            "?2",
            "?",
            ":a",
            "(1",
            "(1,2)",
            "(1\"a\")",
            "@1.5",
            "%\"%C3\"",
            "%\"%c3\"",
            "&",
            "1;",
            "1 ;x",
            "1;X=1",
        ] {
            check(fault, None);
        }
    }

    #[test]
    fn members_come_from_all_lines_and_the_last_duplicate_counts() {
        let members = read(&["max-age=1, no-store;x", "max-age=2"]).unwrap();
        assert_eq!(
            members,
            [("no-store".into(), Value::Boolean(true)), ("max-age".into(), Value::Integer(2))]
        );
        assert_eq!(read(&[" a\t,\tb "]).map(|members| members.len()), Some(2));
    }

    #[test]
    fn one_fault_makes_the_whole_field_absent() {
        for fault in ["max-age=1, &&&&&", "MaX-aGe=1", "max-age =1", "a,", ",a", "a,,b", "a b", "1a", "a;"] {
            assert_eq!(read(&[fault]), None, "{fault}");
        }
        assert_eq!(read(&["a", ""]), None, "an empty line leaves a comma with nothing behind it");
        assert_eq!(read(&[""]), Some(Vec::new()));
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[&format!("a=\"{}\"", "x".repeat(BYTES_MAX))]), None);
    }

    #[test]
    fn lists_hold_items() {
        let groups = list(&headers(&["\"a\", \"b c\";x", "tok"]), &NAME).unwrap();
        assert_eq!(groups, [Value::String("a".into()), Value::String("b c".into()), Value::Other]);
        assert_eq!(list(&headers(&["\"a\",, \"b\""]), &NAME), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0x20_u8..0x7f, 0..60)) {
            let mut headers = HeaderMap::new();
            headers.insert(NAME, HeaderValue::from_bytes(&bytes).unwrap());
            let _ = (dictionary(&headers, &NAME), list(&headers, &NAME));
        }

        #[test]
        fn strings_and_integers_round_trip(text in "[ -~]{0,20}", number in -999_999_999_999_999_i64..=999_999_999_999_999) {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            let members = read(&[&format!("a=\"{quoted}\", b={number}")]).unwrap();
            prop_assert_eq!(&members[0].1, &Value::String(text));
            prop_assert_eq!(&members[1].1, &Value::Integer(number));
        }
    }
}
