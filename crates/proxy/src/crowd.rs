//! How many connections each client has: one that opens too many is turned away, others are not.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

/// Counts by client. A client of IPv6 is a /64: whoever has one address there has them all.
#[derive(Debug)]
pub(crate) struct Crowd {
    counts: Mutex<HashMap<IpAddr, u32>>,
    most: u32,
}

/// A place in the crowd, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Present {
    crowd: Option<Arc<Crowd>>,
    client: IpAddr,
}

impl Crowd {
    /// At most `most` for each client.
    pub(crate) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), most })
    }

    /// A place for this client; none when it has enough. This machine itself has no limit: what is close by
    /// speaks for many.
    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Present> {
        let client = prefix(client);
        if client.is_loopback() {
            return Some(Present { crowd: None, client });
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Present { crowd: Some(self.clone()), client })
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let Some(crowd) = &self.crowd else { return };
        let mut counts = crowd.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

fn prefix(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(crowd: &Arc<Crowd>, client: &str) -> Option<Present> {
        crowd.enter(client.parse().unwrap())
    }

    #[test]
    fn each_client_has_its_own_places_and_gives_them_back() {
        let crowd = Crowd::new(2);
        let first = (enter(&crowd, "192.0.2.1"), enter(&crowd, "192.0.2.1"));
        assert!(first.0.is_some() && first.1.is_some());
        assert!(enter(&crowd, "192.0.2.1").is_none() && enter(&crowd, "::ffff:192.0.2.1").is_none());
        assert!(enter(&crowd, "192.0.2.2").is_some());
        drop(first);
        assert!(enter(&crowd, "192.0.2.1").is_some());
        assert!(crowd.counts.lock().unwrap().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let crowd = Crowd::new(1);
        let first = enter(&crowd, "2001:db8::1");
        assert!(first.is_some() && enter(&crowd, "2001:db8::2:3").is_none());
        assert!(enter(&crowd, "2001:db8:0:1::1").is_some());
    }

    #[test]
    fn this_machine_has_no_limit() {
        let crowd = Crowd::new(0);
        assert!(enter(&crowd, "127.0.0.1").is_some() && enter(&crowd, "::1").is_some());
        assert!(enter(&crowd, "192.0.2.1").is_none());
    }
}
