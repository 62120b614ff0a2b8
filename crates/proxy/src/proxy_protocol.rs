//! PROXY protocol, version 2: a proxy before us says at the beginning of a connection who the client is.
//!
//! Only listed peers may say so, and they must; to everybody else these bytes are nonsense. Version 1 (text) is
//! not read. <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};
use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const HEAD: usize = 16;
/// Longest rest that is read: addresses and some extensions.
const REST_BYTES_MAX: usize = 4096;
/// Extension with a checksum over the whole header.
const TYPE_CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The connection is the proxy's own, such as a health check.
    Local,
    /// It is a client's: from here, to there.
    Client {
        /// The client.
        from: SocketAddr,
        /// The address that it dialled.
        to: SocketAddr,
    },
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is none of version 2.
    #[error("no PROXY header of version 2")]
    None,
    /// The command is unknown.
    #[error("unknown command")]
    Command,
    /// It is about something else than TCP over IP.
    #[error("unknown kind of address")]
    Family,
    /// It is too long, or shorter than its addresses and extensions.
    #[error("wrong length")]
    Length,
    /// Its checksum is wrong.
    #[error("wrong checksum")]
    Checksum,
}

/// Reads the header and nothing beyond it.
pub(crate) async fn read<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<Said> {
    let mut bytes = vec![0; HEAD];
    io.read_exact(&mut bytes).await?;
    let rest = length(&bytes).map_err(invalid)?;
    bytes.resize(HEAD + rest, 0);
    io.read_exact(&mut bytes[HEAD..]).await?;
    parse(&bytes).map_err(invalid)
}

fn invalid(fault: Fault) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

/// Length of what follows the first 16 bytes.
fn length(head: &[u8]) -> Result<usize, Fault> {
    if head.len() < HEAD || head[..12] != SIGNATURE || head[12] >> 4 != 2 {
        return Err(Fault::None);
    }
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > REST_BYTES_MAX { Err(Fault::Length) } else { Ok(length) }
}

/// Reads a whole header.
///
/// # Errors
/// The first [`Fault`] found.
pub fn parse(bytes: &[u8]) -> Result<Said, Fault> {
    let rest = length(bytes)?;
    if bytes.len() != HEAD + rest {
        return Err(Fault::Length);
    }
    let rest = &bytes[HEAD..];
    let (said, extensions) = match (bytes[12] & 15, bytes[13]) {
        (0, _) => (Said::Local, &[][..]),
        (1, 0x11) => {
            let ([from, to], ports, extensions) = addresses::<4>(rest)?;
            let [from, to] = [from, to].map(|bytes| Ipv4Addr::from(*bytes).into());
            (client([from, to], ports), extensions)
        }
        (1, 0x21) => {
            let ([from, to], ports, extensions) = addresses::<16>(rest)?;
            let [from, to] = [from, to].map(|bytes| Ipv6Addr::from(*bytes).to_canonical());
            (client([from, to], ports), extensions)
        }
        (1, _) => return Err(Fault::Family),
        _ => return Err(Fault::Command),
    };
    check_extensions(bytes, extensions)?;
    Ok(said)
}

type Addresses<'b, const N: usize> = ([&'b [u8; N]; 2], [u16; 2], &'b [u8]);

fn addresses<const N: usize>(rest: &[u8]) -> Result<Addresses<'_, N>, Fault> {
    let (from, rest) = rest.split_first_chunk::<N>().ok_or(Fault::Length)?;
    let (to, rest) = rest.split_first_chunk::<N>().ok_or(Fault::Length)?;
    let ([a, b, c, d], rest) = rest.split_first_chunk::<4>().ok_or(Fault::Length)?;
    Ok(([from, to], [u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])], rest))
}

fn client([from, to]: [std::net::IpAddr; 2], ports: [u16; 2]) -> Said {
    Said::Client { from: SocketAddr::new(from, ports[0]), to: SocketAddr::new(to, ports[1]) }
}

fn check_extensions(all: &[u8], mut rest: &[u8]) -> Result<(), Fault> {
    while !rest.is_empty() {
        let ([kind, a, b], after) = rest.split_first_chunk::<3>().ok_or(Fault::Length)?;
        let length = usize::from(u16::from_be_bytes([*a, *b]));
        let (value, after) = after.split_at_checked(length).ok_or(Fault::Length)?;
        if *kind == TYPE_CRC32C {
            let said: [u8; 4] = value.try_into().map_err(|_| Fault::Length)?;
            // It is made over the header with zeros in its place.
            let at = all.len() - after.len() - 4;
            if crc32c([&all[..at], &[0; 4], &all[at + 4..]]) != u32::from_be_bytes(said) {
                return Err(Fault::Checksum);
            }
        }
        rest = after;
    }
    Ok(())
}

fn crc32c(parts: [&[u8]; 3]) -> u32 {
    !parts.into_iter().flatten().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb];

    #[test]
    fn clients_and_the_proxys_own_connections_are_told_apart() {
        let said = parse(&header(0x21, 0x11, &V4)).unwrap();
        let from = "192.0.2.1:12345".parse().unwrap();
        assert_eq!(said, Said::Client { from, to: "198.51.100.2:443".parse().unwrap() });
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 15], &[1], &[0, 80, 1, 0xbb]].concat();
        let said = parse(&header(0x21, 0x21, &v6)).unwrap();
        let from = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(said, Said::Client { from, to: "[::1]:443".parse().unwrap() });
        assert_eq!(parse(&header(0x20, 0, &[])), Ok(Said::Local));
        assert_eq!(parse(&header(0x20, 0x11, &V4)), Ok(Said::Local));
    }

    #[test]
    fn an_address_in_the_form_of_ipv6_is_the_same_client() {
        let mapped = [&[0; 10][..], &[255, 255, 192, 0, 2, 1], &[0; 15], &[1], &[0, 80, 1, 0xbb]].concat();
        let Ok(Said::Client { from, .. }) = parse(&header(0x21, 0x21, &mapped)) else { panic!() };
        assert_eq!(from, "192.0.2.1:80".parse().unwrap());
    }

    #[test]
    fn what_is_not_exactly_a_header_is_refused() {
        for (bytes, fault) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), Fault::None),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Fault::None),
            (header(0x11, 0x11, &V4), Fault::None),
            (header(0x22, 0x11, &V4), Fault::Command),
            (header(0x21, 0x12, &V4), Fault::Family),
            (header(0x21, 0x31, &[0; 216]), Fault::Family),
            (header(0x21, 0x00, &[]), Fault::Family),
            (header(0x21, 0x11, &V4[..11]), Fault::Length),
            (header(0x21, 0x21, &V4), Fault::Length),
            (header(0x21, 0x11, &[&V4[..], &[4, 0]].concat()), Fault::Length),
            (header(0x21, 0x11, &[&V4[..], &[4, 0, 2, 1]].concat()), Fault::Length),
            (header(0x21, 0x11, &[&V4[..], &[3, 0, 4, 1, 2, 3, 4]].concat()), Fault::Checksum),
            (header(0x21, 0x11, &[0; 4097]), Fault::Length),
        ] {
            assert_eq!(parse(&bytes), Err(fault), "{bytes:?}");
        }
    }

    #[test]
    fn a_right_checksum_is_accepted() {
        // The check value of CRC-32C.
        assert_eq!(crc32c([b"123456789", b"", b""]), 0xe306_9283);
        let mut bytes = header(0x21, 0x11, &[&V4[..], &[4, 0, 1, 0, 3, 0, 4, 0, 0, 0, 0]].concat());
        let crc = crc32c([&bytes, b"", b""]).to_be_bytes();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&crc);
        assert!(parse(&bytes).is_ok());
    }

    #[tokio::test]
    async fn nothing_beyond_the_header_is_read() {
        let bytes = [header(0x21, 0x11, &V4), b"GET".to_vec()].concat();
        let mut io = &bytes[..];
        assert!(matches!(read(&mut io).await, Ok(Said::Client { .. })));
        assert_eq!(io, b"GET");
        assert_eq!(read(&mut &bytes[..20]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(rest: Vec<u8>, command: u8, family: u8) {
            let _ = parse(&rest);
            if rest.len() < 60_000 {
                let _ = parse(&header(command, family, &rest));
            }
        }
    }
}
