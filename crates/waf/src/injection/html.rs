//! HTML as the more lenient browsers read it, split into tokens; a value may also begin inside of a tag or
//! of an attribute.

/// Where the value begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Context {
    Data,
    /// Inside of a tag, before a name.
    Tag,
    /// Inside of a value in these quotes.
    Value(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    TagOpen,
    TagEnd,
    Name,
    Value,
    Comment,
    Doctype,
}

/// A piece of HTML.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'v> {
    pub(super) kind: Kind,
    pub(super) text: &'v [u8],
}

/// What is read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    End,
    Data,
    TagOpen,
    TagNameClose,
    BeforeName,
    AfterName,
    BeforeValue,
    InValue(u8),
    AfterValue,
    SelfClosing,
}

pub(super) struct Reader<'v> {
    value: &'v [u8],
    at: usize,
    state: State,
    is_close: bool,
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0)
}

impl<'v> Reader<'v> {
    pub(super) fn new(value: &'v [u8], context: Context) -> Self {
        let state = match context {
            Context::Data => State::Data,
            Context::Tag => State::BeforeName,
            Context::Value(quote) => State::InValue(quote),
        };
        Self { value, at: 0, state, is_close: false }
    }

    pub(super) fn next(&mut self) -> Option<Token<'v>> {
        match self.state {
            State::End => None,
            State::Data => self.data(),
            State::TagOpen => self.tag_open(),
            State::TagNameClose => self.tag_name_close(),
            State::BeforeName => self.before_name(),
            State::AfterName => self.after_name(),
            State::BeforeValue => self.before_value(),
            State::InValue(quote) => self.quoted_value(quote),
            State::AfterValue => self.after_value(),
            State::SelfClosing => self.self_closing(),
        }
    }

    fn byte(&self) -> Option<u8> {
        self.value.get(self.at).copied()
    }

    fn rest(&self) -> &'v [u8] {
        self.value.get(self.at..).unwrap_or_default()
    }

    /// A token from here to `to`; what follows begins at `next`.
    #[allow(clippy::unnecessary_wraps, reason = "it ends every way of reading, and those may find nothing")]
    fn token(&mut self, kind: Kind, to: usize, next: usize, state: State) -> Option<Token<'v>> {
        let text = &self.value[self.at..to];
        (self.at, self.state) = (next, state);
        Some(Token { kind, text })
    }

    /// A token that goes to the end of the value.
    fn last(&mut self, kind: Kind) -> Option<Token<'v>> {
        let end = self.value.len();
        self.token(kind, end, end, State::End)
    }

    /// The next byte that is no white space. 255 is taken for the end, as in C, where it is -1.
    fn skip_white(&mut self) -> Option<u8> {
        while self.byte().is_some_and(is_white) {
            self.at += 1;
        }
        self.byte().filter(|byte| *byte != 0xff)
    }

    fn data(&mut self) -> Option<Token<'v>> {
        match memchr::memchr(b'<', self.rest()) {
            None if self.rest().is_empty() => None,
            None => self.last(Kind::Text),
            Some(0) => {
                self.at += 1;
                self.state = State::TagOpen;
                self.tag_open()
            }
            Some(length) => self.token(Kind::Text, self.at + length, self.at + length + 1, State::TagOpen),
        }
    }

    fn tag_open(&mut self) -> Option<Token<'v>> {
        match self.byte()? {
            b'!' => {
                self.at += 1;
                self.markup_declaration()
            }
            b'/' => {
                self.at += 1;
                self.is_close = true;
                self.end_tag_open()
            }
            b'?' => {
                self.at += 1;
                self.bogus_comment()
            }
            b'%' => {
                self.at += 1;
                self.percent_comment()
            }
            b'a'..=b'z' | b'A'..=b'Z' | 0 => self.tag_name(),
            _ => {
                // The bracket alone is text.
                self.state = State::Data;
                Some(Token { kind: Kind::Text, text: &self.value[self.at - 1..self.at] })
            }
        }
    }

    fn end_tag_open(&mut self) -> Option<Token<'v>> {
        match self.byte()? {
            b'>' => self.data(),
            b'a'..=b'z' | b'A'..=b'Z' => self.tag_name(),
            _ => {
                self.is_close = false;
                self.bogus_comment()
            }
        }
    }

    fn tag_name_close(&mut self) -> Option<Token<'v>> {
        self.is_close = false;
        let end = self.at + 1;
        let state = if end < self.value.len() { State::Data } else { State::End };
        self.token(Kind::TagEnd, end, end, state)
    }

    fn tag_name(&mut self) -> Option<Token<'v>> {
        // Old browsers ignore zero bytes in names.
        let ends = |byte: &u8| *byte != 0 && is_white(*byte) || matches!(byte, b'/' | b'>');
        let Some(length) = self.rest().iter().position(ends) else { return self.last(Kind::TagOpen) };
        let end = self.at + length;
        match self.value[end] {
            b'/' => self.token(Kind::TagOpen, end, end + 1, State::SelfClosing),
            b'>' if self.is_close => {
                self.is_close = false;
                self.token(Kind::TagEnd, end, end + 1, State::Data)
            }
            b'>' => self.token(Kind::TagOpen, end, end, State::TagNameClose),
            _ => self.token(Kind::TagOpen, end, end + 1, State::BeforeName),
        }
    }

    fn before_name(&mut self) -> Option<Token<'v>> {
        match self.skip_white()? {
            b'/' => {
                self.at += 1;
                self.self_closing()
            }
            b'>' => self.token(Kind::TagEnd, self.at + 1, self.at + 1, State::Data),
            _ => self.name(),
        }
    }

    fn name(&mut self) -> Option<Token<'v>> {
        // The first byte belongs to the name whatever it is.
        let ends = |byte: &u8| is_white(*byte) || matches!(byte, b'/' | b'=' | b'>');
        let begin = self.at + 1;
        let found = self.value.get(begin..).unwrap_or_default().iter().position(ends);
        let Some(length) = found else { return self.last(Kind::Name) };
        let end = begin + length;
        match self.value[end] {
            b'/' => self.token(Kind::Name, end, end + 1, State::SelfClosing),
            b'=' => self.token(Kind::Name, end, end + 1, State::BeforeValue),
            b'>' => self.token(Kind::Name, end, end, State::TagNameClose),
            _ => self.token(Kind::Name, end, end + 1, State::AfterName),
        }
    }

    fn after_name(&mut self) -> Option<Token<'v>> {
        match self.skip_white()? {
            b'/' => {
                self.at += 1;
                self.self_closing()
            }
            b'=' => {
                self.at += 1;
                self.before_value()
            }
            b'>' => self.tag_name_close(),
            _ => self.name(),
        }
    }

    fn before_value(&mut self) -> Option<Token<'v>> {
        let Some(byte) = self.skip_white() else {
            self.state = State::End;
            return None;
        };
        match byte {
            b'"' | b'\'' | b'`' => self.quoted_value(byte),
            _ => self.bare_value(),
        }
    }

    fn quoted_value(&mut self, quote: u8) -> Option<Token<'v>> {
        // At the very beginning there is no quote: the value begins inside of one.
        if self.at > 0 {
            self.at += 1;
        }
        match memchr::memchr(quote, self.rest()) {
            None => self.last(Kind::Value),
            Some(length) => {
                let end = self.at + length;
                self.token(Kind::Value, end, end + 1, State::AfterValue)
            }
        }
    }

    fn bare_value(&mut self) -> Option<Token<'v>> {
        let ends = |byte: &u8| is_white(*byte) || *byte == b'>';
        let Some(length) = self.rest().iter().position(ends) else { return self.last(Kind::Value) };
        let end = self.at + length;
        match self.value[end] {
            b'>' => self.token(Kind::Value, end, end, State::TagNameClose),
            _ => self.token(Kind::Value, end, end + 1, State::BeforeName),
        }
    }

    fn after_value(&mut self) -> Option<Token<'v>> {
        match self.byte()? {
            b'/' => {
                self.at += 1;
                self.self_closing()
            }
            b'>' => self.token(Kind::TagEnd, self.at + 1, self.at + 1, State::Data),
            byte if is_white(byte) => {
                self.at += 1;
                self.before_name()
            }
            _ => self.before_name(),
        }
    }

    fn self_closing(&mut self) -> Option<Token<'v>> {
        match self.byte()? {
            b'>' => self.token(Kind::TagEnd, self.at + 1, self.at + 1, State::Data),
            _ => self.before_name(),
        }
    }

    fn bogus_comment(&mut self) -> Option<Token<'v>> {
        match memchr::memchr(b'>', self.rest()) {
            None => self.last(Kind::Comment),
            Some(length) => {
                let end = self.at + length;
                self.token(Kind::Comment, end, end + 1, State::Data)
            }
        }
    }

    /// `<% … %>`.
    fn percent_comment(&mut self) -> Option<Token<'v>> {
        match memchr::memmem::find(self.rest(), b"%>") {
            None => self.last(Kind::Comment),
            Some(length) => {
                let end = self.at + length;
                self.token(Kind::Comment, end, end + 2, State::Data)
            }
        }
    }

    fn markup_declaration(&mut self) -> Option<Token<'v>> {
        let rest = self.rest();
        if rest.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case(b"DOCTYPE")) {
            return match memchr::memchr(b'>', rest) {
                None => self.last(Kind::Doctype),
                Some(length) => {
                    let end = self.at + length;
                    self.token(Kind::Doctype, end, end + 1, State::Data)
                }
            };
        }
        if rest.starts_with(b"[CDATA[") {
            self.at += 7;
            return self.cdata();
        }
        if rest.starts_with(b"--") {
            self.at += 2;
            return self.comment();
        }
        self.bogus_comment()
    }

    /// A comment ends with `-->` or `-!>`, zero bytes after the first dash aside.
    fn comment(&mut self) -> Option<Token<'v>> {
        let end = self.value.len();
        let mut at = self.at;
        loop {
            let found = self.value.get(at..).and_then(|rest| memchr::memchr(b'-', rest));
            let Some(dash) = found.map(|found| at + found).filter(|dash| dash + 3 <= end) else {
                return self.last(Kind::Comment);
            };
            let zeros = self.value[dash + 1..].iter().take_while(|byte| **byte == 0).count();
            let second = dash + 1 + zeros;
            match self.value.get(second) {
                None => return self.last(Kind::Comment),
                Some(b'-' | b'!') => {}
                Some(_) => {
                    at = dash + 1;
                    continue;
                }
            }
            match self.value.get(second + 1) {
                None => return self.last(Kind::Comment),
                Some(b'>') => return self.token(Kind::Comment, dash, second + 2, State::Data),
                Some(_) => at = dash + 1,
            }
        }
    }

    fn cdata(&mut self) -> Option<Token<'v>> {
        match memchr::memmem::find(self.rest(), b"]]>") {
            None => self.last(Kind::Text),
            Some(length) => {
                let end = self.at + length;
                self.token(Kind::Text, end, end + 3, State::Data)
            }
        }
    }
}
