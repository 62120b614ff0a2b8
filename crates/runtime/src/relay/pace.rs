//! How often a replica may open connections: so often that no sound app notices, and a flood costs others little.
//! Plain: `now` is an argument.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A bucket that fills with `per_s` up to `burst`.
#[derive(Debug)]
pub(crate) struct Pace {
    per_s: f64,
    burst: f64,
    /// What is in it (less than nothing: owed), and when that was.
    left: Mutex<(f64, Instant)>,
}

impl Pace {
    pub(crate) fn new(per_s: u32, burst: u32, now: Instant) -> Self {
        let (per_s, burst) = (f64::from(per_s.max(1)), f64::from(burst.max(1)));
        Self { per_s, burst, left: Mutex::new((burst, now)) }
    }

    /// Takes one; how long to wait before it may be used.
    pub(crate) fn take(&self, now: Instant) -> Duration {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = now.saturating_duration_since(left.1).as_secs_f64() * self.per_s;
        *left = ((left.0 + grown).min(self.burst) - 1.0, now.max(left.1));
        Duration::from_secs_f64((-left.0).max(0.0) / self.per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_it_goes_at_the_pace() {
        let start = Instant::now();
        let pace = Pace::new(10, 3, start);
        let waits: Vec<_> = (0..5).map(|_| pace.take(start).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200]);
        // What was owed has been waited for; after a long pause there is a burst again and no more.
        let later = start + Duration::from_mins(1);
        let waits: Vec<_> = (0..4).map(|_| pace.take(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100]);
        assert!(pace.take(start) > Duration::ZERO, "time that goes back gives nothing");
    }
}
