//! The Runtime load balancer: strict round-robin over the ready replicas of the own zone.

use crate::{platform_lb::chain, refusal::Refusal, view::View};
use bastide_balancer::{AppKey, Endpoint, Rotation};
use bastide_proxy::{Body, Pool, Request, Response, Upstream, UpstreamError};
use bastide_types::{Code, ZoneName};
use http::Method;
use http_body::Body as _;

/// Replicas that are tried for one request: the first and two more.
const TRIES: usize = 3;

/// Sends a request to a replica. One that cannot be reached is passed over; a request without a body and
/// without effect is tried once more elsewhere when its connection broke before an answer.
pub(crate) async fn send(
    pool: &Pool,
    view: &View,
    turns: &Rotation,
    app: &AppKey,
    zone: &ZoneName,
    mut request: Request,
    deadline: tokio::time::Instant,
) -> Result<(Endpoint, Response), Refusal> {
    let mut tried = Vec::new();
    let mut repeats = 1;
    while tried.len() < TRIES {
        let Some(endpoint) = turns.pick_replica(app, zone, &view.directory, &tried) else { break };
        let copy = (repeats > 0).then(|| repeatable(&request)).flatten();
        let to = Upstream { addr: endpoint.addr, tls: None, http2: false };
        let failure = match pool.send(&to, request, deadline).await {
            Ok(response) => return Ok((endpoint, response)),
            Err(failure) => failure,
        };
        tracing::warn!(replica = %endpoint.replica, error = chain(&failure.error), "replica did not answer");
        tried.push(endpoint.replica);
        request = match (failure.error, failure.unsent, copy) {
            (UpstreamError::TimedOut, None, _) => return Err(Refusal::new(Code::ReplicaTimeout)),
            (_, Some(unsent), _) => unsent,
            (_, None, Some(copy)) => {
                repeats -= 1;
                copy
            }
            (_, None, None) => return Err(Refusal::new(Code::ReplicaFailed)),
        };
    }
    if tried.is_empty() {
        return Err(Refusal::new(Code::NoReplica).with("retry-after", "1"));
    }
    Err(Refusal::new(Code::ReplicaFailed))
}

/// A copy of a request that may be sent twice: idempotent (RFC 9110 §9.2.2) and without a body.
fn repeatable(request: &Request) -> Option<Request> {
    let idempotent =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
