//! What one namespace has to have, compared with what it has: addresses, links that are up, routes, policies.
//! The calling thread is in that namespace.

use crate::{
    look::{Seen, SeenLink, SeenRoute},
    netlink::Netlink,
    settings,
};
use bastide_isolation::{Installation, LOCAL, Namespace, Packets, Route};
use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage as Message,
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use nix::errno::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

/// Our policies come after the kernel's for local addresses and before its main table.
const PRIORITY: u32 = 1000;
/// The kernel's table for what nothing else took.
const DEFAULT: u32 = 253;

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// Makes a pair of links, both down: one end in the namespace of `netlink`, the other in `there`.
pub(crate) fn make_pair(
    netlink: &mut Netlink,
    near: &str,
    far: &str,
    there: BorrowedFd<'_>,
    groups: [u32; 2],
) -> io::Result<()> {
    let mut other = LinkMessage::default();
    other.attributes = vec![
        LinkAttribute::IfName(far.to_owned()),
        LinkAttribute::NetNsFd(there.as_raw_fd()),
        LinkAttribute::Group(groups[1]),
    ];
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(near.to_owned()),
        LinkAttribute::Group(groups[0]),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]),
    ];
    netlink.change(Message::NewLink(link), NEW)
}

/// Takes a link away, and with it its other end.
pub(crate) fn delete_link(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    gone(netlink.change(Message::DelLink(link), 0)).map(drop)
}

/// Takes all links of a group away at once, which costs no more than taking one away.
pub(crate) fn delete_group(netlink: &mut Netlink, group: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::Group(group)];
    gone(netlink.change(Message::DelLink(link), 0)).map(drop)
}

/// Switches a link on or off.
pub(crate) fn switch(netlink: &mut Netlink, index: u32, on: bool) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.change_mask = LinkFlags::Up;
    link.header.flags = if on { LinkFlags::Up } else { LinkFlags::empty() };
    netlink.change(Message::SetLink(link), 0)
}

/// Waits until links that were just switched on do send: the kernel gets them ready a little later, drops what
/// comes before, and catches up with it when it is asked about a link (Linux 6.8).
pub(crate) fn settle(netlink: &mut Netlink, links: &BTreeMap<String, SeenLink>) -> io::Result<()> {
    for link in links.values() {
        let mut question = LinkMessage::default();
        question.header.index = link.index;
        gone(netlink.ask(Message::GetLink(question)))?;
    }
    Ok(())
}

/// Addresses, links, routes and policies as planned; what was changed, in words. With `only`, everything that is
/// not that installation's is left alone: it goes by the names of links and the number of its table.
pub(crate) fn tend(
    netlink: &mut Netlink,
    seen: &Seen,
    planned: &Namespace,
    only: Option<&Installation>,
) -> io::Result<Vec<String>> {
    let mut changed = Vec::new();
    let ours = |link: &str| only.is_none_or(|only| only.owns_link(link));
    addresses(netlink, seen, planned, &ours, only.is_none(), &mut changed)?;
    for (name, link) in seen.links.iter().filter(|(name, link)| !link.up && ours(name)) {
        switch(netlink, link.index, true)?;
        changed.push(format!("link {name} is up"));
    }
    if only.is_none() {
        for (name, _) in seen.links.iter().filter(|(_, link)| link.filters) {
            if settings::set(&format!("ipv4/conf/{name}/rp_filter"), "0")? {
                changed.push(format!("link {name} filters no more"));
            }
        }
    }
    routes(netlink, seen, planned, &ours, only.is_none(), &mut changed)?;
    policies(netlink, seen, planned, only, &mut changed)?;
    Ok(changed)
}

fn addresses(
    netlink: &mut Netlink,
    seen: &Seen,
    planned: &Namespace,
    ours: &dyn Fn(&str) -> bool,
    alone: bool,
    changed: &mut Vec<String>,
) -> io::Result<()> {
    let mut wanted: BTreeSet<(&str, IpAddr, u8)> =
        planned.addresses.iter().map(|(link, address)| (link.as_str(), IpAddr::V4(*address), 32)).collect();
    if alone {
        wanted.insert(("lo", Ipv4Addr::LOCALHOST.into(), 8));
    }
    for found in seen.addresses.iter().filter(|found| ours(&found.link)) {
        let this = (found.link.as_str(), found.address, found.prefix);
        if found.message.header.scope == scope(found.address) && wanted.remove(&this) {
            continue;
        }
        if found.address.is_ipv6() {
            // Somebody switched it on; switched off, it loses its addresses.
            settings::set(&format!("ipv6/conf/{}/disable_ipv6", found.link), "1")?;
        } else {
            gone(netlink.change(Message::DelAddress(found.message.clone()), 0))?;
        }
        changed.push(format!("address {} on {} is gone", found.address, found.link));
    }
    for (link, address, prefix) in wanted {
        let Some(SeenLink { index, .. }) = seen.links.get(link) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no link {link}")));
        };
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = *index;
        message.header.scope = scope(address);
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        netlink.change(Message::NewAddress(message), NEW)?;
        changed.push(format!("address {address} on {link}"));
    }
    Ok(())
}

/// Loopback addresses are not to be spoken of on links: questions for neighbours' hardware would come from them.
fn scope(address: IpAddr) -> AddressScope {
    if address.is_loopback() { AddressScope::Host } else { AddressScope::Universe }
}

fn routes(
    netlink: &mut Netlink,
    seen: &Seen,
    planned: &Namespace,
    ours: &dyn Fn(&str) -> bool,
    alone: bool,
    changed: &mut Vec<String>,
) -> io::Result<()> {
    let mut wanted: Vec<&Route> = planned.routes.iter().collect();
    // The kernel's own, for the addresses that there are.
    let local = |to: Ipv4Net| {
        to.network().is_loopback()
            || planned.addresses.iter().any(|(_, address)| to.prefix_len() == 32 && to.addr() == *address)
    };
    for found in seen.routes.iter().filter(|found| alone || ours(&found.link)) {
        let before = wanted.len();
        wanted.retain(|route| !same(found, route));
        if wanted.len() < before
            || (found.table == LOCAL && found.kind != RouteType::Unicast && local(found.to))
        {
            continue;
        }
        // The kernel's own for an address went with the address.
        if gone(netlink.change(Message::DelRoute(found.message.clone()), 0))? {
            changed.push(format!("route {} in table {} is gone", found.to, found.table));
        }
    }
    for route in wanted {
        netlink.change(Message::NewRoute(message(seen, route)?), NEW)?;
        changed.push(format!("route {} in table {}", route.to, route.table));
    }
    Ok(())
}

fn same(found: &SeenRoute, route: &Route) -> bool {
    found.to == route.to
        && found.via == route.via
        && found.link == route.link
        && found.table == route.table
        && found.kind == kind(route)
        && !found.special
}

/// In the table of local addresses a route says that a range is this namespace's own.
fn kind(route: &Route) -> RouteType {
    if route.table == LOCAL { RouteType::Local } else { RouteType::Unicast }
}

fn message(seen: &Seen, route: &Route) -> io::Result<RouteMessage> {
    let Some(SeenLink { index, .. }) = seen.links.get(&route.link) else {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no link {}", route.link)));
    };
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = route.to.prefix_len();
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = kind(route);
    message.header.scope = match route.via {
        _ if route.table == LOCAL => RouteScope::Host,
        Some(_) => RouteScope::Universe,
        None => RouteScope::Link,
    };
    message.attributes = vec![
        RouteAttribute::Destination(IpAddr::V4(route.to.network()).into()),
        RouteAttribute::Oif(*index),
        RouteAttribute::Table(route.table),
    ];
    if let Some(via) = route.via {
        // The next hop is the other end of the cable, though no subnet says so.
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(IpAddr::V4(via).into()));
    }
    Ok(message)
}

fn policies(
    netlink: &mut Netlink,
    seen: &Seen,
    planned: &Namespace,
    only: Option<&Installation>,
    changed: &mut Vec<String>,
) -> io::Result<()> {
    let mut wanted = BTreeSet::new();
    if only.is_none() {
        let kernel = [(0, LOCAL), (32766, bastide_isolation::MAIN), (32767, DEFAULT)];
        wanted.extend(kernel.map(|(priority, table)| (priority, None, None, table)));
    }
    wanted.extend(planned.policies.iter().map(|policy| match &policy.of {
        Packets::CameBy(link) => (PRIORITY, Some(link.as_str()), None, policy.table),
        Packets::From(source) => (PRIORITY, None, Some(IpAddr::V4(*source)), policy.table),
    }));
    let ours = |table: u32| only.is_none_or(|only| only.canary_table() == table);
    for found in seen.policies.iter().filter(|found| ours(found.table)) {
        let this = (found.priority, found.link.as_deref(), found.from, found.table);
        if found.plain && wanted.remove(&this) {
            continue;
        }
        if gone(netlink.change(Message::DelRule(found.message.clone()), 0))? {
            changed.push(format!("policy {} to table {} is gone", found.priority, found.table));
        }
    }
    for (priority, link, from, table) in wanted {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![RuleAttribute::Priority(priority), RuleAttribute::Table(table)];
        message.attributes.extend(link.map(|link| RuleAttribute::Iifname(link.to_owned())));
        if let Some(from) = from {
            message.header.src_len = 32;
            message.attributes.push(RuleAttribute::Source(from));
        }
        netlink.change(Message::NewRule(message), NEW)?;
        changed.push(format!("policy {priority} to table {table}"));
    }
    Ok(())
}

/// What is gone already need not be taken away: whether it was there.
fn gone(result: io::Result<()>) -> io::Result<bool> {
    match result.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw) {
        Some(Errno::ESRCH | Errno::ENOENT | Errno::ENODEV | Errno::EADDRNOTAVAIL) => Ok(false),
        _ => result.map(|()| true),
    }
}
