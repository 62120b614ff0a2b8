//! Looking a password up in a list of breached ones, sorted, without loading it.
//!
//! A list has one entry a line: SHA-1 hashes in hex, with or without `:count`, as Pwned Passwords are distributed; or
//! the passwords themselves, in the order of their bytes. Where the bytes come from is the caller's: each look reads a
//! few short pieces.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::cmp::Ordering;

/// Longest line, in bytes. Longer than any password that we take.
const LINE_BYTES_MAX: usize = 1100;
/// Hex digits of a SHA-1 hash.
const HASH_DIGITS: usize = 40;
/// Places at which a list is looked at before it is used.
const SAMPLES: u64 = 256;

/// What the lines of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SHA-1 in hex.
    Hashes,
    /// Passwords.
    Plain,
}

/// Why a list cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListFault<E> {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(E),
    /// It holds nothing.
    #[error("it is empty")]
    Empty,
    /// It is no list of lines.
    #[error("the line at byte {0} is longer than 1100 bytes")]
    Line(u64),
    /// The first line is a hash, this one is not.
    #[error("the line at byte {0} is no SHA-1 hash, and the first one is")]
    Mixed(u64),
    /// It cannot be searched.
    #[error("the line at byte {0} is not in order; sort the file with `LC_ALL=C sort`")]
    Order(u64),
}

/// A list, by whatever reads it: `read` fills a buffer from an offset and says how many bytes came, 0 at the end.
pub struct List<F> {
    read: F,
    bytes: u64,
    kind: Kind,
}

struct Line {
    start: u64,
    text: Vec<u8>,
    /// Where the next one begins.
    next: u64,
}

impl<E, F: FnMut(u64, &mut [u8]) -> Result<usize, E>> List<F> {
    /// Looks at a list of so many bytes: at its first line, and at some hundred others whether they are in order.
    ///
    /// # Errors
    /// The first [`ListFault`] found.
    pub fn check(read: F, bytes: u64) -> Result<Kind, ListFault<E>> {
        let mut list = Self::new(read, bytes, Kind::Plain);
        let first = list.line_from(0)?.ok_or(ListFault::Empty)?;
        if is_hash(&first.text) {
            list.kind = Kind::Hashes;
        }
        let mut last = first;
        for sample in 1..=SAMPLES {
            let at = (u128::from(bytes) * u128::from(sample) / u128::from(SAMPLES)) as u64;
            let Some(line) = list.line_from(at.max(last.next))? else { break };
            if list.kind == Kind::Hashes && !is_hash(&line.text) {
                return Err(ListFault::Mixed(line.start));
            }
            if list.compare(&line.text, &list.key(&last.text)) == Ordering::Less {
                return Err(ListFault::Order(line.start));
            }
            last = line;
        }
        Ok(list.kind)
    }

    /// A list that was checked.
    pub fn new(read: F, bytes: u64, kind: Kind) -> Self {
        Self { read, bytes, kind }
    }

    /// Whether a password is in the list. Reads about log₂(lines) pieces of 1 kB.
    ///
    /// # Errors
    /// When the list cannot be read, or has a line that is too long.
    pub fn contains(&mut self, password: &str) -> Result<bool, ListFault<E>> {
        let wanted = match self.kind {
            Kind::Plain => password.as_bytes().to_vec(),
            Kind::Hashes => hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()).as_ref()),
        };
        let (mut from, mut to) = (0, self.bytes);
        while from < to {
            let middle = from + (to - from) / 2;
            let Some(line) = self.line_from(middle)?.filter(|line| line.start < to) else {
                to = middle;
                continue;
            };
            match self.compare(&line.text, &wanted) {
                Ordering::Equal => return Ok(true),
                Ordering::Less => from = line.next,
                Ordering::Greater => to = middle,
            }
        }
        Ok(false)
    }

    /// The first line that begins at `at` or later.
    fn line_from(&mut self, at: u64) -> Result<Option<Line>, ListFault<E>> {
        let start = match at.checked_sub(1) {
            None => 0,
            // The line in which `at` lies begins before it, unless the byte before ends one.
            Some(before) => match self.line_end(before)? {
                Some((_, next)) => next,
                None => return Ok(None),
            },
        };
        if start >= self.bytes {
            return Ok(None);
        }
        let Some((mut text, next)) = self.line_end(start)? else { return Ok(None) };
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        Ok(Some(Line { start, text, next }))
    }

    /// The bytes from `at` to the end of their line, and where the next one begins; `None` at the end.
    fn line_end(&mut self, at: u64) -> Result<Option<(Vec<u8>, u64)>, ListFault<E>> {
        let mut piece = vec![0; LINE_BYTES_MAX + 1];
        let mut filled = 0;
        while filled < piece.len() {
            let count = (self.read)(at + filled as u64, &mut piece[filled..]).map_err(ListFault::Read)?;
            let read = &piece[filled..(filled + count).min(piece.len())];
            if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                piece.truncate(filled + end);
                let next = at + piece.len() as u64 + 1;
                return Ok(Some((piece, next)));
            }
            if count == 0 {
                piece.truncate(filled);
                let next = at + filled as u64;
                return Ok((filled > 0).then_some((piece, next)));
            }
            filled += count;
        }
        Err(ListFault::Line(at))
    }

    /// What a line is sorted by.
    fn key(&self, line: &[u8]) -> Vec<u8> {
        match self.kind {
            Kind::Plain => line.to_vec(),
            Kind::Hashes => line.iter().take(HASH_DIGITS).map(u8::to_ascii_uppercase).collect(),
        }
    }

    fn compare(&self, line: &[u8], wanted: &[u8]) -> Ordering {
        self.key(line).as_slice().cmp(wanted)
    }
}

fn is_hash(line: &[u8]) -> bool {
    let Some((hash, rest)) = line.split_at_checked(HASH_DIGITS) else { return false };
    let count = rest.is_empty() || (rest[0] == b':' && rest[1..].iter().all(u8::is_ascii_digit));
    count && hash.iter().all(u8::is_ascii_hexdigit)
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02X}").into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, convert::Infallible};

    /// Reads like a file that gives as little as it likes.
    fn reader(text: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<usize, Infallible> {
        |at, buffer: &mut [u8]| {
            let rest = text.get(at as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len()).min(7);
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
    }

    fn has(text: &str, password: &str) -> bool {
        let bytes = text.len() as u64;
        let kind = List::check(reader(text.as_bytes()), bytes).unwrap();
        List::new(reader(text.as_bytes()), bytes, kind).contains(password).unwrap()
    }

    #[test]
    fn hashes_are_found_as_pwned_passwords_write_them() {
        // SHA-1 of `password`, of `Password1234`, and others around them.
        let list = "0000000000000000000000000000000000000001:3\r\n\
                    5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:9545824\r\n\
                    FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF:1";
        assert!(has(list, "password"));
        assert!(!has(list, "Correct-horse-1"));
        assert!(has(&list.to_lowercase(), "password"), "in small letters, too");
        assert!(
            has("5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8", "password"),
            "without counts and end of line"
        );
    }

    #[test]
    fn lists_that_cannot_be_searched_say_why() {
        let check = |text: &str, expected: ListFault<Infallible>| {
            assert_eq!(List::check(reader(text.as_bytes()), text.len() as u64), Err(expected), "{text:.40}");
        };
        check("", ListFault::Empty);
        check("b\na\n", ListFault::Order(2));
        check(&"x".repeat(2000), ListFault::Line(0));
        let hash = "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8";
        check(&format!("{hash}\nsecret\n"), ListFault::Mixed(41));
        check(&format!("{hash}\n{}\n", hash.replace('5', "4")), ListFault::Order(41));
    }

    proptest! {
        #[test]
        fn what_is_in_a_sorted_list_is_found_and_nothing_else(
            words in prop::collection::btree_set("[ -~]{1,20}", 1..200), other in "[ -~]{1,20}"
        ) {
            let words: BTreeSet<String> = words;
            let text = words.iter().map(|word| format!("{word}\n")).collect::<String>();
            let bytes = text.len() as u64;
            let mut list = List::new(reader(text.as_bytes()), bytes, Kind::Plain);
            for word in &words {
                prop_assert!(list.contains(word).unwrap(), "{}", word);
            }
            prop_assert_eq!(list.contains(&other).unwrap(), words.contains(&other));
        }

        #[test]
        fn any_bytes_are_looked_at_in_bounded_time(bytes: Vec<u8>, password: String) {
            for kind in [Kind::Plain, Kind::Hashes] {
                let _ = List::new(reader(&bytes), bytes.len() as u64, kind).contains(&password);
            }
            let _ = List::check(reader(&bytes), bytes.len() as u64);
        }
    }
}
