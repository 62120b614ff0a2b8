//! The Runtime load balancer: strict round-robin over the ready replicas of the own zone, and over those of
//! other zones when it has none. While none is ready, a request waits for one for a moment.

use crate::{
    patience::Patience,
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
        let view = &self.once_ready(view, app, deadline).await;
        let app = &app.key();
        let mut tried = Vec::new();
        let mut copy = repeatable(&request);
        self.budget.earn();
        while tried.len() < TRIES {
            let Some(endpoint) = self.turns.pick_replica(app, &self.zone, &view.directory, &tried) else {
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
                (UpstreamError::TimedOut, None) => return Err(Refusal::new(Code::ReplicaTimeout)),
                (_, None) => match copy.take() {
                    Some(copy) if self.budget.spend(Instant::now()) => copy,
                    _ => return Err(Refusal::new(Code::ReplicaFailed)),
                },
            };
        }
        if tried.is_empty() {
            return Err(Refusal::new(Code::NoReplica).with("retry-after", "1"));
        }
        Err(Refusal::new(Code::ReplicaFailed))
    }

    /// This view, when a replica is ready in it; else the first in which one is, if it comes in time.
    ///
    /// Whether the request may pass was decided by the rules of a revision: another one is not waited for.
    async fn once_ready(
        &self,
        view: &Arc<View>,
        app: &AppTarget<'_>,
        deadline: tokio::time::Instant,
    ) -> Arc<View> {
        let key = app.key();
        let is_ready = |view: &View| {
            let mut ready = view.directory.zones(&key).into_iter().flat_map(|zones| zones.values()).flatten();
            ready.any(|endpoint| endpoint.revision == app.app.revision)
        };
        if is_ready(view) || app.app.replicas.is_empty() {
            return view.clone();
        }
        let Some(wait) = self.patience.begin(deadline) else { return view.clone() };
        let mut views = self.views.clone();
        let ready = views.wait_for(|view| view.as_deref().is_some_and(is_ready));
        match tokio::time::timeout_at(wait.until, ready).await {
            Ok(Ok(later)) => later.clone().unwrap_or_else(|| view.clone()),
            Ok(Err(_)) | Err(_) => view.clone(),
        }
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
    use std::{path::Path, time::Duration};

    fn snapshot(replica: ReplicaId, revision: u8) -> Arc<Snapshot> {
        let digest = |byte| Digest::from_sha256([byte; 32]).to_string();
        let issuer = serde_json::json!({"url": "", "keys": [], "token_epoch": 0});
        let id = || uuid::Uuid::now_v7().to_string();
        let app = serde_json::json!({"id": id(), "revision": digest(revision), "revision_number": 1, "routes": [],
            "replicas": {replica.to_string(): "a"}});
        let stage = serde_json::json!({"account": "ACME", "issuer": issuer, "waf": digest(0), "apps": {"shop": app}});
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

    /// What a request that came while the replica was starting goes on with, when `later` comes meanwhile.
    async fn waited(now: &Arc<View>, later: Option<Arc<View>>, longest: Duration) -> (bool, Arc<View>) {
        let (sender, views) = watch::channel(Some(now.clone()));
        let balancer = RuntimeBalancer::new(ZoneName::new("a").unwrap(), Path::new("/nowhere").into(), views);
        let path = crate::path::CanonicalPath::of("/shop/").unwrap();
        let host = "acme.apps.localhost";
        let target = crate::site::find(&now.snapshot, host, &path).ok().unwrap();
        let crate::site::Target::App(app) = target else { panic!("no app") };
        let comes = async {
            tokio::task::yield_now().await;
            sender.send_replace(later.or(Some(now.clone())));
        };
        let deadline = tokio::time::Instant::now() + longest;
        let (found, ()) = tokio::join!(balancer.once_ready(now, &app, deadline), comes);
        (!Arc::ptr_eq(&found, now), found)
    }

    #[tokio::test]
    async fn a_request_waits_for_a_replica_of_the_revision_whose_rules_it_passed() {
        let replica = ReplicaId::generate();
        let one = snapshot(replica, 1);
        let starting = view(&one, replica, ReplicaState::Starting);
        let ready = view(&one, replica, ReplicaState::Ready);
        let (long, short) = (Duration::from_mins(5), Duration::from_millis(20));
        let (is_later, found) = waited(&starting, Some(ready.clone()), long).await;
        assert!(is_later && Arc::ptr_eq(&found, &ready));
        assert!(!waited(&ready, None, long).await.0, "it has what it needs");
        assert!(!waited(&starting, None, short).await.0, "nothing comes");
        let other = view(&snapshot(replica, 2), replica, ReplicaState::Ready);
        assert!(!waited(&starting, Some(other), short).await.0, "other rules may hold there");
    }
}
