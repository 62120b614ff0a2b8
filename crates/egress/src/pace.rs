//! How often a replica may ask: so often that no sound app notices, and a flood costs others little. What comes too fast is
//! not even read: it waits in the kernel, and what does not fit there is dropped at the expense of whoever sends it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A bucket of `2 × per_s` that fills with `per_s`.
pub(crate) struct Pace {
    per_s: f64,
    /// What is in it (less than nothing: owed), and when that was.
    left: Mutex<(f64, Instant)>,
}

impl Pace {
    pub(crate) fn new(per_s: u32, now: Instant) -> Self {
        let per_s = f64::from(per_s.max(1));
        Self { per_s, left: Mutex::new((2.0 * per_s, now)) }
    }

    /// Takes one; how long to wait before it may be used.
    fn take(&self, now: Instant) -> Duration {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = now.saturating_duration_since(left.1).as_secs_f64() * self.per_s;
        *left = ((left.0 + grown).min(2.0 * self.per_s) - 1.0, now.max(left.1));
        Duration::from_secs_f64((-left.0).max(0.0) / self.per_s)
    }

    /// Waits until it is one's turn.
    pub(crate) async fn turn(&self) {
        let wait = self.take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_it_goes_at_the_pace() {
        let start = Instant::now();
        let pace = Pace::new(10, start);
        assert_eq!((0..100).filter(|_| pace.take(start).is_zero()).count(), 20);
        assert_eq!(pace.take(start).as_millis(), 8100, "eighty are owed");
        // What was owed has been waited for; after a long pause there is a burst again and no more.
        let later = start + Duration::from_mins(1);
        assert_eq!((0..100).filter(|_| pace.take(later).is_zero()).count(), 20);
        assert!(!pace.take(start).is_zero(), "time that goes back gives nothing");
    }
}
