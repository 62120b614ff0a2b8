//! What a value must hold so that a pattern can match it at all.
//!
//! Derived from the pattern's syntax tree, always towards "perhaps": a filter may let values through that
//! do not match, never the other way round. Most values fail it, so that most patterns are not run.

use crate::value::{ByteSet, Pairs, Summary};
use regex_syntax::hir::{Class, Hir, HirKind};

/// Byte sets of which a filter keeps the rarest.
const SETS_MAX: usize = 6;
/// Largest choice among pairs; beyond it, running the pattern is as cheap.
const CHOICE_MAX: usize = 100;
/// A class with more members says little about pairs.
const CLASS_MAX: usize = 4;
/// Repetitions that are written out.
const UNROLLED_MAX: u32 = 4;

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Of each of these sets a value must hold a byte.
    sets: Vec<ByteSet>,
    formula: Formula,
    len: u32,
}

/// What a value must hold, as pairs of neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Formula {
    Perhaps,
    Pair(u16),
    All(Vec<Formula>),
    Any(Vec<Formula>),
}

impl Filter {
    /// The filter that lets everything through.
    pub(crate) fn open() -> Self {
        Self { sets: Vec::new(), formula: Formula::Perhaps, len: 0 }
    }

    pub(crate) fn of(hir: &Hir) -> Self {
        let mut sets = bytes_needed(hir);
        sets.sort_by_key(weight);
        sets.dedup();
        sets.truncate(SETS_MAX);
        let formula = pairs_needed(hir);
        let len = hir.properties().minimum_len().unwrap_or(0).min(u32::MAX as usize) as u32;
        Self { sets, formula, len }
    }

    /// The filter of finding any of these texts, letter case aside.
    pub(crate) fn of_phrases<'t>(phrases: impl Iterator<Item = &'t [u8]> + Clone) -> Self {
        let begins =
            phrases.clone().map(|phrase| phrase.first().map_or(ByteSet::ALL, |byte| both_cases(*byte)));
        let sets = vec![begins.fold(ByteSet::default(), ByteSet::union)];
        let len = phrases.clone().map(<[u8]>::len).min().unwrap_or(0) as u32;
        let formula = any(phrases.map(|phrase| {
            all(phrase.windows(2).map(|pair| Formula::Pair(Pairs::bit(pair[0], pair[1]))).collect())
        }));
        Self { sets, formula, len }
    }

    /// Whether one of many values, of which these are all bytes and the greatest length, may match.
    #[inline]
    pub(crate) fn may_match_any(&self, bytes: &ByteSet, longest: u32) -> bool {
        longest >= self.len && self.sets.iter().all(|set| set.meets(bytes))
    }

    /// Whether a value may match.
    #[inline]
    pub(crate) fn may_match(&self, value: &Summary) -> bool {
        self.may_match_any(&value.bytes, value.len) && self.formula.may_hold(&value.pairs)
    }
}

impl Formula {
    fn may_hold(&self, pairs: &Pairs) -> bool {
        match self {
            Self::Perhaps => true,
            Self::Pair(bit) => pairs.has(*bit),
            Self::All(parts) => parts.iter().all(|part| part.may_hold(pairs)),
            Self::Any(parts) => parts.iter().any(|part| part.may_hold(pairs)),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Perhaps | Self::Pair(_) => 1,
            Self::All(parts) | Self::Any(parts) => 1 + parts.iter().map(Self::size).sum::<usize>(),
        }
    }
}

fn all(parts: Vec<Formula>) -> Formula {
    let mut kept: Vec<Formula> = Vec::new();
    for part in parts {
        match part {
            Formula::Perhaps => {}
            Formula::All(inner) => kept.extend(inner),
            other => kept.push(other),
        }
    }
    kept.dedup();
    match kept.len() {
        0 => Formula::Perhaps,
        1 => kept.remove(0),
        _ => Formula::All(kept),
    }
}

fn any(parts: impl Iterator<Item = Formula>) -> Formula {
    let mut kept: Vec<Formula> = Vec::new();
    for part in parts {
        match part {
            Formula::Perhaps => return Formula::Perhaps,
            Formula::Any(inner) => kept.extend(inner),
            other => kept.push(other),
        }
    }
    kept.dedup();
    match kept.len() {
        0 => Formula::Perhaps,
        1 => kept.remove(0),
        _ if kept.iter().map(Formula::size).sum::<usize>() > CHOICE_MAX => Formula::Perhaps,
        _ => Formula::Any(kept),
    }
}

/// How often bytes of the set stand in what people send: the less, the better the filter.
fn weight(set: &ByteSet) -> u32 {
    (0..=255_u8)
        .filter(|byte| set.contains(*byte))
        .map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' => 60,
            b'A'..=b'Z' => 30,
            b'-' | b'.' | b'/' | b'_' | b' ' | b'=' | b',' | b':' | b';' => 20,
            0x21..=0x7e => 2,
            _ => 1,
        })
        .sum()
}

fn both_cases(byte: u8) -> ByteSet {
    ByteSet::of(&[byte.to_ascii_lowercase(), byte.to_ascii_uppercase()])
}

/// The bytes of a class, when it is one of bytes. The parser makes one of characters of a choice of letters.
pub(crate) fn class_bytes(class: &Class) -> Option<ByteSet> {
    let plain = match class {
        Class::Bytes(class) => class,
        Class::Unicode(class) => &class.to_byte_class()?,
    };
    let ranges = plain.ranges().iter();
    Some(ranges.fold(ByteSet::default(), |set, range| set.union(ByteSet::range(range.start(), range.end()))))
}

/// Sets of which each value that matches holds a byte.
fn bytes_needed(hir: &Hir) -> Vec<ByteSet> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Vec::new(),
        HirKind::Literal(literal) => literal.0.iter().map(|byte| ByteSet::of(&[*byte])).collect(),
        HirKind::Class(class) => class_bytes(class).into_iter().collect(),
        HirKind::Repetition(repetition) if repetition.min == 0 => Vec::new(),
        HirKind::Repetition(repetition) => bytes_needed(&repetition.sub),
        HirKind::Capture(capture) => bytes_needed(&capture.sub),
        HirKind::Concat(parts) => {
            let mut sets: Vec<ByteSet> = parts.iter().flat_map(bytes_needed).collect();
            sets.sort_by_key(weight);
            sets.dedup();
            sets.truncate(4 * SETS_MAX);
            sets
        }
        HirKind::Alternation(parts) => {
            let mut each = parts.iter().map(|part| {
                let mut sets = bytes_needed(part);
                sets.sort_by_key(weight);
                sets
            });
            // One of the first needs of the parts is a need of the whole, and so on with the second ones.
            let Some(first) = each.next() else { return Vec::new() };
            each.fold(first, |sets, other| {
                sets.into_iter().zip(other).map(|(one, two)| one.union(two)).take(SETS_MAX).collect()
            })
        }
    }
}

/// A stretch of a pattern, seen from its pairs.
enum Piece {
    /// One byte, one of these.
    Byte(ByteSet),
    /// Nothing that has a width.
    Nothing,
    /// Anything; what it needs of itself.
    Other(Formula),
}

/// Pairs that each value that matches holds.
fn pairs_needed(hir: &Hir) -> Formula {
    let mut pieces = Vec::new();
    flatten(hir, &mut pieces);
    let mut parts = Vec::new();
    let mut before: Option<ByteSet> = None;
    for piece in pieces {
        match piece {
            Piece::Nothing => {}
            Piece::Other(formula) => {
                parts.push(formula);
                before = None;
            }
            Piece::Byte(set) => {
                parts.extend(before.map(|before| pair_of(&before, &set)));
                before = Some(set);
            }
        }
    }
    all(parts)
}

fn pair_of(first: &ByteSet, second: &ByteSet) -> Formula {
    let folded = |set: &ByteSet| {
        let mut bytes: Vec<u8> =
            (0..=255_u8).filter(|byte| set.contains(*byte)).map(|byte| byte.to_ascii_lowercase()).collect();
        bytes.sort_unstable();
        bytes.dedup();
        bytes
    };
    if first.len() > 2 * CLASS_MAX as u32 || second.len() > 2 * CLASS_MAX as u32 {
        return Formula::Perhaps;
    }
    let (first, second) = (folded(first), folded(second));
    if first.len() > CLASS_MAX || second.len() > CLASS_MAX {
        return Formula::Perhaps;
    }
    any(first.iter().flat_map(|one| second.iter().map(|two| Formula::Pair(Pairs::bit(*one, *two)))))
}

fn flatten(hir: &Hir, pieces: &mut Vec<Piece>) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => pieces.push(Piece::Nothing),
        HirKind::Literal(literal) => {
            pieces.extend(literal.0.iter().map(|byte| Piece::Byte(ByteSet::of(&[*byte]))));
        }
        HirKind::Class(class) => pieces.push(match class_bytes(class) {
            Some(set) => Piece::Byte(set),
            None => Piece::Other(Formula::Perhaps),
        }),
        HirKind::Capture(capture) => flatten(&capture.sub, pieces),
        HirKind::Concat(parts) => parts.iter().for_each(|part| flatten(part, pieces)),
        HirKind::Alternation(parts) => {
            pieces.push(Piece::Other(any(parts.iter().map(pairs_needed))));
        }
        HirKind::Repetition(repetition) if repetition.min == 0 => {
            pieces.push(Piece::Other(Formula::Perhaps));
        }
        HirKind::Repetition(repetition) => {
            let unrolled = repetition.min.min(UNROLLED_MAX);
            for _ in 0..unrolled {
                flatten(&repetition.sub, pieces);
            }
            if repetition.max != Some(unrolled) {
                // More may follow; at the end stands one again.
                pieces.push(Piece::Other(Formula::Perhaps));
                flatten(&repetition.sub, pieces);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(pattern: &str) -> Filter {
        let mut parser =
            regex_syntax::ParserBuilder::new().unicode(false).utf8(false).dot_matches_new_line(true).build();
        Filter::of(&parser.parse(pattern).unwrap())
    }

    fn check(pattern: &str, value: &str, expected: bool) {
        assert_eq!(filter(pattern).may_match(&Summary::of(value.as_bytes())), expected, "{pattern} {value}");
    }

    #[test]
    fn values_that_lack_what_a_pattern_needs_are_told_apart() {
        check("(?i)union\\s+select", "a benign one", false);
        check("(?i)union\\s+select", "UNION SELECT", true);
        check("(?i)union|insert", "no onion", false);
        check("a|b*", "x", true);
        check("^[0-9]+$", "abc", false);
        check("x{3}", "xx", false);
        check("<[a-z]+>", "a < b", false);
        check("(?:ab)+c", "ab c", false);
        check("(?:ab)+c", "ababc", true);
        check("(?s).*", "", true);
        check("\\bcat\\b", "act", false);
    }

    #[test]
    fn phrases_are_told_apart_too() {
        let phrases = [&b"nikto"[..], b"sqlmap"];
        let filter = Filter::of_phrases(phrases.into_iter());
        let check = |value: &[u8], expected| assert_eq!(filter.may_match(&Summary::of(value)), expected);
        check(b"Mozilla/5.0", false);
        check(b"xSQLMAPx", true);
    }

    const ATOMS: &[&str] = &[
        "a",
        "b",
        "A",
        "[ab]",
        "[^a]",
        ".",
        "a|bc",
        "(?i:ab|B)",
        "bb",
        "a|",
        "\\b",
        "^",
        "$",
        "abc|c(?:a|b)+",
        "(?i)c",
    ];
    const REPEATS: &[&str] = &["", "", "*", "+", "?", "{2,3}", "{2}", "+?"];

    proptest! {
        /// Small patterns over few letters, so that matches are common.
        #[test]
        fn a_filter_never_says_no_where_the_pattern_says_yes(
            pieces in proptest::collection::vec((proptest::sample::select(ATOMS), proptest::sample::select(REPEATS)), 1..7),
            values in proptest::collection::vec("[abcABC ]{0,8}", 1..20),
        ) {
            let pattern = pieces.iter().map(|(atom, repeat)| format!("(?:{atom}){repeat}")).collect::<Vec<_>>().concat();
            let Ok(regex) = regex::bytes::RegexBuilder::new(&pattern).unicode(false).dot_matches_new_line(true).build() else {
                return Ok(());
            };
            let filter = filter(&pattern);
            for value in values {
                if regex.is_match(value.as_bytes()) {
                    prop_assert!(filter.may_match(&Summary::of(value.as_bytes())), "{} {}", pattern, value);
                }
            }
        }
    }
}
