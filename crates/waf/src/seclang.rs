//! SecLang as text: directives and their arguments, lines joined, quotes resolved.

use crate::error::{LoadError, Place};
use std::sync::Arc;

/// Longest rules file.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A directive with its arguments.
#[derive(Debug)]
pub(crate) struct Directive {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) arguments: Vec<Vec<u8>>,
}

/// Reads a file.
pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Directive>, LoadError> {
    let file: Arc<str> = name.into();
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Place { file, line: 1 }.syntax("the file is too large"));
    }
    let mut directives = Vec::new();
    let mut logical: Vec<u8> = Vec::new();
    let mut begun = 1;
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if logical.is_empty() {
            begun = index + 1;
            if line.trim_ascii_start().first().is_none_or(|first| *first == b'#') {
                continue;
            }
        }
        match line.strip_suffix(b"\\") {
            Some(more) => {
                // Indentation of continued lines means nothing.
                logical.extend_from_slice(if logical.is_empty() { more } else { more.trim_ascii_start() });
                // A lone backslash still begins a directive's continuation.
                if logical.is_empty() {
                    logical.push(b' ');
                }
            }
            None => {
                logical.extend_from_slice(if logical.is_empty() { line } else { line.trim_ascii_start() });
                let place = Place { file: file.clone(), line: begun };
                directives.extend(directive(place, &logical)?);
                logical.clear();
            }
        }
    }
    if !logical.is_empty() {
        directives.extend(directive(Place { file, line: begun }, &logical)?);
    }
    Ok(directives)
}

fn directive(place: Place, line: &[u8]) -> Result<Option<Directive>, LoadError> {
    let mut words = words(&place, line)?;
    if words.is_empty() {
        return Ok(None);
    }
    let name = String::from_utf8_lossy(&words.remove(0)).into_owned();
    Ok(Some(Directive { place, name, arguments: words }))
}

/// Words of a line: bare, or in double quotes where `\"` is a quote, or in single quotes.
fn words(place: &Place, line: &[u8]) -> Result<Vec<Vec<u8>>, LoadError> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii();
    while let Some(first) = rest.first() {
        if *first == b'"' || *first == b'\'' {
            let (word, after) = quoted(rest, *first).ok_or_else(|| place.syntax("a quote is not closed"))?;
            words.push(word);
            rest = after.trim_ascii_start();
        } else {
            let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            words.push(rest[..end].to_vec());
            rest = rest[end..].trim_ascii_start();
        }
    }
    Ok(words)
}

fn quoted(text: &[u8], quote: u8) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    let mut at = 1;
    loop {
        match (*text.get(at)?, text.get(at + 1)) {
            // As Apache reads its configuration, for which rules are written: `\\"` and `\\\\` are escapes.
            (b'\\', Some(next)) if *next == quote || *next == b'\\' => {
                word.push(*next);
                at += 2;
            }
            (b'\\', Some(next)) => {
                word.extend_from_slice(&[b'\\', *next]);
                at += 2;
            }
            (byte, _) if byte == quote => return Some((word, &text[at + 1..])),
            (byte, _) => {
                word.push(byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_joined_and_quotes_resolved() {
        let text = b"# comment\nSecRule ARGS|!ARGS:x \"@rx a\\\"b\\.c\" \\\n    \"id:1,\\\n    phase:2\"\nSecMarker END\n";
        let found = parse("f", text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_str(), found[0].place.line), ("SecRule", 2));
        assert_eq!(found[0].arguments[1], b"@rx a\"b\\.c");
        assert_eq!(found[0].arguments[2], b"id:1,phase:2");
        assert_eq!(found[1].arguments, [b"END".to_vec()]);
    }

    #[test]
    fn an_open_quote_is_named_with_its_line() {
        let error = parse("f", b"\nSecAction \"id:1\n").unwrap_err();
        assert_eq!(error.to_string(), "f:2: a quote is not closed");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse("f", &bytes);
        }
    }
}
