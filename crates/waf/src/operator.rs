//! Operators: does a value match?

use crate::{
    Files,
    body::urlencoded,
    error::{LoadError, Place},
    filter::Filter,
    injection,
    pattern::{Groups, Pattern},
    text::{Text, names_a_variable},
    tx::{Names, number},
};
use aho_corasick::AhoCorasick;
use ipnet::IpNet;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// What a rule asks of each value.
#[derive(Debug)]
pub(crate) struct Test {
    pub(crate) negated: bool,
    pub(crate) operator: Operator,
    /// What a value must hold to match.
    pub(crate) filter: Filter,
}

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

impl Comparison {
    pub(crate) fn holds(self, value: i64, argument: i64) -> bool {
        match self {
            Self::Eq => value == argument,
            Self::Ge => value >= argument,
            Self::Gt => value > argument,
            Self::Le => value <= argument,
            Self::Lt => value < argument,
        }
    }
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    No,
    Yes,
    /// With what the groups of a pattern matched.
    Groups(Groups),
    /// With a text that stands for it.
    Text(Vec<u8>),
}

/// Reads `[!]@name argument`; without a name it is a pattern. Also says what does nothing here.
pub(crate) fn parse(
    place: &Place,
    text: &[u8],
    files: &dyn Files,
    names: &mut Names,
) -> Result<(Test, Option<String>), LoadError> {
    let (negated, text) =
        text.strip_prefix(b"!").map_or((false, text), |rest| (true, rest.trim_ascii_start()));
    let Some(named) = text.strip_prefix(b"@") else {
        let operator = regex(place, text, names)?;
        return Ok((Test { negated, filter: filter_of(&operator), operator }, None));
    };
    let end = named.iter().position(u8::is_ascii_whitespace).unwrap_or(named.len());
    let (name, argument) =
        (String::from_utf8_lossy(&named[..end]).to_ascii_lowercase(), named[end..].trim_ascii());
    let mut macros = || Text::parse(place, argument, names);
    let mut warning = None;
    let mut filter = None;
    let operator = match name.as_str() {
        "rx" | "rxglobal" => regex(place, argument, names)?,
        "pm" => {
            let argument = without_hex(place, argument)?;
            let words = argument.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            filter = Some(Filter::of_phrases(words.clone()));
            phrases(place, words)?
        }
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
            filter = Some(Filter::of_phrases(lines.clone()));
            phrases(place, lines)?
        }
        "contains" | "strmatch" => Operator::Contains(macros()?),
        "containsword" => Operator::ContainsWord(macros()?),
        "streq" => Operator::Equals(macros()?),
        "within" => Operator::Within(macros()?),
        "beginswith" => Operator::Begins(macros()?),
        "endswith" => Operator::Ends(macros()?),
        "eq" => Operator::Number(Comparison::Eq, macros()?),
        "ge" => Operator::Number(Comparison::Ge, macros()?),
        "gt" => Operator::Number(Comparison::Gt, macros()?),
        "le" => Operator::Number(Comparison::Le, macros()?),
        "lt" => Operator::Number(Comparison::Lt, macros()?),
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
    let filter = filter.unwrap_or_else(|| filter_of(&operator));
    Ok((Test { negated, operator, filter }, warning))
}

fn filter_of(operator: &Operator) -> Filter {
    let text = |text: &Text| match text.plain() {
        Some(text) if !text.is_empty() => Filter::of_phrases(std::iter::once(text)),
        _ => Filter::open(),
    };
    match operator {
        Operator::Regex(pattern) => pattern.filter().clone(),
        Operator::Contains(argument)
        | Operator::ContainsWord(argument)
        | Operator::Equals(argument)
        | Operator::Begins(argument)
        | Operator::Ends(argument) => text(argument),
        Operator::UrlEncoding => Filter::of_phrases(std::iter::once(&b"%"[..])),
        _ => Filter::open(),
    }
}

/// A pattern; one that holds the macro of a known variable is compiled when the variable is known.
fn regex(place: &Place, text: &[u8], names: &mut Names) -> Result<Operator, LoadError> {
    if names_a_variable(text) {
        let text = Text::parse(place, text, names)?;
        return Ok(Operator::RegexMacro(Box::new(Expanded { text, last: Mutex::default() })));
    }
    Ok(Operator::Regex(Box::new(pattern(place, text)?)))
}

/// Phrases in which bytes may stand in hexadecimal, between bars: `a|0d 0a|b`.
fn without_hex(place: &Place, text: &[u8]) -> Result<Vec<u8>, LoadError> {
    let is_hex = |part: &[u8]| !part.is_empty() && part.iter().all(|b| b.is_ascii_hexdigit() || *b == b' ');
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = memchr::memchr(b'|', rest) {
        out.extend_from_slice(&rest[..open]);
        let close = memchr::memchr(b'|', &rest[open + 1..]).map(|at| open + 1 + at);
        let Some(close) = close.filter(|close| is_hex(&rest[open + 1..*close])) else {
            out.push(b'|');
            rest = &rest[open + 1..];
            continue;
        };
        for pair in rest[open + 1..close].split(|b| *b == b' ').filter(|pair| !pair.is_empty()) {
            let byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
            match byte {
                // White space would end the phrase.
                Some(byte) if !byte.is_ascii_whitespace() => out.push(byte),
                _ => return Err(place.unsupported("this byte between bars in @pm")),
            }
        }
        rest = &rest[close + 1..];
    }
    out.extend_from_slice(rest);
    Ok(out)
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
    pub(crate) fn matches(&self, value: &[u8], argument: &[u8], capture: bool) -> Found {
        let plain = |matched: bool| if matched { Found::Yes } else { Found::No };
        let pattern = |pattern: &Pattern| {
            // The cheap question first: captures only after a hit.
            if !pattern.is_match(value) {
                return Found::No;
            }
            if capture { pattern.captures(value).map_or(Found::Yes, Found::Groups) } else { Found::Yes }
        };
        match self {
            Self::Regex(regex) => pattern(regex),
            Self::RegexMacro(expanded) => {
                expanded.pattern(argument).map_or(Found::No, |regex| pattern(&regex))
            }
            Self::Phrases(automaton) => match automaton.find(value) {
                None => Found::No,
                Some(found) if capture => Found::Groups(vec![found.range()]),
                Some(_) => Found::Yes,
            },
            Self::Contains(_) => plain(memchr::memmem::find(value, argument).is_some()),
            Self::ContainsWord(_) => plain(contains_word(value, argument)),
            Self::Equals(_) => plain(value == argument),
            Self::Within(_) => plain(value.is_empty() || memchr::memmem::find(argument, value).is_some()),
            Self::Begins(_) => plain(value.starts_with(argument)),
            Self::Ends(_) => plain(value.ends_with(argument)),
            Self::Number(comparison, _) => plain(comparison.holds(number(value), number(argument))),
            Self::Ip(networks) => {
                let address = std::str::from_utf8(value).ok().and_then(|text| text.parse::<IpAddr>().ok());
                plain(address.is_some_and(|address| {
                    let plain = address.to_canonical();
                    networks.iter().any(|network| network.contains(&address) || network.contains(&plain))
                }))
            }
            Self::ByteRange(allowed) => plain(value.iter().any(|byte| !allowed[usize::from(*byte)])),
            Self::UrlEncoding => plain(!urlencoded::is_valid(value)),
            Self::Utf8 => plain(std::str::from_utf8(value).is_err()),
            Self::Sqli => injection::sqli(value).map_or(Found::No, Found::Text),
            Self::Xss => plain(injection::xss(value)),
            Self::Always => Found::Yes,
            Self::Never => Found::No,
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

fn contains_word(value: &[u8], word: &[u8]) -> bool {
    let is_word = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    memchr::memmem::find_iter(value, word).any(|at| {
        let before = at.checked_sub(1).and_then(|before| value.get(before));
        !is_word(before) && !is_word(value.get(at + word.len()))
    })
}
