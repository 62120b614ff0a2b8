//! Sessions that began elsewhere: their first token is fetched before their browser comes here.
//!
//! A session that is missed is asked for when it comes; this only spares that, and lets a session go on here when the
//! Platform dies right after its sign-in.

use crate::{context::Gateway, platform_client::Platform, session_tokens::Wanted};
use bastide_types::feed::Entry;
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Sessions that wait for their turn; more are left to be asked for.
pub(crate) const WAITING_MAX: usize = 1024;
/// Tokens that are fetched at the same time.
const FETCHES_MAX: usize = 16;

/// Fetches until `stop`.
pub(crate) async fn run(gateway: Arc<Gateway>, mut began: mpsc::Receiver<Entry>, stop: &CancellationToken) {
    let mut fetches = JoinSet::new();
    loop {
        let full = fetches.len() >= FETCHES_MAX;
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = fetches.join_next() => {}
            entry = began.recv(), if !full => {
                let Some(entry) = entry else { return };
                let gateway = gateway.clone();
                fetches.spawn(async move { gateway.fetch(&entry).await });
            }
        }
    }
}

impl Gateway {
    async fn fetch(&self, entry: &Entry) {
        let Some(view) = self.view.borrow().clone() else { return };
        let named = view.snapshot.customers.iter().find(|(_, customer)| customer.id == entry.customer);
        let Some((customer, _)) = named else { return };
        let platform =
            Platform { pool: &self.pool, balancer: &self.platform, domains: &view.snapshot.domains };
        let wanted = Wanted { customer, hash: &entry.id, resource: entry.resource.as_deref(), renew: false };
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.sessions.tokens.get(&platform, &self.liveness, wanted, now_s).await.is_err() {
            tracing::debug!("the token of a new session was not fetched");
        }
    }
}
