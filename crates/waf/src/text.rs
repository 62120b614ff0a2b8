//! Texts with macros: `%{tx.score}`, `%{MATCHED_VAR}`, `%{rule.id}`.

use crate::{
    error::{LoadError, Place},
    tx::{Names, Slot},
    variable::{Selector, Variable, named},
};

/// A text, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Text(pub(crate) Vec<Piece>);

/// A piece of a text.
#[derive(Debug)]
pub(crate) enum Piece {
    /// As it is.
    Plain(Vec<u8>),
    Tx(Slot),
    MatchedVar,
    MatchedVarName,
    /// A property of the rule that is run.
    Rule(Property),
    /// The first value of a variable.
    Variable(Variable, Selector),
}

/// What a rule can say of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Property {
    Id,
    Msg,
    Severity,
}

impl Text {
    /// Reads a text. Slots are made for the `tx` variables that it names.
    pub(crate) fn parse(place: &Place, text: &[u8], names: &mut Names) -> Result<Self, LoadError> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text;
        while let Some((at, name, after)) = next_macro(rest) {
            plain.extend_from_slice(&rest[..at]);
            if !plain.is_empty() {
                pieces.push(Piece::Plain(std::mem::take(&mut plain)));
            }
            let piece = piece(name, names);
            let shown = || place.unsupported(format!("macro %{{{}}}", String::from_utf8_lossy(name)));
            pieces.push(piece.ok_or_else(shown)?);
            rest = after;
        }
        plain.extend_from_slice(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        Ok(Self(pieces))
    }

    /// The text itself when it holds no macro.
    pub(crate) fn plain(&self) -> Option<&[u8]> {
        match self.0.as_slice() {
            [] => Some(b""),
            [Piece::Plain(text)] => Some(text),
            _ => None,
        }
    }
}

/// Whether a text holds the macro of a variable that there is; in a pattern `%{` may mean itself.
pub(crate) fn names_a_variable(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((_, name, after)) = next_macro(rest) {
        let (variable, _) = taken_apart(name);
        if named(&variable).is_some() {
            return true;
        }
        rest = after;
    }
    false
}

/// Where the next macro begins, its name, and what follows it.
fn next_macro(text: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let at = memchr::memmem::find(text, b"%{")?;
    let length = memchr::memchr(b'}', &text[at..])?;
    Some((at, &text[at + 2..at + length], &text[at + length + 1..]))
}

/// The variable, upper case, and the selector, lower case.
fn taken_apart(name: &[u8]) -> (String, Option<Vec<u8>>) {
    let (variable, selector) = match name.iter().position(|b| matches!(b, b'.' | b':')) {
        Some(at) => (&name[..at], Some(name[at + 1..].to_ascii_lowercase())),
        None => (name, None),
    };
    (String::from_utf8_lossy(variable).trim().to_ascii_uppercase(), selector)
}

fn piece(name: &[u8], names: &mut Names) -> Option<Piece> {
    let (variable, selector) = taken_apart(name);
    Some(match (named(&variable)?, selector) {
        (Variable::Tx, Some(key)) => Piece::Tx(names.slot(&key)),
        (Variable::Persistent(kind), Some(key)) => Piece::Tx(names.slot(&persistent(kind, &key))),
        (Variable::MatchedVar, _) => Piece::MatchedVar,
        (Variable::MatchedVarName, _) => Piece::MatchedVarName,
        (Variable::Nothing, Some(key)) if variable == "RULE" => Piece::Rule(match key.as_slice() {
            b"id" => Property::Id,
            b"msg" => Property::Msg,
            b"severity" => Property::Severity,
            _ => return None,
        }),
        (variable, None) => Piece::Variable(variable, Selector::All),
        (variable, Some(key)) => Piece::Variable(variable, Selector::Name(key)),
    })
}

/// The name in `TX` of a variable of a persistent collection; nothing else begins so.
pub(crate) fn persistent(collection: &str, key: &[u8]) -> Vec<u8> {
    [b"\0", collection.as_bytes(), b".", key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_are_taken_apart() {
        let (place, mut names) = (Place { file: "f".into(), line: 1 }, Names::default());
        let mut parse = |text: &[u8]| Text::parse(&place, text, &mut names);
        let text = parse(b"+%{tx.Critical_Score} of %{MATCHED_VAR}").unwrap();
        assert!(matches!(text.0[..], [Piece::Plain(_), Piece::Tx(_), Piece::Plain(_), Piece::MatchedVar]));
        assert_eq!(parse(b"100%{").unwrap().plain(), Some(&b"100%{"[..]));
        assert!(parse(b"%{nope.x}").unwrap_err().to_string().contains("macro %{nope.x}"));
        assert_eq!(names.name(names.known(b"critical_score").unwrap()), b"critical_score");
        assert!(names_a_variable(b"^%{tx.x}$") && !names_a_variable(b"%{2,3}"));
    }
}
