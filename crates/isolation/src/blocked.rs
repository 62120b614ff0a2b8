//! Ranges that no app may reach: private, local, reserved, and those of the platform.

use bastide_types::egress::RESERVED_V4;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// The reserved ranges and `more`, each as it is written down.
pub(crate) fn each(more: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let reserved = RESERVED_V4
        .iter()
        .map(|(base, length, _)| Ipv4Net::new(*base, *length).expect("a constant prefix length is right"));
    reserved.chain(more.iter().map(Ipv4Net::trunc)).collect()
}

/// The same, merged: none touches or overlaps another, in order. nftables would merge them too, and its read-back
/// would then differ from the plan.
pub fn ranges(more: &[Ipv4Net]) -> Vec<Ipv4Net> {
    Ipv4Net::aggregate(&each(more))
}

/// `ranges` without one address, in order.
pub(crate) fn without(ranges: &[Ipv4Net], hole: Ipv4Addr) -> Vec<Ipv4Net> {
    let mut left: Vec<_> = ranges.iter().flat_map(|range| split(*range, hole)).collect();
    left.sort();
    left
}

/// A range as the ranges beside the hole: one of each size below its own.
fn split(mut range: Ipv4Net, hole: Ipv4Addr) -> Vec<Ipv4Net> {
    let mut beside = Vec::new();
    while range.contains(&hole) {
        let Ok(halves) = range.subnets(range.prefix_len() + 1) else { return beside };
        for half in halves {
            if half.contains(&hole) {
                range = half;
            } else {
                beside.push(half);
            }
        }
    }
    beside.push(range);
    beside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_one_address_wide() {
        let hole = Ipv4Addr::new(198, 18, 7, 9);
        let (all, left) = (ranges(&[]), without(&ranges(&[]), hole));
        let has = |ranges: &[Ipv4Net], to: Ipv4Addr| ranges.iter().any(|range| range.contains(&to));
        let count =
            |ranges: &[Ipv4Net]| ranges.iter().map(|range| 1_u64 << (32 - range.prefix_len())).sum::<u64>();
        assert!(has(&all, hole) && !has(&left, hole));
        assert_eq!(count(&all), count(&left) + 1);
        for beside in
            [Ipv4Addr::new(198, 18, 7, 8), Ipv4Addr::new(198, 18, 7, 10), Ipv4Addr::new(198, 19, 255, 255)]
        {
            assert!(has(&left, beside), "{beside}");
        }
        for pair in left.windows(2) {
            assert!(pair[0].broadcast() < pair[1].network(), "{pair:?}");
        }
        assert_eq!(without(&all, Ipv4Addr::new(8, 8, 8, 8)), all);
    }

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
