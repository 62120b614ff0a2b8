//! PCRE patterns as the linear-time engine takes them; the few that need more get a bounded one.

use crate::{filter::Filter, value::Summary};
use regex_automata::{Input, meta, util::syntax};
use std::ops::Range;

const NFA_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Memory that one lazily built automaton may take before it starts anew.
const CACHE_BYTES_MAX: usize = 512 * 1024;
/// Steps after which a pattern that may backtrack gives up. Then it counts as a match: whoever sends what
/// cannot be decided in so many steps does not get past the rule.
const BACKTRACK_MAX: usize = 200_000;
/// Groups that rules can name: 0 to 9.
const GROUPS_MAX: usize = 10;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    filter: Filter,
    engine: Engine,
}

#[derive(Debug)]
enum Engine {
    /// Linear time.
    Linear(meta::Regex),
    /// Look-around or back-references: backtracks within a bound, over bytes read as Latin-1.
    Bounded(Box<fancy_regex::Regex>),
}

/// What the groups of a pattern matched, as places in the value.
pub(crate) type Groups = Vec<Range<usize>>;

impl Pattern {
    pub(crate) fn compile(pattern: &[u8]) -> Result<Self, String> {
        let text = rewrite(pattern);
        // `a++` and `(?>a)` never give back what they took; a linear engine reads the first as `(a+)+`.
        if gives_nothing_back(pattern) {
            return bounded(&text).map_err(|error| error.to_string());
        }
        match linear(&text) {
            Ok(linear) => Ok(linear),
            Err(why) => bounded(&text).map_err(|_| why),
        }
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(crate) fn is_match(&self, value: &[u8]) -> bool {
        match &self.engine {
            Engine::Linear(regex) => regex.is_match(value),
            Engine::Bounded(regex) => regex.is_match(&latin1(value)).unwrap_or(true),
        }
    }

    /// The same for a value that is known by its summary.
    pub(crate) fn is_match_of(&self, summary: &Summary, value: &[u8]) -> bool {
        self.filter.may_match(summary) && self.is_match(value)
    }

    /// The groups 0 to 9 of the first match.
    pub(crate) fn captures(&self, value: &[u8]) -> Option<Groups> {
        match &self.engine {
            Engine::Linear(regex) => {
                let mut found = regex.create_captures();
                regex.captures(Input::new(value), &mut found);
                found.is_match().then(|| {
                    let groups = found.iter().take(GROUPS_MAX);
                    groups.map(|group| group.map_or(0..0, |span| span.range())).collect()
                })
            }
            Engine::Bounded(regex) => {
                let text = latin1(value);
                let groups = match regex.captures(&text) {
                    Ok(groups) => groups?,
                    Err(_) => return Some(Groups::new()),
                };
                let place = |at: usize| text[..at].chars().count();
                let range = |n: usize| groups.get(n).map_or(0..0, |m| place(m.start())..place(m.end()));
                Some((0..groups.len().min(GROUPS_MAX)).map(range).collect())
            }
        }
    }
}

fn linear(text: &str) -> Result<Pattern, String> {
    let syntax = syntax::Config::new().unicode(false).utf8(false).dot_matches_new_line(true);
    let hir = syntax::parse_with(text, &syntax).map_err(|error| error.to_string())?;
    let config = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(NFA_BYTES_MAX))
        .hybrid_cache_capacity(CACHE_BYTES_MAX);
    let regex = meta::Builder::new().configure(config).build_from_hir(&hir);
    let regex = regex.map_err(|error| error.to_string())?;
    Ok(Pattern { filter: Filter::of(&hir), engine: Engine::Linear(regex) })
}

fn bounded(text: &str) -> Result<Pattern, Box<fancy_regex::Error>> {
    let regex = fancy_regex::RegexBuilder::new(&format!("(?s){text}")).backtrack_limit(BACKTRACK_MAX).build();
    Ok(Pattern { filter: Filter::open(), engine: Engine::Bounded(Box::new(regex.map_err(Box::new)?)) })
}

/// Whether a pattern holds possessive quantifiers or atomic groups.
fn gives_nothing_back(pattern: &[u8]) -> bool {
    let (mut at, mut class, mut quantified) = (0, false, false);
    while let Some(&byte) = pattern.get(at) {
        match byte {
            b'\\' => {
                at += 1;
                quantified = false;
            }
            b']' if class => class = false,
            _ if class => {}
            b'[' => {
                class = true;
                at += usize::from(pattern.get(at + 1) == Some(&b'^'));
                // A closing bracket that comes first is itself.
                at += usize::from(pattern.get(at + 1) == Some(&b']'));
                quantified = false;
            }
            b'(' if pattern[at..].starts_with(b"(?>") => return true,
            b'(' => {
                // What follows `(?` is no quantifier.
                at += usize::from(pattern.get(at + 1) == Some(&b'?'));
                quantified = false;
            }
            b'+' if quantified => return true,
            b'*' | b'+' | b'?' => quantified = !quantified,
            b'{' if is_repetition(&pattern[at..]) => {
                at += memchr::memchr(b'}', &pattern[at..]).unwrap_or(0);
                quantified = true;
            }
            _ => quantified = false,
        }
        at += 1;
    }
    false
}

fn latin1(value: &[u8]) -> String {
    value.iter().map(|b| char::from(*b)).collect()
}

/// Writes a PCRE pattern so that the regex crate reads the same meaning.
fn rewrite(pattern: &[u8]) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut at = 0;
    let mut class = false;
    let mut class_begin = 0;
    while let Some(&byte) = pattern.get(at) {
        match byte {
            b'\\' => {
                at += escape(&pattern[at..], &mut out);
                continue;
            }
            b'[' if !class => {
                class = true;
                out.push('[');
                if pattern.get(at + 1) == Some(&b'^') {
                    out.push('^');
                    at += 1;
                }
                class_begin = at + 1;
                // A closing bracket that comes first is itself.
                if pattern.get(at + 1) == Some(&b']') {
                    out.push_str("\\]");
                    at += 1;
                }
            }
            b'[' if pattern.get(at + 1) == Some(&b':') => {
                let end =
                    memchr::memmem::find(&pattern[at..], b":]").map_or(pattern.len(), |end| at + end + 2);
                out.push_str(&String::from_utf8_lossy(&pattern[at..end]));
                at = end;
                continue;
            }
            b'[' => out.push_str("\\["),
            b']' if class && at >= class_begin => {
                class = false;
                out.push(']');
            }
            b'&' | b'~' if class => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'-' if class && pattern.get(at + 1) == Some(&b'-') => out.push_str("\\-"),
            b'{' if !class && !is_repetition(&pattern[at..]) => out.push_str("\\{"),
            0x80..=0xff | 0 => {
                use std::fmt::Write;
                let _ = write!(out, "\\x{byte:02x}");
            }
            _ => out.push(char::from(byte)),
        }
        at += 1;
    }
    out
}

/// Rewrites one escape; how many bytes of the pattern it took.
fn escape(pattern: &[u8], out: &mut String) -> usize {
    let Some(&next) = pattern.get(1) else {
        out.push_str("\\\\");
        return 1;
    };
    match next {
        // `\<` and `\>` are plain characters in PCRE; the regex crate reads word boundaries.
        b'<' | b'>' | b'/' | b'\'' | b'"' | b'`' | b'!' | b'%' | b',' | b':' | b';' | b'=' | b'@' | b' ' => {
            out.push(char::from(next));
            2
        }
        b'x' if pattern.get(2) == Some(&b'{') => {
            let digits: Vec<u8> = pattern[3..].iter().copied().take_while(u8::is_ascii_hexdigit).collect();
            let text = String::from_utf8_lossy(&digits);
            match u8::from_str_radix(&text, 16) {
                Ok(value) if pattern.get(3 + digits.len()) == Some(&b'}') => {
                    use std::fmt::Write;
                    let _ = write!(out, "\\x{value:02x}");
                    4 + digits.len()
                }
                _ => {
                    out.push_str("\\x{");
                    3
                }
            }
        }
        b'x' => {
            // At most two digits, as PCRE reads them.
            let digits: Vec<u8> =
                pattern[2..].iter().copied().take(2).take_while(u8::is_ascii_hexdigit).collect();
            let value = u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).unwrap_or(0);
            use std::fmt::Write;
            let _ = write!(out, "\\x{value:02x}");
            2 + digits.len()
        }
        b'0' => {
            out.push_str("\\x00");
            2
        }
        b'e' => {
            out.push_str("\\x1b");
            2
        }
        b'h' => {
            out.push_str("[\\t ]");
            2
        }
        b'Z' => {
            out.push_str("\\z");
            2
        }
        b'_' | b'"'.. if !next.is_ascii_alphanumeric() && next != b'_' => {
            out.push('\\');
            out.push(char::from(next));
            2
        }
        b'_' => {
            out.push('_');
            2
        }
        _ => {
            out.push('\\');
            out.push(char::from(next));
            2
        }
    }
}

/// `{n}`, `{n,}` or `{n,m}`.
fn is_repetition(pattern: &[u8]) -> bool {
    let Some(end) = memchr::memchr(b'}', pattern) else { return false };
    let mut parts = pattern[1..end].split(|b| *b == b',');
    let number = |part: &[u8], may_be_empty: bool| {
        part.iter().all(u8::is_ascii_digit) && (may_be_empty || !part.is_empty())
    };
    let first = parts.next().is_some_and(|part| number(part, false));
    let second = parts.next().is_none_or(|part| number(part, true));
    first && second && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, value: &[u8], expected: bool) {
        let compiled =
            Pattern::compile(pattern.as_bytes()).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        assert_eq!(compiled.is_match(value), expected, "{pattern}");
    }

    #[test]
    fn pcre_spellings_keep_their_meaning() {
        check(r"\<script\>", b"<script>", true);
        check(r"[a[b]", b"[", true);
        check(r"[^]a]", b"]", false);
        check(r"[]a]", b"]", true);
        check(r"[&&x]", b"&", true);
        check(r"a{,3}", b"a{,3}", true);
        check(r"a{2,3}$", b"aaa", true);
        check(r"\x{ff}", b"\xff", true);
        check(r"\x17f", b"\x17f", true);
        check(r"a.c", b"a\nc", true);
        check(r"[[:digit:]]+", b"12", true);
        check(r"\/\'\-", b"/'-", true);
        check("\u{e4}", "ä".as_bytes(), true);
    }

    #[test]
    fn look_around_is_bounded_and_works_on_bytes() {
        check(r"(?!x)a", b"\xffa", true);
        check(r"(a)\1", b"aa", true);
        check(r"^a++ab", b"aaab", false);
        check(r"^a+ab", b"aaab", true);
        check(r"^(?>a|ab)c", b"abc", false);
        check(r"[+]+\++[^]+]*+c{2}+$", b"++++abccc", false);
        check(r"^(?:\s*;\s*a)?$", b" ; a", true);
        let endless = Pattern::compile(br"^(?:a|aa|aaa)++(?<!b)b\1?$|^(a|aa)+(?=b)$").unwrap();
        let long = [b'a'; 4000];
        assert!(endless.is_match(&long) && endless.captures(&long).is_some(), "undecided is a match");
        let captured = Pattern::compile(br"(?<=k)(.)").unwrap().captures(b"k\xfe").unwrap();
        assert_eq!(captured[1], 1..2);
    }
}
