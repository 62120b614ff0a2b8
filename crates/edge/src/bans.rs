//! Sources that are not served: the operator's bans everywhere, those of a customer at the hosts of its stages.
//!
//! Bans end by the clock of the edge, without another Snapshot. How often rules were broken or passwords guessed does not
//! matter here: somebody decided who is banned.

use crate::view::View;
use bastide_proxy::Shut;
use bastide_types::{BanTable, CustomerName, Snapshot};
use ipnet::IpNet;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// The bans of a Snapshot, in force.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    all: BanTable,
    /// Of customers that have any.
    own: HashMap<CustomerName, BanTable>,
}

/// Whose ban it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Operator,
    Customer,
}

impl Bans {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let mut made = Self::default();
        for (name, customer) in &snapshot.customers {
            if name.is_operator() {
                made.all = BanTable::new(&customer.bans);
            } else if !customer.bans.is_empty() {
                made.own.insert(name.clone(), BanTable::new(&customer.bans));
            }
        }
        made
    }

    /// Whether the operator bans a source.
    pub(crate) fn everywhere(&self, client: IpAddr, at: SystemTime) -> bool {
        !self.all.is_empty() && self.all.holds(client, seconds(at))
    }

    /// Whether no customer bans anybody.
    pub(crate) fn are_all_the_operators(&self) -> bool {
        self.own.is_empty()
    }

    /// Whether a customer bans a source.
    pub(crate) fn of(&self, customer: &CustomerName, client: IpAddr, at: SystemTime) -> bool {
        self.own.get(customer).is_some_and(|table| table.holds(client, seconds(at)))
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How often somebody banned came.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    connections: AtomicU64,
    operator: AtomicU64,
    customer: AtomicU64,
}

impl Counts {
    pub(crate) fn count(&self, by: By) {
        let counter = match by {
            By::Operator => &self.operator,
            By::Customer => &self.customer,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// For a scraper.
    pub(crate) fn text(&self) -> String {
        let line = |by: &str, at: &str, counter: &AtomicU64| {
            format!(
                "bastide_edge_banned_total{{by=\"{by}\",at=\"{at}\"}} {}\n",
                counter.load(Ordering::Relaxed)
            )
        };
        [
            "# HELP bastide_edge_banned_total Connections and requests of banned sources that were refused.\n".into(),
            "# TYPE bastide_edge_banned_total counter\n".into(),
            line("operator", "connection", &self.connections),
            line("operator", "request", &self.operator),
            line("customer", "request", &self.customer),
        ]
        .concat()
    }
}

/// Closes connections of banned sources before anything is read of them. A proxy that says who its clients are is no
/// source itself: its requests are judged one by one.
pub(crate) fn shut(
    view: watch::Receiver<Option<Arc<View>>>,
    proxies: Vec<IpNet>,
    counts: Arc<Counts>,
) -> Shut {
    Arc::new(move |peer: IpAddr| {
        let peer = peer.to_canonical();
        let is_banned = || {
            let view = view.borrow();
            view.as_ref().is_some_and(|view| view.bans.everywhere(peer, SystemTime::now()))
        };
        if proxies.iter().any(|net| net.contains(&peer)) || !is_banned() {
            return false;
        }
        counts.connections.fetch_add(1, Ordering::Relaxed);
        true
    })
}
