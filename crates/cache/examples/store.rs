//! Measures the store: what a hit costs with few and with many objects, what an object takes, and how often it has
//! what is asked for, against LRU. Prints tables for bench/results.

#[allow(dead_code)] // what only the tests use
#[path = "../tests/it/trace.rs"]
mod trace;

use bastide_cache::{
    Ask, Cache, Key, Moment, Scope, Site, Space,
    decide::{Action, decide},
    reply::{Making, reply},
};
use http::{HeaderMap, Method};
use std::{hint::black_box, sync::Arc, time::Instant};
use trace::{Dice, Popularity, hit_ratio_of_lru, hit_ratio_of_ours, skewed, with_fashions, with_scans};

const FEW: u64 = 10_000;
const MANY: u64 = 1_000_000;
const BODY_BYTES: usize = 200;
const HITS: usize = 400_000;
const ROUNDS: usize = 7;

fn main() {
    hits();
    ratios();
}

struct Filled {
    cache: Cache,
    scope: Scope,
    count: u64,
    grown: usize,
    _space: Arc<Space>,
}

fn filled(count: u64) -> Filled {
    let before = resident_bytes();
    let (scope, stored) = (Scope::new(&["acme", "production", "shop", "r1"]), trace::response(BODY_BYTES));
    let (cache, space) = trace::cache_for(count as usize * 2, &stored);
    for address in 0..count {
        let key = trace::key(&scope, address);
        let ticket = cache.begin(&key);
        // Each has bytes of its own, as each comes from a connection of its own.
        let mut own = stored.clone();
        own.content = bastide_cache::stored::Content::Whole(vec![b'x'; BODY_BYTES].into());
        cache.store(&space, &key, own, ticket).expect("there is room");
    }
    let grown = resident_bytes().saturating_sub(before);
    Filled { cache, scope, count, grown, _space: space }
}

/// One hit, from the request's address to the answer.
fn hit(cache: &Cache, key: &Key, ask: &Ask<'_>) {
    let (now, boundary) = (Moment::default(), String::new);
    let slot = cache.look_up(key).expect("it is stored");
    let decision = decide(ask, &slot.variants, now);
    let Action::Hit(at) = decision.action else { panic!("it is fresh") };
    let made = reply(&slot.variants[at], None, ask, Making { now, validated: false, boundary: &boundary });
    black_box(made);
}

/// Nanoseconds of one hit, the median of some rounds.
fn cost(filled: &Filled, popularity: Option<&Popularity>) -> f64 {
    let (site, asked, mut dice) = (Site::alone(), HeaderMap::new(), Dice(3));
    let ask = Ask::new(&Method::GET, &asked, &site);
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let draw = |dice: &mut Dice| match popularity {
                Some(all) => all.draw(dice),
                None => dice.next() % filled.count,
            };
            let keys: Vec<Key> = (0..HITS).map(|_| trace::key(&filled.scope, draw(&mut dice))).collect();
            let begun = Instant::now();
            for key in &keys {
                hit(&filled.cache, key, &ask);
            }
            begun.elapsed().as_nanos() as f64 / HITS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn hits() {
    println!("## Cache: a hit with few and many objects (engine alone, {BODY_BYTES} bytes each)\n");
    println!("| requests | ns per hit, {FEW} objects | {MANY} objects | more, µs |\n|---|---|---|---|");
    let (few, many) = (filled(FEW), filled(MANY));
    for (name, skew) in [("skewed (Zipf 1.0)", Some(1.0)), ("evenly spread", None)] {
        let popular = |count: u64| skew.map(|skew| Popularity::new(count as usize, skew));
        let (one, other) = (cost(&few, popular(FEW).as_ref()), cost(&many, popular(MANY).as_ref()));
        println!("| {name} | {one:.0} | {other:.0} | {:.2} |", (other - one) / 1000.0);
    }
    let counted = many.cache.figures().bytes as f64 / MANY as f64;
    println!(
        "\nAn object takes {:.0} bytes beside its body; {counted:.0} bytes are counted for it with its body.\n",
        many.grown as f64 / MANY as f64 - BODY_BYTES as f64
    );
}

fn ratios() {
    const ADDRESSES: usize = 20_000;
    const REQUESTS: usize = 500_000;
    println!("## Cache: hit ratio against LRU ({REQUESTS} requests, {ADDRESSES} addresses, Zipf 0.9)\n");
    println!("| trace | room | LRU | ours |\n|---|---|---|---|");
    let traces = [
        ("skewed", skewed(REQUESTS, ADDRESSES, 0.9)),
        ("skewed, with scans", with_scans(REQUESTS, ADDRESSES, 0.9)),
        ("skewed, with fashions", with_fashions(REQUESTS, ADDRESSES, 0.9)),
    ];
    for (name, trace) in &traces {
        for room in [ADDRESSES / 50, ADDRESSES / 10, ADDRESSES / 4] {
            let (lru, ours) = (hit_ratio_of_lru(trace, room), hit_ratio_of_ours(trace, room));
            println!("| {name} | {:.0} % | {lru:.3} | {ours:.3} |", room as f64 * 100.0 / ADDRESSES as f64);
        }
    }
}

/// Memory of this process that is in use (`/proc/self/statm`).
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}
