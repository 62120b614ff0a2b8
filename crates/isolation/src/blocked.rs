//! Ranges that no app may reach: private, local, reserved, and those of the platform.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// What is never on the internet (RFC 6890 and its registry), as base and prefix length.
const RESERVED: &[([u8; 4], u8)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// The reserved ranges and `more`, merged: none touches or overlaps another, in order. nftables would merge
/// them too, and its read-back would then differ from the plan.
pub fn ranges(more: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let reserved = RESERVED.iter().map(|(base, length)| {
        Ipv4Net::new(Ipv4Addr::from(*base), *length).expect("a constant prefix length is right")
    });
    let all: Vec<_> = reserved.chain(more.iter().map(Ipv4Net::trunc)).collect();
    Ipv4Net::aggregate(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_merged_and_nothing_overlaps() {
        let more: Vec<Ipv4Net> = ["10.1.0.0/16", "8.8.8.9/24"].map(|net| net.parse().unwrap()).into();
        let all = ranges(&more);
        assert!(all.contains(&"224.0.0.0/3".parse().unwrap()), "{all:?}");
        assert!(all.contains(&"8.8.8.0/24".parse().unwrap()));
        assert!(!all.contains(&"10.1.0.0/16".parse().unwrap()));
        for pair in all.windows(2) {
            assert!(pair[0].broadcast() < pair[1].network(), "{pair:?}");
        }
    }
}
