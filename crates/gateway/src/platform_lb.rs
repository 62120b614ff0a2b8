//! The Platform load balancer: strict round-robin over platform replicas. While none can be reached, a request waits for
//! one for a moment.

use crate::{
    patience::{Patience, Unanswered},
    platform_client::away,
    refusal::Refusal,
    retry::repeatable,
};
use bastide_balancer::RoundRobin;
use bastide_proxy::{Place, Pool, Request, Response, Upstream, UpstreamError, UpstreamTls};
use bastide_tls::NodeTls;
use bastide_types::{Code, Role};
use std::{net::SocketAddr, time::Instant};

/// Platform replicas and whose turn it is.
pub(crate) struct PlatformBalancer {
    addrs: Vec<SocketAddr>,
    replicas: Vec<Upstream>,
    turns: RoundRobin,
    patience: Patience,
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
        mut request: Request,
        deadline: tokio::time::Instant,
    ) -> Result<Response, Refusal> {
        let mut copy = repeatable(&request);
        let mut wait = self.patience.until(deadline);
        loop {
            request = match self.round(pool, request, &mut copy, deadline).await {
                Ok(response) => return Ok(response),
                Err(unanswered) => wait.pause(unanswered).await?,
            };
        }
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
                return Err(Unanswered::for_good(Refusal::new(Code::GatewayTimeout)));
            }
            let addr = self.addrs[index];
            tracing::warn!(replica = %addr, error = chain(&failure.error), "platform replica did not answer");
            self.turns.failed(index, Instant::now());
            tried.push(index);
            match failure.unsent.or_else(|| copy.take()) {
                Some(again) => request = again,
                None => return Err(Unanswered::for_good(away())),
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
