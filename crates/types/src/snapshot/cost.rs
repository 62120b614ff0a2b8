//! What a Snapshot costs those who serve from it, told from its objects before anything is made of them.

use super::{CustomDomain, Customer, Snapshot};
use crate::{CustomerName, WafPolicy};
use std::{collections::BTreeMap, io};

/// Exclusions and variables that one policy of the WAF may have: four levels of the most that one may say.
pub const POLICY_RULES_MAX: u64 = 4 * (200 + 100);
/// Routes, exclusions, variables, domains, bans and keys that one customer may have in all its stages. What a request to one
/// app is compared with is bounded elsewhere: 200 routes, 200 redirects, one policy.
pub const CUSTOMER_RULES_MAX: u64 = 100_000;
/// Memory that one customer may take, in bytes.
pub const CUSTOMER_MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Rules of all customers together.
pub const RULES_MAX: u64 = 5_000_000;
/// Memory of all customers together, in bytes.
pub const MEMORY_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// Memory for each byte of an object as text: it is held read, and once more in what is made of it. Measured 6 at a running edge
/// (`edge::memory`).
const PER_BYTE: u64 = 8;
/// Memory of a policy, and of each of its rules: measured 19 kB for one with 20 exclusions.
const PER_POLICY: u64 = 4 * 1024;
const PER_POLICY_RULE: u64 = 1024;
/// Memory of a host with a certificate: its chain and key, read and as rustls holds them.
const PER_HOST: u64 = 16 * 1024;

/// What something costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// What requests may be compared with.
    pub rules: u64,
    /// Memory, in bytes.
    pub memory: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.rules = self.rules.saturating_add(other.rules);
        self.memory = self.memory.saturating_add(other.memory);
    }
}

impl Snapshot {
    /// What all of it costs.
    pub fn cost(&self) -> Cost {
        let hosts = self.hosts_by_customer();
        let mut cost = Cost::default();
        for (name, customer) in &self.customers {
            cost += cost_of(customer, hosts.get(name));
        }
        for policy in self.waf.values() {
            cost += cost_of_policy(policy);
        }
        cost
    }

    /// Whether it costs too much as a whole.
    ///
    /// # Errors
    /// What it costs, and what it may.
    pub fn check_cost(&self) -> Result<(), String> {
        self.cost().check(RULES_MAX, MEMORY_BYTES_MAX)
    }

    /// Customers that cost more than one may, and why.
    pub(super) fn too_dear(&self) -> Vec<(CustomerName, String)> {
        let hosts = self.hosts_by_customer();
        let check = |(name, customer): (&CustomerName, &Customer)| {
            let mut cost = cost_of(customer, hosts.get(name));
            for policy in customer.policies().into_iter().filter_map(|digest| self.waf.get(&digest)) {
                cost += cost_of_policy(policy);
            }
            let why = cost.check(CUSTOMER_RULES_MAX, CUSTOMER_MEMORY_BYTES_MAX).err()?;
            Some((name.clone(), why))
        };
        self.customers.iter().filter_map(check).collect()
    }

    fn hosts_by_customer(&self) -> BTreeMap<&CustomerName, Vec<&CustomDomain>> {
        let mut hosts = BTreeMap::<_, Vec<_>>::new();
        for domain in self.hosts.values() {
            hosts.entry(&domain.customer).or_default().push(domain);
        }
        hosts
    }
}

impl Cost {
    fn check(self, rules_max: u64, memory_max: u64) -> Result<(), String> {
        let Self { rules, memory } = self;
        if rules > rules_max {
            return Err(format!("it has {rules} rules; {rules_max} are allowed"));
        }
        if memory > memory_max {
            return Err(format!("it takes {memory} bytes of memory; {memory_max} are allowed"));
        }
        Ok(())
    }
}

/// A customer with its hosts; policies are counted apart, for many share one.
fn cost_of(customer: &Customer, hosts: Option<&Vec<&CustomDomain>>) -> Cost {
    let own = customer.issuer.keys.len() + customer.bans.len();
    let mut cost = Cost { rules: own as u64, memory: bytes_of(customer) * PER_BYTE };
    for stage in customer.stages.values() {
        cost.rules += stage.issuer.keys.len() as u64;
        cost.rules += stage.apps.values().map(|app| app.routes.len() as u64).sum::<u64>();
    }
    for domain in hosts.into_iter().flatten() {
        let own = if domain.certificate.is_some() { PER_HOST } else { 0 };
        cost += Cost { rules: 1, memory: own + bytes_of(domain) * PER_BYTE };
    }
    cost
}

/// What a policy costs.
pub(super) fn cost_of_policy(policy: &WafPolicy) -> Cost {
    let rules = (policy.exclusions.len() + policy.variables.len()) as u64;
    Cost { rules, memory: bytes_of(policy) * PER_BYTE + PER_POLICY + rules * PER_POLICY_RULE }
}

/// Length as text.
fn bytes_of(value: &impl serde::Serialize) -> u64 {
    let mut count = Count(0);
    // Counting does not fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

struct Count(u64);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{app_name, name, route, town};
    use super::*;
    use crate::{AccessRule, AppId, AppName, Digest, StageName};

    /// What is found after acme got many apps with many routes, and how many of beta's apps are left.
    fn grown(apps: usize, routes: usize, text: usize) -> (Snapshot, Vec<String>) {
        let last = town();
        let mut new = Snapshot { revision: 8, ..last.clone() };
        let acme = new.customers.get_mut(&name("acme")).unwrap();
        let stage = acme.stages.get_mut(&StageName::production()).unwrap();
        let like = stage.apps[&app_name("shop")].clone();
        for number in 0..apps {
            let mut app = like.clone();
            app.id = AppId::generate();
            let path = |route_number| format!("/{route_number}/{}", "x".repeat(text));
            app.routes = (0..routes).map(|number| route(&path(number), AccessRule::Public)).collect();
            stage.apps.insert(AppName::new(format!("app{number}")).unwrap(), app);
        }
        new.customers.get_mut(&name("beta")).unwrap().issuer.token_epoch = 99;
        let found = new.settle(Some(&last)).into_iter().map(|found| found.to_string()).collect();
        assert_eq!(new.customers[&name("beta")].issuer.token_epoch, 99, "the others have what is new");
        assert_eq!(new.customers[&name("gamma")], last.customers[&name("gamma")]);
        if apps > 0 && !Vec::is_empty(&found) {
            assert_eq!(new.customers[&name("acme")], last.customers[&name("acme")]);
        }
        (new, found)
    }

    #[test]
    fn a_customer_within_the_ceilings_is_taken() {
        let (new, found) = grown(400, 200, 1);
        assert_eq!(found, [""; 0]);
        assert_eq!(new.customers[&name("acme")].stages[&StageName::production()].apps.len(), 402);
        assert!(new.check_cost().is_ok() && new.cost().rules > 80_000);
    }

    #[test]
    fn a_customer_with_too_many_rules_stays_as_it_was() {
        let (_, found) = grown(501, 200, 1);
        assert!(found.len() == 1 && found[0].starts_with("customer acme: it has 100"), "{found:?}");
    }

    #[test]
    fn a_customer_that_takes_too_much_memory_stays_as_it_was() {
        let (_, found) = grown(400, 200, 900);
        assert!(found.len() == 1 && found[0].starts_with("customer acme: it takes "), "{found:?}");
    }

    #[test]
    fn a_policy_with_more_rules_than_its_levels_may_say_is_not_taken() {
        let mut new = town();
        let dear = (Digest::from_sha256([1; 32]), Digest::from_sha256([0; 32]));
        let variables = (0..=POLICY_RULES_MAX).map(|number| (format!("v{number}"), "1".to_owned()));
        new.waf.get_mut(&dear.0).unwrap().variables = variables.collect();
        let found = new.settle(None);
        assert_eq!(found.len(), 1);
        assert!(!new.waf.contains_key(&dear.0) && new.waf.contains_key(&dear.1));
    }

    #[test]
    fn all_together_have_a_ceiling_too() {
        let small = Cost { rules: RULES_MAX, memory: MEMORY_BYTES_MAX };
        assert!(small.check(RULES_MAX, MEMORY_BYTES_MAX).is_ok());
        let mut more = small;
        more += Cost { rules: 1, memory: 0 };
        assert!(more.check(RULES_MAX, MEMORY_BYTES_MAX).is_err());
        let mut larger = small;
        larger += Cost { rules: 0, memory: u64::MAX };
        assert!(larger.check(RULES_MAX, MEMORY_BYTES_MAX).is_err());
    }
}
