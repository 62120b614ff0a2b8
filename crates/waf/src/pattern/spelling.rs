//! PCRE's spelling of patterns, written as `regex-syntax` reads it.
//!
//! What `regex-syntax` does not know (look-around, atomic groups, possessive quantifiers, back-references) is
//! written as a group whose name says what it is; [`Special::of`] reads the names back.

use std::fmt::Write;

/// What a group stands for that only carries a message through the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    /// `(?=…)`, `(?!…)`, `(?<=…)`, `(?<!…)`.
    Look { behind: bool, negated: bool },
    /// `(?>…)`, `…*+`: never gives back what it took.
    Atomic,
    /// `\1`: what the group of this number matched.
    Again(usize),
}

/// What names of our own begin with; in rules no name does.
const PREFIX: &str = "bastide_special_";

impl Special {
    /// The kind of group that begins here, and the length of its beginning.
    fn opening(pattern: &[u8]) -> Option<(Self, usize)> {
        let look = |behind, negated| Self::Look { behind, negated };
        let kinds: [(&[u8], Self); 5] = [
            (b"(?=", look(false, false)),
            (b"(?!", look(false, true)),
            (b"(?<=", look(true, false)),
            (b"(?<!", look(true, true)),
            (b"(?>", Self::Atomic),
        ];
        kinds
            .into_iter()
            .find(|(begin, _)| pattern.starts_with(begin))
            .map(|(begin, kind)| (kind, begin.len()))
    }

    /// The name of a group that stands for this.
    pub(super) fn name(self) -> String {
        let (letter, group) = match self {
            Self::Look { behind: false, negated: false } => ('a', 0),
            Self::Look { behind: false, negated: true } => ('b', 0),
            Self::Look { behind: true, negated: false } => ('c', 0),
            Self::Look { behind: true, negated: true } => ('d', 0),
            Self::Atomic => ('e', 0),
            Self::Again(group) => ('f', group),
        };
        format!("{PREFIX}{letter}{group}")
    }

    /// What the group of this name stands for, if it is one of ours.
    pub(super) fn of(name: &str) -> Option<Self> {
        let (kind, number) = name.strip_prefix(PREFIX)?.split_at_checked(1)?;
        Some(match kind {
            "a" => Self::Look { behind: false, negated: false },
            "b" => Self::Look { behind: false, negated: true },
            "c" => Self::Look { behind: true, negated: false },
            "d" => Self::Look { behind: true, negated: true },
            "e" => Self::Atomic,
            _ => Self::Again(number.split('_').next()?.parse().ok()?),
        })
    }
}

/// A pattern, rewritten.
pub(super) struct Spelled {
    /// As `regex-syntax` reads it.
    pub(super) text: String,
    /// Whether groups in it stand for something else.
    pub(super) has_specials: bool,
}

/// Rewrites a pattern.
pub(super) fn rewrite(pattern: &[u8]) -> Spelled {
    let mut writer = Writer { out: String::with_capacity(pattern.len() + 16), ..Writer::default() };
    writer.pattern(pattern);
    Spelled { text: writer.out, has_specials: writer.specials > 0 }
}

#[derive(Default)]
struct Writer {
    out: String,
    /// Groups of our own so far: each needs a name of its own.
    specials: usize,
    /// Where the groups that are open begin in `out`.
    open: Vec<usize>,
    /// Where what a quantifier would be for begins in `out`.
    atom: usize,
}

impl Writer {
    fn pattern(&mut self, pattern: &[u8]) {
        let mut at = 0;
        while let Some(&byte) = pattern.get(at) {
            let rest = &pattern[at..];
            at += match byte {
                b'[' => self.class(rest),
                b'(' => self.group(rest),
                b')' => {
                    self.out.push(')');
                    self.atom = self.open.pop().unwrap_or(0);
                    1
                }
                b'*' | b'+' | b'?' => self.quantifier(rest, 1),
                b'{' => match repetition(rest) {
                    Some(length) => self.quantifier(rest, length),
                    None => self.atom("\\{", 1),
                },
                b'\\' => {
                    self.atom = self.out.len();
                    match rest.get(1) {
                        Some(digit @ b'1'..=b'9') => self.again(usize::from(digit - b'0')),
                        _ => escape(rest, &mut self.out),
                    }
                }
                _ => {
                    self.atom = self.out.len();
                    plain(byte, &mut self.out);
                    1
                }
            };
        }
    }

    fn atom(&mut self, text: &str, length: usize) -> usize {
        self.atom = self.out.len();
        self.out.push_str(text);
        length
    }

    fn opening(&mut self, special: Special) -> String {
        self.specials += 1;
        format!("(?P<{}_{}>", special.name(), self.specials)
    }

    fn group(&mut self, rest: &[u8]) -> usize {
        self.open.push(self.out.len());
        match Special::opening(rest) {
            Some((special, length)) => {
                let name = self.opening(special);
                self.out.push_str(&name);
                length
            }
            None => {
                self.out.push('(');
                // What follows `(?` is no quantifier.
                let is_extended = rest.get(1) == Some(&b'?');
                self.out.push_str(if is_extended { "?" } else { "" });
                1 + usize::from(is_extended)
            }
        }
    }

    /// A quantifier with what follows it: `?` makes it lazy, `+` possessive.
    fn quantifier(&mut self, rest: &[u8], length: usize) -> usize {
        self.out.push_str(&String::from_utf8_lossy(&rest[..length]));
        match rest.get(length) {
            Some(b'?') => {
                self.out.push('?');
                length + 1
            }
            Some(b'+') => {
                let name = self.opening(Special::Atomic);
                self.out.insert_str(self.atom, &name);
                self.out.push(')');
                length + 1
            }
            _ => length,
        }
    }

    fn again(&mut self, group: usize) -> usize {
        let name = self.opening(Special::Again(group));
        self.out.push_str(&name);
        // A letter, from which it can be told whether letter case counts here.
        self.out.push_str("k)");
        2
    }

    fn class(&mut self, rest: &[u8]) -> usize {
        self.atom = self.out.len();
        self.out.push('[');
        let mut at = 1;
        if rest.get(at) == Some(&b'^') {
            self.out.push('^');
            at += 1;
        }
        // A closing bracket that comes first is itself.
        if rest.get(at) == Some(&b']') {
            self.out.push_str("\\]");
            at += 1;
        }
        while let Some(&byte) = rest.get(at) {
            let rest = &rest[at..];
            at += match byte {
                b']' => {
                    self.out.push(']');
                    return at + 1;
                }
                b'\\' => escape(rest, &mut self.out),
                b'[' if rest.get(1) == Some(&b':') => {
                    let end = memchr::memmem::find(rest, b":]").map_or(rest.len(), |end| end + 2);
                    self.out.push_str(&String::from_utf8_lossy(&rest[..end]));
                    end
                }
                b'[' | b'&' | b'~' => {
                    self.out.push('\\');
                    self.out.push(char::from(byte));
                    1
                }
                b'-' if rest.get(1) == Some(&b'-') => {
                    self.out.push_str("\\-");
                    1
                }
                _ => {
                    plain(byte, &mut self.out);
                    1
                }
            };
        }
        at
    }
}

fn plain(byte: u8, out: &mut String) {
    match byte {
        0x80..=0xff | 0 => hex(byte, out),
        _ => out.push(char::from(byte)),
    }
}

fn hex(byte: u8, out: &mut String) {
    let _never_fails = write!(out, "\\x{byte:02x}");
}

/// Rewrites one escape; how many bytes of the pattern it took.
fn escape(pattern: &[u8], out: &mut String) -> usize {
    let Some(&next) = pattern.get(1) else {
        out.push_str("\\\\");
        return 1;
    };
    let named = match next {
        b'x' => return 2 + hex_escape(&pattern[2..], out),
        b'0' => return 2 + octal_escape(&pattern[2..], out),
        b'e' => "\\x1b",
        b'h' => "[\\t \\xa0]",
        b'v' => "[\\n\\x0b\\x0c\\r\\x85]",
        b'Z' => "\\z",
        // Plain characters in PCRE, although the parser would read something else or refuse them.
        b'_' | b'<' | b'>' | b'/' | b'\'' | b'"' | b'`' | b'!' | b'%' | b',' | b':' | b';' | b'=' | b'@'
        | b' ' => "",
        0x80..=0xff => "",
        _ => "\\",
    };
    out.push_str(named);
    if named.len() < 2 {
        plain(next, out);
    }
    2
}

/// `\xHH`, of which PCRE reads at most two digits, or `\x{HH}`; how many bytes follow the `x`.
fn hex_escape(rest: &[u8], out: &mut String) -> usize {
    let digits =
        |bytes: &[u8], most: usize| bytes.iter().take(most).take_while(|b| b.is_ascii_hexdigit()).count();
    let value = |bytes: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(bytes), 16);
    if let [b'{', inner @ ..] = rest {
        let count = digits(inner, 8);
        return match value(&inner[..count]) {
            Ok(byte) if inner.get(count) == Some(&b'}') => {
                hex(byte, out);
                count + 2
            }
            // Beyond a byte: the parser says so.
            _ => {
                out.push_str("\\x{");
                1
            }
        };
    }
    let count = digits(rest, 2);
    hex(value(&rest[..count]).unwrap_or(0), out);
    count
}

/// `\0` with up to two more octal digits; how many follow the `0`.
fn octal_escape(rest: &[u8], out: &mut String) -> usize {
    let count = rest.iter().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
    hex(rest[..count].iter().fold(0, |value, digit| value * 8 + (digit - b'0')), out);
    count
}

/// The length of `{n}`, `{n,}` or `{n,m}`, if that is what begins here.
fn repetition(pattern: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b'}', pattern)?;
    let mut parts = pattern[1..end].split(|b| *b == b',');
    let number = |part: &[u8], may_be_empty: bool| {
        part.iter().all(u8::is_ascii_digit) && (may_be_empty || !part.is_empty())
    };
    let first = parts.next().is_some_and(|part| number(part, false));
    let second = parts.next().is_none_or(|part| number(part, true));
    (first && second && parts.next().is_none()).then_some(end + 1)
}
