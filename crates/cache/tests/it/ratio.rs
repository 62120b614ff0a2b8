//! How often the store has what is asked for, against the plainest rule that people know.

use crate::trace::{hit_ratio_of_lru, hit_ratio_of_ours, skewed, with_fashions, with_scans};

const ADDRESSES: usize = 4000;
const REQUESTS: usize = 60_000;

fn check(name: &str, trace: &[u64], room: usize, margin: f64) {
    let (lru, ours) = (hit_ratio_of_lru(trace, room), hit_ratio_of_ours(trace, room));
    assert!(ours >= lru + margin, "{name}, room for {room}: {ours:.3} against {lru:.3}");
}

#[test]
fn skewed_requests_are_hits_more_often_than_with_lru() {
    let trace = skewed(REQUESTS, ADDRESSES, 0.9);
    for room in [ADDRESSES / 20, ADDRESSES / 10, ADDRESSES / 4] {
        check("skewed", &trace, room, 0.01);
    }
}

#[test]
fn scans_do_not_empty_it_as_they_empty_lru() {
    let trace = with_scans(REQUESTS, ADDRESSES, 0.9);
    for room in [ADDRESSES / 20, ADDRESSES / 10, ADDRESSES / 4] {
        check("scans", &trace, room, 0.02);
    }
}

#[test]
fn what_was_popular_once_leaves() {
    let trace = with_fashions(REQUESTS, ADDRESSES, 0.9);
    for room in [ADDRESSES / 20, ADDRESSES / 10] {
        check("fashions", &trace, room, 0.0);
    }
}
