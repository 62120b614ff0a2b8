//! What is in a namespace: links, addresses, routes and policies, as the kernel tells it.

use crate::netlink::Netlink;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        AfSpecInet, AfSpecUnspec, InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
};

/// What is in a namespace.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) links: BTreeMap<String, SeenLink>,
    pub(crate) addresses: Vec<SeenAddress>,
    pub(crate) routes: Vec<SeenRoute>,
    pub(crate) policies: Vec<SeenPolicy>,
}

#[derive(Debug)]
pub(crate) struct SeenLink {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) veth: bool,
    /// Index of the other end, in its namespace.
    pub(crate) peer: Option<u32>,
    pub(crate) group: u32,
    pub(crate) forwards: bool,
    /// Whether it drops what it would not send back the same way.
    pub(crate) filters: bool,
}

#[derive(Debug)]
pub(crate) struct SeenAddress {
    pub(crate) link: String,
    pub(crate) address: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) message: AddressMessage,
}

/// A route; `link` is empty when it has none or several.
#[derive(Debug)]
pub(crate) struct SeenRoute {
    pub(crate) to: Ipv4Net,
    pub(crate) via: Option<Ipv4Addr>,
    pub(crate) link: String,
    pub(crate) table: u32,
    pub(crate) kind: RouteType,
    /// Whether it says more than that.
    pub(crate) special: bool,
    pub(crate) message: RouteMessage,
}

/// A policy. `plain`: it asks for nothing but the incoming link or one source, if any, and leads to a table.
#[derive(Debug)]
pub(crate) struct SeenPolicy {
    pub(crate) priority: u32,
    pub(crate) link: Option<String>,
    pub(crate) from: Option<IpAddr>,
    pub(crate) table: u32,
    pub(crate) plain: bool,
    pub(crate) message: RuleMessage,
}

/// Looks at everything.
pub(crate) fn look(netlink: &mut Netlink) -> io::Result<Seen> {
    let mut seen = Seen { links: links(netlink)?, ..Seen::default() };
    let names: BTreeMap<u32, String> =
        seen.links.iter().map(|(name, link)| (link.index, name.clone())).collect();
    let name = |index: u32| names.get(&index).cloned().unwrap_or_default();
    for found in netlink.dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        if let RouteNetlinkMessage::NewAddress(message) = found {
            seen.addresses.extend(address(message, name));
        }
    }
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    for found in netlink.dump(&RouteNetlinkMessage::GetRoute(question))? {
        if let RouteNetlinkMessage::NewRoute(message) = found {
            seen.routes.extend(route(message, name));
        }
    }
    let mut question = RuleMessage::default();
    question.header.family = AddressFamily::Inet;
    for found in netlink.dump(&RouteNetlinkMessage::GetRule(question))? {
        if let RouteNetlinkMessage::NewRule(message) = found {
            seen.policies.push(policy(message));
        }
    }
    Ok(seen)
}

/// Looks at links only.
pub(crate) fn links(netlink: &mut Netlink) -> io::Result<BTreeMap<String, SeenLink>> {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let found = netlink.dump(&RouteNetlinkMessage::GetLink(question))?;
    Ok(found
        .into_iter()
        .filter_map(|found| match found {
            RouteNetlinkMessage::NewLink(message) => link(&message),
            _ => None,
        })
        .collect())
}

fn link(message: &LinkMessage) -> Option<(String, SeenLink)> {
    let mut name = None;
    let mut link = SeenLink {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        veth: false,
        peer: None,
        group: 0,
        forwards: false,
        filters: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(found) => name = Some(found.clone()),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::LinkInfo(info) => {
                link.veth = info.iter().any(|one| matches!(one, LinkInfo::Kind(InfoKind::Veth)));
            }
            LinkAttribute::AfSpecUnspec(all) => {
                for spec in all {
                    let AfSpecUnspec::Inet(inet) = spec else { continue };
                    for one in inet {
                        if let AfSpecInet::DevConf(settings) = one {
                            link.forwards = settings.forwarding != 0;
                            link.filters = settings.rp_filter != 0;
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Some((name?, link))
}

fn address(message: AddressMessage, name: impl Fn(u32) -> String) -> Option<SeenAddress> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    Some(SeenAddress {
        link: name(message.header.index),
        address: find(true).or_else(|| find(false))?,
        prefix: message.header.prefix_len,
        message,
    })
}

fn route(message: RouteMessage, name: impl Fn(u32) -> String) -> Option<SeenRoute> {
    if message.header.address_family != AddressFamily::Inet {
        return None;
    }
    let mut route = SeenRoute {
        to: Ipv4Net::new(Ipv4Addr::UNSPECIFIED, message.header.destination_prefix_length).ok()?,
        via: None,
        link: String::new(),
        table: message.header.table.into(),
        kind: message.header.kind,
        special: message.header.tos != 0 || message.header.source_prefix_length != 0,
        message,
    };
    for attribute in &route.message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.to = Ipv4Net::new(*address, route.to.prefix_len()).ok()?;
            }
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.via = Some(*address),
            RouteAttribute::Oif(index) => route.link = name(*index),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::PrefSource(_) | RouteAttribute::CacheInfo(_) => {}
            _ => route.special = true,
        }
    }
    Some(route)
}

fn policy(message: RuleMessage) -> SeenPolicy {
    let mut policy = SeenPolicy {
        priority: 0,
        link: None,
        from: None,
        table: message.header.table.into(),
        plain: message.header.action == RuleAction::ToTable
            && matches!(message.header.src_len, 0 | 32)
            && message.header.dst_len == 0
            && message.header.tos == 0
            && message.header.flags.bits() & 0x2 == 0,
        message,
    };
    for attribute in &policy.message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => policy.priority = *priority,
            RuleAttribute::Iifname(name) => policy.link = Some(name.clone()),
            RuleAttribute::Source(from) => policy.from = Some(*from),
            RuleAttribute::Table(table) => policy.table = *table,
            // It fills these in by itself.
            RuleAttribute::Protocol(_) => {}
            RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => policy.plain = false,
        }
    }
    policy
}
