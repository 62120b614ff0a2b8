//! The Platform load balancer: strict round-robin over platform replicas. While none can be reached, a request waits for
//! one for a moment.

use crate::{patience::Patience, platform_client::away, refusal::Refusal, retry::repeatable};
use bastide_balancer::RoundRobin;
use bastide_proxy::{Place, Pool, Request, Response, Upstream, UpstreamError, UpstreamTls};
use bastide_tls::NodeTls;
use bastide_types::{Code, Role};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Pause before those that could not be reached are tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Platform replicas and whose turn it is.
pub(crate) struct PlatformBalancer {
    addrs: Vec<SocketAddr>,
    replicas: Vec<Upstream>,
    turns: RoundRobin,
    patience: Patience,
}

/// Why nobody answered, and the request, if it may go out once more.
struct Unanswered {
    refusal: Refusal,
    again: Option<Request>,
}

impl PlatformBalancer {
    pub(crate) fn new(node: &NodeTls, addrs: &[SocketAddr]) -> Result<Self, bastide_tls::TlsError> {
        let config = node.client_config(Role::Platform, &[b"h2"])?;
        let server_name = bastide_tls::node::server_name(Role::Platform);
        let server_name = rustls_name(&server_name);
        let upstream = |addr: &SocketAddr| Upstream {
            place: Place::Address(*addr),
            tls: Some(UpstreamTls { config: config.clone(), server_name: server_name.clone() }),
            http2: true,
        };
        let replicas: Vec<_> = addrs.iter().map(upstream).collect();
        let turns = RoundRobin::new(replicas.len());
        Ok(Self { addrs: addrs.to_owned(), replicas, turns, patience: Patience::new() })
    }

    /// Sends a request to the replica whose turn it is. One that cannot be reached is passed over; a request
    /// without a body and without a second effect goes once more elsewhere when its connection broke.
    pub(crate) async fn send(
        &self,
        pool: &Pool,
        request: Request,
        deadline: tokio::time::Instant,
    ) -> Result<Response, Refusal> {
        let mut copy = repeatable(&request);
        let mut unanswered = match self.round(pool, request, &mut copy, deadline).await {
            Ok(response) => return Ok(response),
            Err(unanswered) => unanswered,
        };
        let Some(wait) = self.patience.begin(deadline) else { return Err(unanswered.refusal) };
        while let Some(request) = unanswered.again.take()
            && tokio::time::Instant::now() + PAUSE < wait.until
        {
            tokio::time::sleep(PAUSE).await;
            unanswered = match self.round(pool, request, &mut copy, deadline).await {
                Ok(response) => return Ok(response),
                Err(unanswered) => unanswered,
            };
        }
        Err(unanswered.refusal)
    }

    /// Tries each replica once.
    async fn round(
        &self,
        pool: &Pool,
        mut request: Request,
        copy: &mut Option<Request>,
        deadline: tokio::time::Instant,
    ) -> Result<Response, Unanswered> {
        let mut tried = Vec::new();
        while let Some(index) = self.turns.pick(&tried, Instant::now()) {
            let failure = match pool.send(&self.replicas[index], request, deadline).await {
                Ok(response) => {
                    self.turns.succeeded(index);
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            if matches!(failure.error, UpstreamError::TimedOut) && failure.unsent.is_none() {
                return Err(Unanswered { refusal: Refusal::new(Code::GatewayTimeout), again: None });
            }
            let addr = self.addrs[index];
            tracing::warn!(replica = %addr, error = chain(&failure.error), "platform replica did not answer");
            self.turns.failed(index, Instant::now());
            tried.push(index);
            match failure.unsent.or_else(|| copy.take()) {
                Some(again) => request = again,
                None => return Err(Unanswered { refusal: away(), again: None }),
            }
        }
        Err(Unanswered { refusal: away(), again: Some(request) })
    }
}

fn rustls_name(name: &str) -> rustls_pki_types::ServerName<'static> {
    rustls_pki_types::ServerName::try_from(name.to_owned()).expect("our own names are names")
}

/// An error with its causes, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
