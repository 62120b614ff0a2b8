//! Firewall rules as values. Each rule has an id, so that a test can take one away and say which path opened.

use crate::Service;
use ipnet::Ipv4Net;
use std::{collections::BTreeSet, net::Ipv4Addr};

/// A table with its sets and chains, of family `inet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Name of the table.
    pub table: String,
    /// Whether what rules stop is reported, with the rule's id, to whoever listens in that namespace.
    pub reports: bool,
    /// Sets that rules look into.
    pub sets: Vec<Set>,
    /// Base chains.
    pub chains: Vec<Chain>,
}

/// A named set. Changing its members changes no rule, so no counter and no count is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Name.
    pub name: &'static str,
    /// What it holds.
    pub members: Members,
}

/// What a set holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// Ranges of addresses that do not overlap.
    Ranges(Vec<Ipv4Net>),
    /// Who may send from which addresses: incoming link and source.
    Senders(BTreeSet<(String, Ipv4Net)>),
    /// Ways through: incoming and outgoing link.
    Ways(BTreeSet<(String, String)>),
    /// Addresses and ports; all ports where there is none. They do not overlap.
    Services(BTreeSet<Service>),
}

/// Where a chain is hooked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Everything that comes in by a link, before routing.
    Prerouting,
    /// What is for this namespace.
    Input,
    /// What passes through.
    Forward,
    /// What this namespace sends.
    Output,
    /// Everything that leaves, after routing; translates source addresses.
    Postrouting,
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where it is hooked in.
    pub hook: Hook,
    /// nftables' priority; lower runs earlier.
    pub priority: i32,
    /// Whether what no rule decided is dropped.
    pub drops: bool,
    /// Rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which one: unique in its table, also its comment in the kernel and its name in reports.
    pub id: &'static str,
    /// All of these must hold.
    pub when: Vec<Match>,
    /// What happens then.
    pub then: Verdict,
}

/// A condition. Names of links may end in `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// It is IPv6.
    Ipv6,
    /// It came in by this link.
    In(String),
    /// It did not come in by this link.
    NotIn(String),
    /// It leaves by this link.
    Out(String),
    /// It does not leave by this link.
    NotOut(String),
    /// It did not come in by a link of ours, of whichever installation.
    FromOthers,
    /// It does not leave by a link of ours, of whichever installation.
    ToOthers,
    /// Incoming link and source are not in this set.
    SenderNotIn(&'static str),
    /// Incoming and outgoing link are not in this set.
    WayNotIn(&'static str),
    /// The destination is in this set.
    To(&'static str),
    /// The destination is this.
    ToAddress(Ipv4Addr),
    /// The source is this.
    FromAddress(Ipv4Addr),
    /// It is of this protocol, and destination and port are in this set.
    ServiceIn(Transport, &'static str),
    /// It is of this protocol, and destination and port are not in this set.
    ServiceNotIn(Transport, &'static str),
    /// TCP to this port.
    TcpPort(u16),
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// TCP or UDP.
    TcpOrUdp,
    /// It belongs to a connection that was accepted before, or is an error message about one.
    Known,
    /// TCP without SYN.
    NotSyn,
    /// With it there are more connections than this through this rule.
    Over(u32),
}

/// Protocols with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// It is dropped and counted.
    Drop,
    /// It is answered with a TCP reset and counted.
    Reset,
    /// Its source becomes one of these addresses, first and last.
    Snat(Ipv4Addr, Ipv4Addr),
    /// Its source becomes the outgoing link's address.
    Masquerade,
}

impl Rule {
    /// A rule.
    pub const fn new(id: &'static str, when: Vec<Match>, then: Verdict) -> Self {
        Self { id, when, then }
    }

    /// Accepts what belongs to accepted connections. Also lets our own resets out: they are `related`.
    pub fn known() -> Self {
        Self::new("known", vec![Match::Known], Verdict::Accept)
    }

    /// Drops all IPv6: the namespaces have it switched off, and this holds when somebody switches it on.
    pub fn no_ipv6() -> Self {
        Self::new("no-ipv6", vec![Match::Ipv6], Verdict::Drop)
    }
}

impl Chain {
    /// A filter chain.
    pub const fn filter(hook: Hook, priority: i32, drops: bool, rules: Vec<Rule>) -> Self {
        Self { hook, priority, drops, rules }
    }

    /// What everybody has: nothing for this namespace itself gets in, and only answers get out. It may speak to
    /// itself: that is how verification proves that what it makes listen here does listen.
    pub fn closed() -> [Self; 2] {
        let (into, out) = (Match::In("lo".into()), Match::Out("lo".into()));
        [
            Self::filter(Hook::Input, 0, true, vec![Rule::new("self-in", vec![into], Verdict::Accept)]),
            Self::filter(
                Hook::Output,
                0,
                true,
                vec![
                    Rule::new("answers", vec![Match::Known], Verdict::Accept),
                    Rule::new("self-out", vec![out], Verdict::Accept),
                ],
            ),
        ]
    }
}

impl Hook {
    /// nftables' word, which is also the chain's name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

impl Ruleset {
    /// Whether `other` differs in members of sets only.
    pub fn differs_in_sets_only(&self, other: &Self) -> bool {
        self.table == other.table
            && self.reports == other.reports
            && self.chains == other.chains
            && self.sets.iter().map(|set| set.name).eq(other.sets.iter().map(|set| set.name))
    }
}
