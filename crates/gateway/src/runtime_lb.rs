//! The Runtime load balancer: strict round-robin over the ready replicas of the own zone, and over those of
//! other zones when it has none.

use crate::{
    platform_lb::chain,
    refusal::Refusal,
    retry::{RetryBudget, repeatable},
    view::View,
};
use bastide_balancer::{AppKey, Endpoint, Rotation};
use bastide_proxy::{Broker, Place, Pool, Request, Response, Upstream, UpstreamError};
use bastide_types::{Code, ZoneName, message::Reach};
use std::{path::PathBuf, time::Instant};

/// Replicas that are tried for one request: the first and two more.
const TRIES: usize = 3;

/// Whose turn it is, and how many repeats are still allowed.
pub(crate) struct RuntimeBalancer {
    zone: ZoneName,
    broker: Broker,
    turns: Rotation,
    budget: RetryBudget,
}

impl RuntimeBalancer {
    /// `broker`: the socket file of the node's socket broker, for replicas that have no address.
    pub(crate) fn new(zone: ZoneName, broker: PathBuf) -> Self {
        Self {
            zone,
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
        view: &View,
        app: &AppKey,
        mut request: Request,
        deadline: tokio::time::Instant,
    ) -> Result<(Endpoint, Response), Refusal> {
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

    fn upstream(&self, endpoint: &Endpoint) -> Upstream {
        Upstream::clear(match endpoint.reach {
            Reach::Address(addr) => Place::Address(addr),
            Reach::Broker => Place::Replica(endpoint.replica, self.broker.clone()),
        })
    }
}
