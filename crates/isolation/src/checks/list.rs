//! The list itself.

use super::{Check, Content, Crafted, Expected, Facts, How, Listener, Medium, Names, Place, Port, Target};
use crate::{Canary, Direct, Outside, PROBE_PORT, ReplicaNet, Service, StageNet, Topology, ZoneNet, address};
use bastide_types::ZoneName;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Ways to write the host's loopback that one reader or another takes for it.
const DISGUISES: &[&str] = &[
    "127.0.0.1",
    "localhost",
    "LOCALHOST.",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.1.",
    "0.0.0.0",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
];

/// IPv6 addresses that nobody here may reach: of the link, local, of a metadata service, of everybody on the
/// link, of the internet.
const V6: &[Ipv6Addr] = &[
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd12, 0x3456, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1),
];

/// Protocols besides TCP and UDP: GRE, ESP, SCTP, and one for experiments (RFC 3692).
const PROTOCOLS: &[u8] = &[47, 50, 132, 253];

/// The metadata service of many clouds.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Where the proxy of a replica is, inside its namespace.
pub const PROXY: (Ipv4Addr, u16) = (address::BROKER, 3128);
/// Where its name service is.
pub const NAMES: (Ipv4Addr, u16) = (address::BROKER, 53);

/// Everything to try in a topology, in which a canary stands outside; without one, nothing of the way out.
#[derive(Debug, Clone, Default)]
pub struct Trials {
    /// Who has to listen.
    pub listeners: Vec<Listener>,
    /// Paths that are always open; they prove that listeners listen. Tried before and after the checks.
    pub controls: Vec<Check>,
    /// What is to be proven. Floods come last and want to be alone.
    pub checks: Vec<Check>,
}

/// Makes the list.
pub fn trials(topology: &Topology, facts: &Facts) -> Trials {
    let mut list = List { topology, facts, trials: Trials::default(), known: BTreeMap::new() };
    for stage in &topology.stages {
        let wanted =
            |replica: &&ReplicaNet| facts.only.as_ref().is_none_or(|only| only.contains(&replica.id));
        for replica in stage.replicas.iter().filter(wanted) {
            list.replica(stage, replica);
        }
    }
    for zone in &topology.zones {
        list.zone(zone);
    }
    if let Some(canary) = topology.canary.as_ref().filter(|canary| canary.bystander.is_some()) {
        list.bystander(canary);
    }
    if facts.flood {
        list.floods();
    }
    list.trials
}

struct List<'a> {
    topology: &'a Topology,
    facts: &'a Facts,
    trials: Trials,
    known: BTreeMap<Listener, usize>,
}

impl List<'_> {
    /// What one replica may and may not do.
    fn replica(&mut self, stage: &StageNet, replica: &ReplicaNet) {
        let from = Place::Replica(replica.id);
        self.peers(stage, replica);
        self.router(stage, &from);
        self.gateways(stage, replica);
        self.host(&from);
        self.v6(stage, &from);
        self.inside(replica);
        if let Some(canary) = self.topology.canary.clone() {
            self.closed(&from, &canary, "");
            self.way_out(stage, replica, &canary);
            self.spoofed(stage, replica, &canary);
        }
        if let Some(names) = self.facts.proxy.clone() {
            self.proxy(stage, replica, &names);
        }
    }

    /// Other replicas: whose they are says only how the path is called.
    fn peers(&mut self, stage: &StageNet, replica: &ReplicaNet) {
        let from = Place::Replica(replica.id);
        for (other_stage, other) in replicas(self.topology) {
            if other.id == replica.id {
                continue;
            }
            let path = self.relation(stage, replica, other_stage, other);
            self.closed_target(path, &from, &Place::Replica(other.id), other.address.into());
            self.crafted(path, &from, &Place::Replica(other.id), other.address, Content::Echo);
        }
    }

    fn relation(
        &self,
        stage: &StageNet,
        replica: &ReplicaNet,
        other_stage: &StageNet,
        other: &ReplicaNet,
    ) -> &'static str {
        let app = |id| self.facts.apps.get(id);
        if stage.account == other_stage.account {
            return match (app(&replica.id), app(&other.id)) {
                (Some(own), Some(other)) if own.app != other.app => "other-app",
                _ => "own-other-replica",
            };
        }
        match (app(&replica.id), app(&other.id)) {
            (Some(own), Some(other)) if own.customer == other.customer => "other-stage",
            _ => "other-customer",
        }
    }

    fn router(&mut self, stage: &StageNet, from: &Place) {
        let router = Place::Router(stage.account.clone());
        self.closed_target("router", from, &router, address::ROUTER.into());
        if let Place::Replica(id) = from
            && let Some(replica) = stage.replicas.iter().find(|replica| replica.id == *id)
        {
            self.closed_target("router-speaks", &router, from, replica.address.into());
        }
        self.crafted("router", from, &router, address::ROUTER, Content::Echo);
        let everybody = self.listen(router, Ipv4Addr::UNSPECIFIED.into(), Medium::Udp, Port::Any);
        for to in [Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
            let path = if to.is_broadcast() { "broadcast" } else { "multicast" };
            self.check(path, from, Target::At(everybody, to.into()), How::Broadcast, Expected::Nothing);
        }
    }

    fn gateways(&mut self, stage: &StageNet, replica: &ReplicaNet) {
        let from = Place::Replica(replica.id);
        for zone in &self.topology.zones {
            let own = zone.zone == *exit(stage, replica);
            let path = if own { "own-gateway" } else { "other-gateway" };
            let gateway = Place::Gateway(zone.zone.clone());
            if own {
                self.closed_target(path, &from, &gateway, address::GATEWAY.into());
                self.crafted(path, &from, &gateway, address::GATEWAY, Content::Echo);
            }
            // The address that outsiders see, when it is the gateway's own: a way back in by the public side.
            let path = if own { "hairpin" } else { "other-gateway" };
            self.closed_target(path, &from, &gateway, zone.uplink.inner.into());
            self.crafted(path, &from, &gateway, zone.uplink.inner, Content::Echo);
            let prober = Place::Probe(zone.zone.clone());
            self.closed_target("probe-place", &from, &prober, self.prober(&zone.zone).into());
            if self.is_host() {
                self.silent_target("host-uplink", &from, zone.uplink.outer.into());
            }
        }
    }

    /// The host, as far as the way out leads over it. A given namespace outside is part of the internet.
    fn host(&mut self, from: &Place) {
        if self.is_host() {
            for address in &self.facts.host {
                self.silent_target("host-address", from, *address);
                if let IpAddr::V4(v4) = address {
                    self.crafted("host-address", from, &Place::Host, *v4, Content::Echo);
                }
            }
            for (service, _) in &self.facts.services {
                let how = How::Ask(b"GET / HTTP/1.0\r\n\r\n".to_vec());
                let control =
                    made("control", &Place::Host, Target::Service(*service), how.clone(), Expected::Listens);
                if !self.trials.controls.contains(&control) {
                    self.trials.controls.push(control);
                }
                self.check("host-port", from, Target::Service(*service), how, Expected::Nothing);
            }
        }
        let loopback = self.loopback();
        self.check("host-loopback", from, Target::Listener(loopback), How::Tcp(None), Expected::Nothing);
        let socket = self.listen(Place::Host, Ipv4Addr::LOCALHOST.into(), Medium::Abstract, Port::Any);
        self.check("host-abstract-socket", from, Target::Listener(socket), How::Abstract, Expected::Nothing);
    }

    /// A canary on the host's loopback, and one on each place that a proxy may take for it.
    fn loopback(&mut self) -> usize {
        let host = self.listen(Place::Host, Ipv4Addr::LOCALHOST.into(), Medium::Tcp, Port::Any);
        for zone in &self.topology.zones {
            let place = Place::Probe(zone.zone.clone());
            self.listen(place, Ipv4Addr::LOCALHOST.into(), Medium::Tcp, Port::Like(host));
        }
        host
    }

    fn v6(&mut self, stage: &StageNet, from: &Place) {
        if let Some((_, other)) = replicas(self.topology).find(|(other, _)| other.account != stage.account) {
            let listener =
                self.listen(Place::Replica(other.id), other.address.into(), Medium::Tcp, Port::Any);
            let mapped = Target::At(listener, other.address.to_ipv6_mapped().into());
            self.check("ipv6-mapped", from, mapped, How::Tcp(None), Expected::Nothing);
        }
        if !self.facts.v6 {
            return;
        }
        for by in [Medium::Tcp, Medium::Udp] {
            let host = self.listen(Place::Host, Ipv6Addr::UNSPECIFIED.into(), by, Port::Any);
            let how = if by == Medium::Tcp { How::Tcp(None) } else { How::Udp(None) };
            for to in V6.iter().copied().chain([Ipv6Addr::LOCALHOST]) {
                if by == Medium::Tcp && to.is_multicast() {
                    continue;
                }
                self.check("ipv6", from, Target::At(host, to.into()), how.clone(), Expected::Nothing);
            }
        }
    }

    /// What comes to a replica, and what it may use inside.
    fn inside(&mut self, replica: &ReplicaNet) {
        let place = Place::Replica(replica.id);
        let listener = self.listen(place.clone(), Ipv4Addr::LOCALHOST.into(), Medium::Tcp, Port::Any);
        let (how, seen) =
            (How::Tcp(Some(address::BROKER.into())), Expected::Answer(Some(address::BROKER.into())));
        self.check("load-balancer", &place, Target::Listener(listener), how, seen);
        let Some(app) = self.facts.apps.get(&replica.id).cloned() else { return };
        if let Some((port, request)) = app.serves {
            let to = Target::Service((Ipv4Addr::LOCALHOST, port).into());
            self.check("declared-port", &place, to, How::Ask(request), Expected::Bytes);
        }
        for (at, request) in app.may_use {
            self.check("granted", &place, Target::Service(at), How::Ask(request), Expected::Listens);
        }
        if self.facts.proxy.is_some() {
            for name in app.may_not_use {
                let (at, how) = (Target::Service(NAMES.into()), How::Lookup { name, v6: false });
                self.check("not-granted", &place, at, how, Expected::Nothing);
            }
        }
    }

    /// Forbidden ranges, for as far as a packet comes: it would come to the machine outside.
    fn closed(&mut self, from: &Place, canary: &Canary, by: &'static str) {
        for to in &canary.closed {
            let path = if by.is_empty() { self.range(*to) } else { by };
            self.closed_target(path, from, &Place::Canary, (*to).into());
        }
    }

    fn range(&self, to: Ipv4Addr) -> &'static str {
        let [a, b, ..] = to.octets();
        match () {
            () if to == METADATA => "metadata",
            () if self.topology.blocked.iter().any(|net| net.contains(&to)) => "platform-range",
            () if to.is_private() => "private-range",
            () if a == 100 && (64..128).contains(&b) => "shared-range",
            () if to.is_link_local() => "link-local",
            () => "reserved-range",
        }
    }

    fn way_out(&mut self, stage: &StageNet, replica: &ReplicaNet, canary: &Canary) {
        let from = Place::Replica(replica.id);
        let source = self.seen_as(exit(stage, replica), canary);
        for (by, how) in [(Medium::Tcp, How::Tcp(None)), (Medium::Udp, How::Udp(None))] {
            let to = self.open(canary, by);
            self.check("egress", &from, Target::Listener(to), how, Expected::Answer(Some(source)));
        }
        self.policy(stage, &from, canary, source);
        let udp = self.open(canary, Medium::Udp);
        // What is made by hand arrives when it does not lie; else nothing would follow from the lies below.
        let honest = How::Crafted(Crafted::honest(Content::Udp));
        self.check("egress", &from, Target::Listener(udp), honest, Expected::Arrival(Some(source)));
        // Errors about an app's own packets come back: without them large packets would vanish (RFC 1191).
        for ttl in [1, 2] {
            self.check("path-errors", &from, Target::Listener(udp), How::Expiring(ttl), Expected::Told);
        }
        self.crafted("other-protocol", &from, &Place::Canary, canary.open, Content::Echo);
        for protocol in PROTOCOLS {
            let content = Content::Protocol(*protocol);
            self.crafted("other-protocol", &from, &Place::Canary, canary.open, content);
        }
        let tcp = self.listen(Place::Canary, canary.open.into(), Medium::Raw(6), Port::Any);
        let how = How::Crafted(Crafted::honest(Content::MidStream));
        self.check("mid-stream", &from, Target::Listener(tcp), how, Expected::Reset);
    }

    /// Packets follow the stage's policy.
    fn policy(&mut self, stage: &StageNet, from: &Place, canary: &Canary, source: IpAddr) {
        let unnamed = canary.ports.unnamed;
        let covers =
            |(net, port): &Service| net.contains(&canary.open) && port.is_none_or(|port| port == unnamed);
        let is_open = stage.direct.allowed.iter().any(covers);
        let ports = [("denied", canary.ports.denied, false), ("not-by-name", unnamed, is_open)];
        for (path, port, may) in ports {
            for (by, how, no) in [
                (Medium::Tcp, How::Tcp(None), Expected::Reset),
                (Medium::Udp, How::Udp(None), Expected::Silence),
            ] {
                let to = self.listen(Place::Canary, canary.open.into(), by, Port::Fixed(port));
                let (path, expected) =
                    if may { ("egress", Expected::Answer(Some(source))) } else { (path, no) };
                self.check(path, from, Target::Listener(to), how, expected);
            }
        }
    }

    fn spoofed(&mut self, stage: &StageNet, replica: &ReplicaNet, canary: &Canary) {
        let from = Place::Replica(replica.id);
        let to = self.open(canary, Medium::Udp);
        let one_of = |paths: &[&str]| {
            let mut others = replicas(self.topology).filter(|(_, other)| other.id != replica.id);
            others
                .find(|(at, other)| paths.contains(&self.relation(stage, replica, at, other)))
                .map(|(_, other)| other.address)
        };
        let zone = self.topology.zones.iter().find(|zone| zone.zone == *exit(stage, replica));
        let mut lies = vec![
            ("spoofed-other-replica", one_of(&["own-other-replica", "other-app"])),
            ("spoofed-other-stage", one_of(&["other-stage"])),
            ("spoofed-other-customer", one_of(&["other-customer"])),
            ("spoofed-free-address", Some(address::in_block(stage.block, 254))),
            ("spoofed-router", Some(address::ROUTER)),
            ("spoofed-gateway", Some(address::GATEWAY)),
            ("spoofed-broker", Some(address::BROKER)),
            ("spoofed-outside", Some(Ipv4Addr::new(9, 9, 9, 9))),
        ];
        lies.extend(zone.map(|zone| ("spoofed-gateway", Some(zone.uplink.inner))));
        lies.extend(zone.map(|zone| ("spoofed-host", Some(zone.uplink.outer))));
        lies.extend(self.facts.host.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(("spoofed-host", Some(*v4))),
            IpAddr::V6(_) => None,
        }));
        for (path, lie) in lies {
            let Some(source) = lie.filter(|lie| *lie != replica.address) else { continue };
            let crafted = Crafted { source: Some(source), ..Crafted::honest(Content::Udp) };
            self.check(path, &from, Target::Listener(to), How::Crafted(crafted), Expected::Nothing);
        }
    }

    /// What the proxy and the name service do for a replica.
    fn proxy(&mut self, stage: &StageNet, replica: &ReplicaNet, names: &Names) {
        let from = Place::Replica(replica.id);
        let loopback = self.loopback();
        for disguise in DISGUISES {
            self.by_proxy("proxy-loopback", &from, loopback, disguise);
        }
        for address in self.facts.host.clone() {
            let to = self.listen(Place::Host, address, Medium::Tcp, Port::Any);
            self.by_proxy("proxy-host", &from, to, &written(address));
        }
        let mut seen = Vec::new();
        for (other_stage, other) in replicas(self.topology) {
            let path = match self.relation(stage, replica, other_stage, other) {
                "other-customer" => "proxy-other-customer",
                "other-stage" => "proxy-other-stage",
                _ => "proxy-own-stage",
            };
            // One of each stage: which replica it is makes no difference on the way there.
            if seen.contains(&&other_stage.account) {
                continue;
            }
            seen.push(&other_stage.account);
            let to = self.listen(Place::Replica(other.id), other.address.into(), Medium::Tcp, Port::Any);
            self.by_proxy(path, &from, to, &other.address.to_string());
            self.by_proxy(path, &from, to, &written(other.address.to_ipv6_mapped().into()));
        }
        for zone in &self.topology.zones {
            for to in [zone.uplink.inner, address::GATEWAY] {
                let listener =
                    self.listen(Place::Gateway(zone.zone.clone()), to.into(), Medium::Tcp, Port::Any);
                self.by_proxy("proxy-gateway", &from, listener, &to.to_string());
            }
        }
        let Some(canary) = self.topology.canary.clone() else { return };
        for to in &canary.closed {
            let listener = self.listen(Place::Canary, (*to).into(), Medium::Tcp, Port::Any);
            let path = if *to == METADATA { "proxy-metadata" } else { "proxy-closed-range" };
            self.by_proxy(path, &from, listener, &to.to_string());
        }
        let source = Expected::Answer(Some(self.seen_as(exit(stage, replica), &canary)));
        let open = self.open(&canary, Medium::Tcp);
        for host in [canary.open.to_string(), names.open.clone(), names.mixed.clone()] {
            for how in [How::Connect, How::Forward, How::Socks] {
                let to = Target::Named(open, host.clone());
                self.check("proxy-egress", &from, to, how, source.clone());
            }
        }
        let at = |(address, port): (Ipv4Addr, u16)| Target::Service((address, port).into());
        for name in [&names.open, &names.mixed] {
            let how = How::Lookup { name: name.clone(), v6: false };
            let expected = Expected::Names(vec![canary.open.into()]);
            self.check("names", &from, at(NAMES), how, expected);
        }
        for (path, name, addresses) in &names.closed {
            let how = How::Lookup { name: name.clone(), v6: addresses.iter().any(IpAddr::is_ipv6) };
            self.check(path, &from, at(NAMES), how, Expected::Nothing);
            self.by_proxy(path, &from, loopback, name);
        }
        // Whatever a name becomes after it was judged, the judged address is dialled, or none.
        for _ in 0..2 {
            self.by_proxy("names-rebinding", &from, loopback, &names.rebinding);
        }
    }

    fn by_proxy(&mut self, path: &'static str, from: &Place, listener: usize, host: &str) {
        for how in [How::Connect, How::Forward, How::Socks] {
            self.check(path, from, Target::Named(listener, host.to_owned()), how, Expected::Nothing);
        }
    }

    /// Where the egress proxy dials, and what outsiders may do to a gateway.
    fn zone(&mut self, zone: &ZoneNet) {
        let from = Place::Probe(zone.zone.clone());
        for stage in &self.topology.stages {
            if let Some(replica) = stage.replicas.first() {
                let there = Place::Replica(replica.id);
                self.closed_target("probe-to-app", &from, &there, replica.address.into());
                self.closed_target("host-to-app", &Place::Host, &there, replica.address.into());
                if self.topology.canary.is_some() {
                    self.closed_target("outside-to-app", &Place::Canary, &there, replica.address.into());
                }
            }
        }
        let gateway = Place::Gateway(zone.zone.clone());
        self.closed_target("probe-to-gateway", &from, &gateway, zone.uplink.inner.into());
        self.closed_target("probe-to-gateway", &from, &gateway, address::GATEWAY.into());
        self.closed_target("host-to-gateway", &Place::Host, &gateway, zone.uplink.inner.into());
        let probed = How::Tcp(None);
        let to = Target::Service((zone.uplink.outer, PROBE_PORT).into());
        self.check("gateway-probe", &from, to, probed, Expected::Reset);
        if self.is_host() {
            for address in &self.facts.host {
                self.silent_target("probe-to-host", &from, *address);
            }
            self.closed_target("probe-to-host", &from, &Place::Host, zone.uplink.outer.into());
        }
        let Some(canary) = self.topology.canary.clone() else { return };
        self.closed_target("outside-to-gateway", &Place::Canary, &gateway, zone.uplink.inner.into());
        self.closed(&from, &canary, "probe-to-closed-range");
        // Nothing runs in a gateway or a router that could speak; this is tried as if something did.
        self.closed_target("gateway-speaks", &gateway, &Place::Canary, canary.open.into());
        if let Some(first) = canary.closed.first() {
            let to = self.listen(Place::Canary, (*first).into(), Medium::Tcp, Port::Fixed(PROBE_PORT));
            self.check(
                "probe-to-closed-range",
                &from,
                Target::Listener(to),
                How::Tcp(None),
                Expected::Nothing,
            );
        }
        let source = self.seen_as(&zone.zone, &canary);
        for (by, how) in [(Medium::Tcp, How::Tcp(None)), (Medium::Udp, How::Udp(None))] {
            let to = self.open(&canary, by);
            self.check("probe-egress", &from, Target::Listener(to), how, Expected::Answer(Some(source)));
        }
        let honest = Crafted::honest(Content::Udp);
        let udp = self.open(&canary, Medium::Udp);
        for lie in [address::in_block(1, 1), Ipv4Addr::new(9, 9, 9, 9)] {
            let how = How::Crafted(Crafted { source: Some(lie), ..honest });
            self.check("probe-spoofed", &from, Target::Listener(udp), how, Expected::Nothing);
        }
        for protocol in PROTOCOLS {
            let content = Content::Protocol(*protocol);
            self.crafted("probe-other-protocol", &from, &Place::Canary, canary.open, content);
        }
    }

    /// Another machine beside the host, which must not become its router.
    fn bystander(&mut self, canary: &Canary) {
        for (by, how) in [(Medium::Tcp, How::Tcp(None)), (Medium::Udp, How::Udp(None))] {
            let to = self.open(canary, by);
            self.check("host-as-router", &Place::Bystander, Target::Listener(to), how, Expected::Nothing);
        }
    }

    fn floods(&mut self) {
        let Some(canary) = self.topology.canary.clone() else { return };
        let caps = self.topology.caps;
        for stage in &self.topology.stages {
            let Some(replica) = stage.replicas.first() else { continue };
            for (by, cap, udp) in [(Medium::Tcp, caps.tcp, false), (Medium::Udp, caps.udp, true)] {
                let to = self.open(&canary, by);
                let how = How::Flood { count: cap + cap / 2 + 4, udp };
                let path = if udp { "cap-udp" } else { "cap-tcp" };
                let from = Place::Replica(replica.id);
                self.check(path, &from, Target::Listener(to), how, Expected::AtMost(cap));
            }
        }
    }

    /// The canary for whatever gets out.
    fn open(&mut self, canary: &Canary, by: Medium) -> usize {
        self.listen(Place::Canary, canary.open.into(), by, Port::Fixed(canary.ports.allowed))
    }

    /// Neither TCP nor UDP comes through to `to` in `place`.
    fn closed_target(&mut self, path: &'static str, from: &Place, place: &Place, to: IpAddr) {
        for (by, how) in [(Medium::Tcp, How::Tcp(None)), (Medium::Udp, How::Udp(None))] {
            let listener = self.listen(place.clone(), to, by, Port::Any);
            self.check(path, from, Target::Listener(listener), how, Expected::Nothing);
        }
    }

    /// The host is silent at `to`, also at the port at which it resets what the gateways' own probe sends.
    fn silent_target(&mut self, path: &'static str, from: &Place, to: IpAddr) {
        // IPv6 ends before it begins: there is no address to send from. A stage's policy says no before the host
        // is asked, and it says so with a reset.
        let is_asked = to.is_ipv4() && !self.policy_refuses(from);
        let expected = if is_asked { Expected::Silence } else { Expected::Nothing };
        let ways = [
            (Medium::Tcp, How::Tcp(None), Port::Any),
            (Medium::Udp, How::Udp(None), Port::Any),
            (Medium::Tcp, How::Tcp(None), Port::Fixed(PROBE_PORT)),
        ];
        for (by, how, port) in ways {
            let listener = self.listen(Place::Host, to, by, port);
            self.check(path, from, Target::Listener(listener), how, expected.clone());
        }
    }

    fn policy_refuses(&self, from: &Place) -> bool {
        let Place::Replica(id) = from else { return false };
        let stage = replicas(self.topology).find(|(_, replica)| replica.id == *id).map(|(stage, _)| stage);
        stage.is_some_and(|stage| stage.direct != Direct::default())
    }

    /// No packet of this content comes through.
    fn crafted(&mut self, path: &'static str, from: &Place, place: &Place, to: Ipv4Addr, content: Content) {
        let listener = self.listen(place.clone(), to.into(), content.medium(), Port::Any);
        let how = How::Crafted(Crafted::honest(content));
        self.check(path, from, Target::Listener(listener), how, Expected::Nothing);
    }

    fn check(&mut self, path: &'static str, from: &Place, to: Target, how: How, expected: Expected) {
        let check = made(path, from, to, how, expected);
        self.trials.checks.push(check);
    }

    /// The canary that listens there; a new one, with its controls, when there is none.
    fn listen(&mut self, place: Place, at: IpAddr, by: Medium, port: Port) -> usize {
        let listener = Listener { place, at, by, port };
        if let Some(index) = self.known.get(&listener) {
            return *index;
        }
        let index = self.trials.listeners.len();
        self.trials.listeners.push(listener.clone());
        self.known.insert(listener.clone(), index);
        self.control(index, &listener);
        index
    }

    /// A canary is heard from where it stands, and the machine outside also from the host.
    fn control(&mut self, index: usize, listener: &Listener) {
        let own = if listener.at.is_unspecified() { own(listener) } else { listener.at };
        let to = Target::At(index, own);
        let (how, expected) = match (listener.by, own) {
            (Medium::Tcp, _) => (How::Tcp(None), Expected::Answer(Some(own))),
            (Medium::Udp, _) => (How::Udp(None), Expected::Answer(Some(own))),
            (Medium::Abstract, _) => (How::Abstract, Expected::Answer(None)),
            (Medium::Raw(protocol), _) => {
                (How::Crafted(Crafted::honest(Content::of(protocol))), Expected::Arrival(None))
            }
        };
        let own_control = made("control", &listener.place, to.clone(), how, expected);
        self.trials.controls.push(own_control);
        let (Place::Canary, Some(canary)) = (&listener.place, &self.topology.canary) else { return };
        let outer = canary.outer;
        let (how, expected) = match listener.by {
            Medium::Tcp => (How::Tcp(Some(outer.into())), Expected::Answer(Some(outer.into()))),
            Medium::Udp => (How::Udp(Some(outer.into())), Expected::Answer(Some(outer.into()))),
            Medium::Raw(protocol) => {
                let honest = Crafted::honest(Content::of(protocol));
                let crafted = Crafted { source: Some(outer), routed_by_source: true, ..honest };
                (How::Crafted(crafted), Expected::Arrival(Some(outer.into())))
            }
            Medium::Abstract => return,
        };
        let from_host = made("control", &Place::Host, to, how, expected);
        self.trials.controls.push(from_host);
    }

    fn is_host(&self) -> bool {
        matches!(self.topology.outside, Outside::Host { .. })
    }

    fn prober(&self, zone: &ZoneName) -> Ipv4Addr {
        let ordinal = self.topology.zones.iter().position(|one| one.zone == *zone).unwrap_or_default();
        address::in_block(0, ordinal as u8 + 1)
    }

    /// The source that the canary sees when a zone's gateway sends.
    fn seen_as(&self, zone: &ZoneName, canary: &Canary) -> IpAddr {
        let uplink = self.topology.zones.iter().find(|one| one.zone == *zone).map(|zone| &zone.uplink);
        match (self.topology.outside, uplink) {
            (Outside::Host { .. }, Some(uplink)) => uplink.public.unwrap_or(canary.outer).into(),
            (Outside::Given, Some(uplink)) => uplink.inner.into(),
            (_, None) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

fn replicas(topology: &Topology) -> impl Iterator<Item = (&StageNet, &ReplicaNet)> {
    topology.stages.iter().flat_map(|stage| stage.replicas.iter().map(move |replica| (stage, replica)))
}

fn made(path: &'static str, from: &Place, to: Target, how: How, expected: Expected) -> Check {
    Check { path, from: from.clone(), to, how, expected }
}

/// An address at which a listener at every address is heard from its own place.
fn own(listener: &Listener) -> IpAddr {
    match (&listener.place, listener.at) {
        (_, IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
        (Place::Router(_), _) => address::ROUTER.into(),
        (Place::Gateway(_), _) => address::GATEWAY.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}

/// The zone whose gateway a replica goes out by.
fn exit<'a>(stage: &'a StageNet, replica: &'a ReplicaNet) -> &'a ZoneName {
    let failover = stage.failover.iter().find(|failover| failover.from == replica.zone);
    failover.map_or(&replica.zone, |failover| &failover.to)
}

fn written(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
