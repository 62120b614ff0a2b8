//! What the apps of one customer's stage may reach: the outside by policy, each other by grant.

use crate::{AppName, egress::EgressPolicy, egress::RULES_MAX};
use serde::{Deserialize, Serialize};

/// Most grants of a stage.
pub const GRANTS_MAX: usize = 500;

/// Lets one app call another of the same stage. Without it, nothing of one app reaches another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Who may call.
    pub from: AppName,
    /// Who may be called.
    pub to: AppName,
}

/// Network settings of one customer's stage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StageNetwork {
    /// Where its apps may call to.
    pub egress: EgressPolicy,
    /// Which of its apps may call which.
    pub grants: Vec<Grant>,
}

/// Why settings are not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// More rules than [`RULES_MAX`], or more grants than [`GRANTS_MAX`].
    #[error("there are too many {0}; the limit is {RULES_MAX}")]
    TooMany(&'static str),
    /// A grant from an app to itself: replicas of an app do not reach each other.
    #[error("`{0}` cannot be granted to itself")]
    Itself(AppName),
}

impl StageNetwork {
    /// Checks what serde cannot, and brings grants into one order without doubles.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn checked(mut self) -> Result<Self, NetworkError> {
        if self.egress.allow.len().max(self.egress.deny.len()) > RULES_MAX {
            return Err(NetworkError::TooMany("egress rules"));
        }
        if self.grants.len() > GRANTS_MAX {
            return Err(NetworkError::TooMany("grants"));
        }
        if let Some(grant) = self.grants.iter().find(|grant| grant.from == grant.to) {
            return Err(NetworkError::Itself(grant.from.clone()));
        }
        self.grants.sort();
        self.grants.dedup();
        Ok(self)
    }

    /// Whether `from` may call `to`.
    pub fn grants(&self, from: &AppName, to: &AppName) -> bool {
        self.grants.iter().any(|grant| grant.from == *from && grant.to == *to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(json: &str) -> Result<StageNetwork, String> {
        let network: StageNetwork = serde_json::from_str(json).map_err(|error| error.to_string())?;
        network.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_granted_and_everything_outside_is_open_by_default() {
        let empty = network("{}").unwrap();
        assert_eq!(empty, StageNetwork::default());
        let (a, b) = (AppName::new("a").unwrap(), AppName::new("b").unwrap());
        assert!(!empty.grants(&a, &b));
    }

    #[test]
    fn a_grant_has_one_direction() {
        let made = network(r#"{"grants":[{"from":"a","to":"b"},{"from":"a","to":"b"}]}"#).unwrap();
        let (a, b) = (AppName::new("a").unwrap(), AppName::new("b").unwrap());
        assert!(made.grants(&a, &b) && !made.grants(&b, &a));
        assert_eq!(made.grants.len(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(network(r#"{"grants":[{"from":"a","to":"a"}]}"#).unwrap_err().contains("itself"));
        assert!(network(r#"{"egress":{"allow":["*"]}}"#).unwrap_err().contains("no egress rule"));
        assert!(network(r#"{"egress":{"mode":"shut"}}"#).is_err());
        assert!(network(r#"{"typo":1}"#).is_err());
        let rules = vec!["a.example"; RULES_MAX + 1];
        let many = serde_json::json!({ "egress": { "allow": rules } }).to_string();
        assert!(network(&many).unwrap_err().contains("too many"));
    }
}
