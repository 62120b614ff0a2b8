//! `TX` and the other variables that rules set. Names that stand in rules are numbers; only names that
//! are put together while a request runs are looked up.

use crate::text::Text;
use std::collections::HashMap;

/// Number of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot(u16);

/// Variables that one request may make under names of its own.
const MADE_MAX: usize = 4096;

/// The names that stand in a set of rules. `0` to `9`, what patterns captured, come first.
#[derive(Debug)]
pub(crate) struct Names {
    names: Vec<Box<[u8]>>,
    numbers: HashMap<Box<[u8]>, Slot>,
}

impl Default for Names {
    fn default() -> Self {
        let mut new = Self { names: Vec::new(), numbers: HashMap::new() };
        for group in b'0'..=b'9' {
            new.slot(&[group]);
        }
        new
    }
}

impl Names {
    /// The number of a name, lower case; a new one for a new name.
    pub(crate) fn slot(&mut self, name: &[u8]) -> Slot {
        if let Some(known) = self.numbers.get(name) {
            return *known;
        }
        // Rules are no outside input; a set with so many names would not load within its size.
        let slot = Slot(self.names.len().min(usize::from(u16::MAX)) as u16);
        self.names.push(name.into());
        self.numbers.insert(name.into(), slot);
        slot
    }

    pub(crate) fn known(&self, name: &[u8]) -> Option<Slot> {
        self.numbers.get(name).copied()
    }

    pub(crate) fn name(&self, slot: Slot) -> &[u8] {
        &self.names[usize::from(slot.0)]
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// All of them, in order.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        (0..self.names.len() as u16).map(Slot)
    }

    /// The slot of a captured group.
    pub(crate) fn group(number: usize) -> Slot {
        Slot(number.min(9) as u16)
    }
}

/// The name of a variable in a rule.
#[derive(Debug)]
pub(crate) enum Name {
    Known(Slot),
    /// Put together while the request runs.
    Made(Text),
}

/// What a variable holds.
#[derive(Debug, Clone, Default)]
enum Held {
    #[default]
    Nothing,
    Number(i64),
    Text(Vec<u8>),
}

/// The variables of a transaction.
#[derive(Debug, Default)]
pub(crate) struct Tx {
    held: Vec<Held>,
    /// Names that stand in no rule, lower case, in the order in which they were first set.
    made: Vec<(Vec<u8>, Held)>,
    numbers: HashMap<Vec<u8>, usize>,
}

impl Tx {
    pub(crate) fn clear(&mut self, names: &Names) {
        self.held.clear();
        self.held.resize(names.len(), Held::Nothing);
        self.made.clear();
        self.numbers.clear();
    }

    pub(crate) fn is_set(&self, slot: Slot) -> bool {
        !matches!(self.held[usize::from(slot.0)], Held::Nothing)
    }

    /// Its value as a number: leading digits count, anything else is 0.
    pub(crate) fn number(&self, slot: Slot) -> i64 {
        match &self.held[usize::from(slot.0)] {
            Held::Nothing => 0,
            Held::Number(number) => *number,
            Held::Text(text) => number(text),
        }
    }

    /// Adds its value to `out`; false when it is not set.
    pub(crate) fn write(&self, slot: Slot, out: &mut Vec<u8>) -> bool {
        self.held[usize::from(slot.0)].write(out)
    }

    pub(crate) fn set(&mut self, slot: Slot, value: &[u8]) {
        self.held[usize::from(slot.0)] = Held::of(value);
    }

    pub(crate) fn set_number(&mut self, slot: Slot, value: i64) {
        self.held[usize::from(slot.0)] = Held::Number(value);
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        self.held[usize::from(slot.0)] = Held::Nothing;
    }

    /// What is set under a name that stands in no rule.
    pub(crate) fn made(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.numbers.get(name).is_some_and(|at| self.made[*at].1.write(&mut out)).then_some(out)
    }

    pub(crate) fn set_made(&mut self, name: &[u8], value: &[u8]) {
        match self.numbers.get(name) {
            Some(at) => self.made[*at].1 = Held::of(value),
            None if self.made.len() < MADE_MAX => {
                self.numbers.insert(name.to_vec(), self.made.len());
                self.made.push((name.to_vec(), Held::of(value)));
            }
            None => {}
        }
    }

    pub(crate) fn remove_made(&mut self, name: &[u8]) {
        if let Some(at) = self.numbers.get(name) {
            self.made[*at].1 = Held::Nothing;
        }
    }

    /// All variables under names that stand in no rule.
    pub(crate) fn all_made(&self) -> impl Iterator<Item = (&[u8], Vec<u8>)> {
        self.made.iter().filter_map(|(name, held)| {
            let mut out = Vec::new();
            held.write(&mut out).then_some((name.as_slice(), out))
        })
    }
}

impl Held {
    fn of(value: &[u8]) -> Self {
        // What is written back must be what was set: `05` and `+5` stay texts.
        let is_number = matches!(value, [b'1'..=b'9', rest @ ..] if rest.len() < 18 && rest.iter().all(u8::is_ascii_digit));
        if is_number || value == b"0" { Self::Number(number(value)) } else { Self::Text(value.to_vec()) }
    }

    fn write(&self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Nothing => return false,
            Self::Number(number) => write_number(*number, out),
            Self::Text(text) => out.extend_from_slice(text),
        }
        true
    }
}

/// Adds a number in decimal.
pub(crate) fn write_number(number: i64, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    write_count(number.unsigned_abs(), out);
}

/// Adds a count in decimal.
pub(crate) fn write_count(count: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = count;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_set_is_read_back() {
        let mut names = Names::default();
        let score = names.slot(b"score");
        assert_eq!((names.slot(b"score"), names.known(b"7")), (score, Some(Names::group(7))));
        let mut tx = Tx::default();
        tx.clear(&names);
        assert!(!tx.is_set(score) && tx.number(score) == 0);
        tx.set(score, b"5 points");
        assert_eq!(tx.number(score), 5);
        tx.set_number(score, -7);
        let mut out = Vec::new();
        assert!(tx.write(score, &mut out));
        assert_eq!(out, b"-7");
        tx.remove(score);
        assert!(!tx.is_set(score));
        tx.set_made(b"x", b"1");
        assert_eq!(tx.made(b"x").as_deref(), Some(&b"1"[..]));
        tx.remove_made(b"x");
        assert_eq!(tx.made(b"x"), None);
    }

    proptest! {
        #[test]
        fn a_text_keeps_its_spelling(value in "[-+]?[0-9]{0,20}[a-z ]{0,2}") {
            let mut out = Vec::new();
            Held::of(value.as_bytes()).write(&mut out);
            prop_assert_eq!(out, value.into_bytes());
        }
        #[test]
        fn numbers_are_written_as_everybody_writes_them(value: i64) {
            let mut out = Vec::new();
            write_number(value, &mut out);
            prop_assert_eq!(out, value.to_string().into_bytes());
        }
    }
}
