//! What a gateway's table of connections says about how full it is and what it had to drop.

use super::wire::tracked;
use crate::nfnetlink::{self, attribute, number};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

/// Source ports that a gateway has for one destination: all but the reserved ones.
pub const PORTS: u32 = 65_536 - 1024;
/// Destinations that are told, those with the most ports in use first.
const TOLD: usize = 10;

/// How a zone's gateway does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Connections in its table.
    pub connections: u64,
    /// New connections that could not be kept, most likely because no port was free. Anything but 0 is an alarm.
    pub insert_failed: u64,
    /// Packets dropped by the table of connections: it is full, or there is no memory.
    pub dropped: u64,
    /// The destinations with the most ports in use.
    pub ports: Vec<PortUse>,
    /// Packets that each rule has stopped, by the rule's id.
    pub stopped: BTreeMap<String, u64>,
}

/// Ports in use for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortUse {
    /// Number of the protocol: 6 is TCP, 17 is UDP.
    pub protocol: u8,
    /// The zone's address, as the destination sees it.
    pub from: Ipv4Addr,
    /// The destination.
    pub to: SocketAddrV4,
    /// Ports of that address in use towards it.
    pub used: u32,
}

impl PortUse {
    /// Part of all [`PORTS`], in percent. Above 80 it is time for one more address.
    pub fn percent(&self) -> f64 {
        f64::from(self.used) * 100.0 / f64::from(PORTS)
    }
}

/// Reads the table of connections of the namespace that the calling thread is in.
pub(crate) fn read() -> io::Result<Metrics> {
    let mut metrics = Metrics::default();
    let mut used: BTreeMap<(u8, Ipv4Addr, SocketAddrV4), BTreeSet<u16>> = BTreeMap::new();
    // IPCTNL_MSG_CT_GET
    nfnetlink::dump(nfnetlink::CONNECTIONS, 1, |body| {
        metrics.connections += 1;
        if let Some(one) = tracked(body) {
            let (from, port) = (*one.seen_as.ip(), one.seen_as.port());
            used.entry((one.protocol, from, one.to)).or_default().insert(port);
        }
    })?;
    let mut ports: Vec<_> = used
        .into_iter()
        .map(|((protocol, from, to), ports)| PortUse { protocol, from, to, used: ports.len() as u32 })
        .collect();
    ports.sort_by_key(|one| std::cmp::Reverse(one.used));
    ports.truncate(TOLD);
    metrics.ports = ports;
    // IPCTNL_MSG_CT_GET_STATS_CPU: one entry for each processor.
    nfnetlink::dump(nfnetlink::CONNECTIONS, 4, |body| {
        let count = |kind| attribute(body, kind).and_then(number).unwrap_or_default();
        metrics.insert_failed += count(9);
        metrics.dropped += count(10) + count(11);
    })?;
    Ok(metrics)
}
