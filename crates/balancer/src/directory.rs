//! What is ready now.

use bastide_types::{
    AppId, CustomerId, Digest, ReplicaId, Snapshot, StageName, ZoneName,
    message::{Reach, ReplicaFacts, ReplicaState},
};
use std::collections::{BTreeMap, HashMap};

/// An app in a stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppKey {
    /// Customer.
    pub customer: CustomerId,
    /// Stage.
    pub stage: StageName,
    /// App.
    pub app: AppId,
}

/// A replica that may take requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Which one.
    pub replica: ReplicaId,
    /// How it is reached.
    pub reach: Reach,
    /// The revision that it runs.
    pub revision: Digest,
}

/// The ready replicas of every app, by zone. Immutable.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    apps: HashMap<AppKey, BTreeMap<ZoneName, Vec<Endpoint>>>,
}

impl Directory {
    /// Joins what should be (the Snapshot) with what is (facts by bus account).
    ///
    /// Only replicas that the Snapshot assigns to the account's own stage count, whatever the account
    /// says.
    pub fn build(snapshot: &Snapshot, facts: &HashMap<String, ReplicaFacts>) -> Self {
        let mut apps = HashMap::new();
        for customer in snapshot.customers.values() {
            for (stage_name, stage) in &customer.stages {
                let said: HashMap<ReplicaId, Reach> = facts
                    .get(&stage.account)
                    .into_iter()
                    .flat_map(|facts| &facts.replicas)
                    .filter(|fact| fact.state == ReplicaState::Ready)
                    .filter_map(|fact| Some((fact.id, fact.reach?)))
                    .collect();
                for app in stage.apps.values() {
                    let mut zones: BTreeMap<ZoneName, Vec<Endpoint>> = BTreeMap::new();
                    for (replica, zone) in &app.replicas {
                        if let Some(reach) = said.get(replica) {
                            let endpoint =
                                Endpoint { replica: *replica, reach: *reach, revision: app.revision };
                            zones.entry(zone.clone()).or_default().push(endpoint);
                        }
                    }
                    let key = AppKey { customer: customer.id, stage: stage_name.clone(), app: app.id };
                    apps.insert(key, zones);
                }
            }
        }
        Self { apps }
    }

    /// The ready replicas of an app, by zone.
    pub fn zones(&self, app: &AppKey) -> Option<&BTreeMap<ZoneName, Vec<Endpoint>>> {
        self.apps.get(app)
    }

    /// Ready replicas of an app in one zone.
    pub fn ready(&self, app: &AppKey, zone: &ZoneName) -> &[Endpoint] {
        self.apps.get(app).and_then(|zones| zones.get(zone)).map_or(&[], Vec::as_slice)
    }
}
