//! The words of SQL, and the fingerprints of injections, in a table of their own: they are looked up for
//! each word of each value.

use libinjectionrs::sqli::sqli_data::SQL_KEYWORDS;
use std::sync::OnceLock;

/// Longest word, and what is kept of a token.
pub(super) const WORD_BYTES_MAX: usize = 31;
/// More than twice the number of words, so that probes are short.
const SLOTS: usize = 1 << 15;

struct Table {
    /// Number of the word, from 1.
    slots: Vec<u16>,
}

/// What kind of token a word is, letter case aside; `None` when it is no special word.
pub(super) fn kind(word: &[u8]) -> Option<u8> {
    if word.is_empty() || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let mut upper = [0; WORD_BYTES_MAX];
    let upper = &mut upper[..word.len()];
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    let table = table();
    let mut at = hash(upper) % SLOTS;
    loop {
        let number = usize::from(table.slots[at]).checked_sub(1)?;
        let known = &SQL_KEYWORDS[number];
        if known.word.as_bytes() == upper {
            return Some(known.token_type);
        }
        at = (at + 1) % SLOTS;
    }
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut slots = vec![0_u16; SLOTS];
        for (number, keyword) in (1..).zip(SQL_KEYWORDS) {
            let mut at = hash(keyword.word.as_bytes()) % SLOTS;
            while slots[at] != 0 {
                at = (at + 1) % SLOTS;
            }
            slots[at] = number;
        }
        Table { slots }
    })
}

/// Words are known, so that nobody can choose them to collide; others are compared once.
fn hash(word: &[u8]) -> usize {
    let mut hash = word.len() as u64;
    for byte in word {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
    }
    (hash >> 7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_and_nothing_else() {
        for keyword in SQL_KEYWORDS {
            assert_eq!(kind(keyword.word.as_bytes()), Some(keyword.token_type), "{}", keyword.word);
        }
        assert_eq!(kind(b"sElEcT"), Some(b'E'));
        assert_eq!((kind(b""), kind(b"nosuchword"), kind(&[b'a'; 40])), (None, None, None));
    }
}
