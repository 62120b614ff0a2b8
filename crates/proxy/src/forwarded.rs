//! Who the client is when a proxy that we trust stands before us (`Forwarded`, RFC 7239, or `X-Forwarded-For`).
//!
//! Only what trusted peers added counts: the list is read from its end, and the first address that is not
//! theirs is the client. What comes before it, anybody may have written.

use crate::headers::list;
use http::{HeaderMap, header};
use ipnet::IpNet;
use std::net::IpAddr;

/// Most entries that are read.
const ENTRIES_MAX: usize = 32;

/// The client of a request that came from `peer`.
///
/// When the fields cannot be read, or say `unknown`, it is the last proxy that is known.
pub fn client(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|net| net.contains(&ip));
    if !is_trusted(peer) {
        return peer;
    }
    let entries = if headers.contains_key(header::FORWARDED) {
        let lines: Vec<&[u8]> =
            headers.get_all(header::FORWARDED).iter().map(http::HeaderValue::as_bytes).collect();
        parse(&lines.join(&b","[..]))
    } else {
        x_forwarded_for(headers)
    };
    let mut client = peer;
    for entry in entries.unwrap_or_default().into_iter().rev() {
        let Some(ip) = entry else { break };
        client = ip;
        if !is_trusted(ip) {
            break;
        }
    }
    client
}

fn x_forwarded_for(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let entries: Vec<_> = list(headers, "x-forwarded-for").filter(|entry| !entry.is_empty()).collect();
    if entries.len() > ENTRIES_MAX {
        return None;
    }
    Some(entries.into_iter().map(|entry| node(std::str::from_utf8(entry).ok()?)).collect())
}

/// Reads a `Forwarded` field: for each element the address of `for`, none when it is hidden, unknown or not
/// there. None at all when the field is not of the form of RFC 7239 §4.
pub fn parse(field: &[u8]) -> Option<Vec<Option<IpAddr>>> {
    let mut rest = Scanner(field);
    let mut entries = Vec::new();
    loop {
        rest.spaces();
        if rest.0.is_empty() {
            return Some(entries);
        }
        if rest.take(b',') {
            continue; // an empty member of the list
        }
        if entries.len() == ENTRIES_MAX {
            return None;
        }
        entries.push(element(&mut rest)?);
        rest.spaces();
        if !rest.0.is_empty() && !rest.take(b',') {
            return None;
        }
    }
}

/// `name=value;name=value`: the address of `for`.
fn element(rest: &mut Scanner<'_>) -> Option<Option<IpAddr>> {
    let mut address = None;
    let mut seen: Vec<String> = Vec::new();
    loop {
        if !matches!(rest.0.first(), None | Some(b';' | b',' | b' ' | b'\t')) {
            let name = rest.token()?.to_ascii_lowercase();
            if !rest.take(b'=') {
                return None;
            }
            let value = if rest.0.first() == Some(&b'"') { rest.quoted()? } else { rest.token()?.to_owned() };
            if seen.contains(&name) {
                return None; // each parameter once (RFC 7239 §4)
            }
            if name == "for" {
                address = node(&value);
            }
            seen.push(name);
        }
        if !rest.take(b';') {
            return Some(address);
        }
    }
}

/// The address of a node: `192.0.2.1`, `[2001:db8::1]`, either with a port.
fn node(text: &str) -> Option<IpAddr> {
    let ip = match text.strip_prefix('[') {
        Some(rest) => {
            let (inside, port) = rest.split_once(']')?;
            let port = port.strip_prefix(':').map_or(port.is_empty(), is_port);
            inside.parse::<std::net::Ipv6Addr>().ok().filter(|_| port)?.into()
        }
        None => match text.split_once(':') {
            Some((ip, port)) if is_port(port) => ip.parse::<std::net::Ipv4Addr>().ok()?.into(),
            // Not allowed by RFC 7239, but `X-Forwarded-For` has IPv6 without brackets.
            _ => text.parse::<IpAddr>().ok()?,
        },
    };
    Some(IpAddr::to_canonical(&ip))
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

struct Scanner<'b>(&'b [u8]);

impl<'b> Scanner<'b> {
    fn spaces(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.0.first() == Some(&byte);
        if there {
            self.0 = &self.0[1..];
        }
        there
    }

    fn token(&mut self) -> Option<&'b str> {
        let other = |b: &u8| !(b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b));
        let end = self.0.iter().position(other).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        std::str::from_utf8(token).ok().filter(|token| !token.is_empty())
    }

    fn quoted(&mut self) -> Option<String> {
        let mut bytes = self.0.strip_prefix(b"\"")?.iter();
        let mut text = Vec::new();
        loop {
            match *bytes.next()? {
                b'"' => break,
                b'\\' => text.push(*bytes.next()?),
                byte if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => text.push(byte),
                _ => return None,
            }
        }
        self.0 = bytes.as_slice();
        String::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn fields_are_read_as_rfc_7239_writes_them() {
        let check = |field: &str, expected: Option<&[Option<&str>]>| {
            let expected = expected.map(|all| all.iter().map(|node| node.map(ip)).collect());
            assert_eq!(parse(field.as_bytes()), expected, "{field}");
        };
        check("for=192.0.2.1", Some(&[Some("192.0.2.1")]));
        check("For=\"[2001:db8::1]:4711\"", Some(&[Some("2001:db8::1")]));
        check("for=192.0.2.60;proto=http;by=203.0.113.43", Some(&[Some("192.0.2.60")]));
        check("for=192.0.2.43, for=198.51.100.17", Some(&[Some("192.0.2.43"), Some("198.51.100.17")]));
        check("for=\"192.0.2.1:80\"", Some(&[Some("192.0.2.1")]));
        check("for=unknown", Some(&[None]));
        check("for=_hidden, for=\"_x:1\"", Some(&[None, None]));
        check("proto=https", Some(&[None]));
        check("for=192.0.2.1;;proto=http;", Some(&[Some("192.0.2.1")]));
        check("", Some(&[]));
        check(", ,for=192.0.2.1,", Some(&[Some("192.0.2.1")]));
        check("for=\"a, for=192.0.2.9\"", Some(&[None]));
        check("for=\"\\\"\"", Some(&[None]));
        for broken in
            ["for", "for=", "for=a b", "=a", "for=\"a", "for=a;for=b", "for=[::1]", "for= a", "for=a,b"]
        {
            check(broken, None);
        }
        check(&"for=a,".repeat(33), None);
    }

    #[test]
    fn only_what_trusted_proxies_added_counts() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let check = |peer: &str, name: &'static str, value: &'static str, expected: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(client(&headers, ip(peer), &trusted), ip(expected), "{peer} {value}");
        };
        check("192.0.2.9", "forwarded", "for=1.2.3.4", "192.0.2.9");
        check("10.0.0.1", "forwarded", "for=1.2.3.4", "1.2.3.4");
        check("10.0.0.1", "forwarded", "for=6.6.6.6, for=1.2.3.4", "1.2.3.4");
        check("10.0.0.1", "forwarded", "for=6.6.6.6, for=1.2.3.4, for=10.0.0.2", "1.2.3.4");
        check("10.0.0.1", "forwarded", "for=6.6.6.6, for=unknown", "10.0.0.1");
        check("10.0.0.1", "forwarded", "for=6.6.6.6, for=unknown, for=10.0.0.7", "10.0.0.7");
        check("10.0.0.1", "forwarded", "broken", "10.0.0.1");
        check("::ffff:10.0.0.1", "forwarded", "for=\"[2001:db8::5]\"", "2001:db8::5");
        check("10.0.0.1", "x-forwarded-for", "6.6.6.6, 1.2.3.4", "1.2.3.4");
        check("10.0.0.1", "x-forwarded-for", "2001:db9::1", "2001:db9::1");
        check("10.0.0.1", "x-forwarded-for", "junk", "10.0.0.1");
        check("10.0.0.1", "x-other", "1.2.3.4", "10.0.0.1");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
        #[test]
        fn what_we_write_reads_back(address: IpAddr) {
            let mut headers = HeaderMap::new();
            crate::headers::set_forwarded(&mut headers, &mut crate::headers::Block::default(), address, "https", "a:8443");
            let said = parse(headers["forwarded"].as_bytes());
            prop_assert_eq!(said, Some(vec![Some(address.to_canonical())]));
        }
    }
}
