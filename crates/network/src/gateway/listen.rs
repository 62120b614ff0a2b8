//! Hears of connections and of stopped packets while they happen.

use super::wire::{Stopped, Tracked, Word, read};
use crate::{Result, namespace, nfnetlink, socket::Sockets};
use bastide_isolation::{REPORT_GROUP, Topology, address};
use bastide_types::ZoneName;
use nix::errno::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{fd::OwnedFd, linux::fs::MetadataExt},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::UnixDatagram,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

/// Events that wait to be taken; more are counted as lost.
const QUEUE: usize = 8192;
/// The kernel's room for what was not read yet.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;
/// Stopped packets are read this often. Between two times the kernel collects, and drops what is too much.
const PAUSE: Duration = Duration::from_millis(100);
/// Datagrams, each with many packets, that are read each time.
const DATAGRAMS_MAX: usize = 200;
/// Different stopped packets that are told each time.
const DIFFERENT_MAX: usize = 1000;
/// Bytes of a stopped packet.
const PACKET_BYTES: u32 = 64;

/// Where something happened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Station {
    /// In the router of this stage, by its account.
    Router(String),
    /// In the gateway of this zone.
    Gateway(ZoneName),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An app opened a connection that leaves by this zone.
    Opened(ZoneName, Tracked),
    /// It is over: its bytes and its time are known.
    Closed(ZoneName, Tracked),
    /// Packets of this kind were stopped, so many.
    Stopped(Station, Stopped, u64),
}

/// Hears of connections in every gateway and of stopped packets everywhere.
pub struct Ears {
    sockets: Sockets,
    events: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
    tasks: JoinSet<()>,
    /// By namespace: the number of the one that is heard, and its tasks.
    heard: BTreeMap<String, (u64, Vec<AbortHandle>)>,
}

impl Ears {
    /// Ears, and what they hear. They listen nowhere yet.
    pub fn new(sockets: Sockets) -> (Self, mpsc::Receiver<Event>) {
        let (events, heard) = mpsc::channel(QUEUE);
        let ears =
            Self { sockets, events, lost: Arc::default(), tasks: JoinSet::new(), heard: BTreeMap::new() };
        (ears, heard)
    }

    /// Events that were too many, since this was last asked. The kernel tells only that some were, not how many.
    pub fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Listens to the namespaces of this topology, as they are now, and to no others. To be called after each
    /// [`reconcile`](crate::Network::reconcile): a namespace that was made anew is heard anew.
    ///
    /// # Errors
    /// The first namespace that cannot be heard; the others are.
    pub async fn attend(&mut self, topology: &Topology) -> Result<()> {
        let routers = topology.stages.iter().map(|stage| {
            (topology.installation.router(&stage.account), Station::Router(stage.account.clone()))
        });
        let gateways = topology
            .zones
            .iter()
            .map(|zone| (topology.installation.gateway(&zone.zone), Station::Gateway(zone.zone.clone())));
        let mut result = Ok(());
        let mut wanted = BTreeSet::new();
        for (name, station) in routers.chain(gateways) {
            if let Err(error) = self.hear(&name, station).await {
                result = result.and(Err(error));
            }
            wanted.insert(name);
        }
        self.heard.retain(|name, (_, tasks)| {
            let keep = wanted.contains(name);
            tasks.iter().filter(|_| !keep).for_each(AbortHandle::abort);
            keep
        });
        while self.tasks.try_join_next().is_some() {}
        result
    }

    async fn hear(&mut self, name: &str, station: Station) -> Result<()> {
        let there = namespace::open(name)?.and_then(|file| file.metadata().ok()).map(|found| found.st_ino());
        match self.heard.get(name) {
            // While it is heard, its number is not given to another one.
            Some((number, _)) if Some(*number) == there => return Ok(()),
            Some((_, tasks)) => tasks.iter().for_each(AbortHandle::abort),
            None => {}
        }
        self.heard.remove(name);
        let Some(number) = there else { return Ok(()) };
        let zone = match &station {
            Station::Gateway(zone) => Some(zone.clone()),
            Station::Router(_) => None,
        };
        let both = self.sockets.within(name, {
            let connections = zone.is_some();
            move || {
                // Groups 1 and 3: opened and over.
                let flows = connections.then(|| nfnetlink::listen(0b101, SOCKET_BYTES)).transpose()?;
                let reports = nfnetlink::listen(0, SOCKET_BYTES / 4)?;
                nfnetlink::receive_reports(&reports, REPORT_GROUP, PACKET_BYTES)?;
                Ok((flows, reports))
            }
        });
        let failed = || crate::Error::of(format!("listen in {name}"));
        let (flows, reports) = both.await.map_err(failed())?;
        let mut tasks = Vec::new();
        if let (Some(zone), Some(flows)) = (zone, flows) {
            let flows = wakeful(flows).map_err(failed())?;
            tasks.push(self.tasks.spawn(connections(flows, zone, self.events.clone(), self.lost.clone())));
        }
        let reports = wakeful(reports).map_err(failed())?;
        tasks.push(self.tasks.spawn(stopped(reports, station, self.events.clone(), self.lost.clone())));
        self.heard.insert(name.to_owned(), (number, tasks));
        Ok(())
    }
}

async fn connections(
    socket: UnixDatagram,
    zone: ZoneName,
    events: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
) {
    // What the egress proxy and the probes open has a log, or is nobody's, elsewhere.
    let apps = |one: &Tracked| !address::block(0).contains(one.from.ip());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(count) => {
                for word in read(&buffer[..count]) {
                    let event = match word {
                        Word::Opened(one) if apps(&one) => Event::Opened(zone.clone(), one),
                        Word::Closed(one) if apps(&one) => Event::Closed(zone.clone(), one),
                        _ => continue,
                    };
                    tell(&events, &lost, event);
                }
            }
            Err(error) if is_overrun(&error) => drop(lost.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                tracing::warn!(%error, %zone, "connections are not heard any more");
                return;
            }
        }
    }
}

async fn stopped(socket: UnixDatagram, station: Station, events: mpsc::Sender<Event>, lost: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let mut different: BTreeMap<Stopped, u64> = BTreeMap::new();
        for _ in 0..DATAGRAMS_MAX {
            match socket.try_recv(&mut buffer) {
                Ok(count) => {
                    for word in read(&buffer[..count]) {
                        let Word::Stopped(one) = word else { continue };
                        if different.len() < DIFFERENT_MAX || different.contains_key(&one) {
                            *different.entry(one).or_default() += 1;
                        } else {
                            lost.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_overrun(&error) => drop(lost.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    tracing::warn!(%error, ?station, "stopped packets are not heard any more");
                    return;
                }
            }
        }
        for (one, count) in different {
            tell(&events, &lost, Event::Stopped(station.clone(), one, count));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn tell(events: &mpsc::Sender<Event>, lost: &AtomicU64, event: Event) {
    if events.try_send(event).is_err() {
        lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// A netlink socket for the runtime to wait on. It only waits and receives, which is the same for every kind of
/// datagram socket.
fn wakeful(socket: OwnedFd) -> io::Result<UnixDatagram> {
    UnixDatagram::from_std(socket.into())
}

/// More came than there was room for; it goes on.
fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}
