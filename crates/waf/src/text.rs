//! Texts with macros: `%{tx.score}`, `%{MATCHED_VAR}`, `%{rule.id}`.

/// A text, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Text(pub(crate) Vec<Piece>);

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// As it is.
    Plain(Vec<u8>),
    /// A variable, upper case, and its selector, lower case.
    Macro(String, Option<String>),
}

impl Text {
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text;
        while let Some(at) = memchr::memmem::find(rest, b"%{") {
            let Some(length) = memchr::memchr(b'}', &rest[at..]) else { break };
            plain.extend_from_slice(&rest[..at]);
            if !plain.is_empty() {
                pieces.push(Piece::Plain(std::mem::take(&mut plain)));
            }
            let name = String::from_utf8_lossy(&rest[at + 2..at + length]).into_owned();
            let (variable, selector) = match name.split_once(['.', ':']) {
                Some((variable, selector)) => (variable, Some(selector.to_ascii_lowercase())),
                None => (name.as_str(), None),
            };
            pieces.push(Piece::Macro(variable.to_ascii_uppercase(), selector));
            rest = &rest[at + length + 1..];
        }
        plain.extend_from_slice(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        Self(pieces)
    }

    /// Whether it holds the macro of a variable that there is; `%{` may also be part of a pattern.
    pub(crate) fn names_a_variable(&self) -> bool {
        self.0
            .iter()
            .any(|piece| matches!(piece, Piece::Macro(name, _) if crate::variable::named(name).is_some()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_are_taken_apart() {
        let text = Text::parse(b"+%{tx.Critical_Score} of %{MATCHED_VAR}");
        assert_eq!(text.0[1], Piece::Macro("TX".into(), Some("critical_score".into())));
        assert_eq!(text.0[3], Piece::Macro("MATCHED_VAR".into(), None));
        assert_eq!(Text::parse(b"100%{").plain(), Some(&b"100%{"[..]));
    }
}
