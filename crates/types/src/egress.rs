//! Where apps may call to: hosts parsed once into a typed value, addresses judged by what they are, and
//! the policy of a customer's stage.
//!
//! What decides is always the address that is dialled, never a string: a name is resolved once, each
//! answer is judged here, and that very address is dialled.

use crate::{AppName, CustomerName, ReplicaId, StageName, ZoneName, network::is_internal_name};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// Most rules of one list of a policy.
pub const RULES_MAX: usize = 500;

/// A destination that an app named: an address or a name, in one spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name: lower case, without the trailing dot.
    Name(String),
    /// An address, written as one.
    Address(IpAddr),
}

/// Why a text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not a DNS name (RFC 1123 §2.1), nor an address in its usual spelling.
    #[error("it is neither a name nor an address")]
    Malformed,
    /// A number in a spelling that some resolvers read as an address: `127.1`, `0x7f000001`, `017700000001`.
    #[error("addresses are written as four decimal numbers, or in brackets")]
    NumberLike,
    /// Letters outside ASCII.
    #[error("names outside ASCII are written in their `xn--` form")]
    NotAscii,
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if !text.is_ascii() {
            return Err(HostError::NotAscii);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(HostError::Malformed)?;
            return inner.parse().map(|v6| Self::Address(IpAddr::V6(v6))).map_err(|_| HostError::Malformed);
        }
        if let Ok(v4) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(v4.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() || name.len() > 253 || !name.split('.').all(is_label) {
            return Err(HostError::Malformed);
        }
        if name.rsplit('.').next().is_some_and(is_number_like) {
            return Err(HostError::NumberLike);
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(v4)) => v4.fmt(f),
            Self::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
        }
    }
}

/// Underscores are in use (`_acme-challenge`), so they pass.
fn is_label(label: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    label.len() <= 63
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && edge(label.as_bytes().first())
        && edge(label.as_bytes().last())
}

/// A last label that URL parsers take for a number (WHATWG URL, "ends in a number").
fn is_number_like(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
        || label.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A host and a port, as in `api.example.com:443` or `[2001:db8::1]:443`.
pub fn host_and_port(text: &str) -> Result<(Host, u16), HostError> {
    let (host, port) = text.rsplit_once(':').ok_or(HostError::Malformed)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or(HostError::Malformed)?;
    Ok((host.parse()?, port))
}

/// The range that forbids an address, named; `None` when it is an address of the public internet.
/// IPv6 forms that carry an IPv4 address are judged by that one.
pub fn forbidden_range(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => forbidden_v4(v4),
        IpAddr::V6(v6) => forbidden_v6(v6),
    }
}

/// Ranges of IPv4 that are never on the internet (RFC 6890 and its registry): base, prefix length, name. The resolver
/// and the proxy refuse them, and firewalls drop packets to them.
pub const RESERVED_V4: &[(Ipv4Addr, u8, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network (RFC 791)"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private (RFC 1918)"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared (RFC 6598)"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback (RFC 1122)"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local and metadata (RFC 3927)"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private (RFC 1918)"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "protocol assignments (RFC 6890)"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation (RFC 5737)"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relays (RFC 7526)"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private (RFC 1918)"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarks (RFC 2544)"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation (RFC 5737)"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation (RFC 5737)"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast (RFC 5771)"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved (RFC 1112)"),
];

fn forbidden_v4(v4: Ipv4Addr) -> Option<&'static str> {
    let within = |base: Ipv4Addr, length: u8| (v4.to_bits() ^ base.to_bits()) >> (32 - length) == 0;
    RESERVED_V4.iter().find(|(base, length, _)| within(*base, *length)).map(|(_, _, name)| *name)
}

fn forbidden_v6(v6: Ipv6Addr) -> Option<&'static str> {
    let s = v6.segments();
    let tail = Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match s {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => forbidden_v4(tail),
        [0, 0, 0, 0, 0, 0, ..] => Some("unspecified, loopback or IPv4-compatible (RFC 4291)"),
        [0x64, 0xff9b, ..] => Some("local translation (RFC 8215)"),
        [0x100, 0, 0, 0, ..] => Some("discard (RFC 6666)"),
        [0x2001, 0..=0x1ff, ..] => Some("protocol assignments and Teredo (RFC 2928)"),
        [0x2002, ..] => Some("6to4 (RFC 3056)"),
        [0xfc00..=0xfdff, ..] => Some("unique local (RFC 4193)"),
        [0xfe80..=0xfeff, ..] => Some("link-local (RFC 4291)"),
        [0xff00..=0xffff, ..] => Some("multicast (RFC 4291)"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("not assigned (RFC 4291)"),
    }
}

/// What happens with a call that no rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum EgressMode {
    /// It passes.
    #[default]
    Open,
    /// It passes, and is reported as one that [`EgressMode::Enforce`] would refuse.
    Report,
    /// It is refused.
    Enforce,
}

/// The destinations that one rule covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// This name.
    Name(String),
    /// Every name below this one; not the name itself.
    Below(String),
    /// These addresses.
    Network(IpNet),
}

/// One rule, written `api.example.com`, `*.example.com:443`, `203.0.113.0/24:5432` or `[2001:db8::/32]:443`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EgressRule {
    /// To where.
    pub to: Destination,
    /// Only this port; every port when it is not given.
    pub port: Option<u16>,
}

/// A rule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no egress rule: write a name, `*.name`, an address or a network, and a port after a colon if one is meant"
)]
pub struct RuleError(String);

impl FromStr for EgressRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        rule(text).ok_or_else(|| RuleError(text.chars().take(80).collect()))
    }
}

fn rule(text: &str) -> Option<EgressRule> {
    let (to, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) = rest.split_once(']')?;
            let to = Destination::Network(network(inner).filter(|net| matches!(net, IpNet::V6(_)))?);
            (to, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => {
            let (to, port) = text.split_once(':').map_or((text, None), |(to, port)| (to, Some(port)));
            (destination(to)?, port)
        }
    };
    let port = match port {
        None => None,
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
    };
    Some(EgressRule { to, port })
}

fn destination(text: &str) -> Option<Destination> {
    if let Some(net) = network(text) {
        return Some(Destination::Network(net));
    }
    let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
    match name.parse().ok()? {
        Host::Name(name) if below => Some(Destination::Below(name)),
        Host::Name(name) => Some(Destination::Name(name)),
        Host::Address(_) => None,
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|net| net.trunc())
}

impl EgressRule {
    fn covers(&self, host: &Host, address: Option<IpAddr>, port: u16) -> bool {
        let there = match (&self.to, host) {
            (Destination::Network(net), _) => address.is_some_and(|address| net.contains(&address)),
            (Destination::Name(name), Host::Name(asked)) => name == asked,
            (Destination::Below(name), Host::Name(asked)) => {
                asked.strip_suffix(name.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            (_, Host::Address(_)) => false,
        };
        there && self.port.is_none_or(|own| own == port)
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Destination::Name(name) => f.write_str(name)?,
            Destination::Below(name) => write!(f, "*.{name}")?,
            Destination::Network(IpNet::V6(net)) => write!(f, "[{net}]")?,
            Destination::Network(net) => net.fmt(f)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Serialize for EgressRule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EgressRule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Where the apps of one customer's stage may call to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EgressPolicy {
    /// What happens with calls that no rule names.
    pub mode: EgressMode,
    /// Refused, whatever else says.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub deny: Vec<EgressRule>,
    /// Let through.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub allow: Vec<EgressRule>,
}

/// What becomes of a call, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EgressDecision {
    /// Whether it passes.
    pub allowed: bool,
    /// Whether it passes only because the policy does not enforce.
    pub reported: bool,
    /// The rule, range or mode that decided.
    pub why: String,
}

impl EgressDecision {
    fn new(allowed: bool, why: impl Into<String>) -> Self {
        Self { allowed, reported: false, why: why.into() }
    }
}

impl EgressPolicy {
    /// Decides on one call: forbidden ranges first, which nobody can allow, then `deny`, `allow`, `mode`.
    /// Without `address` (a name not yet resolved) rules on networks do not count.
    pub fn decide(&self, host: &Host, address: Option<IpAddr>, port: u16) -> EgressDecision {
        if matches!(host, Host::Name(name) if is_internal_name(name)) {
            return EgressDecision::new(false, "internal: such names are called without a proxy");
        }
        let address = address.or(match host {
            Host::Address(address) => Some(*address),
            Host::Name(_) => None,
        });
        if let Some(range) = address.and_then(forbidden_range) {
            return EgressDecision::new(false, format!("range: {range}"));
        }
        let covers = |rule: &&EgressRule| rule.covers(host, address, port);
        if let Some(rule) = self.deny.iter().find(covers) {
            return EgressDecision::new(false, format!("deny: {rule}"));
        }
        if let Some(rule) = self.allow.iter().find(covers) {
            return EgressDecision::new(true, format!("allow: {rule}"));
        }
        match self.mode {
            EgressMode::Open => EgressDecision::new(true, "mode: open"),
            EgressMode::Report => {
                EgressDecision { allowed: true, reported: true, why: "mode: report".into() }
            }
            EgressMode::Enforce => EgressDecision::new(false, "mode: enforce"),
        }
    }

    /// Whether a name may be looked up at all: some port of it may pass.
    pub fn may_resolve(&self, name: &str) -> bool {
        let names =
            |rule: &&EgressRule| rule.covers(&Host::Name(name.to_owned()), None, rule.port.unwrap_or(1));
        let denied = self.deny.iter().filter(|rule| rule.port.is_none()).any(|rule| names(&rule));
        if denied || is_internal_name(name) {
            return false;
        }
        self.mode != EgressMode::Enforce
            || self.allow.iter().any(|rule| names(&rule) || matches!(rule.to, Destination::Network(_)))
    }
}

/// Which replica calls. Known from the listener it called through, never from what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressCaller {
    /// Whose.
    pub customer: CustomerName,
    /// Where.
    pub stage: StageName,
    /// Which app.
    pub app: AppName,
    /// Which of its replicas.
    pub replica: ReplicaId,
    /// Through which zone's gateway it leaves.
    pub zone: ZoneName,
}

/// What the runtime role tells the egress role, one order at a time; each is answered with an
/// [`EgressReceipt`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressOrder {
    /// Changes nothing; the receipt says which replicas are served already. The first order of a stream.
    Resume,
    /// Serve a replica. Three descriptors come along, all made inside its namespace: the TCP listener of
    /// the proxy, the UDP socket and the TCP listener for names.
    Admit {
        /// Who will call.
        caller: EgressCaller,
        /// What its stage may do.
        policy: EgressPolicy,
        /// Names below `internal` that it finds, each with an address inside its namespace.
        #[serde(default)]
        names: BTreeMap<String, Ipv4Addr>,
    },
    /// Other names for a replica, in force at once.
    Names {
        /// Which.
        replica: ReplicaId,
        /// Names below `internal`, each with an address inside its namespace.
        names: BTreeMap<String, Ipv4Addr>,
    },
    /// Another policy for all replicas of a stage, in force at once.
    Policy {
        /// Whose.
        customer: CustomerName,
        /// Where.
        stage: StageName,
        /// What holds from now on.
        policy: EgressPolicy,
    },
    /// A replica is gone: its listeners are closed, its connections cut.
    Dismiss {
        /// Which.
        replica: ReplicaId,
    },
    /// While isolation is verified there is something to call that is not the internet; afterwards there is not.
    /// It ends with the stream, too.
    Canary {
        /// What there is.
        canary: Option<EgressCanary>,
    },
}

/// Under this name are those of an [`EgressCanary`] (RFC 6761 §6.4: nobody else has any there).
pub const CANARY_NAMES: &str = "bastide-verify.invalid";

/// What may be called while isolation is verified, whatever the policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressCanary {
    /// The one address and port.
    pub open: SocketAddr,
    /// Names below [`CANARY_NAMES`] and the answers that a name server would give: each list is one answer, the
    /// last is given from then on. What is done with an answer is what is verified, so nothing here is judged
    /// less strictly than what a name server says.
    pub names: BTreeMap<String, Vec<Vec<IpAddr>>>,
}

impl EgressCanary {
    /// Whether all its names are below [`CANARY_NAMES`].
    pub fn is_well_named(&self) -> bool {
        let below = |name: &String| name.strip_suffix(CANARY_NAMES).is_some_and(|rest| rest.ends_with('.'));
        self.names.keys().all(below)
    }
}

/// The answer to an [`EgressOrder`]: the error, for people, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressReceipt {
    /// Why it was not done.
    pub error: Option<String>,
    /// After [`EgressOrder::Resume`]: the replicas that are served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serves: Vec<ReplicaId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    fn policy(mode: EgressMode, allow: &[&str], deny: &[&str]) -> EgressPolicy {
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        EgressPolicy { mode, allow: rules(allow), deny: rules(deny) }
    }

    #[test]
    fn a_host_has_one_spelling() {
        assert_eq!(host("API.Example.com."), Host::Name("api.example.com".into()));
        assert_eq!(host("192.0.2.1"), Host::Address([192, 0, 2, 1].into()));
        assert_eq!(host("[2001:DB8::1]").to_string(), "[2001:db8::1]");
        assert_eq!(host_and_port("a.example:443").unwrap(), (Host::Name("a.example".into()), 443));
        assert_eq!(host_and_port("[::1]:80").unwrap().0, Host::Address(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn spellings_that_hide_an_address_are_refused() {
        for text in ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.0x4", "256.1.1.1", "1.2.3.4.5"]
        {
            assert_eq!(text.parse::<Host>(), Err(HostError::NumberLike), "{text}");
        }
        for text in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "[example.com]",
            "[1.2.3.4]",
            "::1",
            "a b",
            "a/b",
            "a@b",
            "a%2eb",
            "[::1",
        ] {
            assert_eq!(text.parse::<Host>(), Err(HostError::Malformed), "{text}");
        }
        assert_eq!("例え.jp".parse::<Host>(), Err(HostError::NotAscii));
        assert_eq!("１.0.0.1".parse::<Host>(), Err(HostError::NotAscii));
        for text in ["a", "a:0", "a:65536", "a:", ":1", "a:b"] {
            assert!(host_and_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_addresses_of_the_internet_pass() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.0.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "2001:0:1::",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "4000::1",
            "192.0.2.1",
            "198.51.100.255",
            "203.0.113.9",
            "::ffff:203.0.113.9",
            "255.255.255.255",
        ] {
            assert!(forbidden_range(text.parse().unwrap()).is_some(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "172.32.0.1",
            "203.0.114.9",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
        ] {
            assert_eq!(forbidden_range(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn rules_are_read_and_written_alike() {
        for text in [
            "api.example.com",
            "*.example.com:443",
            "203.0.113.0/24:5432",
            "203.0.113.7/32",
            "[2001:db8::/32]:443",
            "[2001:db8::/32]",
        ] {
            assert_eq!(text.parse::<EgressRule>().unwrap().to_string(), text);
        }
        assert_eq!("203.0.113.7".parse::<EgressRule>().unwrap().to_string(), "203.0.113.7/32");
        for text in [
            "",
            "*",
            "*.",
            "*.1.2.3.4",
            "a.*.b",
            "*a.example",
            "a:0",
            "a:x",
            "a:1:2",
            "1.2.3.0/33",
            "[1.2.3.4]",
            "[::1",
            "[::1]x",
            "http://a",
        ] {
            assert!(text.parse::<EgressRule>().is_err(), "{text}");
        }
    }

    #[test]
    fn forbidden_ranges_then_deny_then_allow_then_mode_decide() {
        let name = host("api.example.com");
        let outside = Some([11, 0, 0, 1].into());
        let p = policy(EgressMode::Enforce, &["*.example.com:443", "10.0.0.0/8"], &["bad.example.com"]);
        assert!(p.decide(&name, outside, 443).allowed);
        assert_eq!(p.decide(&name, outside, 80).why, "mode: enforce");
        assert_eq!(p.decide(&host("bad.example.com"), outside, 443).why, "deny: bad.example.com");
        assert!(!p.decide(&host("example.com"), outside, 443).allowed, "`*.` is below, not itself");
        assert!(!p.decide(&host("evilexample.com"), outside, 443).allowed);
        assert!(!p.decide(&name, Some([10, 0, 0, 1].into()), 443).allowed, "no rule opens a private range");
        assert!(!p.decide(&host("10.0.0.1"), None, 443).allowed);
        let report = policy(EgressMode::Report, &[], &[]).decide(&name, outside, 1);
        assert!(report.allowed && report.reported);
        assert!(policy(EgressMode::Open, &[], &[]).decide(&name, outside, 1).allowed);
    }

    #[test]
    fn a_name_is_looked_up_only_when_a_call_to_it_could_pass() {
        let p =
            policy(EgressMode::Enforce, &["*.example.com:443"], &["bad.example.com", "half.example.com:80"]);
        assert!(p.may_resolve("api.example.com") && p.may_resolve("half.example.com"));
        assert!(!p.may_resolve("secret.tunnel.evil.com") && !p.may_resolve("bad.example.com"));
        let open = policy(EgressMode::Open, &["*.internal"], &[]);
        assert!(open.may_resolve("a.b") && !open.may_resolve("secret.internal"));
        assert!(!open.decide(&host("b.internal"), None, 80).allowed, "no rule leads such a name outside");
    }

    proptest! {
        #[test]
        fn no_text_becomes_a_host_that_reads_back_otherwise(text in "\\PC{0,40}") {
            if let Ok(host) = text.parse::<Host>() {
                prop_assert_eq!(host.to_string().parse::<Host>().unwrap(), host);
            }
            if let Ok(rule) = text.parse::<EgressRule>() {
                prop_assert_eq!(rule.to_string().parse::<EgressRule>().unwrap(), rule);
            }
        }

        #[test]
        fn no_policy_lets_a_forbidden_address_through(v4 in any::<u32>(), port in 1u16.., mapped in any::<bool>()) {
            let v4 = Ipv4Addr::from(v4);
            let address: IpAddr = if mapped { v4.to_ipv6_mapped().into() } else { v4.into() };
            let open = policy(EgressMode::Open, &["0.0.0.0/0", "[::/0]", "*.example.com"], &[]);
            let decided = open.decide(&Host::Name("a.example.com".into()), Some(address), port);
            prop_assert_eq!(decided.allowed, forbidden_range(v4.into()).is_none());
        }
    }
}
