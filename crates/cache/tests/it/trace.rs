//! Traces of requests, the same in every run: what a cache is measured with, and the measure to beat.

use bastide_cache::{Ask, Cache, Exchange, Key, Moment, Scope, Site, Space, Stored, admit::admit};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Numbers that look random (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1.
    pub fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Addresses of which the n-th is asked for in proportion to 1 / n^skew (Zipf).
pub struct Popularity(Vec<f64>);

impl Popularity {
    pub fn new(addresses: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=addresses).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Self(sums.collect())
    }

    pub fn draw(&self, dice: &mut Dice) -> u64 {
        let at = dice.part() * self.0.last().copied().unwrap_or_default();
        self.0.partition_point(|sum| *sum < at) as u64
    }
}

/// What people ask for: skewed, over a catalogue that is larger than the cache.
pub fn skewed(requests: usize, addresses: usize, skew: f64) -> Vec<u64> {
    let (popularity, mut dice) = (Popularity::new(addresses, skew), Dice(7));
    (0..requests).map(|_| popularity.draw(&mut dice)).collect()
}

/// The same, while now and then somebody fetches many addresses once: a crawler, or a backup.
pub fn with_scans(requests: usize, addresses: usize, skew: f64) -> Vec<u64> {
    let (popularity, mut dice) = (Popularity::new(addresses, skew), Dice(11));
    let (mut trace, mut scanned) = (Vec::with_capacity(requests), addresses as u64);
    while trace.len() < requests {
        trace.extend((0..addresses).map(|_| popularity.draw(&mut dice)));
        trace.extend(scanned..scanned + addresses as u64 / 2);
        scanned += addresses as u64 / 2;
    }
    trace.truncate(requests);
    trace
}

/// The same, while tastes change: every so often other addresses are the popular ones.
pub fn with_fashions(requests: usize, addresses: usize, skew: f64) -> Vec<u64> {
    let (popularity, mut dice) = (Popularity::new(addresses, skew), Dice(13));
    let season = (requests / 5).max(1);
    (0..requests)
        .map(|at| (popularity.draw(&mut dice) + (at / season * 997) as u64) % addresses as u64)
        .collect()
}

/// Which part of a trace is hits when the least recently used of `room` addresses leaves.
pub fn hit_ratio_of_lru(trace: &[u64], room: usize) -> f64 {
    let (mut used, mut order, mut hits) = (HashMap::new(), BTreeMap::new(), 0);
    for (now, address) in trace.iter().enumerate() {
        match used.insert(*address, now) {
            Some(before) => {
                order.remove(&before);
                hits += 1;
            }
            None if used.len() > room => {
                let (_, oldest) = order.pop_first().expect("it holds what is in use");
                used.remove(&oldest);
            }
            None => {}
        }
        order.insert(now, *address);
    }
    f64::from(hits) / trace.len() as f64
}

/// A response of so many bytes.
pub fn response(bytes: usize) -> Stored {
    let (site, asked, now) = (Site::alone(), HeaderMap::new(), Moment::default());
    let fields = [
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::CONTENT_TYPE, "application/javascript"),
        (header::ETAG, "\"5f-6789abcdef\""),
        (header::LAST_MODIFIED, "Tue, 24 Nov 2026 00:00:00 GMT"),
        (header::DATE, "Thu, 26 Nov 2026 00:00:00 GMT"),
        (header::VARY, "accept-encoding"),
    ];
    let fields = fields.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let exchange = Exchange { requested: now, received: now, if_range: false };
    let ask = Ask::new(&Method::GET, &asked, &site);
    let draft = admit(&site, &ask, StatusCode::OK, &fields.into_iter().collect(), exchange);
    let draft = draft.expect("it may be stored");
    draft.finish(Bytes::from(vec![b'x'; bytes]), None).expect("it is whole")
}

/// The key of an address.
pub fn key(scope: &Scope, address: u64) -> Key {
    Key::new(scope, "https", "acme.apps.localhost:8443", &format!("/shop/assets/{address:08}.js?v=1"))
}

/// A cache for `room` responses like this one.
pub fn cache_for(room: usize, stored: &Stored) -> (Cache, Arc<Space>) {
    use bastide_cache::Limits;
    let one = Cache::new(Limits::default());
    let (scope, space) = (Scope::new(&["acme"]), one.space("acme", &["shop"]));
    let first = key(&scope, 0);
    one.store(&space, &first, stored.clone(), one.begin(&first)).expect("there is room");
    let bytes = one.figures().bytes * room;
    let limits = Limits { bytes_max: bytes, customer_bytes_max: bytes, ..Limits::default() };
    let cache = Cache::new(limits);
    let space = cache.space("acme", &["shop"]);
    (cache, space)
}

/// Which part of a trace is hits in our store.
pub fn hit_ratio_of_ours(trace: &[u64], room: usize) -> f64 {
    let (scope, stored) = (Scope::new(&["acme"]), response(6 * 1024));
    let (cache, space) = cache_for(room, &stored);
    let mut hits = 0;
    for address in trace {
        let key = key(&scope, *address);
        if cache.look_up(&key).is_some() {
            hits += 1;
        } else {
            let ticket = cache.begin(&key);
            cache.store(&space, &key, stored.clone(), ticket).expect("there is room");
        }
    }
    f64::from(hits) / trace.len() as f64
}
