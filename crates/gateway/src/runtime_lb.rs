//! The Runtime load balancer: strict round-robin over the ready replicas of the own zone, and over those of
//! other zones when it has none. While none is ready, a request waits for one for a moment.

use crate::{
    patience::{Patience, Unanswered},
    platform_lb::chain,
    refusal::Refusal,
    retry::{RetryBudget, repeatable},
    site::AppTarget,
    view::View,
};
use bastide_balancer::{Endpoint, Rotation};
use bastide_proxy::{Broker, Place, Pool, Request, Response, Upstream, UpstreamError};
use bastide_types::{Code, ZoneName, message::Reach};
use std::{path::PathBuf, sync::Arc, time::Instant};
use tokio::sync::watch;

/// Replicas that are tried for one request: the first and two more.
const TRIES: usize = 3;

/// Whose turn it is, and how many repeats are still allowed.
pub(crate) struct RuntimeBalancer {
    zone: ZoneName,
    broker: Broker,
    turns: Rotation,
    budget: RetryBudget,
    patience: Patience,
    views: watch::Receiver<Option<Arc<View>>>,
}

impl RuntimeBalancer {
    /// `broker`: the socket file of the node's socket broker, for replicas that have no address.
    pub(crate) fn new(zone: ZoneName, broker: PathBuf, views: watch::Receiver<Option<Arc<View>>>) -> Self {
        Self {
            zone,
            patience: Patience::new(),
            views,
            broker: Broker::at(broker),
            turns: Rotation::new(),
            budget: RetryBudget::new(Instant::now()),
        }
    }

    /// Sends a request to the replica whose turn it is. One that cannot be reached is passed over (nothing
    /// was sent); a request without a body and without a second effect goes once more elsewhere when its
    /// connection broke before an answer began. Never after that.
    pub(crate) async fn send(
        &self,
        pool: &Pool,
        view: &Arc<View>,
        app: &AppTarget<'_>,
        mut request: Request,
        deadline: tokio::time::Instant,
    ) -> Result<(Endpoint, Response), Refusal> {
        let mut copy = repeatable(&request);
        self.budget.earn();
        let (mut view, mut wait) = (view.clone(), self.patience.until(deadline));
        loop {
            request = match self.round(pool, &view, app, request, &mut copy, deadline).await {
                Ok(answered) => return Ok(answered),
                Err(unanswered) => wait.pause(unanswered).await?,
            };
            view = self.newest(&view, app);
        }
    }

    /// What is known now. Whether the request may pass was decided by the rules of a revision: where another one serves,
    /// it does not go.
    fn newest(&self, view: &Arc<View>, app: &AppTarget<'_>) -> Arc<View> {
        let newest = self.views.borrow().clone();
        let serves = |newest: &Arc<View>| {
            let stage = newest.snapshot.stage(&app.customer_name, &app.stage_name);
            let now = stage.and_then(|(_, stage)| stage.apps.get(&app.app_name));
            now.is_some_and(|now| now.id == app.app.id && now.revision == app.app.revision)
        };
        newest.filter(serves).unwrap_or_else(|| view.clone())
    }

    /// Tries a few replicas, each once.
    async fn round(
        &self,
        pool: &Pool,
        view: &View,
        app: &AppTarget<'_>,
        mut request: Request,
        copy: &mut Option<Request>,
        deadline: tokio::time::Instant,
    ) -> Result<(Endpoint, Response), Unanswered> {
        let (key, mut tried) = (app.key(), Vec::new());
        while tried.len() < TRIES {
            let Some(endpoint) = self.turns.pick_replica(&key, &self.zone, &view.directory, &tried) else {
                break;
            };
            let failure = match pool.send(&self.upstream(&endpoint), request, deadline).await {
                Ok(response) => return Ok((endpoint, response)),
                Err(failure) => failure,
            };
            tracing::warn!(replica = %endpoint.replica, error = chain(&failure.error), "replica did not answer");
            tried.push(endpoint.replica);
            request = match (failure.error, failure.unsent) {
                (_, Some(unsent)) => unsent,
                (UpstreamError::TimedOut, None) => {
                    return Err(Unanswered::for_good(Refusal::new(Code::ReplicaTimeout)));
                }
                (_, None) => match copy.take() {
                    Some(copy) if self.budget.spend(Instant::now()) => copy,
                    _ => return Err(Unanswered::for_good(Refusal::new(Code::ReplicaFailed))),
                },
            };
        }
        if !tried.is_empty() {
            return Err(Unanswered { refusal: Refusal::new(Code::ReplicaFailed), again: Some(request) });
        }
        let refusal = Refusal::new(Code::NoReplica).with("retry-after", "1");
        // Nobody is to come where none is ordered.
        let again = (!app.app.replicas.is_empty()).then_some(request);
        Err(Unanswered { refusal, again })
    }

    fn upstream(&self, endpoint: &Endpoint) -> Upstream {
        Upstream::clear(match endpoint.reach {
            Reach::Address(addr) => Place::Address(addr),
            Reach::Broker => Place::Replica(endpoint.replica, self.broker.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_bus::facts::Facts;
    use bastide_types::{
        Digest, ReplicaId, Snapshot,
        message::{ReplicaFact, ReplicaFacts, ReplicaState},
    };
    use std::path::Path;

    fn snapshot(replica: ReplicaId, revision: u8) -> Arc<Snapshot> {
        let digest = |byte| Digest::from_sha256([byte; 32]).to_string();
        let issuer = serde_json::json!({"url": "", "keys": [], "token_epoch": 0});
        let id = || uuid::Uuid::now_v7().to_string();
        let app = serde_json::json!({"id": id(), "revision": digest(revision), "revision_number": 1, "routes": [],
            "replicas": {replica.to_string(): "a"}});
        let stage =
            serde_json::json!({"account": "ACME", "issuer": issuer, "waf": digest(0), "apps": {"shop": app}});
        let customer = serde_json::json!({"id": id(), "issuer": issuer, "stages": {"production": stage}});
        let domains = serde_json::to_value(bastide_types::Domains::default()).unwrap();
        let all = serde_json::json!({"schema": bastide_types::snapshot::SCHEMA, "epoch": 1, "revision": 1, "made_at": 0,
            "domains": domains, "customers": {"acme": customer}, "hosts": {}, "waf": {}, "platform_waf": digest(0)});
        Arc::new(serde_json::from_value(all).unwrap())
    }

    fn view(snapshot: &Arc<Snapshot>, replica: ReplicaId, state: ReplicaState) -> Arc<View> {
        let fact = ReplicaFact { reach: Some(Reach::Broker), ..ReplicaFact::new(replica, state) };
        let facts = ReplicaFacts { boot: 1, sequence: 1, generation: 1, replicas: vec![fact] };
        Arc::new(View::new(snapshot.clone(), Arc::new(Facts::from([("ACME".to_owned(), facts)]))))
    }

    #[test]
    fn a_request_that_waits_goes_on_only_where_the_rules_hold_that_it_passed() {
        let (replica, other) = (ReplicaId::generate(), ReplicaId::generate());
        let one = snapshot(replica, 1);
        let starting = view(&one, replica, ReplicaState::Starting);
        let path = crate::path::CanonicalPath::of("/shop/").unwrap();
        let target = crate::site::find(&starting.snapshot, "acme.apps.localhost", &path).ok().unwrap();
        let crate::site::Target::App(app) = target else { panic!("no app") };
        let newest = |known: Option<&Arc<View>>| {
            let views = watch::channel(known.cloned()).1;
            let balancer =
                RuntimeBalancer::new(ZoneName::new("a").unwrap(), Path::new("/nowhere").into(), views);
            balancer.newest(&starting, &app)
        };
        let ready = view(&one, replica, ReplicaState::Ready);
        assert!(Arc::ptr_eq(&newest(Some(&ready)), &ready));
        let mut later = (*one).clone();
        later.revision += 1;
        let later = view(&Arc::new(later), replica, ReplicaState::Ready);
        assert!(Arc::ptr_eq(&newest(Some(&later)), &later));
        let of_another_revision = view(&snapshot(replica, 2), replica, ReplicaState::Ready);
        let of_another_app = view(&snapshot(other, 1), other, ReplicaState::Ready);
        for known in [None, Some(&of_another_revision), Some(&of_another_app)] {
            assert!(Arc::ptr_eq(&newest(known), &starting));
        }
    }
}
