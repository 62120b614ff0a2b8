//! What to do to get from what is to what should be. Plain: it starts and stops nothing.

use bastide_types::{
    ReplicaId,
    message::{DesiredReplica, StageState},
};
use std::collections::BTreeSet;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start a replica that should run and does not.
    Start(Box<DesiredReplica>),
    /// Let a replica finish what it has, then stop it.
    Drain(ReplicaId),
}

/// Compares the desired state with the replicas that an agent looks after (`known`) and those of them that
/// drain already (`draining`).
pub fn plan(
    desired: Option<&StageState>,
    known: &BTreeSet<ReplicaId>,
    draining: &BTreeSet<ReplicaId>,
) -> Vec<Action> {
    // Without a desired state nothing is known about what should not run: nothing is stopped.
    let Some(desired) = desired else { return Vec::new() };
    let mut wanted = BTreeSet::new();
    let mut actions = Vec::new();
    for replica in desired.replicas.iter().filter(|replica| !replica.draining) {
        if wanted.insert(replica.id) && !known.contains(&replica.id) {
            actions.push(Action::Start(Box::new(replica.clone())));
        }
    }
    actions
        .extend(known.difference(&wanted).filter(|id| !draining.contains(id)).map(|id| Action::Drain(*id)));
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::{
        AppId, AppName, CustomerName, Digest, Manifest, StageName, ZoneName, network::StageNetwork,
        service::Services,
    };

    fn replica(id: ReplicaId, draining: bool) -> DesiredReplica {
        let manifest: Manifest = serde_json::from_str(r#"{"app":{"name":"shop","kind":"static"}}"#).unwrap();
        DesiredReplica {
            id,
            app: AppId::generate(),
            app_name: AppName::new("shop").unwrap(),
            revision: Digest::from_sha256([0; 32]),
            revision_number: 1,
            zone: ZoneName::new("a").unwrap(),
            image: Digest::from_sha256([0; 32]),
            manifest,
            draining,
            assertion_keys: String::new(),
            serving: true,
            services: Services::default(),
        }
    }

    fn state(replicas: Vec<DesiredReplica>) -> StageState {
        let customer = CustomerName::new("acme").unwrap();
        StageState {
            account: "A".into(),
            generation: 1,
            customer,
            stage: StageName::test(),
            replicas,
            network: StageNetwork::default(),
            callees: std::collections::BTreeMap::new(),
            postgres: None,
            settings: Vec::new(),
        }
    }

    #[test]
    fn what_is_missing_starts_and_what_is_not_wanted_drains_once() {
        let (new, old, gone) = (ReplicaId::generate(), ReplicaId::generate(), ReplicaId::generate());
        let desired = state(vec![replica(new, false), replica(old, true)]);
        let known = BTreeSet::from([old, gone]);
        let actions = plan(Some(&desired), &known, &BTreeSet::new());
        assert_eq!(actions.len(), 3);
        assert!(matches!(&actions[0], Action::Start(replica) if replica.id == new));
        let known = BTreeSet::from([new, old, gone]);
        assert_eq!(plan(Some(&desired), &known, &BTreeSet::from([old, gone])), []);
    }

    #[test]
    fn without_a_desired_state_nothing_is_stopped() {
        assert_eq!(plan(None, &BTreeSet::from([ReplicaId::generate()]), &BTreeSet::new()), []);
    }
}
