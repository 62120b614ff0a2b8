//! Objects of a Snapshot that can be read and make no sense, or that would take something from others.

use super::{
    Customer, Issuer, Quarantined, Snapshot, Stage, VerifyingKey,
    cost::{POLICY_RULES_MAX, cost_of_policy},
    read::Ward,
};
use crate::{CustomerId, CustomerName, StageName, manifest::check_routes};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use std::collections::{BTreeMap, BTreeSet};

impl Snapshot {
    /// Puts what was good last, or nothing, in the place of each object that makes no sense. Afterwards ids and accounts
    /// have one owner each, all routes can be obeyed, and all keys can be used.
    pub fn settle(&mut self, last: Option<&Self>) -> Vec<Quarantined> {
        let mut ward = Ward::default();
        for name in std::mem::take(&mut self.kept) {
            ward.add(format!("customer {name}"), "the Platform cannot read its rows");
            self.put_back(&name, last);
        }
        self.settle_ids(last, &mut ward);
        for (name, customer) in &mut self.customers {
            let last = last.and_then(|last| last.customers.get(name));
            settle_issuer(
                &format!("customer {name}"),
                &mut customer.issuer,
                last.map(|l| &l.issuer),
                &mut ward,
            );
            for (stage_name, stage) in &mut customer.stages {
                let last = last.and_then(|last| last.stages.get(stage_name));
                settle_stage(&format!("{name}/{stage_name}"), stage, last, &mut ward);
            }
        }
        self.settle_accounts(last, &mut ward);
        self.settle_hosts(last, &mut ward);
        self.settle_costs(last, &mut ward);
        self.bring_policies(last);
        ward.0
    }

    /// Puts a customer and its hosts back as they were, or takes them out if they were not.
    pub fn put_back(&mut self, name: &CustomerName, last: Option<&Self>) {
        self.customers.remove(name);
        self.hosts.retain(|_, domain| domain.customer != *name);
        let Some(last) = last else { return };
        if let Some(customer) = last.customers.get(name) {
            self.customers.insert(name.clone(), customer.clone());
        }
        let own = last.hosts.iter().filter(|(_, domain)| domain.customer == *name);
        for (host, domain) in own {
            // Whoever has it now keeps it.
            self.hosts.entry(host.clone()).or_insert_with(|| domain.clone());
        }
        self.bring_policies(Some(last));
    }

    /// Caches, policies and counters go by the id of a customer: two must not share one.
    fn settle_ids(&mut self, last: Option<&Self>, ward: &mut Ward) {
        let owner = |id: CustomerId| {
            let mut all = last?.customers.iter();
            all.find(|(_, customer)| customer.id == id).map(|(name, _)| name.clone())
        };
        for (id, names) in shared(self.customers.iter().map(|(name, customer)| (customer.id, name.clone()))) {
            let owner = owner(id);
            for name in names.into_iter().filter(|name| Some(name) != owner.as_ref()) {
                ward.add(format!("customer {name}"), format!("its id {id} is another's"));
                self.put_back(
                    &name,
                    last.filter(|last| last.customers.get(&name).is_some_and(|c| c.id != id)),
                );
            }
        }
    }

    /// Facts count by account: no stage may have another's.
    fn settle_accounts(&mut self, last: Option<&Self>, ward: &mut Ward) {
        let all = self.customers.iter().flat_map(|(name, customer)| stages(name, customer));
        for (account, places) in shared(all) {
            let had = |(name, stage): &(CustomerName, StageName)| {
                last.and_then(|last| last.stage(name, stage)).map(|(_, stage)| stage)
            };
            for place in &places {
                if had(place).is_some_and(|stage| stage.account == account) {
                    continue;
                }
                let (name, stage_name) = place;
                ward.add(format!("stage {name}/{stage_name}"), "its account is another's");
                let Some(customer) = self.customers.get_mut(name) else { continue };
                match had(place) {
                    Some(stage) => customer.stages.insert(stage_name.clone(), stage.clone()),
                    None => customer.stages.remove(stage_name),
                };
            }
        }
    }

    /// A host of a stage that is not there leads nowhere, and one below our own domains is ours.
    fn settle_hosts(&mut self, last: Option<&Self>, ward: &mut Ward) {
        let mut bad = Vec::new();
        for (host, domain) in &self.hosts {
            let ours =
                [&self.domains.platform, &self.domains.runtime].iter().any(|base| host.is_at_or_below(base));
            if ours {
                bad.push((host.clone(), "it lies below our own domains"));
            } else if self.stage(&domain.customer, &domain.stage).is_none() {
                bad.push((host.clone(), "it leads to no stage"));
            }
        }
        for (host, why) in bad {
            ward.add(format!("host {host}"), why);
            self.hosts.remove(&host);
            let before = last.and_then(|last| last.hosts.get(&host));
            if let Some(domain) =
                before.filter(|domain| self.stage(&domain.customer, &domain.stage).is_some())
            {
                self.hosts.insert(host, domain.clone());
            }
        }
    }

    /// Nobody may take what the others need: a customer that costs too much stays as it was.
    fn settle_costs(&mut self, last: Option<&Self>, ward: &mut Ward) {
        self.waf.retain(|digest, policy| {
            let rules = cost_of_policy(policy).rules;
            if rules > POLICY_RULES_MAX {
                ward.add(
                    format!("policy {digest}"),
                    format!("it has {rules} rules; {POLICY_RULES_MAX} are allowed"),
                );
            }
            rules <= POLICY_RULES_MAX
        });
        for (name, why) in self.too_dear() {
            ward.add(format!("customer {name}"), why);
            self.put_back(&name, last);
        }
    }

    /// What was put back may need policies that this Snapshot no longer holds.
    fn bring_policies(&mut self, last: Option<&Self>) {
        let Some(last) = last else { return };
        let of_customers = self.customers.values().flat_map(Customer::policies);
        let named: BTreeSet<_> = of_customers.chain([self.platform_waf]).collect();
        for digest in named {
            if let (false, Some(policy)) = (self.waf.contains_key(&digest), last.waf.get(&digest)) {
                self.waf.insert(digest, policy.clone());
            }
        }
    }
}

fn stages<'s>(
    name: &'s CustomerName,
    customer: &'s Customer,
) -> impl Iterator<Item = (String, (CustomerName, StageName))> + use<'s> {
    let place = |(stage_name, stage): (&StageName, &Stage)| {
        (stage.account.clone(), (name.clone(), stage_name.clone()))
    };
    customer.stages.iter().map(place)
}

/// What more than one has, and who.
fn shared<K: Ord, V>(all: impl Iterator<Item = (K, V)>) -> BTreeMap<K, Vec<V>> {
    let mut owners = BTreeMap::<K, Vec<V>>::new();
    for (key, owner) in all {
        owners.entry(key).or_default().push(owner);
    }
    owners.retain(|_, owners| owners.len() > 1);
    owners
}

fn settle_stage(called: &str, stage: &mut Stage, last: Option<&Stage>, ward: &mut Ward) {
    settle_issuer(&format!("stage {called}"), &mut stage.issuer, last.map(|last| &last.issuer), ward);
    let mut bad = Vec::new();
    for (name, app) in &stage.apps {
        if let Err(error) = check_routes(&app.routes) {
            ward.add(format!("app {called}/{name}"), error);
            bad.push(name.clone());
        }
    }
    for name in bad {
        stage.apps.remove(&name);
        if let Some(app) = last.and_then(|last| last.apps.get(&name)) {
            stage.apps.insert(name, app.clone());
        }
    }
}

/// Takes out keys that cannot be used. The last good ones stay only where none would be left.
fn settle_issuer(what: &str, issuer: &mut Issuer, last: Option<&Issuer>, ward: &mut Ward) {
    let before = issuer.keys.len();
    let mut kids = BTreeSet::new();
    issuer.keys.retain(|key| is_usable(key) && kids.insert(key.kid.clone()));
    if issuer.keys.len() == before {
        return;
    }
    ward.add(format!("{what}, issuer"), "a key cannot be used");
    if let (true, Some(last)) = (issuer.keys.is_empty(), last) {
        issuer.keys.clone_from(&last.keys);
    }
}

fn is_usable(key: &VerifyingKey) -> bool {
    BASE64_URL_SAFE_NO_PAD.decode(&key.x).is_ok_and(|bytes| bytes.len() == 32)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{app_name, domain, key, name, route, town};
    use super::*;
    use crate::{AccessRule, Digest, snapshot::App};

    fn stage<'s>(snapshot: &'s mut Snapshot, customer: &str) -> &'s mut Stage {
        snapshot.customers.get_mut(&name(customer)).unwrap().stages.get_mut(&StageName::production()).unwrap()
    }

    fn app<'s>(snapshot: &'s mut Snapshot, customer: &str) -> &'s mut App {
        stage(snapshot, customer).apps.get_mut(&app_name("shop")).unwrap()
    }

    /// What is found after a change to the town.
    fn settled(change: impl FnOnce(&mut Snapshot)) -> (Snapshot, Vec<String>) {
        let last = town();
        let mut new = Snapshot { revision: 8, ..last.clone() };
        change(&mut new);
        let found = new.settle(Some(&last)).into_iter().map(|found| found.what).collect();
        // Whatever was found is as it was; the town has changed nowhere else.
        if !new.hosts.is_empty() {
            assert_eq!(new, Snapshot { revision: 8, ..last });
        }
        (new, found)
    }

    #[test]
    fn what_makes_sense_is_left_alone() {
        assert_eq!(settled(|_| ()).1, Vec::<String>::new());
    }

    #[test]
    fn a_route_that_would_open_what_it_should_shut_is_not_taken() {
        let (_, found) = settled(|new| app(new, "acme").routes[1].path = "admin".into());
        assert_eq!(found, ["app acme/production/shop"]);
        let (_, found) =
            settled(|new| app(new, "acme").routes[1] = route("/admin", AccessRule::Roles(vec![])));
        assert_eq!(found, ["app acme/production/shop"]);
    }

    #[test]
    fn a_stage_cannot_have_the_account_of_another() {
        let (_, found) = settled(|new| stage(new, "acme").account = "A-beta-test".into());
        assert_eq!(found, ["stage acme/production"]);
    }

    #[test]
    fn a_customer_cannot_have_the_id_of_another() {
        let (_, found) = settled(|new| {
            let beta = new.customers[&name("beta")].id;
            new.customers.get_mut(&name("acme")).unwrap().id = beta;
        });
        assert_eq!(found, ["customer acme"]);
        let mut new = town();
        let twin = new.customers[&name("beta")].clone();
        let last = new.clone();
        new.customers.insert(name("delta"), twin);
        new.settle(Some(&last));
        assert_eq!(new, last, "a newcomer goes");
    }

    #[test]
    fn keys_that_cannot_be_used_go_and_only_the_last_one_is_kept_as_it_was() {
        let last = town();
        let mut new = last.clone();
        stage(&mut new, "acme").issuer.keys =
            vec![key("k3"), super::VerifyingKey { x: "short".into(), ..key("k4") }, key("k3")];
        let found = new.settle(Some(&last));
        assert_eq!(found.len(), 1);
        assert_eq!(stage(&mut new, "acme").issuer.keys, [key("k3")]);
        let (_, found) =
            settled(|new| stage(new, "acme").issuer.keys.iter_mut().for_each(|key| key.x.clear()));
        assert_eq!(found, ["stage acme/production, issuer"]);
    }

    #[test]
    fn an_issuer_without_keys_is_meant() {
        let last = town();
        let mut new = last.clone();
        stage(&mut new, "acme").issuer.keys.clear();
        assert_eq!(new.settle(Some(&last)), []);
        assert!(stage(&mut new, "acme").issuer.keys.is_empty());
    }

    #[test]
    fn a_domain_leads_to_a_stage_that_is_there_and_is_not_ours() {
        let (_, found) = settled(|new| {
            new.hosts.get_mut(&domain("www.acme.example")).unwrap().customer = name("nobody");
        });
        assert_eq!(found, ["host www.acme.example"]);
        let mut new = town();
        new.domains.runtime = "acme.example".into();
        new.settle(None);
        assert_eq!(new.hosts.keys().map(|host| host.as_str()).collect::<Vec<_>>(), ["www.beta.example"]);
    }

    #[test]
    fn customers_that_the_platform_cannot_read_stay_with_their_domains_and_policies() {
        let (_, found) = settled(|new| {
            new.customers.remove(&name("acme"));
            new.hosts.remove(&domain("www.acme.example"));
            new.waf.remove(&Digest::from_sha256([1; 32]));
            new.kept = vec![name("acme")];
        });
        assert_eq!(found, ["customer acme"]);
        let mut first = town();
        first.customers.remove(&name("acme"));
        first.kept = vec![name("acme")];
        first.settle(None);
        assert!(
            !first.customers.contains_key(&name("acme")) && first.hosts.len() == 1,
            "nothing is known of them"
        );
    }

    #[test]
    fn a_customer_that_is_put_back_takes_no_domain_from_who_has_it_now() {
        let last = town();
        let mut new = last.clone();
        let moved = new.hosts.get_mut(&domain("www.acme.example")).unwrap();
        moved.customer = name("gamma");
        let expected = moved.clone();
        new.put_back(&name("acme"), Some(&last));
        assert_eq!(new.hosts[&domain("www.acme.example")], expected);
        new.put_back(&name("acme"), None);
        assert!(!new.customers.contains_key(&name("acme")));
    }
}
