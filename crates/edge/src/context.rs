//! What the stops know of one request.

use crate::front::Front;
use bastide_proxy::{Peer, RawHead};
use bastide_types::RequestId;
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

/// One request on its way. Stops add what the logs should tell.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) id: RequestId,
    pub(crate) peer: Arc<Peer>,
    pub(crate) raw: Arc<RawHead>,
    /// Address of the client, which is not the peer's when a proxy that we believe stands between.
    pub(crate) client: IpAddr,
    /// Host field without its port, lower case.
    pub(crate) host: String,
    /// Host field as sent.
    pub(crate) authority: String,
    pub(crate) begun: Instant,
    pub(crate) at: SystemTime,
    pub(crate) site: Option<Arc<SiteNames>>,
    /// What the customer wants to happen at this host, once it is known whose it is.
    pub(crate) front: Option<Arc<Front>>,
    /// Whether the host is a domain of the customer's own.
    pub(crate) is_custom: bool,
    pub(crate) verdict: &'static str,
    pub(crate) cache: Option<bastide_cache::Status>,
}

/// Names of what a request is for, for the logs.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct SiteNames {
    pub(crate) customer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<String>,
}

impl Context {
    pub(crate) fn scheme(&self) -> &'static str {
        if self.peer.tls.is_some() { "https" } else { "http" }
    }
}
