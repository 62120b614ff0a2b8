//! Packets made by hand, and what can be read in one. Pure: bytes in, bytes out.

use bastide_isolation::checks::Content;
use std::net::Ipv4Addr;

/// How what a caller says begins; 32 hexadecimal digits follow.
pub const MARK: &str = "bastide-verify/";
const NONCE_BYTES: usize = 32;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// The nonce in what somebody said, wherever it stands.
pub fn nonce(said: &[u8]) -> Option<String> {
    let mark = said.windows(MARK.len()).position(|window| window == MARK.as_bytes())?;
    let found = said.get(mark + MARK.len()..)?.get(..NONCE_BYTES)?;
    found.iter().all(u8::is_ascii_hexdigit).then(|| String::from_utf8_lossy(found).into_owned())
}

/// Source and content of an IPv4 packet (RFC 791 §3.1).
pub fn opened(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header < 20 {
        return None;
    }
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some((source.into(), packet.get(header..)?))
}

/// Whether a TCP segment (RFC 9293 §3.1) is a reset from `port_there` to `port_here`.
pub fn is_reset(segment: &[u8], port_there: u16, port_here: u16) -> bool {
    let port = |at: usize| segment.get(at..at + 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    port(0) == Some(port_there)
        && port(2) == Some(port_here)
        && segment.get(13).is_some_and(|flags| flags & RST != 0)
}

/// An IPv4 packet.
pub struct Packet<'a> {
    /// Source address and port.
    pub from: (Ipv4Addr, u16),
    /// Destination address and port.
    pub to: (Ipv4Addr, u16),
    /// What it carries.
    pub content: Content,
    /// How many routers may pass it on.
    pub ttl: u8,
    /// What is said in it.
    pub words: &'a [u8],
}

impl Packet<'_> {
    /// Its bytes, with all checksums.
    pub fn bytes(&self) -> Vec<u8> {
        let (protocol, content) = match self.content {
            Content::Udp => (PROTOCOL_UDP, self.udp()),
            Content::MidStream => (PROTOCOL_TCP, self.tcp()),
            Content::Echo => (PROTOCOL_ICMP, self.echo()),
            Content::Protocol(protocol) => (protocol, self.words.to_vec()),
        };
        let length = u16::try_from(20 + content.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![0x45, 0];
        bytes.extend(length.to_be_bytes());
        // No identification, not in pieces.
        bytes.extend([0, 0, 0x40, 0, self.ttl, protocol, 0, 0]);
        bytes.extend(self.from.0.octets());
        bytes.extend(self.to.0.octets());
        let sum = checksum(&[&bytes]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(content);
        bytes
    }

    fn udp(&self) -> Vec<u8> {
        let length = u16::try_from(8 + self.words.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::new();
        bytes.extend(self.from.1.to_be_bytes());
        bytes.extend(self.to.1.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.words);
        // A sum of zero would mean that there is none.
        let sum = checksum(&[&self.pseudo(PROTOCOL_UDP, length), &bytes]);
        bytes[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
        bytes
    }

    fn tcp(&self) -> Vec<u8> {
        let length = u16::try_from(20 + self.words.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::new();
        bytes.extend(self.from.1.to_be_bytes());
        bytes.extend(self.to.1.to_be_bytes());
        bytes.extend(0x0102_0304_u32.to_be_bytes());
        bytes.extend(0x0506_0708_u32.to_be_bytes());
        bytes.extend([0x50, ACK, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(self.words);
        let sum = checksum(&[&self.pseudo(PROTOCOL_TCP, length), &bytes]);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn echo(&self) -> Vec<u8> {
        let mut bytes = vec![8, 0, 0, 0];
        bytes.extend(self.from.1.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(self.words);
        let sum = checksum(&[&bytes]);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn pseudo(&self, protocol: u8, length: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.from.0.octets());
        bytes.extend(self.to.0.octets());
        bytes.extend([0, protocol]);
        bytes.extend(length.to_be_bytes());
        bytes
    }
}

/// The internet checksum (RFC 1071) over parts, all of an even length but the last.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    fn packet(content: Content, words: &[u8]) -> Vec<u8> {
        let (from, to) = ((Ipv4Addr::new(10, 0, 0, 1), 1000), (Ipv4Addr::new(10, 0, 0, 2), 2000));
        Packet { from, to, content, ttl: 64, words }.bytes()
    }

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    }

    #[test]
    fn what_is_said_is_found_in_every_kind_of_packet() {
        let said = format!("{MARK}{NONCE}");
        for content in [Content::Udp, Content::MidStream, Content::Echo, Content::Protocol(253)] {
            let bytes = packet(content, said.as_bytes());
            let (source, inner) = opened(&bytes).unwrap();
            assert_eq!(source, Ipv4Addr::new(10, 0, 0, 1));
            assert_eq!(nonce(inner).as_deref(), Some(NONCE));
            // A header with its checksum sums up to zero.
            assert_eq!(checksum(&[&bytes[..20]]), 0, "{content:?}");
        }
        assert_eq!(nonce(format!("GET /{said} HTTP/1.1").as_bytes()).as_deref(), Some(NONCE));
        assert_eq!(nonce(&said.as_bytes()[..said.len() - 1]), None);
        assert_eq!(nonce(said.replace('f', "x").as_bytes()), None);
    }

    #[test]
    fn only_a_reset_to_this_port_is_one() {
        let mut segment = packet(Content::MidStream, b"")[20..].to_vec();
        assert!(!is_reset(&segment, 1000, 2000));
        segment[13] = RST | ACK;
        assert!(is_reset(&segment, 1000, 2000));
        assert!(!is_reset(&segment, 1000, 2001));
        assert!(!is_reset(&segment[..13], 1000, 2000));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (nonce(&bytes), opened(&bytes), is_reset(&bytes, 1, 2));
        }
    }
}
