//! What the apps of one customer's stage may reach: the outside by policy, each other by grant.

use crate::{AppName, egress::EgressPolicy, egress::RULES_MAX};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// Most grants of a stage.
pub const GRANTS_MAX: usize = 500;
/// Most apps of a stage that others may call: each has an address of its own inside their namespaces.
pub const CALLEES_MAX: usize = 253;
/// Names below this one lead to what is inside a replica's own namespace; they never leave the machine.
pub const INTERNAL: &str = "internal";
/// Numbers of such apps.
pub const CALLEE_NUMBERS: std::ops::RangeInclusive<u8> = 2..=254;
/// Where an app finds its database. It exists only inside the app's own namespace.
pub const POSTGRES: Ipv4Addr = Ipv4Addr::new(169, 254, 2, 1);
/// The name of that.
pub const POSTGRES_NAME: &str = "postgres.internal";
/// Port of an app that another one calls.
pub const CALLEE_PORT: u16 = 80;

/// The name under which other apps call this one.
pub fn internal_name(app: &AppName) -> String {
    format!("{app}.{INTERNAL}")
}

/// Where a caller finds the app with this number, one of [`CALLEE_NUMBERS`].
pub fn callee(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(169, 254, 2, number)
}

/// Whether a name (lower case, without a trailing dot) leads to what is inside a replica's own namespace.
pub fn is_internal_name(name: &str) -> bool {
    name.strip_suffix(INTERNAL).is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// Whether this is an address for what is inside a replica's own namespace.
pub fn is_internal(address: Ipv4Addr) -> bool {
    address.octets()[..3] == POSTGRES.octets()[..3]
}

/// Lets one app call another of the same stage. Without it, nothing of one app reaches another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = AppGrant))]
pub struct Grant {
    /// Who may call.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub from: AppName,
    /// Who may be called.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub to: AppName,
}

/// Network settings of one customer's stage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StageNetwork {
    /// Where its apps may call to.
    pub egress: EgressPolicy,
    /// Which of its apps may call which.
    pub grants: Vec<Grant>,
    /// Whether another zone's gateway takes a zone's traffic while its own is down. Outsiders then see that zone's
    /// address, which allowlists may not know: so it is off unless asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failover: bool,
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
    /// Its name leads to the database.
    #[error("no app can be granted to call `postgres`: the name {POSTGRES_NAME} is that of the database")]
    NameOfService,
    /// More than [`CALLEES_MAX`].
    #[error("at most {CALLEES_MAX} different apps of a stage can be called by others")]
    Callees,
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
        if self.grants.iter().any(|grant| internal_name(&grant.to) == POSTGRES_NAME) {
            return Err(NetworkError::NameOfService);
        }
        if self.grants.iter().map(|grant| &grant.to).collect::<BTreeSet<_>>().len() > CALLEES_MAX {
            return Err(NetworkError::Callees);
        }
        self.grants.sort();
        self.grants.dedup();
        Ok(self)
    }

    /// Whether `from` may call `to`.
    pub fn grants(&self, from: &AppName, to: &AppName) -> bool {
        self.grants.iter().any(|grant| grant.from == *from && grant.to == *to)
    }

    /// The apps that `from` may call.
    pub fn callees(&self, from: &AppName) -> impl Iterator<Item = &AppName> {
        self.grants.iter().filter(move |grant| grant.from == *from).map(|grant| &grant.to)
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
        assert_eq!(made.callees(&a).collect::<Vec<_>>(), [&b]);
        assert_eq!(made.callees(&b).count(), 0);
        assert_eq!(internal_name(&b), "b.internal");
        assert!(is_internal_name("b.internal") && is_internal_name("internal"));
        assert!(!is_internal_name("xinternal") && !is_internal_name("internal.example"));
        assert!(is_internal(POSTGRES) && is_internal(callee(254)));
        assert!(
            !is_internal(Ipv4Addr::new(169, 254, 1, 3)) && !is_internal(Ipv4Addr::new(169, 254, 169, 254))
        );
        assert_eq!(made.grants.len(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(network(r#"{"grants":[{"from":"a","to":"a"}]}"#).unwrap_err().contains("itself"));
        assert!(network(r#"{"grants":[{"from":"a","to":"postgres"}]}"#).unwrap_err().contains("database"));
        let grants: Vec<_> =
            (0..=CALLEES_MAX).map(|n| serde_json::json!({ "from": "a", "to": format!("b{n}") })).collect();
        assert!(network(&serde_json::json!({ "grants": grants }).to_string()).unwrap_err().contains("253"));
        assert!(network(r#"{"egress":{"allow":["*"]}}"#).unwrap_err().contains("no egress rule"));
        assert!(network(r#"{"egress":{"mode":"shut"}}"#).is_err());
        assert!(network(r#"{"typo":1}"#).is_err());
        let rules = vec!["a.example"; RULES_MAX + 1];
        let many = serde_json::json!({ "egress": { "allow": rules } }).to_string();
        assert!(network(&many).unwrap_err().contains("too many"));
    }
}
