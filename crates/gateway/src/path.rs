//! One spelling of a path, and how a careless app might read it.
//!
//! Access rules are written for plain paths. An app that decodes `%61dmin`, `admin%2Fusers` or a backslash
//! before it looks must not thereby escape the rule for `/admin`: the rule is looked up for both readings.

/// A path in its one spelling (RFC 3986 §6.2.2): unreserved characters plain, the rest as `%XX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CanonicalPath {
    /// As it is passed on.
    pub(crate) spelled: String,
    /// With everything decoded, backslashes as slashes, runs of slashes as one: the loosest reading.
    pub(crate) loose: String,
}

impl CanonicalPath {
    /// Reads a path. `None` for what has no safe reading: broken escapes, control characters, empty or dot
    /// segments, and dot segments that only appear once it is decoded.
    pub(crate) fn of(path: &str) -> Option<Self> {
        if !path.starts_with('/') {
            return None;
        }
        let mut spelled = String::with_capacity(path.len());
        let mut decoded = Vec::with_capacity(path.len());
        let mut bytes = path.bytes();
        while let Some(byte) = bytes.next() {
            let escaped = byte == b'%';
            let byte = if escaped { digit(bytes.next()?)? << 4 | digit(bytes.next()?)? } else { byte };
            if byte.is_ascii_control() || (byte == b'\\' && !escaped) {
                return None;
            }
            if escaped && !is_unreserved(byte) || !byte.is_ascii() {
                use std::fmt::Write;
                let _ = write!(spelled, "%{byte:02X}");
            } else {
                spelled.push(char::from(byte));
            }
            decoded.push(byte);
        }
        let decoded = String::from_utf8_lossy(&decoded).replace('\\', "/");
        let mut loose = String::with_capacity(decoded.len());
        for character in decoded.chars() {
            if character != '/' || !loose.ends_with('/') {
                loose.push(character);
            }
        }
        let dots = |path: &str| path.split('/').any(|part| part == "." || part == "..");
        (!spelled.contains("//") && !dots(&spelled) && !dots(&loose)).then_some(Self { spelled, loose })
    }

    /// Whether any reading of it lies at or below `place` (without a slash at its end).
    pub(crate) fn may_be_below(&self, place: &str) -> bool {
        [&self.spelled, &self.loose]
            .iter()
            .any(|path| path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// Whether every reading of it lies below `place` (which ends with a slash).
    pub(crate) fn is_surely_below(&self, place: &str) -> bool {
        self.spelled.starts_with(place) && self.loose.starts_with(place)
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(path: &str) -> Option<(String, String)> {
        CanonicalPath::of(path).map(|path| (path.spelled, path.loose))
    }

    #[test]
    fn each_path_has_one_spelling_and_one_loose_reading() {
        let check = |path, spelled: &str, loose: &str| {
            assert_eq!(read(path), Some((spelled.to_owned(), loose.to_owned())), "{path}");
        };
        check("/a/b", "/a/b", "/a/b");
        check("/%61dmin", "/admin", "/admin");
        check("/a%2fb", "/a%2Fb", "/a/b");
        check("/x/%2fadmin", "/x/%2Fadmin", "/x/admin");
        check("/a%5cb", "/a%5Cb", "/a/b");
        check("/p/https%3A%2F%2Fexample", "/p/https%3A%2F%2Fexample", "/p/https:/example");
        check("/%7euser;x=1", "/~user;x=1", "/~user;x=1");
        check("/%2561", "/%2561", "/%61");
    }

    #[test]
    fn what_has_no_safe_reading_is_refused() {
        for path in [
            "",
            "a",
            "//",
            "/a//b",
            "/.",
            "/a/..",
            "/%2e%2e/x",
            "/.%2E/x",
            "/a%2f..%2fb",
            "/a%5c..%5cb",
            "/a\\b",
            "/%00",
            "/%0d%0a",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn reading_again_changes_nothing(path in "/[ -~]{0,40}") {
            if let Some(once) = CanonicalPath::of(&path) {
                prop_assert_eq!(CanonicalPath::of(&once.spelled), Some(once));
            }
        }
        #[test]
        fn no_text_makes_it_panic(path in "\\PC*") {
            let _ = CanonicalPath::of(&path);
        }
    }
}
