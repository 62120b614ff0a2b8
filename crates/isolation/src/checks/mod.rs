//! What is tried to prove isolation: every forbidden path and every allowed one, as plain values.
//!
//! [`trials`] makes the list from what there is. Whoever carries it out makes each [`Listener`] listen (a canary:
//! it answers with words that nobody can guess, and with the source that it sees), tries the controls, the
//! checks, and the controls again, and lets [`judge`] say what each observation means. A path counts as closed
//! only when the canary at its end was heard before and after, from where it may be heard, and neither its words
//! came back nor the words of the caller arrived.

mod judge;
mod list;

pub use judge::{Arrival, Judgement, Seen, judge};
pub use list::{METADATA, NAMES, PROXY, Trials, trials};

use crate::{Installation, Plan};
use bastide_types::{AppName, CustomerName, ReplicaId, StageName, ZoneName};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// Where somebody stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In a replica's namespace.
    Replica(ReplicaId),
    /// In the router of a stage, by its account.
    Router(String),
    /// In a zone's gateway.
    Gateway(ZoneName),
    /// Behind a zone's gateway, where the egress proxy dials.
    Probe(ZoneName),
    /// Where the gateways go out: on a host, the host itself.
    Host,
    /// On the machine outside.
    Canary,
    /// On another machine beside the host, for which nobody routes.
    Bystander,
}

impl Place {
    /// Its namespace, as the plan names it.
    pub fn namespace(&self, installation: &Installation) -> String {
        match self {
            Self::Replica(id) => installation.replica(*id),
            Self::Router(account) => installation.router(account),
            Self::Gateway(zone) => installation.gateway(zone),
            Self::Probe(zone) => installation.probe(zone),
            Self::Host => Plan::OUTSIDE.into(),
            Self::Canary => installation.canary(),
            Self::Bystander => installation.bystander(),
        }
    }
}

/// Somebody who listens and can prove it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// Where.
    pub place: Place,
    /// At which address; the unspecified one for all.
    pub at: IpAddr,
    /// By what.
    pub by: Medium,
    /// Which port.
    pub port: Port,
}

/// What a canary listens by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Every IPv4 packet of this protocol that is for its namespace. It hears and does not answer.
    Raw(u8),
    /// An abstract Unix socket; `at` means nothing.
    Abstract,
}

/// Which port a canary has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// Any free one.
    Any,
    /// This one.
    Fixed(u16),
    /// The same as another listener's, by its place in the list.
    Like(usize),
}

/// Something that is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The path, in words that stay.
    pub path: &'static str,
    /// From where.
    pub from: Place,
    /// To where.
    pub to: Target,
    /// How.
    pub how: How,
    /// What has to come of it.
    pub expected: Expected,
}

/// What a check aims at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A canary, at its own address.
    Listener(usize),
    /// A canary's port, at this address.
    At(usize, IpAddr),
    /// A canary's port, at a host that somebody else reads: a proxy.
    Named(usize, String),
    /// Something that is there anyway.
    Service(SocketAddr),
}

/// How something is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// A TCP connection, from this source when one is named.
    Tcp(Option<IpAddr>),
    /// A datagram that asks for an answer.
    Udp(Option<IpAddr>),
    /// A datagram that this many routers may pass on.
    Expiring(u8),
    /// A datagram to everybody on the link.
    Broadcast,
    /// One packet made by hand. Only its arrival counts.
    Crafted(Crafted),
    /// `CONNECT` of an HTTP proxy.
    Connect,
    /// An HTTP proxy's `GET` with the whole URL.
    Forward,
    /// SOCKS 5.
    Socks,
    /// A question to a name service: for IPv6 addresses or for IPv4 ones.
    Lookup {
        /// Which name.
        name: String,
        /// AAAA instead of A.
        v6: bool,
    },
    /// An abstract Unix socket.
    Abstract,
    /// Some words to a service that knows no canary; whatever it says is an answer.
    Ask(Vec<u8>),
    /// So many connections, or UDP flows, at a time.
    Flood {
        /// How many.
        count: u32,
        /// UDP instead of TCP.
        udp: bool,
    },
}

/// A packet made by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crafted {
    /// Source, possibly a lie; the socket's own when there is none.
    pub source: Option<Ipv4Addr>,
    /// Leaves by the route that holds for its source, which must be an own address then.
    pub routed_by_source: bool,
    /// What it carries.
    pub content: Content,
    /// How many routers may pass it on.
    pub ttl: u8,
}

/// What a packet made by hand carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A UDP datagram.
    Udp,
    /// A TCP segment in the middle of a connection that nobody knows.
    MidStream,
    /// An ICMP echo request.
    Echo,
    /// Words in a packet of this protocol.
    Protocol(u8),
}

impl Content {
    /// What hears it.
    pub const fn medium(self) -> Medium {
        match self {
            Self::Udp => Medium::Udp,
            Self::MidStream => Medium::Raw(6),
            Self::Echo => Medium::Raw(1),
            Self::Protocol(protocol) => Medium::Raw(protocol),
        }
    }

    /// What is heard by who listens for a whole protocol.
    pub const fn of(protocol: u8) -> Self {
        match protocol {
            1 => Self::Echo,
            6 => Self::MidStream,
            17 => Self::Udp,
            other => Self::Protocol(other),
        }
    }
}

impl Crafted {
    /// A packet that lies about nothing.
    pub const fn honest(content: Content) -> Self {
        Self { source: None, routed_by_source: false, content, ttl: 64 }
    }
}

/// What has to come of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Nothing comes back from there, and nothing arrives there.
    Nothing,
    /// Nothing at all: not even a reset that tells that somebody is there.
    Silence,
    /// A router's word that it cannot pass it on.
    Told,
    /// The canary's words, and it saw this source when one is named.
    Answer(Option<IpAddr>),
    /// It arrives, and the source that is seen is this one when one is named.
    Arrival(Option<IpAddr>),
    /// A reset at once, and nothing arrives.
    Reset,
    /// Some answer of a service.
    Bytes,
    /// A service that takes connections, whether or not it has anything to say.
    Listens,
    /// The name service names exactly these.
    Names(Vec<IpAddr>),
    /// At least one and at most so many get through; TCP beyond is reset.
    AtMost(u32),
}

/// What the list is made of, besides the topology.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Addresses of the host, without its loopback.
    pub host: Vec<IpAddr>,
    /// Ports on which something listens on the host, with a word for people.
    pub services: Vec<(SocketAddr, String)>,
    /// The host speaks IPv6, if only to itself.
    pub v6: bool,
    /// What is known about replicas. A replica of the topology that is not here is tried all the same.
    pub apps: BTreeMap<ReplicaId, App>,
    /// The proxy and the name service serve, and know the canary.
    pub proxy: Option<Names>,
    /// Try from these replicas only; from all when there is nothing here. All of them are tried to be reached.
    pub only: Option<BTreeSet<ReplicaId>>,
    /// Fill the caps, too: a test only, since it takes what apps may need.
    pub flood: bool,
}

/// What is known about a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Whose.
    pub customer: CustomerName,
    /// Where.
    pub stage: StageName,
    /// Which app.
    pub app: AppName,
    /// The port it declared, and what to ask there; `None` while it is not ready.
    pub serves: Option<(u16, Vec<u8>)>,
    /// What it may use in its own namespace: where, and what to say there.
    pub may_use: Vec<(SocketAddr, Vec<u8>)>,
    /// Names of what others may use and it may not.
    pub may_not_use: Vec<String>,
}

/// Names that the name service answers in a made-up way while isolation is verified; what it does with the
/// answers is what is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Leads to the canary.
    pub open: String,
    /// What each leads to, none of which an app may be told or may reach: a word for people, name, addresses.
    pub closed: Vec<(&'static str, String, Vec<IpAddr>)>,
    /// Leads to a forbidden address and to the canary: only the canary may be named and dialled.
    pub mixed: String,
    /// Leads to the canary first and to a forbidden address from then on.
    pub rebinding: String,
}
