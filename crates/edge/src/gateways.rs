//! To the gateway of a zone.

use crate::{context::Context, refusal::Refusal, site::Target, view::View};
use bastide_balancer::{Rotation, RoundRobin};
use bastide_proxy::{Place, Pool, Request, Response, Upstream, UpstreamError, UpstreamTls};
use bastide_tls::NodeTls;
use bastide_types::{Code, Role, ZoneName};
use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

/// The gateways of all zones and whose turn it is; shared by all workers.
pub(crate) struct Gateways {
    zones: Vec<(ZoneName, Upstream)>,
    turns: RoundRobin,
    apps: Rotation,
}

impl Gateways {
    pub(crate) fn new(
        node: &NodeTls,
        zones: &BTreeMap<ZoneName, SocketAddr>,
    ) -> Result<Self, bastide_tls::TlsError> {
        let config = node.client_config(Role::Gateway, &[b"h2"])?;
        let server_name =
            rustls::pki_types::ServerName::try_from(bastide_tls::node::server_name(Role::Gateway));
        let server_name = server_name.expect("our own names are names");
        let tls = UpstreamTls { config, server_name };
        let zones: Vec<_> = zones
            .iter()
            .map(|(zone, addr)| {
                (zone.clone(), Upstream { place: Place::Address(*addr), tls: Some(tls.clone()), http2: true })
            })
            .collect();
        Ok(Self { turns: RoundRobin::new(zones.len()), zones, apps: Rotation::new() })
    }

    /// Sends a request to the gateway of the zone whose turn it is; one that cannot be reached is passed
    /// over, since nothing was sent to it.
    pub(crate) async fn send(
        &self,
        pool: &Pool,
        cx: &Context,
        view: &View,
        target: &Target,
        mut request: Request,
        deadline: tokio::time::Instant,
    ) -> Result<Response, Refusal> {
        let mut tried = Vec::new();
        while let Some(index) = self.pick(view, target, &tried) {
            let (zone, upstream) = &self.zones[index];
            tracing::debug!(name: "edge.gateway", request = %cx.id, %zone);
            match pool.send(upstream, request, deadline).await {
                Ok(response) => {
                    self.turns.succeeded(index);
                    return Ok(response);
                }
                Err(failure) => match (failure.error, failure.unsent) {
                    (UpstreamError::TimedOut, None) => return Err(Refusal::new(Code::GatewayTimeout)),
                    (error, Some(unsent)) => {
                        tracing::warn!(%zone, %error, "gateway away");
                        self.turns.failed(index, Instant::now());
                        tried.push(index);
                        request = unsent;
                    }
                    // Not held against it: a client that hangs up in its own upload looks the same.
                    (error, None) => {
                        tracing::warn!(%zone, %error, "gateway failed");
                        return Err(Refusal::new(Code::GatewayUnreachable));
                    }
                },
            }
        }
        Err(Refusal::new(Code::GatewayUnreachable))
    }

    /// For an app: the zone by its ready replicas; when its gateway was tried, or none is ready, and for
    /// the Platform: the next gateway in turn.
    fn pick(&self, view: &View, target: &Target, tried: &[usize]) -> Option<usize> {
        if let Target::App { key, .. } = target {
            let exclude: Vec<_> = tried.iter().map(|index| self.zones[*index].0.clone()).collect();
            let zone = self.apps.pick_zone(key, &view.directory, &exclude);
            let index = zone.and_then(|zone| self.zones.iter().position(|(own, _)| *own == zone));
            if let Some(index) = index.filter(|index| !tried.contains(index)) {
                return Some(index);
            }
        }
        self.turns.pick(tried, Instant::now())
    }
}
