//! Limits per source: how often one address of the network may fail or ask in a minute.
//!
//! A source is an IPv4 address or an IPv6 network of 64 bits: whoever has one address of such a network has
//! them all. The counts are in memory and forgotten with the process; what must outlive it is counted in the
//! store for each account.

use super::fault::text;
use axum::http::HeaderMap;
use std::{
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

/// Length of a window, in seconds.
const WINDOW_S: i64 = 60;
/// Counters. Sources share them by a hash that nobody outside knows, so that no flood makes the table grow or
/// pushes a count out of it.
const SLOTS: usize = 1 << 15;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// As the gateway said it, which removes the word of everybody else; requests without are one source.
    pub fn of(headers: &HeaderMap) -> Self {
        let said = text(headers, "x-forwarded-for").and_then(|said| said.trim().parse().ok());
        Self::at(said.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
    }

    fn at(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// What a count says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Below the limit.
    Free,
    /// This one reached it.
    Reached,
    /// Beyond it; seconds to wait.
    Over(i64),
}

/// One limit for all sources.
pub struct Limit {
    most: u32,
    key: RandomState,
    slots: Mutex<Vec<Window>>,
}

#[derive(Clone, Copy, Default)]
struct Window {
    began: i64,
    count: u32,
}

impl Limit {
    /// So many in a minute.
    pub fn per_minute(most: u32) -> Self {
        Self { most, key: RandomState::new(), slots: Mutex::new(vec![Window::default(); SLOTS]) }
    }

    /// Counts one.
    pub fn count(&self, source: Source, now_s: i64) -> Count {
        self.with(source, now_s, |window, most| {
            window.count = window.count.saturating_add(1);
            match window.count {
                count if count < most => Count::Free,
                count if count == most => Count::Reached,
                _ => Count::Over(left(window, now_s)),
            }
        })
    }

    /// Seconds to wait, when the source has reached the limit.
    pub fn wait_s(&self, source: Source, now_s: i64) -> Option<i64> {
        self.with(source, now_s, |window, most| (window.count >= most).then(|| left(window, now_s)))
    }

    fn with<T>(&self, source: Source, now_s: i64, look: impl FnOnce(&mut Window, u32) -> T) -> T {
        let at = (self.key.hash_one(source) % SLOTS as u64) as usize;
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let window = &mut slots[at];
        // Also when the clock was set back.
        if now_s - window.began >= WINDOW_S || window.began > now_s {
            *window = Window { began: now_s, count: 0 };
        }
        look(window, self.most)
    }
}

fn left(window: &Window, now_s: i64) -> i64 {
    (window.began + WINDOW_S - now_s).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Source {
        Source::at(address.parse().unwrap())
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let check = |a: &str, b: &str, same: bool| assert_eq!(at(a) == at(b), same, "{a} {b}");
        check("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true);
        check("2001:db8:1:2::1", "2001:db8:1:3::1", false);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        check("192.0.2.1", "192.0.2.2", false);
    }

    #[test]
    fn a_limit_holds_for_a_minute_and_for_one_source() {
        let limit = Limit::per_minute(3);
        let (one, other) = (at("192.0.2.1"), at("192.0.2.2"));
        let counts: Vec<_> = (0..5).map(|second| limit.count(one, 1000 + second)).collect();
        assert_eq!(counts, [Count::Free, Count::Free, Count::Reached, Count::Over(57), Count::Over(56)]);
        assert_eq!(limit.wait_s(one, 1059), Some(1));
        assert_eq!(limit.wait_s(one, 1060), None);
        let shared = limit.key.hash_one(one) % SLOTS as u64 == limit.key.hash_one(other) % SLOTS as u64;
        assert!(shared || limit.wait_s(other, 1004).is_none());
        assert_eq!(limit.wait_s(one, 500), None, "the clock was set back");
    }
}
