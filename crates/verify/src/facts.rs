//! What of the host apps may not reach: its addresses and the ports on which something listens.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// `LISTEN` in the kernel's tables.
const LISTENS: &str = "0A";

/// Addresses of all links of this host but its loopback. Those of a link only (fe80::/10) mean nothing
/// elsewhere and are left out.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut all: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|link| {
            let address = link.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|address| !address.is_loopback() && !is_link_local(*address))
        .collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// Whether this host speaks IPv6, if only to itself.
pub fn speaks_v6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// TCP ports on which something listens at one of `addresses`, as one address each.
pub fn services(addresses: &[IpAddr]) -> io::Result<Vec<(SocketAddr, String)>> {
    let mut all = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => all.extend(text.lines().skip(1).filter_map(listener)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut reached: Vec<SocketAddr> = all
        .into_iter()
        .flat_map(|at: SocketAddr| {
            let here = addresses.iter().filter(move |address| serves(at.ip(), **address));
            here.map(move |address| SocketAddr::new(*address, at.port()))
        })
        .collect();
    reached.sort();
    reached.dedup();
    Ok(reached.into_iter().map(|at| (at, format!("port {}", at.port()))).collect())
}

/// Whether somebody who listens at `at` is reached at `address`. An IPv6 listener at every address may serve
/// IPv4 too; when it does not, its control says so.
fn serves(at: IpAddr, address: IpAddr) -> bool {
    match at {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.is_ipv4(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        at => at.to_canonical() == address,
    }
}

/// The address of a line of the kernel's table, when something listens there.
fn listener(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != LISTENS {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes, each in the order of this machine.
    let words = (0..address.len() / 8)
        .map(|at| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes));
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_read_from_the_kernels_table() {
        let four = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1 1";
        let six = "   1: 00000000000000000000000001000000:0050 0:0 0A 0:0";
        if cfg!(target_endian = "little") {
            assert_eq!(listener(four), Some("127.0.0.1:8080".parse().unwrap()));
            assert_eq!(listener(six), Some("[::1]:80".parse().unwrap()));
        }
        for other in [&four.replace(" 0A ", " 01 "), "", "x", "0: 01:1F 0 0A", "0: 0100007F 0 0A"] {
            assert_eq!(listener(other), None, "{other}");
        }
    }

    #[test]
    fn a_listener_of_this_test_is_found() {
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = std::net::TcpListener::bind(here).unwrap();
        let found = services(&[here.ip()]).unwrap();
        assert!(found.iter().any(|(at, _)| *at == here), "{found:?}");
        drop(listener);
        assert!(addresses().unwrap().iter().all(|address| !address.is_loopback()));
    }
}
