//! The maintenance switch: a stage, or some of its apps, closed for everybody but a few.

use super::SiteFault;
use crate::AppName;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

/// Most addresses and networks that a closed place is open for.
const OPEN_FOR_MAX: usize = 100;
/// Longest time after which clients are told to come again, in seconds.
const RETRY_AFTER_S_MAX: u32 = 7 * 86_400;
/// Most apps that are closed by name.
const APPS_MAX: usize = 200;

/// What is closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Maintenance {
    /// The whole stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Closure>,
    /// Single apps. They may be named before they exist.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = BTreeMap<String, Closure>))]
    pub apps: BTreeMap<AppName, Closure>,
}

/// How a place is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Closure {
    /// When clients are told to come again, in seconds (`Retry-After`). Default 300.
    pub retry_after_s: u32,
    /// Addresses and networks of clients for whom it is open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub open_for: Vec<IpNet>,
}

impl Default for Closure {
    fn default() -> Self {
        Self { retry_after_s: 300, open_for: Vec::new() }
    }
}

impl Maintenance {
    /// Whether nothing is closed.
    pub fn is_empty(&self) -> bool {
        self.stage.is_none() && self.apps.is_empty()
    }

    /// What keeps a client out of an app, or of the rest of the stage.
    pub fn closes(&self, app: Option<&AppName>, client: IpAddr) -> Option<&Closure> {
        let closed = self.stage.iter().chain(app.and_then(|app| self.apps.get(app)));
        closed.into_iter().find(|closure| !closure.is_open_for(client))
    }

    pub(super) fn check(&self) -> Result<(), SiteFault> {
        if self.apps.len() > APPS_MAX {
            return Err(SiteFault::new("maintenance", format!("at most {APPS_MAX} apps are closed by name")));
        }
        for closure in self.stage.iter().chain(self.apps.values()) {
            if closure.open_for.len() > OPEN_FOR_MAX {
                let why = format!("it is open for at most {OPEN_FOR_MAX} addresses and networks");
                return Err(SiteFault::new("maintenance", why));
            }
            if !(1..=RETRY_AFTER_S_MAX).contains(&closure.retry_after_s) {
                let why = format!("clients come again after 1 to {RETRY_AFTER_S_MAX} seconds");
                return Err(SiteFault::new("maintenance", why));
            }
        }
        Ok(())
    }
}

impl Closure {
    fn is_open_for(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.open_for.iter().any(|network| network.contains(&client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(json: &str) -> Maintenance {
        let maintenance: Maintenance = serde_json::from_str(json).unwrap();
        maintenance.check().unwrap();
        maintenance
    }

    #[test]
    fn a_closed_stage_closes_everything_and_a_closed_app_itself() {
        let (shop, blog) = (AppName::new("shop").unwrap(), AppName::new("blog").unwrap());
        let client = "192.0.2.1".parse().unwrap();
        let all = closed(r#"{"stage":{}}"#);
        assert!(all.closes(None, client).is_some() && all.closes(Some(&shop), client).is_some());
        let one = closed(r#"{"apps":{"shop":{"retry_after_s":7}}}"#);
        assert!(one.closes(None, client).is_none() && one.closes(Some(&blog), client).is_none());
        assert_eq!(one.closes(Some(&shop), client).unwrap().retry_after_s, 7);
    }

    #[test]
    fn each_closed_place_is_open_for_its_own_list() {
        let shop = AppName::new("shop").unwrap();
        let both = closed(
            r#"{"stage":{"open_for":["192.0.2.0/24","2001:db8::/32"]},"apps":{"shop":{"open_for":["192.0.2.7/32"]}}}"#,
        );
        let open = |app, client: &str| both.closes(app, client.parse().unwrap()).is_none();
        assert!(open(None, "192.0.2.9") && open(None, "2001:db8::1") && open(None, "::ffff:192.0.2.9"));
        assert!(!open(None, "198.51.100.1"));
        assert!(open(Some(&shop), "192.0.2.7") && !open(Some(&shop), "192.0.2.9"));
    }

    #[test]
    fn lists_and_times_have_limits() {
        let bad = |maintenance: &Maintenance| maintenance.check().is_err();
        let of = |closure| Maintenance { stage: Some(closure), apps: BTreeMap::new() };
        let many = vec!["192.0.2.1/32".parse().unwrap(); OPEN_FOR_MAX + 1];
        assert!(bad(&of(Closure { open_for: many, ..Closure::default() })));
        assert!(bad(&of(Closure { retry_after_s: 0, ..Closure::default() })));
        assert!(bad(&of(Closure { retry_after_s: RETRY_AFTER_S_MAX + 1, ..Closure::default() })));
    }
}
