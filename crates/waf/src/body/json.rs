//! JSON as flat names: `{"a":{"b":[1]}}` is `json.a.b.array_0 = 1`, and `json.a.b = 1` for the length of
//! the array, so that every key is looked at even when nothing hangs on it.
//!
//! Own reader instead of a tree: a name that stands there twice is inspected twice, numbers keep their
//! spelling, and of a body that breaks off everything before the break is inspected. RFC 8259, nothing
//! more lenient: what an app's parser might read otherwise is refused.

use super::{ARGUMENTS_MAX, Parsed};

/// Most bytes that all names together may have; deep nesting repeats long names.
const NAME_BYTES_MAX: usize = 4 << 20;

pub(crate) fn parse(bytes: &[u8], complete: bool, depth_max: usize) -> Parsed {
    let mut reader = Reader {
        bytes,
        at: 0,
        name: b"json".to_vec(),
        open: Vec::new(),
        named: 0,
        depth_max,
        parsed: Parsed::default(),
    };
    match reader.document() {
        Ok(()) => {}
        // A cut body ends somewhere; what came before was read.
        Err(Fault::End) if !complete => {}
        Err(Fault::End) => reader.parsed.fail("JSON: it ends in the middle"),
        Err(Fault::Syntax) => {
            let at = reader.at;
            reader.parsed.fail(format!("JSON: not understood at byte {at}"));
        }
        Err(Fault::TooMuch) => reader.parsed.fail("JSON is nested too deeply or holds too much"),
    }
    reader.parsed
}

enum Fault {
    /// The bytes end where more is needed.
    End,
    Syntax,
    TooMuch,
}

/// An object or array that is not closed yet.
struct Open {
    /// Length of the name up to and with this container.
    name: usize,
    /// Elements so far; `None` in an object.
    elements: Option<usize>,
    empty: bool,
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    name: Vec<u8>,
    open: Vec<Open>,
    named: usize,
    depth_max: usize,
    parsed: Parsed,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<(), Fault> {
        loop {
            // Here a value begins.
            if self.value()? {
                continue;
            }
            // A value has ended: close what ends with it, or go on to the next.
            loop {
                let Some(top) = self.open.last_mut() else {
                    self.space();
                    return if self.at == self.bytes.len() { Ok(()) } else { Err(Fault::Syntax) };
                };
                top.empty = false;
                let is_array = top.elements.is_some();
                self.space();
                match (self.next()?, is_array) {
                    (b',', _) => {
                        self.element()?;
                        break;
                    }
                    (b']', true) | (b'}', false) => self.close()?,
                    _ => return Err(Fault::Syntax),
                }
            }
        }
    }

    /// Reads the beginning of a value; true when another value follows inside of it.
    fn value(&mut self) -> Result<bool, Fault> {
        self.space();
        match self.next()? {
            open @ (b'{' | b'[') => {
                if self.open.len() >= self.depth_max {
                    return Err(Fault::TooMuch);
                }
                let elements = (open == b'[').then_some(0);
                self.open.push(Open { name: self.name.len(), elements, empty: true });
                self.space();
                let end = if open == b'[' { b']' } else { b'}' };
                if *self.bytes.get(self.at).ok_or(Fault::End)? == end {
                    self.at += 1;
                    self.close()?;
                    return Ok(false);
                }
                self.element()?;
                Ok(true)
            }
            b'"' => {
                let mut text = Vec::new();
                let ended = self.string(&mut text);
                self.argument(text)?;
                ended.map(|()| false)
            }
            b't' => self.word(b"true").map(|()| false),
            b'f' => self.word(b"false").map(|()| false),
            b'n' => self.word(b"null").map(|()| false),
            b'-' | b'0'..=b'9' => self.number().map(|()| false),
            _ => Err(Fault::Syntax),
        }
    }

    /// Names the next element: an index, or the key that stands here.
    fn element(&mut self) -> Result<(), Fault> {
        let Some(top) = self.open.last_mut() else { return Err(Fault::Syntax) };
        self.name.truncate(top.name);
        if let Some(count) = &mut top.elements {
            self.name.extend_from_slice(format!(".array_{count}").as_bytes());
            *count += 1;
            return Ok(());
        }
        self.space();
        if self.next()? != b'"' {
            return Err(Fault::Syntax);
        }
        let mut key = Vec::new();
        let ended = self.string(&mut key);
        self.name.push(b'.');
        self.name.extend_from_slice(&key);
        if ended.is_err() {
            // Half a key is looked at too.
            self.argument(Vec::new())?;
        }
        ended?;
        self.space();
        if self.next()? == b':' { Ok(()) } else { Err(Fault::Syntax) }
    }

    /// Ends a container: an array's length, and a key on which nothing hangs, are arguments of their own.
    fn close(&mut self) -> Result<(), Fault> {
        let Some(closed) = self.open.pop() else { return Err(Fault::Syntax) };
        self.name.truncate(closed.name);
        match closed.elements {
            Some(count) => self.argument(count.to_string().into_bytes()),
            None if closed.empty && !self.open.is_empty() => self.argument(Vec::new()),
            None => Ok(()),
        }
    }

    fn argument(&mut self, value: Vec<u8>) -> Result<(), Fault> {
        self.named += self.name.len();
        if self.parsed.arguments.len() >= ARGUMENTS_MAX || self.named > NAME_BYTES_MAX {
            return Err(Fault::TooMuch);
        }
        self.parsed.arguments.push((self.name.clone(), value));
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        let rest = &self.bytes[self.at - 1..];
        if !rest.starts_with(word) {
            return Err(if word.starts_with(rest) { Fault::End } else { Fault::Syntax });
        }
        self.at += word.len() - 1;
        self.argument(if word == b"null" { Vec::new() } else { word.to_vec() })
    }

    fn number(&mut self) -> Result<(), Fault> {
        let begun = self.at - 1;
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while reader.bytes.get(reader.at).is_some_and(u8::is_ascii_digit) {
                reader.at += 1;
            }
            reader.at - from
        };
        if self.bytes[begun] != b'-' {
            self.at = begun;
        }
        let leads = self.bytes.get(self.at) == Some(&b'0');
        let whole = digits(self);
        let mut good = whole == 1 || (whole > 1 && !leads);
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            good &= digits(self) > 0;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            good &= digits(self) > 0;
        }
        self.argument(self.bytes[begun..self.at].to_vec())?;
        match good {
            true => Ok(()),
            false if self.at == self.bytes.len() => Err(Fault::End),
            false => Err(Fault::Syntax),
        }
    }

    /// Reads a string after its first quote, as far as it goes.
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let begun = self.at;
        loop {
            let rest = &self.bytes[self.at..];
            let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..plain]);
            self.at += plain;
            match self.next()? {
                b'"' => break,
                b'\\' => self.escape(out)?,
                _ => return Err(Fault::Syntax),
            }
        }
        // A text that is no UTF-8 has no one meaning (RFC 8259 §8.1).
        if std::str::from_utf8(&self.bytes[begun..self.at]).is_ok() { Ok(()) } else { Err(Fault::Syntax) }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.push(match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.hex()?;
                if (0xd800..0xdc00).contains(&code) && self.bytes[self.at..].starts_with(b"\\u") {
                    let before = self.at;
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xdc00..0xe000).contains(&low) {
                        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    } else {
                        self.at = before;
                    }
                }
                // Half of a pair stands for no character; parsers that take it replace it.
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(Fault::Syntax),
        });
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16).ok_or(Fault::Syntax)?;
            code = code << 4 | digit;
        }
        Ok(code)
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Result<u8, Fault> {
        let byte = *self.bytes.get(self.at).ok_or(Fault::End)?;
        self.at += 1;
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str, complete: bool) -> (Vec<(String, String)>, bool) {
        let parsed = parse(text.as_bytes(), complete, 8);
        let shown = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let pairs = parsed.arguments.into_iter().map(|(name, value)| (shown(name), shown(value)));
        (pairs.collect(), !parsed.flags.body_error)
    }

    fn check(text: &str, expected: &[(&str, &str)]) {
        let (pairs, good) = read(text, true);
        let expected: Vec<_> = expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!((pairs, good), (expected, true), "{text}");
    }

    #[test]
    fn values_have_flat_names() {
        check(
            r#"{"a":{"b":[1,{"c":null}]}}"#,
            &[("json.a.b.array_0", "1"), ("json.a.b.array_1.c", ""), ("json.a.b", "2")],
        );
        check(
            r#" [true , 1.50e+3] "#,
            &[("json.array_0", "true"), ("json.array_1", "1.50e+3"), ("json", "2")],
        );
        check(r#"{"e":{},"f":[]}"#, &[("json.e", ""), ("json.f", "0")]);
        check(r#""A\n\u0042\ud83d\ude00\ud800x""#, &[("json", "A\nB\u{1f600}\u{fffd}x")]);
        check("{}", &[]);
    }

    #[test]
    fn a_name_that_stands_there_twice_is_seen_twice() {
        check(r#"{"a":"evil","a":"good"}"#, &[("json.a", "evil"), ("json.a", "good")]);
    }

    #[test]
    fn what_has_no_one_meaning_is_a_fault() {
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            "+1",
            "nul",
            "\"\\x\"",
            "[1]x",
            "{\"a\" 1}",
            "\"a\nb\"",
            "[[[[[[[[[1]]]]]]]]]",
            "'a'",
            "NaN",
            "[1 2]",
            "{\"a\":1]",
        ] {
            assert!(!read(text, true).1, "{text}");
        }
        assert!(parse(b"\"\xff\"", true, 8).flags.body_error);
    }

    #[test]
    fn of_a_body_that_is_cut_everything_before_the_cut_is_seen() {
        let (pairs, good) = read(r#"{"a":"one","b":"tw"#, false);
        assert!(good);
        assert_eq!(pairs[1], ("json.b".into(), "tw".into()));
        assert_eq!(read(r#"{"a":1,"half"#, false).0[1].0, "json.half");
    }

    proptest! {
        #[test]
        fn it_agrees_with_another_parser_on_what_is_json(text in r#"[\[\]{}:,"a\\u0-9.eE+ truefalsn-]{0,24}"#) {
            let other = serde_json::from_str::<serde_json::Value>(&text);
            // The other parser refuses half surrogate pairs and numbers that it cannot hold.
            let differs = text.contains("\\u") || other.as_ref().is_err_and(|error| error.to_string().contains("number out of range"));
            if !differs {
                prop_assert_eq!(!parse(text.as_bytes(), true, 100).flags.body_error, other.is_ok(), "{}", text);
            }
        }
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, complete: bool) {
            parse(&bytes, complete, 16);
        }
    }
}
