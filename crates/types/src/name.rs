//! Names that people choose, and their one grammar.
//!
//! A name is a DNS label: lower-case letters, digits and single hyphens, a letter first, a letter or
//! digit last. `--` is forbidden everywhere, so that `<customer>--<stage>` can be taken apart in only
//! one way and no two customers ever claim the same host.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too short or too long.
    #[error("a {what} has {min} to {max} characters, this one has {found}")]
    Length {
        /// Which kind of name.
        what: &'static str,
        /// Fewest characters.
        min: usize,
        /// Most characters.
        max: usize,
        /// Characters found.
        found: usize,
    },
    /// A character outside the grammar.
    #[error(
        "a {what} holds lower-case letters, digits and single hyphens, starts with a letter and ends with a letter or digit"
    )]
    Grammar {
        /// Which kind of name.
        what: &'static str,
    },
    /// The name is kept for Bastide itself.
    #[error("`{name}` is reserved")]
    Reserved {
        /// The name asked for.
        name: String,
    },
}

/// Labels that no customer may take: they are, or may become, hosts of Bastide itself.
pub const RESERVED_CUSTOMERS: &[&str] = &[
    "admin",
    "api",
    "apps",
    "auth",
    "bastide",
    "cdn",
    "edge",
    "gateway",
    "identity",
    "internal",
    "localhost",
    "login",
    "mail",
    "nats",
    "operator",
    "platform",
    "portal",
    "root",
    "security",
    "static",
    "status",
    "support",
    "system",
    "www",
];

/// Path segments that no app may take: they belong to Bastide on every Runtime host.
pub const RESERVED_APPS: &[&str] = &["api", "bastide", "identity", "well-known"];

/// Stage labels that would confuse the bus (`state` is a subject token, see the bus design).
pub const RESERVED_STAGES: &[&str] = &["state"];

fn check(what: &'static str, min: usize, max: usize, reserved: &[&str], text: &str) -> Result<(), NameError> {
    if text.len() < min || text.len() > max {
        return Err(NameError::Length { what, min, max, found: text.chars().count() });
    }
    let bytes = text.as_bytes();
    let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    let first = bytes[0].is_ascii_lowercase();
    let last = bytes[bytes.len() - 1] != b'-';
    if !(inner && first && last) || text.contains("--") {
        return Err(NameError::Grammar { what });
    }
    if reserved.contains(&text) {
        return Err(NameError::Reserved { name: text.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $min:literal..=$max:literal, $reserved:expr, $ours:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Parses a name that somebody chose.
            ///
            /// # Errors
            /// [`NameError`] when it breaks the grammar or is reserved.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check($what, $min, $max, $reserved, &text)?;
                Ok(Self(text))
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            /// Reads a name that we wrote ourselves: also one that is reserved for us.
            fn try_from(text: String) -> Result<Self, NameError> {
                let ours: &[&str] = $ours;
                if ours.contains(&text.as_str()) { Ok(Self(text)) } else { Self::new(text) }
            }
        }
        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A customer's label: the first label of its Platform host and of its Runtime hosts.
    CustomerName, "customer name", 3..=40, RESERVED_CUSTOMERS, &["operator"]
);
name!(
    /// A stage of a customer, such as `development`. With a customer it fits one DNS label (63).
    StageName, "stage name", 2..=20, RESERVED_STAGES, &[]
);
name!(
    /// An app: unique for its customer, and the first path segment under which it is served.
    AppName, "app name", 1..=35, RESERVED_APPS, &[]
);
name!(
    /// An availability zone.
    ZoneName, "zone name", 1..=20, &[], &[]
);

impl CustomerName {
    /// The reserved organization that owns customers and office policies.
    pub fn operator() -> Self {
        Self("operator".to_owned())
    }

    /// Whether this is the reserved operator organization.
    pub fn is_operator(&self) -> bool {
        self.0 == "operator"
    }
}

impl StageName {
    /// The first stage: publish deploys here.
    pub fn development() -> Self {
        Self("development".to_owned())
    }
    /// The stage between the first and the last.
    pub fn test() -> Self {
        Self("test".to_owned())
    }
    /// The last stage, served without a stage in its host.
    pub fn production() -> Self {
        Self("production".to_owned())
    }
    /// Whether this is the last stage.
    pub fn is_production(&self) -> bool {
        self.0 == "production"
    }
    /// The stages that every new customer has, first to last.
    pub fn defaults() -> [Self; 3] {
        [Self::development(), Self::test(), Self::production()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_names_are_taken() {
        for name in ["demo", "acme-dev", "a1b", "x-1-y"] {
            assert_eq!(CustomerName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for name in ["ab", "a--b", "-ab", "ab-", "1ab", "Abc", "a_b", "a.b", "ünl", &"a".repeat(41)] {
            assert!(CustomerName::new(name).is_err(), "{name}");
        }
    }

    #[test]
    fn reserved_labels_are_refused_by_name() {
        assert_eq!(CustomerName::new("operator"), Err(NameError::Reserved { name: "operator".into() }));
        assert!(AppName::new("identity").is_err());
        assert!(StageName::new("state").is_err());
    }

    #[test]
    fn the_operator_is_read_back_but_nobody_may_choose_it() {
        assert_eq!(serde_json::from_str::<CustomerName>("\"operator\"").unwrap(), CustomerName::operator());
        assert!("operator".parse::<CustomerName>().is_err());
    }

    #[test]
    fn the_longest_customer_and_stage_fit_one_dns_label() {
        let longest = |is_name: &dyn Fn(&str) -> bool| {
            (1..=63_usize).rev().find(|length| is_name(&"a".repeat(*length))).expect("some length is fine")
        };
        let customer = longest(&|text| CustomerName::new(text).is_ok());
        let stage = longest(&|text| StageName::new(text).is_ok());
        assert!(customer + "--".len() + stage <= 63, "{customer} and {stage}");
    }

    proptest! {
        #[test]
        fn a_joined_label_comes_apart_in_one_way(c in "[a-z][a-z0-9]{2,9}(-[a-z0-9]{1,5}){0,3}", s in "[a-z][a-z0-9]{1,9}(-[a-z0-9]{1,3}){0,2}") {
            let (Ok(c), Ok(s)) = (CustomerName::new(c), StageName::new(s)) else { return Ok(()) };
            let joined = format!("{c}--{s}");
            let parts: Vec<_> = joined.split("--").collect();
            prop_assert_eq!(parts, vec![c.as_str(), s.as_str()]);
        }
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = CustomerName::new(text.clone());
            let _ = AppName::new(text);
        }
    }
}
