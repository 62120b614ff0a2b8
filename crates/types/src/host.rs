//! Hosts: how customers, stages and apps appear in addresses.

use crate::{AppName, CustomerName, StageName};
use serde::{Deserialize, Serialize};

/// The base domains below which everything is served, and the port people use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domains {
    /// Platform hosts are `<customer>.<platform>`. Default `platform.localhost`.
    pub platform: String,
    /// Runtime hosts are `<customer>.<runtime>` and `<customer>--<stage>.<runtime>`. Default `apps.localhost`.
    pub runtime: String,
    /// HTTPS port as people reach it; left out of addresses when it is 443.
    pub https_port: u16,
}

impl Default for Domains {
    fn default() -> Self {
        Self { platform: "platform.localhost".into(), runtime: "apps.localhost".into(), https_port: 8443 }
    }
}

/// What a host leads to, by its form alone; whether the customer exists is the Snapshot's word.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Site {
    /// A customer's Platform host.
    Platform(CustomerName),
    /// A customer's Runtime host for one stage.
    Runtime(CustomerName, StageName),
}

impl Domains {
    /// Reads a host name (no port, lower case); `None` when it is not below a base domain or its
    /// label is not of our form.
    pub fn site(&self, host: &str) -> Option<Site> {
        if let Some(label) = below(host, &self.platform) {
            return customer(label).map(Site::Platform);
        }
        let label = below(host, &self.runtime)?;
        match label.split_once("--") {
            None => CustomerName::new(label).ok().map(|c| Site::Runtime(c, StageName::production())),
            Some((c, s)) => {
                let stage = StageName::new(s).ok().filter(|stage| !stage.is_production())?;
                Some(Site::Runtime(CustomerName::new(c).ok()?, stage))
            }
        }
    }

    /// Host of a customer's Platform.
    pub fn platform_host(&self, customer: &CustomerName) -> String {
        format!("{customer}.{}", self.platform)
    }

    /// Host of a customer's stage.
    pub fn runtime_host(&self, customer: &CustomerName, stage: &StageName) -> String {
        if stage.is_production() {
            format!("{customer}.{}", self.runtime)
        } else {
            format!("{customer}--{stage}.{}", self.runtime)
        }
    }

    /// `https://host[:port]`.
    pub fn origin(&self, host: &str) -> String {
        match self.https_port {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }

    /// Address of a customer's Platform, without a trailing slash.
    pub fn platform_url(&self, customer: &CustomerName) -> String {
        self.origin(&self.platform_host(customer))
    }

    /// Address of an app in a stage, without a trailing slash. Also the audience of its tokens.
    pub fn app_url(&self, customer: &CustomerName, stage: &StageName, app: &AppName) -> String {
        format!("{}/{app}", self.origin(&self.runtime_host(customer, stage)))
    }

    /// Issuer of a customer's members. Also the base of the Identity Service's endpoints.
    pub fn member_issuer(&self, customer: &CustomerName) -> String {
        format!("{}/identity", self.platform_url(customer))
    }

    /// Issuer of the tokens for the apps of one stage.
    pub fn stage_issuer(&self, customer: &CustomerName, stage: &StageName) -> String {
        format!("{}/s/{stage}", self.member_issuer(customer))
    }

    /// Audience of tokens for the Platform's API.
    pub fn platform_audience(&self, customer: &CustomerName) -> String {
        format!("{}/api", self.platform_url(customer))
    }
}

fn below<'h>(host: &'h str, base: &str) -> Option<&'h str> {
    host.strip_suffix(base)?.strip_suffix('.').filter(|label| !label.contains('.'))
}

fn customer(label: &str) -> Option<CustomerName> {
    if label == CustomerName::operator().as_str() {
        return Some(CustomerName::operator());
    }
    CustomerName::new(label).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> (CustomerName, StageName) {
        (CustomerName::new("acme").unwrap(), StageName::test())
    }

    #[test]
    fn each_form_of_host_leads_to_its_site() {
        let domains = Domains::default();
        let (acme, test) = names();
        assert_eq!(domains.site("acme.platform.localhost"), Some(Site::Platform(acme.clone())));
        assert_eq!(
            domains.site("acme.apps.localhost"),
            Some(Site::Runtime(acme.clone(), StageName::production()))
        );
        assert_eq!(domains.site("acme--test.apps.localhost"), Some(Site::Runtime(acme, test)));
        assert_eq!(
            domains.site("operator.platform.localhost"),
            Some(Site::Platform(CustomerName::operator()))
        );
    }

    #[test]
    fn other_hosts_lead_nowhere() {
        let domains = Domains::default();
        for host in [
            "apps.localhost",
            "a.b.apps.localhost",
            "acmeapps.localhost",
            "acme--production.apps.localhost",
            "acme--test--x.apps.localhost",
            "operator.apps.localhost",
            "example.com",
            "",
            ".apps.localhost",
        ] {
            assert_eq!(domains.site(host), None, "{host}");
        }
    }

    proptest! {
        #[test]
        fn hosts_that_we_make_lead_back(c in "[a-z][a-z0-9]{2,20}", s in "[a-z][a-z0-9]{1,15}") {
            let domains = Domains::default();
            let (Ok(c), Ok(s)) = (CustomerName::new(c), StageName::new(s)) else { return Ok(()) };
            let host = domains.runtime_host(&c, &s);
            prop_assert_eq!(domains.site(&host), Some(Site::Runtime(c, s)));
        }
    }
}
