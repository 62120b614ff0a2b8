//! How the hosts of a stage behave by themselves: error pages, maintenance, redirects, security fields.
//!
//! A customer writes these settings, the Platform checks them whole, the edge obeys them. In a Snapshot they travel
//! as a [`SiteDocument`] each, so that one that cannot be read takes nothing else down.

mod fields;
mod loops;
mod maintenance;
mod page;
mod redirect;
mod table;

pub use fields::{FieldInForce, FieldRule, SecurityField, SecurityFields};
pub use maintenance::{Closure, Maintenance};
pub use page::{PAGE_BYTES_MAX, Page, PageKind};
pub use redirect::{FromPath, Query, Redirect, RedirectStatus, Target};
pub use table::{Asked, RedirectTable};

use crate::{CustomerName, Domains, StageName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes of the settings of one stage, written as JSON.
pub const SETTINGS_BYTES_MAX: usize = 128 * 1024;
/// Most redirects of one stage.
pub const REDIRECTS_MAX: usize = 200;

/// The settings of one stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteSettings {
    /// Pages instead of the built-in ones.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pages: BTreeMap<PageKind, Page>,
    /// What is closed.
    #[serde(skip_serializing_if = "Maintenance::is_empty")]
    pub maintenance: Maintenance,
    /// Redirects. Their order means nothing: see [`RedirectTable`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<Redirect>,
    /// Security fields of answers.
    #[serde(skip_serializing_if = "SecurityFields::is_empty")]
    pub fields: SecurityFields,
}

/// What is wrong with settings, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct SiteFault {
    at: String,
    why: String,
}

impl SiteFault {
    pub(crate) fn new(at: impl Into<String>, why: impl Into<String>) -> Self {
        Self { at: at.into(), why: why.into() }
    }
}

/// The hosts that lead to a stage.
#[derive(Debug, Clone)]
pub struct StageHosts<'d> {
    /// Base domains and port.
    pub domains: &'d Domains,
    /// Built-in host and custom domains, lower case.
    pub names: BTreeSet<String>,
}

impl<'d> StageHosts<'d> {
    /// The built-in host of a stage, and these custom domains.
    pub fn new(
        domains: &'d Domains,
        customer: &CustomerName,
        stage: &StageName,
        custom: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut names: BTreeSet<String> = custom.into_iter().collect();
        names.insert(domains.runtime_host(customer, stage));
        Self { domains, names }
    }

    /// The one of these hosts that an origin (`https://host:port`) is of.
    fn of_origin(&self, origin: &str) -> Option<&str> {
        self.names.iter().map(String::as_str).find(|name| self.domains.origin(name) == origin)
    }
}

impl SiteSettings {
    /// Whether the settings make sense by themselves. Single values were checked when they were read.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), SiteFault> {
        if self.redirects.len() > REDIRECTS_MAX {
            return Err(SiteFault::new("redirects", format!("a stage has at most {REDIRECTS_MAX}")));
        }
        let mut seen = BTreeSet::new();
        for redirect in &self.redirects {
            redirect.check()?;
            if !seen.insert((&redirect.host, &redirect.from)) {
                return Err(SiteFault::new(redirect.from.to_string(), "there are two redirects from here"));
            }
        }
        self.maintenance.check()?;
        self.fields.check()
    }

    /// Whether the redirects are for hosts of the stage, and lead in no circle.
    ///
    /// # Errors
    /// Which one is not, or does.
    pub fn check_redirects(&self, hosts: &StageHosts<'_>) -> Result<(), SiteFault> {
        let foreign = |redirect: &&Redirect| {
            redirect.host.as_ref().is_some_and(|host| !hosts.names.contains(host.as_str()))
        };
        if let Some(redirect) = self.redirects.iter().find(foreign) {
            let host = redirect.host.as_deref().unwrap_or_default();
            return Err(SiteFault::new(
                redirect.from.to_string(),
                format!("`{host}` is no host of this stage"),
            ));
        }
        loops::check(&self.redirects, hosts)
    }

    /// Whether nothing was set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Settings as a Snapshot carries them, not read yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SiteDocument(serde_json::Value);

impl SiteDocument {
    /// Takes JSON as it was kept; `None` when it is none.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }

    /// Reads the settings.
    ///
    /// # Errors
    /// When they are not what this version understands, or make no sense.
    pub fn read(&self) -> Result<SiteSettings, SiteFault> {
        // A list would be read as an object without members.
        if !self.0.is_object() {
            return Err(SiteFault::new("settings", "they are an object"));
        }
        let settings: SiteSettings = Deserialize::deserialize(&self.0)
            .map_err(|error| SiteFault::new("settings", error.to_string()))?;
        settings.check()?;
        Ok(settings)
    }
}

impl From<&SiteSettings> for SiteDocument {
    fn from(settings: &SiteSettings) -> Self {
        Self(serde_json::to_value(settings).expect("settings are plain data"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(json: &str) -> Result<SiteSettings, SiteFault> {
        SiteDocument::from_json(json).unwrap().read()
    }

    #[test]
    fn settings_read_back_as_they_were_written() {
        let json = r#"{"pages":{"404":"<h1>{{title}}</h1>","maintenance":"<h1>Back soon</h1>"},
            "maintenance":{"stage":{"retry_after_s":60,"open_for":["192.0.2.0/24"]},"apps":{"shop":{}}},
            "redirects":[{"from":"/old/*","to":"/shop/*","status":308},{"from":"/","to":"/shop/"}],
            "fields":{"content-security-policy":{"value":"default-src 'self'","force":true},"x-frame-options":{}}}"#;
        let settings = read(json).unwrap();
        assert_eq!(SiteDocument::from(&settings).read(), Ok(settings.clone()));
        assert_eq!(settings.redirects[1].status.code(), 301);
        assert!(!settings.is_empty() && read("{}").unwrap().is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        let check = |json: &str, said: &str| {
            let fault = read(json).unwrap_err().to_string();
            assert!(fault.contains(said), "{json}: {fault}");
        };
        check(r#"{"page":{}}"#, "unknown field `page`");
        check(r#"{"pages":{"418":"x"}}"#, "`418` has no page");
        check(r#"{"redirects":[{"from":"/a","to":"/b"},{"from":"/%61","to":"/c"}]}"#, "/a: there are two");
        check(r#"{"fields":{"set-cookie":{"value":"a=b"}}}"#, "unknown variant `set-cookie`");
        check("[]", "settings: ");
        check("7", "settings: ");
    }

    #[test]
    fn a_stage_has_at_most_200_redirects() {
        let redirects = |count| {
            let list: Vec<String> =
                (0..count).map(|n| format!(r#"{{"from":"/a{n}","to":"/b{n}"}}"#)).collect();
            read(&format!(r#"{{"redirects":[{}]}}"#, list.join(",")))
        };
        assert!(redirects(REDIRECTS_MAX).is_ok() && redirects(REDIRECTS_MAX + 1).is_err());
    }

    #[test]
    fn a_redirect_is_for_a_host_of_its_stage_only() {
        let domains = Domains::default();
        let (acme, stage) = (CustomerName::new("acme").unwrap(), StageName::production());
        let hosts = StageHosts::new(&domains, &acme, &stage, ["apps.example.com".to_owned()]);
        let of = |host: &str| {
            let json = format!(r#"{{"redirects":[{{"host":"{host}","from":"/a","to":"/b"}}]}}"#);
            read(&json).unwrap().check_redirects(&hosts)
        };
        assert_eq!(of("acme.apps.localhost"), Ok(()));
        assert_eq!(of("apps.example.com"), Ok(()));
        assert!(of("beta.apps.localhost").is_err() && of("example.com").is_err());
    }

    proptest! {
        #[test]
        fn no_document_panics(text in "\\PC{0,200}") {
            if let Some(document) = SiteDocument::from_json(&text) {
                let _ = document.read();
            }
        }
    }
}
