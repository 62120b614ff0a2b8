//! `name=value&name=value`.

use crate::transform::url_decode;

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// There was more than was to be read.
    pub(crate) is_cut: bool,
    /// A percent sign stands there without its two digits.
    pub(crate) is_invalid: bool,
}

/// Reads at most `most` pairs.
pub(crate) fn parse(text: &[u8], separator: u8, most: usize, take: &mut dyn FnMut(&[u8], &[u8])) -> Outcome {
    let mut outcome = Outcome { is_cut: false, is_invalid: !is_valid(text) };
    let (mut name, mut value) = (Vec::new(), Vec::new());
    for (count, pair) in text.split(|b| *b == separator).filter(|pair| !pair.is_empty()).enumerate() {
        if count == most {
            outcome.is_cut = true;
            break;
        }
        let (raw_name, raw_value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        name.clear();
        value.clear();
        url_decode(raw_name, false, &mut name);
        url_decode(raw_value, false, &mut value);
        take(&name, &value);
    }
    outcome
}

/// Whether each percent sign is followed by two digits.
pub(crate) fn is_valid(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let good = rest.get(at + 1..at + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        if !good {
            return false;
        }
        rest = &rest[at + 3..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let read = |text: &str, most: usize| {
            let mut pairs = Vec::new();
            let outcome = parse(text.as_bytes(), b'&', most, &mut |name, value| {
                pairs.push((
                    String::from_utf8(name.into()).unwrap(),
                    String::from_utf8(value.into()).unwrap(),
                ));
            });
            (
                pairs.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>().join(" "),
                outcome,
            )
        };
        let fine = Outcome { is_cut: false, is_invalid: false };
        assert_eq!(read("a=1&&b=%65+=x&c&=d", 9), ("a:1 b:e =x c: :d".to_owned(), fine));
        assert_eq!(read("a=1&b=2&c=3", 2), ("a:1 b:2".to_owned(), Outcome { is_cut: true, ..fine }));
        assert!(read("a=100%&b", 9).1.is_invalid);
    }
}
