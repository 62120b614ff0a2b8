//! Operators: does a value match?

use crate::{
    Files,
    error::{LoadError, Place},
    pattern::Pattern,
    text::Text,
};
use aho_corasick::AhoCorasick;
use ipnet::IpNet;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// An operator with its argument.
#[derive(Debug)]
pub(crate) enum Operator {
    Regex(Box<Pattern>),
    /// A pattern with macros: known only when it is used.
    RegexMacro(Box<Expanded>),
    Phrases(Box<AhoCorasick>),
    Contains(Text),
    ContainsWord(Text),
    Equals(Text),
    Within(Text),
    Begins(Text),
    Ends(Text),
    Number(Comparison, Text),
    Ip(Vec<IpNet>),
    ByteRange(Box<[bool; 256]>),
    UrlEncoding,
    Utf8,
    Sqli,
    Xss,
    Always,
    Never,
}

/// How numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Eq,
    Ge,
    Gt,
    Le,
    Lt,
}

/// Reads `[!]@name argument`; without a name it is a pattern. Also says what does nothing here.
pub(crate) fn parse(
    place: &Place,
    text: &[u8],
    files: &dyn Files,
) -> Result<(bool, Operator, Option<String>), LoadError> {
    let (negated, text) = text.strip_prefix(b"!").map_or((false, text), |rest| (true, rest));
    let Some(named) = text.strip_prefix(b"@") else {
        return Ok((negated, regex(place, text)?, None));
    };
    let end = named.iter().position(u8::is_ascii_whitespace).unwrap_or(named.len());
    let (name, argument) =
        (String::from_utf8_lossy(&named[..end]).to_ascii_lowercase(), named[end..].trim_ascii());
    let macros = || Text::parse(argument);
    let mut warning = None;
    let operator = match name.as_str() {
        "rx" => regex(place, argument)?,
        "pm" => phrases(place, argument.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()))?,
        "pmf" | "pmfromfile" => {
            let mut all = Vec::new();
            for path in String::from_utf8_lossy(argument).split_whitespace() {
                all.extend(files.read(&place.file, path).map_err(|why| place.file(why))?);
                all.push(b'\n');
            }
            let lines = all
                .split(|b| *b == b'\n')
                .map(<[u8]>::trim_ascii)
                .filter(|line| !line.is_empty() && line[0] != b'#');
            phrases(place, lines)?
        }
        "contains" => Operator::Contains(macros()),
        "containsword" => Operator::ContainsWord(macros()),
        "streq" => Operator::Equals(macros()),
        "strmatch" => Operator::Contains(macros()),
        "within" => Operator::Within(macros()),
        "beginswith" => Operator::Begins(macros()),
        "endswith" => Operator::Ends(macros()),
        "eq" => Operator::Number(Comparison::Eq, macros()),
        "ge" => Operator::Number(Comparison::Ge, macros()),
        "gt" => Operator::Number(Comparison::Gt, macros()),
        "le" => Operator::Number(Comparison::Le, macros()),
        "lt" => Operator::Number(Comparison::Lt, macros()),
        "ipmatch" => Operator::Ip(networks(place, &String::from_utf8_lossy(argument))?),
        "ipmatchf" | "ipmatchfromfile" => {
            let bytes =
                files.read(&place.file, &String::from_utf8_lossy(argument)).map_err(|why| place.file(why))?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<_> = text
                .lines()
                .map(|line| line.split('#').next().unwrap_or_default().trim())
                .filter(|l| !l.is_empty())
                .collect();
            Operator::Ip(networks(place, &lines.join(","))?)
        }
        "validatebyterange" => Operator::ByteRange(byte_range(place, &String::from_utf8_lossy(argument))?),
        "validateurlencoding" => Operator::UrlEncoding,
        "validateutf8encoding" => Operator::Utf8,
        "detectsqli" => Operator::Sqli,
        "detectxss" => Operator::Xss,
        "unconditionalmatch" => Operator::Always,
        "nomatch" => Operator::Never,
        "rbl" | "geolookup" => {
            warning = Some(format!(
                "{}:{}: @{name} needs the network and never matches here",
                place.file, place.line
            ));
            Operator::Never
        }
        _ => return Err(place.unsupported(format!("operator @{name}"))),
    };
    Ok((negated, operator, warning))
}

/// A pattern; one that holds the macro of a known variable is compiled when the variable is known.
fn regex(place: &Place, text: &[u8]) -> Result<Operator, LoadError> {
    let macros = Text::parse(text);
    if macros.names_a_variable() {
        return Ok(Operator::RegexMacro(Box::new(Expanded { text: macros, last: Mutex::default() })));
    }
    Ok(Operator::Regex(Box::new(pattern(place, text)?)))
}

/// Longest pattern that macros may make: their values may come from outside.
const EXPANDED_BYTES_MAX: usize = 8 * 1024;

/// A pattern with macros, and what it last was: settings expand to the same every time.
#[derive(Debug)]
pub(crate) struct Expanded {
    text: Text,
    last: Mutex<Option<(Vec<u8>, Arc<Pattern>)>>,
}

impl Expanded {
    /// The pattern for this expansion. One that is none matches nothing.
    fn pattern(&self, expanded: &[u8]) -> Option<Arc<Pattern>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pattern)) = last.as_ref().filter(|(text, _)| text == expanded) {
            return Some(pattern.clone());
        }
        if expanded.len() > EXPANDED_BYTES_MAX {
            return None;
        }
        let pattern = Arc::new(Pattern::compile(expanded).ok()?);
        *last = Some((expanded.to_vec(), pattern.clone()));
        Some(pattern)
    }
}

fn pattern(place: &Place, text: &[u8]) -> Result<Pattern, LoadError> {
    Pattern::compile(text).map_err(|why| place.unsupported(format!("pattern ({why})")))
}

fn phrases<'t>(place: &Place, phrases: impl Iterator<Item = &'t [u8]>) -> Result<Operator, LoadError> {
    let automaton = AhoCorasick::builder().ascii_case_insensitive(true).build(phrases);
    automaton
        .map(|automaton| Operator::Phrases(Box::new(automaton)))
        .map_err(|error| place.syntax(error.to_string()))
}

fn networks(place: &Place, list: &str) -> Result<Vec<IpNet>, LoadError> {
    list.split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| {
            let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            net.map_err(|_| place.syntax(format!("`{text}` is no address")))
        })
        .collect()
}

fn byte_range(place: &Place, list: &str) -> Result<Box<[bool; 256]>, LoadError> {
    let mut allowed = Box::new([false; 256]);
    for part in list.split(',').map(str::trim) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim().parse::<u8>().map_err(|_| place.syntax(format!("`{part}` is no range of bytes")))
        };
        for byte in number(from)?..=number(to)? {
            allowed[usize::from(byte)] = true;
        }
    }
    Ok(allowed)
}

impl Operator {
    /// Whether the value matches; what `capture` keeps, when it does. `argument` is the expanded argument.
    pub(crate) fn matches(&self, value: &[u8], argument: &[u8], capture: bool) -> Option<Vec<Vec<u8>>> {
        let plain = |matched: bool| matched.then(Vec::new);
        match self {
            Self::Regex(pattern) if capture => {
                // The cheap question first: captures only after a hit.
                if pattern.is_match(value) { pattern.captures(value) } else { None }
            }
            Self::Regex(pattern) => plain(pattern.is_match(value)),
            Self::RegexMacro(expanded) => {
                let pattern = expanded.pattern(argument)?;
                if capture { pattern.captures(value) } else { plain(pattern.is_match(value)) }
            }
            Self::Phrases(automaton) => {
                let found = automaton.find(value)?;
                Some(if capture { vec![value[found.range()].to_vec()] } else { Vec::new() })
            }
            Self::Contains(_) => plain(memchr::memmem::find(value, argument).is_some()),
            Self::ContainsWord(_) => plain(contains_word(value, argument)),
            Self::Equals(_) => plain(value == argument),
            Self::Within(_) => plain(value.is_empty() || memchr::memmem::find(argument, value).is_some()),
            Self::Begins(_) => plain(value.starts_with(argument)),
            Self::Ends(_) => plain(value.ends_with(argument)),
            Self::Number(comparison, _) => {
                let (value, argument) = (number(value), number(argument));
                plain(match comparison {
                    Comparison::Eq => value == argument,
                    Comparison::Ge => value >= argument,
                    Comparison::Gt => value > argument,
                    Comparison::Le => value <= argument,
                    Comparison::Lt => value < argument,
                })
            }
            Self::Ip(networks) => {
                let address = std::str::from_utf8(value).ok()?.parse::<IpAddr>().ok()?;
                plain(networks.iter().any(|network| network.contains(&address)))
            }
            Self::ByteRange(allowed) => plain(value.iter().any(|byte| !allowed[usize::from(*byte)])),
            Self::UrlEncoding => plain(!is_url_encoding(value)),
            Self::Utf8 => plain(std::str::from_utf8(value).is_err()),
            Self::Sqli => {
                let found = libinjectionrs::detect_sqli(value);
                if !found.is_injection() {
                    return None;
                }
                let fingerprint =
                    found.fingerprint.map(|print| print.to_string().into_bytes()).unwrap_or_default();
                Some(if capture { vec![fingerprint] } else { Vec::new() })
            }
            Self::Xss => plain(libinjectionrs::detect_xss(value).is_injection()),
            Self::Always => plain(true),
            Self::Never => None,
        }
    }

    /// The argument, where it may hold macros.
    pub(crate) fn argument(&self) -> Option<&Text> {
        match self {
            Self::Contains(text)
            | Self::ContainsWord(text)
            | Self::Equals(text)
            | Self::Within(text)
            | Self::Begins(text)
            | Self::Ends(text)
            | Self::Number(_, text) => Some(text),
            Self::RegexMacro(expanded) => Some(&expanded.text),
            _ => None,
        }
    }
}

/// A number as rules read it: leading digits count, anything else is 0.
pub(crate) fn number(text: &[u8]) -> i64 {
    let text = text.trim_ascii();
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let value = digits
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .fold(0_i64, |n, d| n.saturating_mul(10).saturating_add(i64::from(d - b'0')));
    if negative { -value } else { value }
}

fn contains_word(value: &[u8], word: &[u8]) -> bool {
    let is_word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    memchr::memmem::find_iter(value, word).any(|at| {
        let before = at.checked_sub(1).and_then(|before| value.get(before));
        !is_word(before) && !is_word(value.get(at + word.len()))
    })
}

fn is_url_encoding(value: &[u8]) -> bool {
    let mut rest = value;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let good = rest.get(at + 1..at + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        if !good {
            return false;
        }
        rest = &rest[at + 3..];
    }
    true
}
