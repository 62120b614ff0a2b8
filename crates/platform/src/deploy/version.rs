//! Versions: the names that revisions have in the last stage. They only grow.

use std::{cmp::Ordering, fmt, str::FromStr};

/// Three numbers, as `1.2.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoVersion;

impl Version {
    /// The first one, when nobody says another.
    pub(crate) const FIRST: Self = Self { major: 0, minor: 1, patch: 0 };

    fn next(self) -> Self {
        Self { minor: self.minor.saturating_add(1), patch: 0, ..self }
    }
}

/// The version of one more revision: what was asked for, or the next minor one.
///
/// # Errors
/// The last version, when the one that was asked for is not above it.
pub(crate) fn choose(known: &[Version], asked: Option<Version>) -> Result<Version, Version> {
    let last = known.iter().copied().max();
    match (asked, last) {
        (None, None) => Ok(Version::FIRST),
        (None, Some(last)) => Ok(last.next()),
        (Some(asked), Some(last)) if asked.cmp(&last) != Ordering::Greater => Err(last),
        (Some(asked), _) => Ok(asked),
    }
}

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let number = |part: &str| {
            let plain = !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
            // One spelling for one version.
            let plain = plain && (part == "0" || !part.starts_with('0'));
            if plain { part.parse().map_err(|_| NoVersion) } else { Err(NoVersion) }
        };
        let parts = text.split('.').map(number).collect::<Result<Vec<u32>, _>>()?;
        let [major, minor, patch] = parts[..] else { return Err(NoVersion) };
        Ok(Self { major, minor, patch })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_only_grow() {
        let check = |known: &[&str], asked: Option<&str>, expected: Result<&str, &str>| {
            let known: Vec<_> = known.iter().map(|text| version(text)).collect();
            assert_eq!(choose(&known, asked.map(version)), expected.map(version).map_err(version));
        };
        check(&[], None, Ok("0.1.0"));
        check(&[], Some("3.0.1"), Ok("3.0.1"));
        check(&["0.9.0", "0.10.3"], None, Ok("0.11.0"));
        check(&["0.9.0", "0.10.3"], Some("0.10.4"), Ok("0.10.4"));
        check(&["0.9.0", "0.10.3"], Some("0.10.3"), Err("0.10.3"));
        check(&["0.9.0", "0.10.3"], Some("0.9.9"), Err("0.10.3"));
    }

    #[test]
    fn a_version_has_one_spelling() {
        assert_eq!(version("10.0.3").to_string(), "10.0.3");
        for text in
            ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "1.-2.3", "1..3", "1.2.3-rc", "9999999999.0.0"]
        {
            assert_eq!(text.parse::<Version>(), Err(NoVersion), "{text}");
        }
    }
}
