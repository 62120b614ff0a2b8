//! Waiting a moment for whoever is not there: a gap of seconds is a slow answer, and no error.

use crate::refusal::Refusal;
use bastide_proxy::Request;
use std::time::Duration;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

/// Longest wait of a request.
const LONGEST: Duration = Duration::from_secs(5);
/// Pause between two looks whether somebody is there.
const PAUSE: Duration = Duration::from_millis(50);
/// Requests that wait at the same time; others are refused at once, so that nobody fills the memory with them.
const WAITING_MAX: usize = 1000;

/// Why nobody answered a request.
pub(crate) struct Unanswered {
    pub(crate) refusal: Refusal,
    /// The request, if waiting may help and nobody got it, or it may be sent twice.
    pub(crate) again: Option<Request>,
}

impl Unanswered {
    /// Waiting would not help.
    pub(crate) fn for_good(refusal: Refusal) -> Self {
        Self { refusal, again: None }
    }
}

/// Who may wait.
pub(crate) struct Patience {
    places: Semaphore,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { places: Semaphore::new(WAITING_MAX) }
    }

    /// For a request that is to be answered by `deadline`.
    pub(crate) fn until(&self, deadline: Instant) -> Wait<'_> {
        Wait { patience: self, deadline, place: None }
    }
}

/// One request, and how long it waits.
pub(crate) struct Wait<'p> {
    patience: &'p Patience,
    deadline: Instant,
    /// Taken by the first pause; it sets the end.
    place: Option<SemaphorePermit<'p>>,
}

impl Wait<'_> {
    /// Gives the request back after a pause, to be tried once more; or says why that is over.
    pub(crate) async fn pause(&mut self, unanswered: Unanswered) -> Result<Request, Refusal> {
        let Some(request) = unanswered.again else { return Err(unanswered.refusal) };
        if self.place.is_none() {
            let Ok(place) = self.patience.places.try_acquire() else { return Err(unanswered.refusal) };
            self.place = Some(place);
            self.deadline = self.deadline.min(Instant::now() + LONGEST);
        }
        if Instant::now() + PAUSE >= self.deadline {
            return Err(unanswered.refusal);
        }
        sleep(PAUSE).await;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_proxy::Body;
    use bastide_types::Code;

    fn away(request: Request) -> Unanswered {
        Unanswered { refusal: Refusal::new(Code::NoReplica), again: Some(request) }
    }

    /// How many times a request is tried that nobody answers.
    async fn tries(patience: &Patience, deadline: Instant) -> usize {
        let (mut wait, mut tries) = (patience.until(deadline), 1);
        let mut request = Request::new(Body::empty());
        while let Ok(again) = wait.pause(away(request)).await {
            (request, tries) = (again, tries + 1);
        }
        tries
    }

    #[tokio::test]
    async fn a_request_waits_within_bounds() {
        let patience = Patience::new();
        // Far beyond what it waits at the longest: that it ends is the point.
        let late = Instant::now() + Duration::from_hours(1);
        assert!(tries(&patience, late).await > 1);
        assert_eq!(tries(&patience, Instant::now() + PAUSE / 2).await, 1, "its own deadline");
        let places = patience.places.try_acquire_many(WAITING_MAX as u32).unwrap();
        assert_eq!(tries(&patience, late).await, 1, "too many wait");
        drop(places);
        assert_eq!(patience.places.available_permits(), WAITING_MAX, "each gave its place back");
    }

    #[tokio::test]
    async fn what_somebody_got_is_not_sent_again() {
        let patience = Patience::new();
        let mut wait = patience.until(Instant::now() + LONGEST);
        let refusal = Refusal::new(Code::ReplicaFailed);
        assert!(wait.pause(Unanswered::for_good(refusal)).await.is_err());
    }
}
