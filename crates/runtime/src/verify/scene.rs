//! What a verification needs to know, and the machine outside that it is made with.

use super::Request;
use crate::{
    Error,
    driver::{LinuxDriver, Person, RuntimeDriver},
};
use bastide_isolation::{
    Canary, Outside, Topology, address,
    checks::{App, Facts, METADATA, Names},
};
use bastide_types::{
    egress::{CANARY_NAMES, EgressCanary},
    network::{POSTGRES_NAME, internal_name},
};
use bastide_verify::facts;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

const POSTGRES_PORT: u16 = 5432;
const GRANT_PORT: u16 = 80;
/// A PostgreSQL client's question for TLS, to which every server says one letter (protocol 3.0, `SSLRequest`).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// A slot that a given namespace outside has for itself.
const OWN_SLOT: u16 = 8191;

/// The machine outside and the names that lead to it.
pub(crate) struct Scene {
    pub(crate) canary: Canary,
    names: Names,
    /// Addresses of this host, when the way out leads over it.
    host: Vec<IpAddr>,
}

impl Scene {
    /// One that nobody can know before.
    pub(crate) async fn invent(driver: &LinuxDriver) -> Result<Self, Error> {
        let topology = driver.topology().await?;
        let is_host = matches!(topology.outside, Outside::Host { .. });
        let host = if is_host { facts::addresses().map_err(Error::file("addresses"))? } else { Vec::new() };
        let taken: Vec<_> = host.iter().filter_map(v4).collect();
        let outer = topology.zones.first().map(|zone| zone.uplink.outer);
        let slot = outer.filter(|_| is_host).and_then(address::slot_of).unwrap_or(OWN_SLOT);
        let canary = Canary::invent(&topology, slot, &taken, random);
        let app = topology.stages.iter().flat_map(|stage| &stage.replicas).map(|one| one.address).next();
        let names = names(&canary, app);
        Ok(Self { canary, names, host })
    }

    /// What the egress role has to know of it.
    pub(crate) fn egress(&self) -> EgressCanary {
        let (open, private) = (IpAddr::V4(self.canary.open), IpAddr::V4(private(&self.canary)));
        let mut names: BTreeMap<String, Vec<Vec<IpAddr>>> = BTreeMap::from([
            (self.names.open.clone(), vec![vec![open]]),
            (self.names.mixed.clone(), vec![vec![private, open]]),
            (self.names.rebinding.clone(), vec![vec![open], vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]]),
        ]);
        let closed = self.names.closed.iter();
        names.extend(closed.map(|(_, name, addresses)| (name.clone(), vec![addresses.clone()])));
        EgressCanary { open: SocketAddr::new(open, self.canary.ports.allowed), names }
    }

    /// Everything that the list of tries is made of.
    pub(crate) async fn facts(
        &self,
        topology: &Topology,
        driver: &LinuxDriver,
        request: &Request,
    ) -> Result<Facts, Error> {
        let people = driver.people();
        let mut apps = BTreeMap::new();
        for person in &people {
            apps.insert(person.caller.replica, app(person, &people, driver).await);
        }
        let is_meant = |person: &&Person| {
            request.customer.as_ref().is_none_or(|customer| *customer == person.caller.customer)
                && request.stage.as_ref().is_none_or(|stage| *stage == person.caller.stage)
        };
        let meant: BTreeSet<_> = people.iter().filter(is_meant).map(|person| person.caller.replica).collect();
        let is_limited = request.customer.is_some() || request.stage.is_some();
        if meant.is_empty() {
            return Err(Error::Verify("no replica runs here whose paths could be tried".into()));
        }
        // Links of ours to the gateways have tries of their own.
        let uplinks: Vec<_> = topology.zones.iter().map(|zone| IpAddr::V4(zone.uplink.outer)).collect();
        let host: Vec<_> = self.host.iter().copied().filter(|address| !uplinks.contains(address)).collect();
        let services = facts::services(&host).map_err(Error::file("/proc/net/tcp"))?;
        Ok(Facts {
            host,
            services,
            v6: facts::speaks_v6(),
            apps,
            proxy: Some(self.names.clone()),
            only: is_limited.then_some(meant),
            flood: false,
        })
    }
}

async fn app(person: &Person, people: &[Person], driver: &LinuxDriver) -> App {
    let who = &person.caller;
    // An app that does not listen yet says nothing about its isolation.
    let serves = match person.port {
        Some(port) if driver.connect(who.replica).await.is_ok() => Some((port, request("localhost"))),
        _ => None,
    };
    let may_use = person.names.iter().map(|(name, address)| {
        if name == POSTGRES_NAME {
            ((*address, POSTGRES_PORT).into(), SSL_REQUEST.to_vec())
        } else {
            ((*address, GRANT_PORT).into(), request(name))
        }
    });
    let others = people.iter().map(|other| &other.caller);
    let others = others.filter(|other| (&other.customer, &other.stage) == (&who.customer, &who.stage));
    let names: BTreeSet<_> = others.map(|other| internal_name(&other.app)).collect();
    App {
        customer: who.customer.clone(),
        stage: who.stage.clone(),
        app: who.app.clone(),
        serves,
        may_use: may_use.collect(),
        may_not_use: names.into_iter().filter(|name| !person.names.contains_key(name)).collect(),
    }
}

fn request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

fn names(canary: &Canary, app: Option<Ipv4Addr>) -> Names {
    let name = |label: &str| format!("{label}.{CANARY_NAMES}");
    let mut closed = vec![
        ("names-private", name("private"), vec![IpAddr::V4(private(canary))]),
        ("names-loopback", name("loopback"), vec![Ipv4Addr::LOCALHOST.into()]),
        ("names-metadata", name("metadata"), vec![METADATA.into()]),
        ("names-mapped", name("mapped"), vec![Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()]),
    ];
    closed.extend(app.map(|address| ("names-app", name("app"), vec![address.into()])));
    Names { open: name("open"), closed, mixed: name("mixed"), rebinding: name("rebinding") }
}

/// Where a canary listens that no app may reach.
fn private(canary: &Canary) -> Ipv4Addr {
    canary.closed.iter().copied().find(Ipv4Addr::is_private).unwrap_or(METADATA)
}

fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    }
}

fn random() -> u32 {
    uuid::Uuid::new_v4().as_u128() as u32
}
