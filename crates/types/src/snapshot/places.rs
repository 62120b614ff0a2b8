//! Every place that a Snapshot serves, as its objects say. What readers make of a Snapshot is asked for each of them.

use super::{App, Customer, Snapshot, Stage};
use crate::{AppName, CustomerName, StageName};

/// A host, and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'s> {
    /// Host name.
    pub host: String,
    /// Whose it is, by name.
    pub customer_name: &'s CustomerName,
    /// Whose it is.
    pub customer: &'s Customer,
    /// What stands there.
    pub leads: Leads<'s>,
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads<'s> {
    /// The Platform.
    Platform,
    /// A stage.
    Stage {
        /// Its name.
        name: &'s StageName,
        /// The stage.
        stage: &'s Stage,
        /// The one app that is served there, at `/`.
        root: Option<&'s AppName>,
        /// Whether the host is a domain of the customer's own.
        is_custom: bool,
    },
}

impl Snapshot {
    /// All places. Custom domains of a stage that is not there are none.
    pub fn places(&self) -> impl Iterator<Item = Place<'_>> {
        let own = self.customers.iter().flat_map(move |(customer_name, customer)| {
            let host = self.domains.platform_host(customer_name);
            let platform = Place { host, customer_name, customer, leads: Leads::Platform };
            let stages = customer.stages.iter().map(move |(name, stage)| {
                let host = self.domains.runtime_host(customer_name, name);
                let leads = Leads::Stage { name, stage, root: None, is_custom: false };
                Place { host, customer_name, customer, leads }
            });
            std::iter::once(platform).chain(stages)
        });
        let custom = self.hosts.iter().filter_map(move |(host, domain)| {
            let (customer_name, customer) = self.customers.get_key_value(&domain.customer)?;
            let (name, stage) = customer.stages.get_key_value(&domain.stage)?;
            let leads = Leads::Stage { name, stage, root: domain.root.as_ref(), is_custom: true };
            Some(Place { host: host.to_string(), customer_name, customer, leads })
        });
        own.chain(custom)
    }
}

impl<'s> Place<'s> {
    /// Whether another Snapshot has this place, too: the same customer has the same stage there, or the same domain.
    pub fn is_still_in(&self, other: &Snapshot) -> bool {
        let Some(customer) = other.customers.get(self.customer_name) else { return false };
        let same_base = || {
            let domains = &other.domains;
            [&domains.platform, &domains.runtime].iter().any(|base| self.host.ends_with(base.as_str()))
        };
        customer.id == self.customer.id
            && match self.leads {
                Leads::Platform => same_base(),
                Leads::Stage { is_custom: true, .. } => other.hosts.contains_key(self.host.as_str()),
                Leads::Stage { name, .. } => customer.stages.contains_key(name) && same_base(),
            }
    }

    /// Paths of an app for which to ask: its own, and that of each route that has only one spelling.
    pub fn paths(app: &App) -> impl Iterator<Item = &str> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
        let routes = app.routes.iter().map(|route| route.path.as_str());
        std::iter::once("/").chain(routes.filter(move |path| path.bytes().all(plain)))
    }

    /// The apps that are reached here, each with what stands before its paths as clients see them.
    pub fn apps(&self) -> impl Iterator<Item = (&'s AppName, &'s App, String)> + use<'s> {
        let (stage, root) = match self.leads {
            Leads::Platform => (None, None),
            Leads::Stage { stage, root, .. } => (Some(stage), root),
        };
        let apps = stage.into_iter().flat_map(|stage| &stage.apps);
        apps.filter(move |(name, _)| root.is_none_or(|root| root == *name)).map(move |(name, app)| {
            (name, app, if root.is_some() { String::new() } else { format!("/{name}") })
        })
    }
}
