//! Names of custom domains, and their one grammar.
//!
//! A name may be written in Unicode or as an A-label; what is kept is the lower-case ASCII form of IDNA 2008
//! (UTS #46 without its leniencies). A domain is one host: wildcards, addresses and single labels are none.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt};

/// Longest text that is read at all, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// Longest domain: with the label of its record before it, it is still a name (RFC 1035 §2.3.4).
const DOMAIN_BYTES_MAX: usize = 253 - RECORD_LABEL.len() - 1;
/// Label below which the record of ownership stands.
const RECORD_LABEL: &str = "_bastide";
/// Last labels that no public name has (RFC 6761, RFC 6762, RFC 7686, RFC 9476, ICANN's `internal`).
const SPECIAL: &[&str] = &["localhost", "local", "internal", "onion", "alt", "arpa", "invalid"];

/// Why a text is no custom domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// A wildcard.
    #[error("a wildcard is no domain; add each host by its name")]
    Wildcard,
    /// An IP address.
    #[error("an address is no domain")]
    Address,
    /// One label, or a name that is never public.
    #[error("`{0}` is no name of the public internet")]
    NotPublic(String),
    /// Not a host name of IDNA 2008.
    #[error(
        "a domain is a host name such as apps.example.com: letters, digits and hyphens, at most 63 in a part and 244 in all"
    )]
    Grammar,
}

/// A custom domain, lower-case ASCII, without a final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

impl DomainName {
    /// Parses what somebody wrote.
    ///
    /// # Errors
    /// [`DomainError`] says what would do instead.
    pub fn new(text: &str) -> Result<Self, DomainError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(DomainError::Grammar);
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.contains('*') {
            return Err(DomainError::Wildcard);
        }
        if text.parse::<std::net::IpAddr>().is_ok() || text.starts_with('[') {
            return Err(DomainError::Address);
        }
        let name = idna::domain_to_ascii_strict(text).map_err(|_| DomainError::Grammar)?;
        if name.len() > DOMAIN_BYTES_MAX || name.ends_with('.') {
            return Err(DomainError::Grammar);
        }
        let (_, last) = name.rsplit_once('.').ok_or_else(|| DomainError::NotPublic(name.clone()))?;
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DomainError::Address);
        }
        if SPECIAL.contains(&last) {
            return Err(DomainError::NotPublic(name));
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `base` or a name below it.
    pub fn is_at_or_below(&self, base: &str) -> bool {
        self.0.strip_suffix(base).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Name of the TXT record that proves ownership.
    pub fn record(&self) -> String {
        format!("{RECORD_LABEL}.{}", self.0)
    }
}

impl TryFrom<String> for DomainName {
    type Error = DomainError;
    fn try_from(text: String) -> Result<Self, DomainError> {
        Self::new(&text)
    }
}
impl std::str::FromStr for DomainName {
    type Err = DomainError;
    fn from_str(text: &str) -> Result<Self, DomainError> {
        Self::new(text)
    }
}
impl From<DomainName> for String {
    fn from(name: DomainName) -> String {
        name.0
    }
}
impl Borrow<str> for DomainName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<String, DomainError> {
        DomainName::new(text).map(String::from)
    }

    #[test]
    fn a_domain_has_one_spelling() {
        let check = |text, expected: &str| assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
        check("apps.example.com", "apps.example.com");
        check("Apps.Example.COM.", "apps.example.com");
        check("bücher.example", "xn--bcher-kva.example");
        check("BÜCHER.example", "xn--bcher-kva.example");
        check("xn--bcher-kva.example", "xn--bcher-kva.example");
        check("a1-b.test", "a1-b.test");
    }

    #[test]
    fn what_is_no_host_of_the_public_internet_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "com",
            "a..example.com",
            ".example.com",
            "-a.example.com",
            "a-.example.com",
            "a_b.example.com",
            "a b.example.com",
            "a.example.com:443",
            "https://a.example.com",
            "a.example.com/x",
            "user@a.example.com",
            "ab--c.example.com",
            "xn--a.example.com",
            "xn--zz.example",
            "a\u{200d}b.example.com",
            "a\0.example.com",
            &format!("{}.example.com", "a".repeat(64)),
            &format!("{}com", "abcdefghi.".repeat(25)),
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert_eq!(read("*.example.com"), Err(DomainError::Wildcard));
        for text in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]", "a.1", "0x7f.1"] {
            assert_eq!(read(text), Err(DomainError::Address), "{text}");
        }
        for text in ["localhost", "acme.apps.localhost", "db.internal", "x.onion", "1.0.0.127.in-addr.arpa"] {
            assert_eq!(read(text), Err(DomainError::NotPublic(text.into())), "{text}");
        }
    }

    #[test]
    fn below_means_whole_labels() {
        let name = DomainName::new("a.apps.example.com").unwrap();
        assert!(name.is_at_or_below("apps.example.com") && name.is_at_or_below("a.apps.example.com"));
        assert!(!name.is_at_or_below("pps.example.com") && !name.is_at_or_below("b.a.apps.example.com"));
        assert_eq!(name.record(), "_bastide.a.apps.example.com");
    }

    proptest! {
        #[test]
        fn reading_again_changes_nothing(text in "\\PC{0,40}") {
            if let Ok(once) = DomainName::new(&text) {
                prop_assert_eq!(DomainName::new(once.as_str()), Ok(once.clone()));
                prop_assert!(once.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'));
            }
        }
        #[test]
        fn likely_names_are_read(text in "[a-z]{1,8}(\\.[a-z0-9]{1,8}){0,2}\\.example") {
            prop_assert_eq!(read(&text), Ok(text));
        }
    }
}
