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
];

/// Writes the settings of every namespace and these, where they differ; what was changed.
pub(crate) fn ensure(more: &[(&'static str, &'static str)]) -> io::Result<Vec<&'static str>> {
    let mut changed = Vec::new();
    for (name, value) in EVERYWHERE.iter().chain(more) {
        match set(name, value) {
            Ok(true) => changed.push(*name),
            Ok(false) => {}
            // A kernel without IPv6 needs none of it switched off.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6/") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(changed)
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
