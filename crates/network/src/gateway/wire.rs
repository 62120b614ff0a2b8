//! The kernel's words about connections and stopped packets, as values. Of a stopped packet the bytes are an
//! app's: nothing in them is taken for granted.

use crate::nfnetlink::{self, attribute, messages, number};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    time::Duration,
};

/// Longest id of a rule that is read.
const RULE_BYTES_MAX: usize = 64;

/// A connection, as the gateway's table of connections has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Number of its protocol: 6 is TCP, 17 is UDP.
    pub protocol: u8,
    /// Who opened it, before translation.
    pub from: SocketAddrV4,
    /// To where.
    pub to: SocketAddrV4,
    /// What the other side sees of the one who opened it.
    pub seen_as: SocketAddrV4,
    /// Bytes from the one who opened it, heads included.
    pub bytes_out: u64,
    /// Bytes to it.
    pub bytes_back: u64,
    /// How long it lasted, when it is over.
    pub lasted: Option<Duration>,
}

/// A packet that a rule stopped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stopped {
    /// The rule's id.
    pub rule: String,
    /// Number of its protocol.
    pub protocol: u8,
    /// Source, possibly a lie.
    pub from: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// Destination port; 0 for protocols without ports.
    pub port: u16,
}

/// What the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// A connection was opened.
    Opened(Tracked),
    /// A connection is over.
    Closed(Tracked),
    /// A packet was stopped.
    Stopped(Stopped),
}

/// Reads a datagram. What cannot be read, such as IPv6 connections, is left out.
pub fn read(datagram: &[u8]) -> Vec<Word> {
    const NEW: u16 = nfnetlink::CONNECTIONS << 8;
    const DESTROYED: u16 = (nfnetlink::CONNECTIONS << 8) | 2;
    const PACKET: u16 = nfnetlink::REPORTS << 8;
    let word = |message: nfnetlink::Message<'_>| match message.kind {
        NEW => tracked(message.body).map(Word::Opened),
        DESTROYED => tracked(message.body).map(Word::Closed),
        PACKET => stopped(message.body).map(Word::Stopped),
        _ => None,
    };
    messages(datagram).filter_map(word).collect()
}

/// Reads the attributes of a connection (`CTA_*` in linux/netfilter/nfnetlink_conntrack.h).
pub(crate) fn tracked(body: &[u8]) -> Option<Tracked> {
    let (protocol, from, to) = tuple(attribute(body, 1)?)?;
    let (_, _, seen_as) = tuple(attribute(body, 2)?)?;
    let bytes = |kind| attribute(attribute(body, kind)?, 2).and_then(number);
    let times = attribute(body, 20);
    let time = |kind| attribute(times?, kind).and_then(number);
    Some(Tracked {
        protocol,
        from,
        to,
        seen_as,
        bytes_out: bytes(9).unwrap_or_default(),
        bytes_back: bytes(10).unwrap_or_default(),
        lasted: time(1).zip(time(2)).map(|(from, to)| Duration::from_nanos(to.saturating_sub(from))),
    })
}

/// Protocol, source and destination of one direction.
fn tuple(body: &[u8]) -> Option<(u8, SocketAddrV4, SocketAddrV4)> {
    let (addresses, ports) = (attribute(body, 1)?, attribute(body, 2)?);
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(attribute(addresses, kind)?).ok()?));
    let port = |kind| attribute(ports, kind).and_then(number).unwrap_or_default() as u16;
    let protocol = number(attribute(ports, 1)?)? as u8;
    Some((protocol, SocketAddrV4::new(address(1)?, port(2)), SocketAddrV4::new(address(2)?, port(3))))
}

/// Reads a report of a stopped packet (`NFULA_*` in linux/netfilter/nfnetlink_log.h).
fn stopped(body: &[u8]) -> Option<Stopped> {
    let rule = attribute(body, 10)?;
    let rule = rule.split(|byte| *byte == 0).next().unwrap_or_default();
    if rule.is_empty() || rule.len() > RULE_BYTES_MAX || !rule.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let (protocol, from, to, port) = packet(attribute(body, 9)?)?;
    Some(Stopped { rule: String::from_utf8_lossy(rule).into_owned(), protocol, from, to, port })
}

/// Protocol, source, destination and destination port of an IP packet (RFC 791, RFC 8200).
fn packet(bytes: &[u8]) -> Option<(u8, IpAddr, IpAddr, u16)> {
    let (protocol, from, to, rest): (u8, IpAddr, IpAddr, &[u8]) = match bytes.first()? >> 4 {
        4 => {
            let address = |at: usize| Some(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?.into());
            let head = usize::from(bytes[0] & 15) * 4;
            let fragment = u16::from_be_bytes(bytes.get(6..8)?.try_into().ok()?) & 0x1fff;
            // Only a first fragment has ports.
            let rest = if head < 20 || fragment != 0 { &[] } else { bytes.get(head..).unwrap_or_default() };
            (*bytes.get(9)?, address(12)?, address(16)?, rest)
        }
        6 => {
            let address = |at: usize| Some(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?.into());
            (*bytes.get(6)?, address(8)?, address(24)?, bytes.get(40..).unwrap_or_default())
        }
        _ => return None,
    };
    let port = match (protocol, rest.get(2..4)) {
        (6 | 17, Some(port)) => u16::from_be_bytes([port[0], port[1]]),
        _ => 0,
    };
    Some((protocol, from, to, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfnetlink::write;
    use proptest::prelude::*;

    fn nested(parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in parts {
            write(&mut bytes, *kind, value);
        }
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((20 + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 14]);
        bytes.extend(body);
        bytes
    }

    fn direction(from: [u8; 4], to: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
        let addresses = nested(&[(1, &from), (2, &to)]);
        let ports = ports.map(u16::to_be_bytes);
        let ports = nested(&[(1, &[6]), (2, &ports[0]), (3, &ports[1])]);
        nested(&[(1, &addresses), (2, &ports)])
    }

    #[test]
    fn a_connection_that_is_over_tells_its_bytes_and_time() {
        let there = direction([100, 64, 1, 1], [11, 0, 0, 1], [4000, 443]);
        let back = direction([11, 0, 0, 1], [11, 1, 0, 11], [443, 5000]);
        let count = |bytes: u64| nested(&[(1, &1_u64.to_be_bytes()), (2, &bytes.to_be_bytes())]);
        let times = nested(&[(1, &5_000_u64.to_be_bytes()), (2, &7_000_u64.to_be_bytes())]);
        let body = nested(&[
            (0x8001, &there),
            (0x8002, &back),
            (0x8009, &count(10)),
            (0x800a, &count(20)),
            (0x8014, &times),
        ]);
        let read = read(&message(0x0102, &body));
        let expected = Tracked {
            protocol: 6,
            from: "100.64.1.1:4000".parse().unwrap(),
            to: "11.0.0.1:443".parse().unwrap(),
            seen_as: "11.1.0.11:5000".parse().unwrap(),
            bytes_out: 10,
            bytes_back: 20,
            lasted: Some(Duration::from_micros(2)),
        };
        assert_eq!(read, [Word::Closed(expected)]);
    }

    fn ipv4(protocol: u8, fragment: u8) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 28, 0, 0, 0, fragment, 64, protocol, 0, 0];
        bytes.extend([100, 64, 1, 1, 10, 0, 0, 1, 0x10, 0, 0x01, 0xbb, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn a_stopped_packet_tells_its_rule_and_destination() {
        for (protocol, fragment, port) in [(6, 0, 443), (17, 0, 443), (1, 0, 0), (6, 1, 0)] {
            let body = nested(&[(10, b"blocked\0"), (9, &ipv4(protocol, fragment))]);
            let expected = Stopped {
                rule: "blocked".into(),
                protocol,
                from: [100, 64, 1, 1].into(),
                to: [10, 0, 0, 1].into(),
                port,
            };
            assert_eq!(read(&message(0x0400, &body)), [Word::Stopped(expected)]);
        }
        let long = vec![b'x'; 65];
        for body in [
            nested(&[(10, &long), (9, &ipv4(6, 0))]),
            nested(&[(10, b"\x1b[2J\0"), (9, &ipv4(6, 0))]),
            nested(&[(10, b"blocked\0"), (9, &[0x45, 0, 0])]),
            nested(&[(10, b"blocked\0")]),
        ] {
            assert_eq!(read(&message(0x0400, &body)), []);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0_u16..0x500) {
            let _ = read(&bytes);
            let _ = read(&message(kind, &bytes));
        }

        #[test]
        fn no_packet_breaks_it(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            let read = read(&message(0x0400, &nested(&[(10, b"blocked\0"), (9, &packet)])));
            prop_assert!(read.len() <= 1);
        }
    }
}
