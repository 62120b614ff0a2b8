//! Reading a Snapshot piece by piece, so that one object that cannot be read takes no other along.

use super::{App, Customer, Issuer, SCHEMA, Snapshot, Stage, first_schema};
use crate::{AppName, Ban, CustomerName, Digest, Domains, SiteDocument, StageName, WafPolicy};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IntoDeserializer, value::StrDeserializer},
};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt};

/// Objects in quarantine that are told apart; more are only counted as one.
const TOLD_MAX: usize = 256;

/// An object of a Snapshot that was not taken: what was good last stays in its place, if there was any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quarantined {
    /// Which one, for people.
    pub what: String,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// What is in quarantine.
#[derive(Debug, Default)]
pub(super) struct Ward(pub(super) Vec<Quarantined>);

impl Ward {
    pub(super) fn add(&mut self, what: impl Into<String>, why: impl fmt::Display) {
        if self.0.len() < TOLD_MAX {
            self.0.push(Quarantined { what: what.into(), why: why.to_string() });
        }
    }
}

/// Why a Snapshot cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its frame: what is nobody's, or what holds the objects.
    #[error("it is none")]
    Frame(#[from] serde_json::Error),
    /// Its form is none that this version knows.
    #[error("its form has version {0}; this program reads {before} and {SCHEMA}", before = SCHEMA - 1)]
    Schema(u32),
}

impl Snapshot {
    /// Reads a Snapshot. Of an object that cannot be read, the one of `last` is taken instead, or none; each such is named.
    ///
    /// # Errors
    /// [`ReadError`]: nothing of it can be used.
    pub fn read(text: &str, last: Option<&Self>) -> Result<(Self, Vec<Quarantined>), ReadError> {
        let Form { schema } = serde_json::from_str(text)?;
        if !(SCHEMA - 1..=SCHEMA).contains(&schema) {
            return Err(ReadError::Schema(schema));
        }
        if let Ok(snapshot) = serde_json::from_str(text) {
            return Ok((snapshot, Vec::new()));
        }
        let frame: Frame<'_> = serde_json::from_str(text)?;
        let mut reader = Reader { last, ward: Ward::default() };
        let mut customers = BTreeMap::new();
        for (name, raw) in frame.customers {
            if let Some((name, customer)) = reader.customer(&name, raw) {
                customers.insert(name, customer);
            }
        }
        let hosts = reader.all("host ", frame.hosts, last.map(|last| &last.hosts));
        let waf: BTreeMap<Digest, WafPolicy> = reader.all("policy ", frame.waf, last.map(|last| &last.waf));
        let snapshot = Self {
            schema,
            epoch: frame.epoch,
            revision: frame.revision,
            made_at: frame.made_at,
            domains: frame.domains,
            customers,
            kept: frame.kept,
            hosts,
            waf,
            platform_waf: frame.platform_waf,
        };
        Ok((snapshot, reader.ward.0))
    }
}

#[derive(Deserialize)]
struct Form {
    #[serde(default = "first_schema")]
    schema: u32,
}

/// What holds the objects.
#[derive(Deserialize)]
struct Frame<'r> {
    epoch: u64,
    revision: u64,
    made_at: u64,
    domains: Domains,
    #[serde(borrow)]
    customers: Raw<'r>,
    #[serde(default)]
    kept: Vec<CustomerName>,
    #[serde(borrow, default)]
    hosts: Raw<'r>,
    #[serde(borrow)]
    waf: Raw<'r>,
    platform_waf: Digest,
}

#[derive(Deserialize)]
struct CustomerFrame<'r> {
    id: crate::CustomerId,
    issuer: Issuer,
    #[serde(borrow, default)]
    bans: Option<&'r RawValue>,
    #[serde(borrow)]
    stages: Raw<'r>,
}

#[derive(Deserialize)]
struct StageFrame<'r> {
    account: String,
    issuer: Issuer,
    waf: Digest,
    #[serde(default)]
    site: Option<SiteDocument>,
    #[serde(borrow)]
    apps: Raw<'r>,
}

/// Objects by name, not yet read.
type Raw<'r> = BTreeMap<String, &'r RawValue>;

struct Reader<'l> {
    last: Option<&'l Snapshot>,
    ward: Ward,
}

impl Reader<'_> {
    fn customer(&mut self, key: &str, raw: &RawValue) -> Option<(CustomerName, Customer)> {
        let what = format!("customer {key}");
        let name: CustomerName = self.name(&what, key)?;
        let last = self.last.and_then(|last| last.customers.get(&name));
        let customer = match serde_json::from_str(raw.get()) {
            Ok(customer) => Some(customer),
            Err(_) => match serde_json::from_str::<CustomerFrame<'_>>(raw.get()) {
                Ok(frame) => Some(self.stages(&name, frame, last)),
                Err(error) => self.instead(what, &error, last),
            },
        };
        Some((name, customer?))
    }

    fn stages(&mut self, name: &CustomerName, frame: CustomerFrame<'_>, last: Option<&Customer>) -> Customer {
        let mut stages = BTreeMap::new();
        for (key, raw) in frame.stages {
            let what = format!("stage {name}/{key}");
            let Some(stage_name) = self.name::<StageName>(&what, &key) else { continue };
            let last = last.and_then(|last| last.stages.get(&stage_name));
            let stage = match serde_json::from_str(raw.get()) {
                Ok(stage) => Some(stage),
                Err(_) => match serde_json::from_str::<StageFrame<'_>>(raw.get()) {
                    Ok(frame) => Some(self.stage(&format!("app {name}/{key}/"), frame, last)),
                    Err(error) => self.instead(what, &error, last),
                },
            };
            if let Some(stage) = stage {
                stages.insert(stage_name, stage);
            }
        }
        let bans = self.bans(name, frame.bans, last);
        Customer { id: frame.id, issuer: frame.issuer, bans, stages }
    }

    /// A list with a ban that cannot be read is not taken at all: better the last good one, whole, than one with a hole.
    fn bans(&mut self, name: &CustomerName, raw: Option<&RawValue>, last: Option<&Customer>) -> Vec<Ban> {
        let Some(raw) = raw else { return Vec::new() };
        let read = serde_json::from_str(raw.get()).or_else(|error| {
            self.instead(format!("bans of {name}"), &error, last.map(|last| &last.bans)).ok_or(())
        });
        read.unwrap_or_default()
    }

    fn stage(&mut self, what: &str, frame: StageFrame<'_>, last: Option<&Stage>) -> Stage {
        let apps: BTreeMap<AppName, App> = self.all(what, frame.apps, last.map(|last| &last.apps));
        Stage { account: frame.account, issuer: frame.issuer, waf: frame.waf, site: frame.site, apps }
    }

    /// Objects of one kind, each by itself. `called` stands before their names.
    fn all<K, V>(&mut self, called: &str, raws: Raw<'_>, last: Option<&BTreeMap<K, V>>) -> BTreeMap<K, V>
    where
        K: DeserializeOwned + Ord,
        V: DeserializeOwned + Clone,
    {
        let mut read = BTreeMap::new();
        for (key, raw) in raws {
            let what = format!("{called}{key}");
            let Some(name) = self.name::<K>(&what, &key) else { continue };
            let value = match serde_json::from_str(raw.get()) {
                Ok(value) => Some(value),
                Err(error) => self.instead(what, &error, last.and_then(|last| last.get(&name))),
            };
            if let Some(value) = value {
                read.insert(name, value);
            }
        }
        read
    }

    fn name<K: DeserializeOwned>(&mut self, what: &str, key: &str) -> Option<K> {
        let key: StrDeserializer<'_, serde_json::Error> = key.into_deserializer();
        K::deserialize(key).map_err(|error| self.ward.add(what, error)).ok()
    }

    fn instead<T: Clone>(&mut self, what: String, error: &serde_json::Error, last: Option<&T>) -> Option<T> {
        self.ward.add(what, error);
        last.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{name, town};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    /// Every place below a value, as JSON pointers.
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
        match value {
            Value::Object(fields) => {
                fields
                    .iter()
                    .for_each(|(key, value)| pointers(value, &format!("{at}/{}", escaped(key)), found));
            }
            Value::Array(all) => {
                all.iter().enumerate().for_each(|(n, value)| pointers(value, &format!("{at}/{n}"), found));
            }
            _ => {}
        }
    }

    /// What stands at one place of what is acme's.
    fn spoilt(good: &Snapshot, place: usize, with: &Value) -> Value {
        let mut value = serde_json::to_value(good).unwrap();
        let mut places = Vec::new();
        for own in ["/customers/acme", "/hosts/www.acme.example"] {
            pointers(value.pointer(own).unwrap(), own, &mut places);
        }
        *value.pointer_mut(&places[place % places.len()]).unwrap() = with.clone();
        value
    }

    fn without_acme(snapshot: &Snapshot) -> Snapshot {
        let mut others = snapshot.clone();
        others.customers.remove(&name("acme"));
        others.hosts.retain(|_, domain| domain.customer != name("acme"));
        others
    }

    #[test]
    fn an_app_that_cannot_be_read_is_served_as_before_and_all_else_is_new() {
        let last = town();
        let mut value = serde_json::to_value(Snapshot { revision: 8, ..last.clone() }).unwrap();
        *value.pointer_mut("/customers/acme/stages/test/apps/shop/routes").unwrap() = json!("public");
        *value.pointer_mut("/customers/acme/stages/test/apps/blog/revision_number").unwrap() = json!(77);
        *value.pointer_mut("/customers/beta/issuer/token_epoch").unwrap() = json!(99);
        let (read, found) = Snapshot::read(&value.to_string(), Some(&last)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "app acme/test/shop");
        let stage =
            |snapshot: &Snapshot| snapshot.customers[&name("acme")].stages[&StageName::test()].clone();
        assert_eq!(stage(&read).apps["shop"], stage(&last).apps["shop"]);
        assert_eq!(stage(&read).apps["blog"].revision_number, 77);
        assert_eq!(read.customers[&name("beta")].issuer.token_epoch, 99);
        let (first, _) = Snapshot::read(&value.to_string(), None).unwrap();
        assert!(!stage(&first).apps.contains_key("shop") && stage(&first).apps.contains_key("blog"));
    }

    #[test]
    fn bans_that_cannot_be_read_stay_as_they_were_and_all_else_is_new() {
        let last = town();
        for bad in [json!(7), json!([{"net": "203.0.113.0/24"}, {"net": "0.0.0.0/0"}]), json!([{"until": 7}])]
        {
            let mut value = serde_json::to_value(Snapshot { revision: 8, ..last.clone() }).unwrap();
            value["customers"]["acme"]["bans"] = bad.clone();
            *value.pointer_mut("/customers/acme/issuer/token_epoch").unwrap() = json!(99);
            let (read, found) = Snapshot::read(&value.to_string(), Some(&last)).unwrap();
            assert_eq!(found.iter().map(|found| &*found.what).collect::<Vec<_>>(), ["bans of acme"], "{bad}");
            let acme = |snapshot: &Snapshot| snapshot.customers[&name("acme")].clone();
            assert_eq!((&acme(&read).bans, acme(&read).issuer.token_epoch), (&acme(&last).bans, 99));
            let (first, _) = Snapshot::read(&value.to_string(), None).unwrap();
            assert!(acme(&first).bans.is_empty() && acme(&first).stages.len() == 2);
        }
    }

    #[test]
    fn a_snapshot_of_before_bans_nobody() {
        let mut value = serde_json::to_value(town()).unwrap();
        for customer in value["customers"].as_object_mut().unwrap().values_mut() {
            customer.as_object_mut().unwrap().remove("bans").unwrap();
        }
        let (read, found) = Snapshot::read(&value.to_string(), None).unwrap();
        assert!(found.is_empty() && read.customers.values().all(|customer| customer.bans.is_empty()));
        assert!(!serde_json::to_string(&read).unwrap().contains("bans"), "and it is written as before");
    }

    #[test]
    fn names_that_are_none_are_left_out() {
        let mut value = serde_json::to_value(town()).unwrap();
        let acme = value["customers"]["acme"].clone();
        value["customers"]["a.b"] = acme;
        value["hosts"]["localhost"] = value["hosts"]["www.acme.example"].clone();
        value["waf"]["md5:00"] = json!({});
        let (read, found) = Snapshot::read(&value.to_string(), None).unwrap();
        assert_eq!(
            found.iter().map(|f| &*f.what).collect::<Vec<_>>(),
            ["customer a.b", "host localhost", "policy md5:00"]
        );
        assert_eq!((read.customers.len(), read.hosts.len(), read.waf.len()), (3, 2, 2));
    }

    #[test]
    fn the_operator_is_read_piece_by_piece_like_everybody() {
        let mut value = serde_json::to_value(town()).unwrap();
        value["customers"]["operator"] = value["customers"]["gamma"].clone();
        value["customers"]["acme"] = json!(1);
        let (read, _) = Snapshot::read(&value.to_string(), None).unwrap();
        assert!(read.customers.contains_key(&CustomerName::operator()));
    }

    #[test]
    fn forms_of_this_version_and_the_one_before_are_read_and_no_others() {
        for (schema, good) in
            [(json!(null), false), (json!(0), false), (json!(1), true), (json!(2), true), (json!(3), false)]
        {
            let mut value = serde_json::to_value(town()).unwrap();
            value["schema"] = schema.clone();
            assert_eq!(Snapshot::read(&value.to_string(), Some(&town())).is_ok(), good, "{schema}");
        }
        let mut value = serde_json::to_value(town()).unwrap();
        value.as_object_mut().unwrap().remove("schema");
        assert_eq!(
            Snapshot::read(&value.to_string(), None).unwrap().0.schema,
            1,
            "as the version before wrote it"
        );
    }

    #[test]
    fn the_form_before_cannot_say_who_is_kept() {
        let mut now = town();
        assert_eq!(now.clone().in_schema(1).unwrap(), Snapshot { schema: 1, ..now.clone() });
        now.kept = vec![name("acme")];
        assert_eq!((now.clone().in_schema(1), now.clone().in_schema(2)), (None, Some(now.clone())));
        assert_eq!((now.clone().in_schema(0), now.in_schema(3)), (None, None));
    }

    #[test]
    fn a_broken_frame_is_refused_whole() {
        for pointer in ["/domains", "/customers", "/waf", "/hosts", "/epoch", "/platform_waf"] {
            let mut value = serde_json::to_value(town()).unwrap();
            *value.pointer_mut(pointer).unwrap() = json!(true);
            assert!(Snapshot::read(&value.to_string(), Some(&town())).is_err(), "{pointer}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn whatever_stands_in_what_is_acmes_the_others_have_all_of_theirs(
            place in any::<usize>(),
            with in prop_oneof![
                Just(json!(null)), Just(json!(true)), Just(json!([])), Just(json!({})), Just(json!(u64::MAX)), Just(json!(-1)),
                Just(json!("\u{0}")), Just(json!("A-beta-test")), Just(json!("beta")), Just(json!("/x")),
                Just(json!([{"path": "x"}])), Just(json!("production")),
            ],
            takes_id in any::<bool>(),
        ) {
            let last = town();
            let with = if takes_id && with.is_string() { json!(last.customers[&name("beta")].id) } else { with };
            let value = spoilt(&Snapshot { revision: 8, ..last.clone() }, place, &with);
            let (mut read, mut found) = Snapshot::read(&value.to_string(), Some(&last)).unwrap();
            found.extend(read.settle(Some(&last)));
            let expected = without_acme(&Snapshot { revision: 8, ..last.clone() });
            let mut others = without_acme(&read);
            // A domain may go over to somebody else; whoever that is has no less.
            others.hosts.remove("www.acme.example");
            prop_assert_eq!(&others, &expected);
            let mut once = read.clone();
            prop_assert_eq!(once.settle(Some(&last)), vec![]);
            prop_assert_eq!(&once, &read);
        }
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = Snapshot::read(&text, None);
        }
    }
}
