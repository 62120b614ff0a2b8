//! What became of the requests of one app, counted.

use crate::{status::Forward, status::Status, why::Because};
use std::{
    ops::Add,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// Counters of one app. They begin at zero when the app is first known, and stay as long as it is.
#[derive(Debug, Default)]
pub struct Tally {
    hits: AtomicU64,
    misses: AtomicU64,
    validated: AtomicU64,
    collapsed: AtomicU64,
    stale: AtomicU64,
    passed: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) bytes: AtomicUsize,
}

/// What a [`Tally`] said at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were answered from the store without asking anybody.
    pub hits: u64,
    /// Requests that went to the origin for an answer, and those that asked it whether the stored one holds.
    pub misses: u64,
    /// Those of `misses` for which the origin said that the stored answer holds.
    pub validated: u64,
    /// Requests that waited for another one and shared its answer. They are neither hits nor misses.
    pub collapsed: u64,
    /// Answers of all kinds that were stale: while they were fetched anew, or because the origin failed.
    pub stale: u64,
    /// Requests that the cache has no part in: another method, a body, a route that is not public.
    pub passed: u64,
    /// Responses that were stored.
    pub stored: u64,
    /// Addresses that had to leave for others.
    pub evicted: u64,
    /// Bytes that are stored now.
    pub bytes: u64,
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            validated: self.validated + other.validated,
            collapsed: self.collapsed + other.collapsed,
            stale: self.stale + other.stale,
            passed: self.passed + other.passed,
            stored: self.stored + other.stored,
            evicted: self.evicted + other.evicted,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Tally {
    /// Counts what became of a request.
    pub fn count(&self, status: Status) {
        let one = |counter: &AtomicU64| {
            counter.fetch_add(1, Relaxed);
        };
        if status.ttl_s.is_some_and(|ttl| ttl < 0) {
            one(&self.stale);
        }
        match status.forward {
            None => one(&self.hits),
            Some(Forward::Bypass | Forward::Method) => one(&self.passed),
            Some(Forward::Request) if status.because == Some(Because::Unusual) => one(&self.passed),
            Some(_) if status.collapsed => one(&self.collapsed),
            Some(_) => {
                one(&self.misses);
                if status.forward_status == Some(304) {
                    one(&self.validated);
                }
            }
        }
    }

    /// All counters now.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Counts {
            hits: read(&self.hits),
            misses: read(&self.misses),
            validated: read(&self.validated),
            collapsed: read(&self.collapsed),
            stale: read(&self.stale),
            passed: read(&self.passed),
            stored: read(&self.stored),
            evicted: read(&self.evicted),
            bytes: self.bytes.load(Relaxed) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_counted_once_and_stale_answers_beside_that() {
        let tally = Tally::default();
        let forward = Status::forward;
        for status in [
            Status::hit(5),
            Status::hit(-5),
            Status { stored: true, ..forward(Forward::UriMiss) },
            Status { forward_status: Some(304), ..forward(Forward::Stale) },
            Status { ttl_s: Some(-9), ..forward(Forward::Stale) },
            Status { collapsed: true, forward_status: Some(304), ..forward(Forward::UriMiss) },
            forward(Forward::Method),
            forward(Forward::Bypass),
            Status { because: Some(Because::Unusual), ..forward(Forward::Request) },
            Status { because: Some(Because::ClientReloads), ..forward(Forward::Request) },
        ] {
            tally.count(status);
        }
        let expected = Counts {
            hits: 2,
            misses: 4,
            validated: 1,
            collapsed: 1,
            stale: 2,
            passed: 3,
            ..Counts::default()
        };
        assert_eq!(tally.counts(), expected);
    }
}
