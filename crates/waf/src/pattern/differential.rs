//! The simulation against a backtracking engine, which is a tool of these tests only.

use super::{Pattern, simulation::Search};
use proptest::prelude::*;

/// The first match of a backtracking engine, with its groups; it reads bytes as Latin-1.
fn backtracked(regex: &fancy_regex::Regex, value: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let text: String = value.iter().map(|b| char::from(*b)).collect();
    let groups = regex.captures(&text).expect("values are short")?;
    let place = |at: usize| text[..at].chars().count();
    Some(
        (0..groups.len())
            .map(|n| groups.get(n).map_or(0..0, |group| place(group.start())..place(group.end())))
            .collect(),
    )
}

fn agree(pattern: &str, value: &[u8]) -> Result<(), TestCaseError> {
    // The other one refuses some that ours takes; ours refuses only what would have to be tried.
    let Ok(other) = fancy_regex::Regex::new(&format!("(?s){pattern}")) else { return Ok(()) };
    let own = match Pattern::compile(pattern.as_bytes()) {
        Ok(own) => own,
        Err(why) => {
            prop_assert!(why.contains("atomic group"), "{}: {}", pattern, why);
            return Ok(());
        }
    };
    let expected = backtracked(&other, value);
    let shown = String::from_utf8_lossy(value);
    prop_assert_eq!(own.is_match(value), expected.is_some(), "{} on {}", pattern, shown);
    prop_assert_eq!(own.captures(value).map(no_empty), expected.map(no_empty), "{} on {}", pattern, shown);
    Ok(())
}

/// Where an empty group stood is nobody's business.
fn no_empty(groups: Vec<std::ops::Range<usize>>) -> Vec<std::ops::Range<usize>> {
    let (whole, rest) = groups.split_first().expect("group 0 is there");
    let rest = rest.iter().map(|group| if group.is_empty() { 0..0 } else { group.clone() });
    std::iter::once(whole.clone()).chain(rest).collect()
}

const ATOMS: &[&str] =
    &["a", "b", "[ab]", "[^a]", ".", "(a)", "(?:a|ab)", "(b|a)", "\\b", "^", "$", "abc", "(?i:B)", " "];
const LOOKS: &[&str] = &[
    "(?=a)",
    "(?!a)",
    "(?!a+b)",
    "(?=.*b)",
    "(?<=a)",
    "(?<!a)",
    "(?<!ab|b)",
    "(?=a(?!b))",
    "(?!(?<=a)b)",
    "(?>a|ab)",
    "(?>[ab]+)",
    "(?:ab)*+",
    "[^b]++",
    "a{1,2}+",
    "(?>ab|[a ]+)",
    "(?!a|b)",
    "(?<=[ab]|c)",
];
const REPEATS: &[&str] = &["", "", "", "*", "+", "?", "{2}", "{1,2}", "*?", "+?"];

fn piece() -> impl Strategy<Value = String> {
    let atom = (proptest::sample::select(ATOMS), proptest::sample::select(REPEATS))
        .prop_map(|(atom, repeat)| format!("(?:{atom}){repeat}"));
    prop_oneof![3 => atom, 2 => proptest::sample::select(LOOKS).prop_map(str::to_owned)]
}

/// Patterns like those that compare words.
const WORDS: &[&str] = &[
    r"(?i)\b(\w+)\b\s*=\s*\b\1\b",
    r"\b([\d\w]+)\b\s*!=\s*(?!\b\1\b)\w+",
    r"\b(\w+)\b(?: a)*? \b\1\b",
    r"(?:x|\b(\w+)\b)[ =]+(?:(?=\b\1\b)a+|\b\1\b=)",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_simulation_finds_what_a_backtracking_engine_finds(
        pieces in proptest::collection::vec(piece(), 1..6),
        values in proptest::collection::vec(proptest::collection::vec(proptest::sample::select(&b"aabbcB \xa7"[..]), 0..9), 1..6),
    ) {
        for value in values {
            agree(&pieces.concat(), &value)?;
        }
    }

    #[test]
    fn words_are_compared_as_a_backtracking_engine_does(
        pattern in proptest::sample::select(WORDS),
        words in proptest::collection::vec("(a|b|aa|A|=|!=| |x)", 0..12),
    ) {
        agree(pattern, words.concat().as_bytes())?;
    }
}

/// What a search costs, in steps.
fn steps(pattern: &str, value: &[u8]) -> u64 {
    let compiled = Pattern::compile(pattern.as_bytes()).expect("it compiles");
    let super::Engine::Around(around) = compiled.engine else { panic!("{pattern} is a plain one") };
    let mut search = Search::new(&around.1, value);
    search.run(true);
    search.steps
}

#[test]
fn a_value_twice_as_long_costs_twice_as_much_and_no_more() {
    let patterns = [
        r"(?:(?:a|aa|aaa)+)+(?<!b)b(?=c)$",
        r"(?=(?:a*)*b)(?:a*)*c",
        r"^(?:a++|b)*c",
        r"(?<=a.*)(?!.*b.*c)d",
        r"(?i)\b(\w+)\b(?:\s+\w+)*?\s+\b\1\b=",
    ];
    let pieces: [&[u8]; 6] = [b"a", b"ab", b"a b ", b" ", b"aa aaa ", b"a0 b1 c2 d3 e4 f5 g6 h7 i8 j9 "];
    for pattern in patterns {
        for piece in pieces {
            let value = |length: usize| piece.iter().copied().cycle().take(length).collect::<Vec<_>>();
            let (short, long) = (steps(pattern, &value(4000)), steps(pattern, &value(8000)));
            assert!(long <= short * 21 / 10 + 100, "{pattern} on {piece:?}: {short}, {long}");
        }
    }
}

#[test]
fn what_cannot_be_decided_is_a_match() {
    let pattern = Pattern::compile(br"(?i)\b(\w+)\b(?:\s+\w+)*?\s+\b\1\b=").expect("it compiles");
    let many = (0..50).map(|n| format!("w{n} ")).collect::<Vec<_>>().concat();
    assert!(pattern.is_match(format!("{many}x=").as_bytes()), "50 words are not all remembered");
    assert!(pattern.is_match(b"a b a=") && !pattern.is_match(b"a b c="));
}
