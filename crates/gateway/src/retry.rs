//! Sending again what may be sent again, but never so often that a failing app is buried under repeats.

use bastide_proxy::{Body, Request, upgrade};
use http::Method;
use http_body::Body as _;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Repeats that are always allowed each second.
const FLOOR_PER_S: f64 = 10.0;
/// Repeats allowed per request that was sent.
const SHARE: f64 = 0.2;
/// Most repeats saved up.
const SAVED_MAX: f64 = 100.0;

/// How many repeats are still allowed: a fifth of the requests, and ten a second in any case.
pub(crate) struct RetryBudget(Mutex<Saved>);

struct Saved {
    repeats: f64,
    since: Instant,
}

impl RetryBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(Saved { repeats: FLOOR_PER_S, since: now }))
    }

    /// A request is sent for the first time.
    pub(crate) fn earn(&self) {
        let mut saved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        saved.repeats = (saved.repeats + SHARE).min(SAVED_MAX);
    }

    /// Whether one may be sent again now.
    pub(crate) fn spend(&self, now: Instant) -> bool {
        let mut saved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(saved.since) >= Duration::from_secs(1) {
            saved.since = now;
            saved.repeats = saved.repeats.max(FLOOR_PER_S);
        }
        let allowed = saved.repeats >= 1.0;
        if allowed {
            saved.repeats -= 1.0;
        }
        allowed
    }
}

/// A copy of a request that may be sent twice: idempotent (RFC 9110 §9.2.2) and without a body.
pub(crate) fn repeatable(request: &Request) -> Option<Request> {
    let idempotent =
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    let upgrade = request.extensions().get::<upgrade::Wanted>().is_some();
    if !idempotent || upgrade || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_and_ten_a_second_may_be_repeated() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        let spent = |now| (0..1000).filter(|_| budget.spend(now)).count();
        assert_eq!(spent(now), 10);
        for _ in 0..20 {
            budget.earn();
        }
        assert!((3..=4).contains(&spent(now)));
        assert_eq!(spent(now + Duration::from_secs(1)), 10);
        for _ in 0..10_000 {
            budget.earn();
        }
        assert_eq!(spent(now + Duration::from_secs(1)), 100);
    }

    #[test]
    fn only_what_has_no_body_and_no_second_effect_is_copied() {
        let request = |method: Method, body| http::Request::builder().method(method).body(body).unwrap();
        assert!(repeatable(&request(Method::GET, Body::empty())).is_some());
        assert!(repeatable(&request(Method::POST, Body::empty())).is_none());
        assert!(repeatable(&request(Method::GET, Body::full("x"))).is_none());
    }
}
