//! The flow log of packets that apps send past the proxy: what the kernel says of connections and stopped packets,
//! with names instead of addresses.
//!
//! Calls by name are logged by the egress role; its own connections are not told here a second time.

use bastide_network::gateway::{Event, Station, wire::Stopped, wire::Tracked};
use bastide_proxy::flow_log::FlowLog;
use bastide_types::{
    egress::{EgressCaller, EgressPolicy, Host},
    flow::{Flow, FlowVerdict},
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::mpsc;

/// Connections whose opener is remembered until their end.
const OPEN_MAX: usize = 100_000;

/// Who has which address now, and what each stage's policy says. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owners {
    inner: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    by_address: HashMap<Ipv4Addr, Owner>,
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Account of its stage on the bus.
    pub(crate) account: String,
    pub(crate) caller: EgressCaller,
    /// What holds for its packets; nothing is allowed while that is not known.
    pub(crate) policy: Option<EgressPolicy>,
}

impl Owners {
    /// Replaces what was known.
    pub(crate) fn set(&self, by_address: HashMap<Ipv4Addr, Owner>) {
        self.lock().by_address = by_address;
    }

    fn of(&self, address: Ipv4Addr) -> Option<Owner> {
        self.lock().by_address.get(&address).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what is heard until nobody hears any more.
pub(crate) async fn keep(log: FlowLog, owners: Owners, mut events: mpsc::Receiver<Event>) {
    let mut names = Names { owners, open: HashMap::new() };
    while let Some(event) = events.recv().await {
        if let Some(flow) = names.flow(event, OffsetDateTime::now_utc()) {
            log.record(flow);
        }
    }
}

/// Gives names to addresses. An address may have another owner by the time a connection ends, so who opened it is
/// remembered.
struct Names {
    owners: Owners,
    open: HashMap<Connection, Owner>,
}

type Connection = (u8, SocketAddrV4, SocketAddrV4);

impl Names {
    fn flow(&mut self, event: Event, now: OffsetDateTime) -> Option<Flow> {
        match event {
            Event::Opened(_, one) => {
                if self.open.len() < OPEN_MAX {
                    self.open.insert(connection(&one), self.owners.of(*one.from.ip())?);
                }
                None
            }
            Event::Closed(_, one) => {
                let owner = self.open.remove(&connection(&one)).or_else(|| self.owners.of(*one.from.ip()))?;
                Some(closed(owner, &one, now))
            }
            Event::Stopped(station, one, count) => {
                let IpAddr::V4(from) = one.from else { return None };
                // A router's packets are those of one stage, whatever source they claim.
                let owner = self.owners.of(from).filter(|owner| match &station {
                    Station::Router(account) => owner.account == *account,
                    Station::Gateway(_) => true,
                })?;
                Some(stopped(owner, &one, count, now))
            }
        }
    }
}

fn connection(one: &Tracked) -> Connection {
    (one.protocol, one.from, one.to)
}

fn closed(owner: Owner, one: &Tracked, now: OffsetDateTime) -> Flow {
    let to = IpAddr::V4(*one.to.ip());
    let decided = owner.policy.map(|policy| policy.decide(&Host::Address(to), Some(to), one.to.port()));
    let reported = decided.as_ref().is_some_and(|decided| decided.reported);
    Flow {
        verdict: if reported { FlowVerdict::Reported } else { FlowVerdict::Allowed },
        why: decided.map(|decided| decided.why).unwrap_or_default(),
        bytes_out: one.bytes_out,
        bytes_back: one.bytes_back,
        took_ms: one.lasted.map_or(0, |lasted| u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX)),
        ..line(owner.caller, one.protocol, to, one.to.port(), now)
    }
}

fn stopped(owner: Owner, one: &Stopped, count: u64, now: OffsetDateTime) -> Flow {
    let more = if count > 1 { format!(", {count} packets") } else { String::new() };
    Flow {
        verdict: FlowVerdict::Refused,
        why: format!("packets: {}{more}", one.rule),
        ..line(owner.caller, one.protocol, one.to, one.port, now)
    }
}

fn line(who: EgressCaller, protocol: u8, to: IpAddr, port: u16, now: OffsetDateTime) -> Flow {
    Flow {
        time: now.format(&Rfc3339).unwrap_or_default(),
        who,
        by: match protocol {
            6 => "tcp",
            17 => "udp",
            _ => "packet",
        },
        host: to.to_string(),
        address: Some(to),
        port,
        verdict: FlowVerdict::Allowed,
        why: String::new(),
        bytes_out: 0,
        bytes_back: 0,
        took_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::{AppName, CustomerName, ReplicaId, StageName, ZoneName, egress::EgressMode};
    use std::time::Duration;

    fn owner(app: &str, mode: EgressMode) -> Owner {
        let caller = EgressCaller {
            customer: CustomerName::new("acme").unwrap(),
            stage: StageName::test(),
            app: AppName::new(app).unwrap(),
            replica: ReplicaId::generate(),
            zone: zone(),
        };
        let policy = Some(EgressPolicy { mode, ..EgressPolicy::default() });
        Owner { account: "A".into(), caller, policy }
    }

    fn zone() -> ZoneName {
        ZoneName::new("a").unwrap()
    }

    fn tracked() -> Tracked {
        Tracked {
            protocol: 6,
            from: "100.64.1.1:40000".parse().unwrap(),
            to: "9.9.9.9:443".parse().unwrap(),
            seen_as: "192.0.2.1:40000".parse().unwrap(),
            bytes_out: 100,
            bytes_back: 2000,
            lasted: Some(Duration::from_millis(1500)),
        }
    }

    fn stopped(from: &str, rule: &str) -> Stopped {
        let to = [10, 0, 0, 1].into();
        Stopped { rule: rule.into(), protocol: 17, from: from.parse().unwrap(), to, port: 53 }
    }

    const FIRST: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 1);

    #[test]
    fn a_connection_belongs_to_who_opened_it_even_when_its_address_has_another_owner_by_then() {
        let owners = Owners::default();
        let mut names = Names { owners: owners.clone(), open: HashMap::new() };
        let now = OffsetDateTime::UNIX_EPOCH;
        owners.set(HashMap::from([(FIRST, owner("shop", EgressMode::Report))]));
        assert!(names.flow(Event::Opened(zone(), tracked()), now).is_none(), "it is told at its end");
        owners.set(HashMap::from([(FIRST, owner("blog", EgressMode::Open))]));
        let flow = names.flow(Event::Closed(zone(), tracked()), now).unwrap();
        assert_eq!((flow.who.app.as_str(), flow.by, flow.port), ("shop", "tcp", 443));
        assert_eq!((flow.bytes_out, flow.bytes_back, flow.took_ms), (100, 2000, 1500));
        assert_eq!(flow.verdict, FlowVerdict::Reported, "{}", flow.why);
        // One that was opened before this life of the role: by who has the address now.
        let flow = names.flow(Event::Closed(zone(), tracked()), now).unwrap();
        assert_eq!((flow.who.app.as_str(), flow.verdict), ("blog", FlowVerdict::Allowed));
        owners.set(HashMap::new());
        assert!(names.flow(Event::Closed(zone(), tracked()), now).is_none(), "nobody's");
        assert!(names.open.is_empty());
    }

    #[test]
    fn a_stopped_packet_names_the_rule_and_no_stage_answers_for_anothers_source() {
        let owners = Owners::default();
        owners.set(HashMap::from([(FIRST, owner("shop", EgressMode::Enforce))]));
        let mut names = Names { owners, open: HashMap::new() };
        let now = OffsetDateTime::UNIX_EPOCH;
        let at = |account: &str| Station::Router(account.to_owned());
        let told = names.flow(Event::Stopped(at("A"), stopped("100.64.1.1", "blocked"), 3), now).unwrap();
        assert_eq!((told.verdict, told.by), (FlowVerdict::Refused, "udp"));
        assert_eq!((told.why.as_str(), told.host.as_str()), ("packets: blocked, 3 packets", "10.0.0.1"));
        for (station, from) in [(at("B"), "100.64.1.1"), (at("A"), "100.64.9.9"), (at("A"), "fe80::1")] {
            assert!(names.flow(Event::Stopped(station, stopped(from, "spoofed"), 1), now).is_none());
        }
    }
}
