//! PCRE patterns in linear time: most by `regex-automata`, those that look around by a simulation of our own.

#[cfg(test)]
mod differential;
mod program;
pub(crate) mod sample;
mod simulation;
mod spelling;

use crate::{filter::Filter, value::Summary};
use program::Programs;
use regex_automata::{Input, meta, util::syntax};
use regex_syntax::hir::Hir;
use simulation::{Outcome, Search};
use std::ops::Range;

const NFA_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Memory that one lazily built automaton may take before it starts anew.
const CACHE_BYTES_MAX: usize = 512 * 1024;
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
    Plain(meta::Regex),
    /// With a wider pattern of the plain kind, which most values do not match.
    Around(Box<(meta::Regex, Programs)>),
}

/// What the groups of a pattern matched, as places in the value.
pub(crate) type Groups = Vec<Range<usize>>;

impl Pattern {
    pub(crate) fn compile(pattern: &[u8]) -> Result<Self, String> {
        let spelled = spelling::rewrite(pattern);
        let hir = syntax::parse_with(&spelled.text, &syntax_config()).map_err(|error| error.to_string())?;
        if !spelled.has_specials {
            return Ok(Self { filter: Filter::of(&hir), engine: Engine::Plain(plain(&hir)?) });
        }
        let programs = Programs::of(&hir)?;
        let wider = program::wider(&hir);
        Ok(Self { filter: Filter::of(&wider), engine: Engine::Around(Box::new((plain(&wider)?, programs))) })
    }

    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(crate) fn is_match(&self, value: &[u8]) -> bool {
        match &self.engine {
            Engine::Plain(regex) => regex.is_match(value),
            Engine::Around(around) => {
                let (wider, programs) = &**around;
                wider.is_match(value) && Search::new(programs, value).run(false) != Outcome::No
            }
        }
    }

    /// The same for a value that is known by its summary.
    pub(crate) fn is_match_of(&self, summary: &Summary, value: &[u8]) -> bool {
        self.filter.may_match(summary) && self.is_match(value)
    }

    /// The groups 0 to 9 of the first match.
    pub(crate) fn captures(&self, value: &[u8]) -> Option<Groups> {
        match &self.engine {
            Engine::Plain(regex) => {
                let mut found = regex.create_captures();
                regex.captures(Input::new(value), &mut found);
                found.is_match().then(|| {
                    let groups = found.iter().take(GROUPS_MAX);
                    groups.map(|group| group.map_or(0..0, |span| span.range())).collect()
                })
            }
            Engine::Around(around) => match Search::new(&around.1, value).run(true) {
                Outcome::No => None,
                Outcome::Found(groups) => Some(groups),
                Outcome::Undecided => Some(Groups::new()),
            },
        }
    }
}

/// Bytes, and a dot is any of them: as rules are written for.
fn syntax_config() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false).dot_matches_new_line(true)
}

fn plain(hir: &Hir) -> Result<meta::Regex, String> {
    let config = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(NFA_BYTES_MAX))
        .hybrid_cache_capacity(CACHE_BYTES_MAX);
    meta::Builder::new().configure(config).build_from_hir(hir).map_err(|error| error.to_string())
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
    fn what_never_gives_back_keeps_its_meaning() {
        check(r"^a++ab", b"aaab", false);
        check(r"^a+ab", b"aaab", true);
        check(r"^(?>a|ab)c", b"abc", false);
        check(r"[+]+\++[^+]*+c{2}+$", b"++++abccc", false);
        check(r"^(?:\s*;\s*a)?$", b" ; a", true);
        check(r"^(?:ab){1,2}+ab", b"abab", false);
        check(r"^(?:ab){1,2}+ab", b"ababab", true);
    }

    #[test]
    fn look_around_works_on_bytes_and_keeps_groups() {
        check(r"(?!x)a", b"\xffa", true);
        check(r"<\?(?!xml)", b"<?xml <?XML", true);
        check(r"<\?(?!xml)", b"<?xml", false);
        check(r"(?<!&(?:amp)|&(?:apos));|['=]", b"a&amp;b&apos;", false);
        check(r"(?<!&(?:amp)|&(?:apos));|['=]", b"a&amp;b&apo;", true);
        check(r"a(?=b(?!c))", b"abc", false);
        let captured = Pattern::compile(br"(?<=k)(.)").unwrap().captures(b"k\xfe").unwrap();
        assert_eq!(captured, [1..2, 1..2]);
    }

    #[test]
    fn words_are_compared() {
        let same = r"(?i:\b([\d\w]+)\b\s*=\s*\b\1\b)";
        check(same, b"abc = ABC", true);
        check(same, b"abc = ABCD", false);
        let other = r"\b(\w+)\b\s*!=\s*(?!\b\1\b)\w+";
        check(other, b"1 != 1", false);
        check(other, b"1 != 12", true);
        assert!(Pattern::compile(br"(a)\1").is_err() && Pattern::compile(br"\b(a)\b\1").is_err());
    }

    #[test]
    fn what_would_have_to_be_tried_is_refused() {
        for pattern in [r"(?>a*b)c", r"(?:a|ab)*+c", r"(a)(b)\1\2", r"\K", r"(?(1)a)"] {
            assert!(Pattern::compile(pattern.as_bytes()).is_err(), "{pattern}");
        }
    }
}
