//! Bans: sources whose requests are refused, by their address or network.
//!
//! Networks nest or lie apart, they never overlap otherwise. So a table that is sorted by their first address finds the
//! innermost one by halving, and those around it by a link each: [`BanTable`].

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize, de::Error as _};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Most bans of the operator.
pub const OPERATOR_BANS_MAX: usize = 10_000;
/// Most bans of a customer.
pub const CUSTOMER_BANS_MAX: usize = 1_000;
/// Most bans of all together: about 4 MB of a Snapshot.
pub const ALL_BANS_MAX: u64 = 50_000;

/// Shortest prefix of an IPv4 network that may be banned.
const V4_PREFIX_MIN: u8 = 8;
/// The same for IPv6: whole providers have one of 20 to 32 bits.
const V6_PREFIX_MIN: u8 = 16;

/// A network that may be banned, without the bits beyond its prefix. An address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BannedNet(IpNet);

/// Why a network cannot be banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BanFault {
    /// It is none.
    #[error("write an address or a network, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/48")]
    Form,
    /// It is too large.
    #[error(
        "at most an IPv4 network of /{V4_PREFIX_MIN} or an IPv6 network of /{V6_PREFIX_MIN} is banned at once"
    )]
    TooLarge,
    /// It holds addresses of this machine.
    #[error("this network holds addresses of each machine itself (127.0.0.0/8, ::1)")]
    Own,
}

impl BannedNet {
    /// The network in its one spelling: addresses of IPv4 within IPv6 become such.
    ///
    /// # Errors
    /// [`BanFault`] for one that nobody may ban.
    pub fn new(net: IpNet) -> Result<Self, BanFault> {
        let net = canonical(net).trunc();
        let (prefix_min, own): (u8, &[IpNet]) = match net {
            IpNet::V4(_) => (V4_PREFIX_MIN, &OWN_V4),
            IpNet::V6(_) => (V6_PREFIX_MIN, &OWN_V6),
        };
        if net.prefix_len() < prefix_min {
            return Err(BanFault::TooLarge);
        }
        if own.iter().any(|own| own.contains(&net) || net.contains(own)) {
            return Err(BanFault::Own);
        }
        Ok(Self(net))
    }

    /// The network.
    pub fn net(&self) -> IpNet {
        self.0
    }

    /// Whether an address lies in it, however it is spelled.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

/// What no source has, and what each machine calls itself by.
const OWN_V4: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8)),
];
/// With `::1` and what stands for IPv4.
const OWN_V6: [IpNet; 1] = [IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 16))];

/// A network of `::ffff:0:0/96` is one of IPv4.
fn canonical(net: IpNet) -> IpNet {
    match (net.addr().to_canonical(), net) {
        (IpAddr::V4(address), IpNet::V6(v6)) if v6.prefix_len() >= 96 => {
            Ipv4Net::new(address, v6.prefix_len() - 96).map_or(net, IpNet::V4)
        }
        _ => net,
    }
}

impl FromStr for BannedNet {
    type Err = BanFault;

    fn from_str(text: &str) -> Result<Self, BanFault> {
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        Self::new(net.ok_or(BanFault::Form)?)
    }
}

impl fmt::Display for BannedNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for BannedNet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let net = IpNet::deserialize(deserializer)?;
        Self::new(net).map_err(D::Error::custom)
    }
}

/// A ban, as edges know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Who is banned.
    pub net: BannedNet,
    /// Seconds since 1970 at which it ends; never without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// Bans, to be asked for each request: a search in a sorted table, and a step for each network around what it finds.
#[derive(Debug, Default)]
pub struct BanTable(Vec<Row>);

#[derive(Debug)]
struct Row {
    /// First and last address; those of IPv4 as IPv6 maps them.
    first: u128,
    last: u128,
    until: u64,
    /// The row of the innermost network around this one.
    around: Option<usize>,
}

impl BanTable {
    /// A table of these bans. Of two of one network the one that ends later counts.
    pub fn new(bans: &[Ban]) -> Self {
        let mut rows: Vec<Row> = bans.iter().map(Row::new).collect();
        // A network stands before those within it.
        rows.sort_by_key(|row| (row.first, u128::MAX - row.last));
        rows.dedup_by(|later, kept| {
            let same = (later.first, later.last) == (kept.first, kept.last);
            if same {
                kept.until = kept.until.max(later.until);
            }
            same
        });
        let mut open: Vec<usize> = Vec::new();
        for at in 0..rows.len() {
            while open.pop_if(|outer| rows[*outer].last < rows[at].first).is_some() {}
            rows[at].around = open.last().copied();
            open.push(at);
        }
        Self(rows)
    }

    /// Whether an address is banned at this time, in seconds since 1970.
    pub fn holds(&self, address: IpAddr, now: u64) -> bool {
        let address = bits(address);
        let begun = self.0.partition_point(|row| row.first <= address);
        let mut at = begun.checked_sub(1);
        while let Some(row) = at.map(|at| &self.0[at]) {
            if address <= row.last && now < row.until {
                return true;
            }
            at = row.around;
        }
        false
    }

    /// Whether nothing is banned.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Row {
    fn new(ban: &Ban) -> Self {
        let net = ban.net.net();
        let until = ban.until.unwrap_or(u64::MAX);
        Self { first: bits(net.network()), last: bits(net.broadcast()), until, around: None }
    }
}

/// An address as a number, one for each however it is spelled.
fn bits(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ban(net: &str, until: Option<u64>) -> Ban {
        Ban { net: net.parse().unwrap(), until }
    }

    #[test]
    fn networks_have_one_spelling() {
        let check = |text: &str, expected: Result<&str, BanFault>| {
            let found = text.parse::<BannedNet>().map(|net| net.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{text}");
        };
        check("203.0.113.7", Ok("203.0.113.7/32"));
        check("203.0.113.7/24", Ok("203.0.113.0/24"));
        check("2001:DB8:0::1/48", Ok("2001:db8::/48"));
        check("::ffff:203.0.113.7", Ok("203.0.113.7/32"));
        check("::ffff:203.0.113.0/120", Ok("203.0.113.0/24"));
        check("10.0.0.0/8", Ok("10.0.0.0/8"));
        for none in ["", "a", "203.0.113.0/33", "203.0.113.0/", "2001:db8::/129", "203.0.113", "1.2.3.4/8/8"]
        {
            check(none, Err(BanFault::Form));
        }
        for large in ["0.0.0.0/0", "::/0", "203.0.0.0/7", "2000::/3", "2001::/15", "::ffff:203.0.0.0/96"] {
            check(large, Err(BanFault::TooLarge));
        }
        for own in [
            "127.0.0.1",
            "127.1.0.0/16",
            "0.0.0.0",
            "::1",
            "::/16",
            "::/128",
            "::ffff:127.0.0.1",
            "::ffff:0:0/95",
        ] {
            check(own, Err(BanFault::Own));
        }
    }

    #[test]
    fn what_cannot_be_banned_cannot_be_read_either() {
        for text in [r#"{"net":"0.0.0.0/0"}"#, r#"{"net":"127.0.0.0/8"}"#, r#"{"net":7}"#, r#"{"until":7}"#] {
            assert!(serde_json::from_str::<Ban>(text).is_err(), "{text}");
        }
        let read: Ban = serde_json::from_str(r#"{"net":"203.0.113.7/24","until":7}"#).unwrap();
        assert_eq!(read, ban("203.0.113.0/24", Some(7)));
    }

    #[test]
    fn a_ban_that_has_ended_hides_no_other_one() {
        let table = BanTable::new(&[
            ban("203.0.113.0/24", Some(100)),
            ban("203.0.113.7", Some(50)),
            ban("203.0.0.0/16", Some(10)),
            ban("2001:db8::/32", None),
        ]);
        let check = |address: &str, now: u64, expected: bool| {
            assert_eq!(table.holds(address.parse().unwrap(), now), expected, "{address} at {now}");
        };
        check("203.0.113.7", 60, true);
        check("203.0.113.7", 99, true);
        check("203.0.113.7", 100, false);
        check("203.0.114.0", 9, true);
        check("203.0.114.0", 10, false);
        check("::ffff:203.0.113.9", 60, true);
        check("2001:db8:ffff::1", u64::MAX - 1, true);
        check("2001:db9::", 0, false);
        check("198.51.100.1", 0, false);
        assert!(BanTable::new(&[]).is_empty() && !BanTable::default().holds(Ipv4Addr::LOCALHOST.into(), 0));
    }

    /// Networks that often hold each other, and addresses near them.
    fn nets() -> impl Strategy<Value = Ban> {
        let v4 = (0_u32..8, 8_u8..=32, any::<u8>()).prop_map(|(high, prefix, low)| {
            let address = Ipv4Addr::from_bits((203 << 24) | (high << 20) | u32::from(low));
            IpNet::V4(Ipv4Net::new(address, prefix).unwrap())
        });
        let v6 = (0_u128..8, 16_u8..=128, any::<u8>()).prop_map(|(high, prefix, low)| {
            let address = Ipv6Addr::from_bits((0x2001 << 112) | (high << 100) | u128::from(low));
            IpNet::V6(Ipv6Net::new(address, prefix).unwrap())
        });
        (prop_oneof![v4, v6], proptest::option::of(0_u64..8))
            .prop_map(|(net, until)| Ban { net: BannedNet::new(net).unwrap(), until })
    }

    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0_u32..8, any::<u8>()).prop_map(|(high, low)| {
                IpAddr::V4(Ipv4Addr::from_bits((203 << 24) | (high << 20) | u32::from(low)))
            }),
            (0_u128..8, any::<u8>()).prop_map(|(high, low)| {
                IpAddr::V6(Ipv6Addr::from_bits((0x2001 << 112) | (high << 100) | u128::from(low)))
            }),
            any::<IpAddr>(),
        ]
    }

    proptest! {
        #[test]
        fn the_table_says_what_a_look_at_each_ban_says(
            bans in proptest::collection::vec(nets(), 0..60),
            asked in proptest::collection::vec(addresses(), 1..40),
            now in 0_u64..9,
        ) {
            let table = BanTable::new(&bans);
            for address in asked.into_iter().chain(bans.iter().map(|ban| ban.net.net().broadcast())) {
                let expected = bans.iter().any(|ban| {
                    ban.net.holds(address) && ban.until.is_none_or(|until| now < until)
                });
                prop_assert_eq!(table.holds(address, now), expected, "{} at {}", address, now);
            }
        }

        #[test]
        fn what_is_written_reads_back(ban in nets()) {
            let text = serde_json::to_string(&ban).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ban>(&text).unwrap(), ban);
            prop_assert_eq!(ban.net.to_string().parse(), Ok(ban.net));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<BannedNet>();
        }
    }
}
