//! Settings below `/proc/sys/net` of the namespace that the calling thread is in.

use std::{fs, io, path::Path};

/// What every namespace of ours has. IPv6 is off: nothing here has a plan for it. Whether a source may come by a
/// link is for the firewall to say, by an exact set; the kernel's own filter knows the main table only and
/// would drop answers.
const EVERYWHERE: &[(&str, &str)] = &[
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/lo/rp_filter", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_source_route", "0"),
    ("ipv4/conf/all/route_localnet", "0"),
    ("ipv4/conf/default/route_localnet", "0"),
    ("ipv4/conf/all/proxy_arp", "0"),
    ("ipv4/conf/default/proxy_arp", "0"),
    ("ipv4/conf/all/arp_ignore", "0"),
    ("ipv4/conf/default/arp_ignore", "0"),
    // Every port of a replica's network is its app's: images listen on 80 and run as nobody here.
    ("ipv4/ip_unprivileged_port_start", "0"),
];

/// What every namespace of ours has, written where it differs; what was changed.
pub(crate) fn ensure_everywhere() -> io::Result<Vec<&'static str>> {
    ensure(EVERYWHERE)
}

/// These settings, written where they differ; what was changed.
pub(crate) fn ensure(settings: &[(&'static str, &'static str)]) -> io::Result<Vec<&'static str>> {
    let mut changed = Vec::new();
    for (name, value) in settings {
        match set(name, value) {
            Ok(true) => changed.push(*name),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_be_missing(name) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(changed)
}

/// A kernel without IPv6 needs none of it switched off, and one that cannot time flows tells no times.
fn may_be_missing(name: &str) -> bool {
    name.starts_with("ipv6/") || name == "netfilter/nf_conntrack_timestamp"
}

/// Settings of a link that was just made, before it is switched on.
pub(crate) fn prepare_link(link: &str) -> io::Result<()> {
    // Outside IPv6 may be on for new links; this one never has an address.
    set(&format!("ipv6/conf/{link}/disable_ipv6"), "1").or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(false),
        _ => Err(error),
    })?;
    // The neighbour is at the other end of a cable: it answers at once, or the question was lost.
    set(&format!("ipv4/neigh/{link}/retrans_time_ms"), "50").map(drop)
}

/// Whether it had another value before.
pub(crate) fn set(name: &str, value: &str) -> io::Result<bool> {
    let path = Path::new("/proc/sys/net").join(name);
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(false);
    }
    fs::write(&path, value)?;
    Ok(true)
}

/// Whether it has this value; a setting that is not there has none.
pub(crate) fn is(name: &str, value: &str) -> bool {
    fs::read_to_string(Path::new("/proc/sys/net").join(name)).is_ok_and(|found| found.trim() == value)
}
