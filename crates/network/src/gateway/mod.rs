//! Zones' NAT gateways at work: whether they pass packets, their repair in place, how full they are, and what
//! passes through them or is stopped.
//!
//! A gateway that hangs with its links up swallows packets silently, so the state of a link says nothing. It is
//! probed *through*: from a namespace behind it to the other end of its link outwards, where nobody listens and
//! the kernel's reset proves that packets pass both ways.

mod listen;
mod metrics;
pub mod wire;

pub use listen::{Ears, Event, Station};
pub use metrics::{Metrics, PORTS, PortUse};

use crate::{Network, Report, Result, socket::Sockets};
use bastide_isolation::{PROBE_PORT, Plan, Topology, ZoneNet, address};
use bastide_types::ZoneName;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often zones are to be looked at.
pub const PERIOD: Duration = Duration::from_millis(200);
/// Longest wait for a probe's answer. The way is a few links of this machine.
const PROBE: Duration = Duration::from_millis(250);
/// A wait that took so much longer than it should says that this machine is slow, not that a gateway hangs.
const LATE: Duration = Duration::from_millis(100);

/// How a zone's gateway is.
#[derive(Debug)]
pub enum Health {
    /// It passes packets.
    Passes,
    /// It did not, and does again. Connections that were open through it are reset.
    Repaired {
        /// What was found and done.
        report: Report,
        /// How long that took, from the first probe without an answer.
        took: Duration,
    },
    /// The machine was too slow to tell.
    Unknown,
    /// It does not pass packets and could not be repaired.
    Down,
}

/// Looks after the gateways of one installation.
pub struct Gateways {
    network: Arc<Network>,
    sockets: Sockets,
}

enum Probe {
    Passes,
    Silent,
    Unknown,
}

impl Gateways {
    /// Looks after those of this network.
    pub fn new(network: Arc<Network>, sockets: Sockets) -> Self {
        Self { network, sockets }
    }

    /// Probes every zone's gateway; repairs those that pass nothing, in place and with the same address.
    /// `plan` is what `topology` was planned to.
    pub async fn tend(&self, topology: &Topology, plan: &Plan) -> BTreeMap<ZoneName, Health> {
        let begun = Instant::now();
        let probes = self.probe_all(topology).await;
        let mut health = BTreeMap::new();
        for ((ordinal, zone), probe) in topology.zones.iter().enumerate().zip(probes) {
            let found = match probe {
                Probe::Passes => Health::Passes,
                Probe::Unknown => Health::Unknown,
                Probe::Silent => self.repair(topology, plan, ordinal, zone, begun).await,
            };
            health.insert(zone.zone.clone(), found);
        }
        health
    }

    /// What is wrong with what the kernel has is repaired first. When nothing is, or that does not help, the
    /// gateway hangs, and is made anew. Only the gateway and its neighbours are touched: whoever runs in a
    /// replica's namespace must hear of it when that is made anew, which is for [`Network::reconcile`].
    async fn repair(
        &self,
        topology: &Topology,
        plan: &Plan,
        ordinal: usize,
        zone: &ZoneNet,
        begun: Instant,
    ) -> Health {
        let namespace = topology.installation.gateway(&zone.zone);
        let routers = topology.stages.iter().map(|stage| topology.installation.router(&stage.account));
        let others = [namespace.clone(), topology.installation.probe(&zone.zone), Plan::OUTSIDE.to_owned()];
        let neighbours: BTreeSet<String> = routers.chain(others).collect();
        for anew in [false, true] {
            let anew = anew.then(|| namespace.clone());
            let report = match self.network.mend(plan, neighbours.clone(), anew).await {
                Ok(report) => report,
                Err(error) => {
                    tracing::error!(zone = %zone.zone, error = &error as &dyn std::error::Error, "a gateway cannot be repaired");
                    return Health::Down;
                }
            };
            if report.failed.contains_key(&namespace) {
                return Health::Down;
            }
            match self.probe(topology, ordinal, zone).await {
                Probe::Passes => return Health::Repaired { report, took: begun.elapsed() },
                Probe::Unknown => return Health::Unknown,
                Probe::Silent => {}
            }
        }
        Health::Down
    }

    async fn probe_all(&self, topology: &Topology) -> Vec<Probe> {
        let probes = topology.zones.iter().enumerate();
        let mut found = Vec::new();
        // One after the other: an answer takes less than a millisecond, and so does the end of a broken one.
        for (ordinal, zone) in probes {
            found.push(self.probe(topology, ordinal, zone).await);
        }
        found
    }

    async fn probe(&self, topology: &Topology, ordinal: usize, zone: &ZoneNet) -> Probe {
        let (from, to) = (address::in_block(0, ordinal as u8 + 1), (zone.uplink.outer, PROBE_PORT).into());
        let begun = Instant::now();
        let answer = self.sockets.connect(&topology.installation.probe(&zone.zone), from, to, PROBE).await;
        match answer.map_err(|error| error.kind()) {
            // A reset is what is expected; somebody who listens there will do as well.
            Ok(_) | Err(io::ErrorKind::ConnectionRefused) => Probe::Passes,
            Err(io::ErrorKind::TimedOut) if begun.elapsed() > PROBE + LATE => Probe::Unknown,
            Err(_) => Probe::Silent,
        }
    }
}

impl Network {
    /// How the gateway of this namespace does. Reads its whole table of connections: for every few seconds.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn metrics(&self, gateway: &str) -> Result<Metrics> {
        let mut metrics = self.inside(gateway, metrics::read).await?;
        metrics.stopped = self.counters(gateway).await?;
        Ok(metrics)
    }
}
