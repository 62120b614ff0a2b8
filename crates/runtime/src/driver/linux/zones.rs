//! Looking after the zones' gateways: probed through, repaired in place, heard, and their figures told.

use crate::{agent::chain, files};
use bastide_isolation::{Plan, Topology};
use bastide_network::{
    Network,
    gateway::{Ears, Event, Gateways, Health, Metrics},
    socket::Sockets,
};
use bastide_types::ZoneName;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// How often figures are read: that reads whole tables.
const FIGURES_EVERY: Duration = Duration::from_secs(10);
/// How long a gateway is given to be repaired before another may stand in.
const DOWN_FOR: Duration = Duration::from_secs(2);
/// Part of the ports towards one destination above which somebody should give the zone another address.
const PORTS_ALARM_PERCENT: f64 = 80.0;

/// All zones of this node.
pub(crate) struct Zones {
    network: Arc<Network>,
    gateways: Gateways,
    ears: Ears,
    file: PathBuf,
    told: BTreeMap<ZoneName, &'static str>,
    /// Since when gateways are down.
    down: BTreeMap<ZoneName, Instant>,
    figures: BTreeMap<ZoneName, Metrics>,
    next: Instant,
}

/// A zone, as the file tells it.
#[derive(Debug, Serialize)]
struct Told<'a> {
    zone: &'a ZoneName,
    /// `passes`, `repaired`, `unknown` or `down`.
    health: &'static str,
    connections: u64,
    /// New connections that found no port. More than before is an alarm.
    insert_failed: u64,
    dropped: u64,
    /// The destinations with the most ports in use.
    ports: Vec<Ports>,
    /// Packets that each rule has stopped.
    stopped: &'a BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Ports {
    protocol: u8,
    to: String,
    used: u32,
    percent: f64,
}

impl Zones {
    /// What looks after the zones, and what it hears. `file` is written every few seconds.
    pub(crate) fn new(
        network: Arc<Network>,
        sockets: Sockets,
        file: PathBuf,
    ) -> (Self, mpsc::Receiver<Event>) {
        let (ears, events) = Ears::new(sockets.clone());
        let gateways = Gateways::new(network.clone(), sockets);
        let (told, down, figures) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        (Self { network, gateways, ears, file, told, down, figures, next: Instant::now() }, events)
    }

    /// Hears the namespaces as they are now; after each change of them.
    pub(crate) async fn attend(&mut self, topology: &Topology) {
        if let Err(error) = self.ears.attend(topology).await {
            tracing::warn!(
                error = chain(&error),
                "not everything can be heard; flows are missing from the log"
            );
        }
    }

    /// Probes all gateways, and repairs those that pass nothing. Says which have been down for a while.
    pub(crate) async fn tend(&mut self, topology: &Topology, plan: &Plan) -> BTreeSet<ZoneName> {
        let mut repaired = false;
        for (zone, health) in self.gateways.tend(topology, plan).await {
            let word = match &health {
                Health::Passes => "passes",
                Health::Repaired { report, took } => {
                    tracing::warn!(%zone, ms = took.as_millis(), made = ?report.made, "a gateway passed nothing and was repaired");
                    repaired = true;
                    "repaired"
                }
                Health::Unknown => "unknown",
                Health::Down => "down",
            };
            let before = self.told.insert(zone.clone(), word);
            if word == "down" && before != Some("down") {
                tracing::error!(%zone, "the gateway of a zone is down: its apps cannot call out");
            }
            match word {
                "down" => drop(self.down.entry(zone).or_insert_with(Instant::now)),
                // A machine too slow to tell changes nothing.
                "unknown" => {}
                _ => drop(self.down.remove(&zone)),
            }
        }
        if repaired {
            self.attend(topology).await;
        }
        let lost = self.ears.lost();
        if lost > 0 {
            tracing::warn!(lost, "more happened than can be logged");
        }
        if Instant::now() >= self.next {
            self.next = Instant::now() + FIGURES_EVERY;
            self.tell(topology).await;
        }
        let down = self.down.iter().filter(|(_, since)| since.elapsed() >= DOWN_FOR);
        down.map(|(zone, _)| zone.clone()).collect()
    }

    /// Reads the figures of all zones, raises alarms, writes the file.
    async fn tell(&mut self, topology: &Topology) {
        for zone in topology.zones.iter().map(|zone| &zone.zone) {
            match self.network.metrics(&topology.installation.gateway(zone)).await {
                Ok(now) => {
                    let before = self.figures.insert(zone.clone(), now).unwrap_or_default();
                    alarm(zone, &before, &self.figures[zone]);
                }
                Err(error) => tracing::debug!(%zone, error = chain(&error), "no figures"),
            }
        }
        let told: Vec<Told<'_>> = topology.zones.iter().filter_map(|zone| self.told_of(&zone.zone)).collect();
        if let Err(error) = files::write(&self.file, &told) {
            tracing::debug!(error = chain(&error), "figures are not written");
        }
    }

    fn told_of<'a>(&'a self, zone: &'a ZoneName) -> Option<Told<'a>> {
        let figures = self.figures.get(zone)?;
        let ports = figures.ports.iter().map(|one| Ports {
            protocol: one.protocol,
            to: one.to.to_string(),
            used: one.used,
            percent: one.percent(),
        });
        Some(Told {
            zone,
            health: self.told.get(zone).copied().unwrap_or("unknown"),
            connections: figures.connections,
            insert_failed: figures.insert_failed,
            dropped: figures.dropped,
            ports: ports.collect(),
            stopped: &figures.stopped,
        })
    }
}

fn alarm(zone: &ZoneName, before: &Metrics, now: &Metrics) {
    if now.insert_failed > before.insert_failed {
        let more = now.insert_failed - before.insert_failed;
        tracing::error!(%zone, more, "connections found no free port: give the zone another address");
    }
    for one in now.ports.iter().filter(|one| one.percent() > PORTS_ALARM_PERCENT) {
        tracing::error!(%zone, to = %one.to, percent = one.percent(), "ports towards one destination run out");
    }
}
