//! JSON as flat names: `{"a":{"b":[1]}}` is `json.a.b.array_0 = 1`, and `json.a.b = 1` for the length of
//! the array, so that every key is looked at even when nothing hangs on it.
//!
//! Own reader instead of a tree: a name that stands there twice is inspected twice, numbers keep their
//! spelling, and of a body that breaks off everything before the break is inspected. RFC 8259, nothing
//! more lenient: what an app's parser might read otherwise is refused.

use super::{Limits, Sink};
use crate::{tx::write_count, variable::Collection};

/// Most bytes that all names together may have; deep nesting repeats long names.
const NAME_BYTES_MAX: usize = 4 << 20;

pub(crate) fn parse(bytes: &[u8], complete: bool, limits: &Limits, sink: &mut dyn Sink) {
    let mut reader = Reader {
        bytes,
        at: 0,
        name: b"json".to_vec(),
        value: Vec::new(),
        open: Vec::new(),
        named: 0,
        arguments: 0,
        limits,
        sink,
    };
    match reader.document() {
        Ok(()) => {}
        // A cut body ends somewhere; what came before was read.
        Err(Fault::End) if !complete => {}
        Err(Fault::End) => reader.sink.fail("JSON: it ends in the middle"),
        Err(Fault::Syntax) => {
            let at = reader.at;
            reader.sink.fail(&format!("JSON: not understood at byte {at}"));
        }
        Err(Fault::TooMuch) => reader.sink.fail("JSON is nested too deeply or holds too much"),
    }
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
    elements: Option<u64>,
    empty: bool,
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    name: Vec<u8>,
    /// The string that is read.
    value: Vec<u8>,
    open: Vec<Open>,
    named: usize,
    arguments: usize,
    limits: &'b Limits,
    sink: &'b mut dyn Sink,
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
                if self.open.len() >= self.limits.json_depth_max {
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
                let mut text = std::mem::take(&mut self.value);
                text.clear();
                let ended = self.string(&mut text);
                let taken = self.argument(&text);
                self.value = text;
                taken?;
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
            self.name.extend_from_slice(b".array_");
            write_count(*count, &mut self.name);
            *count += 1;
            return Ok(());
        }
        self.space();
        if self.next()? != b'"' {
            return Err(Fault::Syntax);
        }
        let mut name = std::mem::take(&mut self.name);
        name.push(b'.');
        let ended = self.string(&mut name);
        self.name = name;
        if ended.is_err() {
            // Half a key is looked at too.
            self.argument(b"")?;
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
            Some(count) => {
                let mut text = Vec::new();
                write_count(count, &mut text);
                self.argument(&text)
            }
            None if closed.empty && !self.open.is_empty() => self.argument(b""),
            None => Ok(()),
        }
    }

    fn argument(&mut self, value: &[u8]) -> Result<(), Fault> {
        self.named += self.name.len();
        self.arguments += 1;
        if self.arguments > self.limits.arguments_max || self.named > NAME_BYTES_MAX {
            return Err(Fault::TooMuch);
        }
        self.sink.add(Collection::ArgsPost, &self.name, value);
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        let rest = &self.bytes[self.at - 1..];
        if !rest.starts_with(word) {
            return Err(if word.starts_with(rest) { Fault::End } else { Fault::Syntax });
        }
        self.at += word.len() - 1;
        self.argument(if word == b"null" { b"" } else { word })
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
        let bytes = self.bytes;
        self.argument(&bytes[begun..self.at])?;
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
    use super::{
        super::{Kept, TEST_LIMITS},
        *,
    };
    use proptest::prelude::*;

    fn parse_all(bytes: &[u8], complete: bool, limits: &Limits) -> Kept {
        let mut kept = Kept::default();
        parse(bytes, complete, limits, &mut kept);
        kept
    }

    fn read(text: &str, complete: bool) -> (Vec<(String, String)>, bool) {
        let kept = parse_all(text.as_bytes(), complete, &TEST_LIMITS);
        let pairs = kept.found.into_iter().map(|(_, name, value)| (name, value));
        (pairs.collect(), kept.fault.is_none())
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
        check(r" [true , 1.50e+3] ", &[("json.array_0", "true"), ("json.array_1", "1.50e+3"), ("json", "2")]);
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
        assert!(parse_all(b"\"\xff\"", true, &TEST_LIMITS).fault.is_some());
        let many = format!("[{}1]", "1,".repeat(50));
        assert!(!read(&many, true).1);
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
                let limits = Limits { json_depth_max: 100, ..TEST_LIMITS };
                let good = parse_all(text.as_bytes(), true, &limits).fault.is_none();
                prop_assert_eq!(good, other.is_ok(), "{}", text);
            }
        }
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, complete: bool) {
            parse_all(&bytes, complete, &TEST_LIMITS);
        }
    }
}
