//! How hard a password is to guess for whoever knows what people choose.
//!
//! What is common is made by rules from a few words: any case, digits for letters, years, rows of the keyboard and
//! of the alphabet, repetitions. It knows no list of passwords that were stolen elsewhere.

/// The least that a password must have.
pub const LEAST: usize = 8;

/// How a password is graded, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grade {
    /// Surprises, at most [`Grade::FULL`].
    pub surprises: usize,
    pub word: &'static str,
}

impl Grade {
    /// From here on more makes no difference.
    pub const FULL: usize = 16;

    /// The grade of a password.
    pub fn of(password: &str) -> Self {
        let surprises = hardness(password).min(Self::FULL);
        let word = match surprises {
            ..LEAST => "too easy to guess",
            LEAST..11 => "fair",
            11..14 => "good",
            _ => "very good",
        };
        Self { surprises, word }
    }
}

/// Words that many passwords are made of, in lower case.
const WORDS: &[&str] = &[
    "password",
    "passwort",
    "passwd",
    "passphrase",
    "pass",
    "welcome",
    "willkommen",
    "letmein",
    "admin",
    "administrator",
    "root",
    "user",
    "login",
    "secret",
    "changeme",
    "change",
    "default",
    "master",
    "test",
    "testing",
    "guest",
    "temp",
    "hello",
    "hallo",
    "iloveyou",
    "love",
    "sunshine",
    "princess",
    "monkey",
    "dragon",
    "football",
    "baseball",
    "superman",
    "batman",
    "shadow",
    "freedom",
    "whatever",
    "trustno",
    "access",
    "company",
    "server",
    "bastide",
    "spring",
    "summer",
    "autumn",
    "winter",
    "january",
    "february",
    "march",
    "april",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

/// Rows that hands follow; digits and the alphabet follow from the numbers of their characters.
const ROWS: &[&str] =
    &["qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "zxcvbnm", "yxcvbnm", "1qaz2wsx3edc", "90"];

/// Surprises in a password: a common word, a year, a row and a repetition are one each, as is every other character.
pub fn hardness(password: &str) -> usize {
    let raw: Vec<char> = password.chars().flat_map(char::to_lowercase).collect();
    let plain: Vec<char> = raw.iter().copied().map(letter).collect();
    let (mut at, mut surprises) = (0, 0);
    while at < raw.len() {
        let expected = at > 0 && follows(raw[at - 1], raw[at]);
        let known = word(&plain[at..]).max(year(&raw[at..]));
        surprises += usize::from(known > 0 || !expected);
        at += known.max(1);
    }
    surprises
}

/// The letter that a digit or sign often stands for.
fn letter(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    }
}

/// Length of the longest common word that this begins with.
fn word(text: &[char]) -> usize {
    let begins = |word: &&&str| word.chars().enumerate().all(|(at, c)| text.get(at) == Some(&c));
    WORDS.iter().filter(begins).map(|word| word.len()).max().unwrap_or(0)
}

/// 4, when this begins with a year of the last or of this century.
fn year(text: &[char]) -> usize {
    match text {
        ['1', '9', a, b, ..] | ['2', '0', a, b, ..] if a.is_ascii_digit() && b.is_ascii_digit() => 4,
        _ => 0,
    }
}

/// Whether hands or minds go from one to the other by themselves.
fn follows(one: char, next: char) -> bool {
    let in_row = |row: &&str| {
        let pairs = row.chars().zip(row.chars().skip(1));
        pairs.into_iter().any(|(a, b)| (a, b) == (one, next) || (b, a) == (one, next))
    };
    let beside =
        one.is_alphanumeric() && next.is_alphanumeric() && u32::from(one).abs_diff(u32::from(next)) == 1;
    one == next || beside || ROWS.iter().any(in_row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_many_choose_is_easy_and_what_nobody_expects_is_not() {
        let check = |password: &str, good: bool| {
            let hardness = hardness(password);
            assert_eq!(hardness >= LEAST, good, "{password}: {hardness}");
        };
        check("Password1234", false);
        check("P4$$w0rd2026!", false);
        check("Summer2026!!Summer", false);
        check("Qwertzuiop1234", false);
        check("Aaaaaaaaaaaa1", false);
        check("Abcdefghijkl1", false);
        check("WelcomeAdmin2024", false);
        check("1qaz2wsx3edcA", false);
        check("9876543210Test", false);
        check("Correct-horse-1", true);
        check("tR7 vogel lampe", true);
        check("Kiesel7Wanderfisch", true);
    }

    #[test]
    fn grades_follow_the_surprises() {
        let check = |password: &str, word: &str| assert_eq!(Grade::of(password).word, word, "{password}");
        check("Password1234", "too easy to guess");
        check("Kiesel7W", "fair");
        check("Kiesel7Wander", "good");
        check("Kiesel7Wanderfisch", "very good");
        assert_eq!(Grade::of(&"Kiesel7Wanderfisch".repeat(9)).surprises, Grade::FULL);
    }

    proptest! {
        #[test]
        fn any_text_has_at_most_a_surprise_for_each_character(text in ".{0,64}") {
            prop_assert!(hardness(&text) <= text.chars().flat_map(char::to_lowercase).count());
        }
    }
}
