//! Parameters of queries and forms: each at most once, none too long.

use super::fault::{Answer, oauth};
use std::collections::BTreeMap;

/// Longest value of a parameter, in bytes.
const VALUE_BYTES_MAX: usize = 4096;
/// Most parameters.
const COUNT_MAX: usize = 40;

/// Parameters by name.
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`. A parameter that comes twice could be read in two ways
    /// and is refused (RFC 6749 §3.1).
    pub fn read(text: &[u8]) -> Answer<Self> {
        let mut values = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            if values.len() >= COUNT_MAX || value.len() > VALUE_BYTES_MAX || name.len() > 64 {
                return Err(oauth("invalid_request", "The parameters are too many or too long."));
            }
            if values.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(oauth("invalid_request", "A parameter comes twice."));
            }
        }
        Ok(Self(values))
    }

    /// A parameter; an empty one counts as absent (RFC 6749 §3.1).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A parameter that the token endpoint cannot do without.
    pub fn need(&self, name: &str) -> Answer<&str> {
        self.get(name).ok_or_else(|| oauth("invalid_request", "A required parameter is missing."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_parameter_may_come_only_once() {
        assert!(Form::read(b"a=1&b=2").is_ok());
        assert!(Form::read(b"a=1&a=1").is_err());
        assert!(Form::read(format!("a={}", "x".repeat(5000)).as_bytes()).is_err());
    }

    #[test]
    fn an_empty_parameter_is_absent() {
        assert_eq!(Form::read(b"a=").unwrap().get("a"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = Form::read(&bytes);
        }
    }
}
