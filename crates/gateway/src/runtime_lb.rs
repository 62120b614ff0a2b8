//! The Runtime load balancer: strict round-robin over the ready replicas of the own zone, and over those of
//! other zones when it has none.

use crate::{
    platform_lb::chain,
    refusal::Refusal,
    retry::{RetryBudget, repeatable},
    view::View,
};
use bastide_balancer::{AppKey, Endpoint, Rotation};
use bastide_proxy::{Pool, Request, Response, Upstream, UpstreamError};
use bastide_types::{Code, ZoneName};
use std::time::Instant;

/// Replicas that are tried for one request: the first and two more.
const TRIES: usize = 3;

/// Whose turn it is, and how many repeats are still allowed.
pub(crate) struct RuntimeBalancer {
    zone: ZoneName,
    turns: Rotation,
    budget: RetryBudget,
}

impl RuntimeBalancer {
    pub(crate) fn new(zone: ZoneName) -> Self {
        Self { zone, turns: Rotation::new(), budget: RetryBudget::new(Instant::now()) }
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
            let to = Upstream { addr: endpoint.addr, tls: None, http2: false };
            let failure = match pool.send(&to, request, deadline).await {
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
}
