//! Waiting a moment for whoever is not there: a gap of seconds is a slow answer, and no error.

use std::time::Duration;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

/// Longest wait of a request.
const LONGEST: Duration = Duration::from_secs(5);
/// Requests that wait at the same time; others are refused at once, so that nobody fills the memory with them.
const WAITING_MAX: usize = 1000;

/// Who may wait.
pub(crate) struct Patience {
    places: Semaphore,
}

/// One that waits.
pub(crate) struct Wait<'p> {
    /// When it gives up.
    pub(crate) until: Instant,
    _place: SemaphorePermit<'p>,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { places: Semaphore::new(WAITING_MAX) }
    }

    /// A place to wait, at most until the request's `deadline`; `None` when too many wait.
    pub(crate) fn begin(&self, deadline: Instant) -> Option<Wait<'_>> {
        let place = self.places.try_acquire().ok()?;
        Some(Wait { until: deadline.min(Instant::now() + LONGEST), _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_wait_as_there_are_places_and_none_beyond_its_deadline() {
        let (patience, soon) = (Patience::new(), Instant::now() + Duration::from_millis(10));
        let waiting: Vec<_> = (0..WAITING_MAX).map_while(|_| patience.begin(soon)).collect();
        assert!(waiting.len() == WAITING_MAX && waiting.iter().all(|wait| wait.until == soon));
        assert!(patience.begin(soon).is_none());
        drop(waiting);
        let long = patience.begin(soon + Duration::from_mins(1));
        assert!(long.is_some_and(|wait| wait.until < soon + LONGEST));
    }
}
