//! One canonical form of a path, for the router, the cache, rules of customers and the app alike.
//!
//! Unreserved characters are decoded, other escapes are written in capitals, dot segments (also encoded
//! ones) are resolved, repeated slashes become one. `%2F` stays what it is: a character of a name, never a
//! separator. The WAF sees the raw target instead.

/// A path that has no one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// `%` without two hexadecimal digits.
    #[error("bad-percent-encoding")]
    Percent,
    /// NUL or another control character.
    #[error("control-character-in-path")]
    Control,
    /// A backslash, which some servers read as a slash.
    #[error("backslash-in-path")]
    Backslash,
    /// More `..` than segments before them: who resolves it and who does not would differ.
    #[error("path-above-root")]
    AboveRoot,
}

/// The canonical form of a path that begins with `/`.
pub fn canonical(path: &str) -> Result<String, PathFault> {
    let decoded = decode(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = decoded.split('/').peekable();
    let mut directory = false;
    while let Some(segment) = rest.next() {
        let last = rest.peek().is_none();
        match segment {
            "" | "." => directory = last,
            ".." => {
                segments.pop().ok_or(PathFault::AboveRoot)?;
                directory = last;
            }
            name => {
                segments.push(name);
                directory = false;
            }
        }
    }
    let mut canonical = String::with_capacity(decoded.len());
    for segment in &segments {
        canonical.push('/');
        canonical.push_str(segment);
    }
    if directory || segments.is_empty() {
        canonical.push('/');
    }
    Ok(canonical)
}

fn decode(path: &str) -> Result<String, PathFault> {
    let mut decoded = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            match byte {
                b'\\' => return Err(PathFault::Backslash),
                0..=0x1f | 0x7f => return Err(PathFault::Control),
                _ if is_plain(byte) => decoded.push(char::from(byte)),
                _ => escape(&mut decoded, byte),
            }
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or(PathFault::Percent);
        let value = (digit(bytes.next())? << 4 | digit(bytes.next())?) as u8;
        match value {
            0..=0x1f | 0x7f => return Err(PathFault::Control),
            b'\\' => return Err(PathFault::Backslash),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                decoded.push(char::from(value));
            }
            _ => escape(&mut decoded, value),
        }
    }
    Ok(decoded)
}

fn escape(path: &mut String, byte: u8) {
    use std::fmt::Write;
    let _ = write!(path, "%{byte:02X}");
}

/// What may stand in a path unescaped (RFC 3986 `pchar` and `/`). The rest means the same either way.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_path_becomes_one() {
        for (path, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%20b", "/a%20b"),
            ("/%7euser", "/~user"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/{x}|\"^`", "/%7Bx%7D%7C%22%5E%60"),
            ("/a:b@c;d=e,f", "/a:b@c;d=e,f"),
        ] {
            assert_eq!(canonical(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn paths_without_one_meaning_are_refused() {
        for (path, fault) in [
            ("/%", PathFault::Percent),
            ("/%4", PathFault::Percent),
            ("/%zz", PathFault::Percent),
            ("/a%00", PathFault::Control),
            ("/a%0d%0a", PathFault::Control),
            ("/a%5cb", PathFault::Backslash),
            ("/..", PathFault::AboveRoot),
            ("/../../etc/passwd", PathFault::AboveRoot),
            ("/a/%2e%2e/../b", PathFault::AboveRoot),
        ] {
            assert_eq!(canonical(path), Err(fault), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_stable_and_stays_below_the_root(path in "/([a-zA-Z0-9._~/{|-]|\u{e9}|%[0-9a-fA-F]{2}){0,30}") {
            if let Ok(once) = canonical(&path) {
                prop_assert_eq!(canonical(&once), Ok(once.clone()));
                prop_assert!(once.starts_with('/'));
                prop_assert!(!once.split('/').any(|segment| segment == ".." || segment == "."));
                prop_assert!(!once.contains("//") && once.is_ascii());
            }
        }
    }
}
