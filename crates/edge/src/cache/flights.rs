//! Requests on their way to the origin that others may wait for: one per address and expected variant.

use super::fill::Fill;
use bastide_cache::{Cache, Key, Space, Stored, decide::Failure, store::Ticket, vary::Variant};
use bastide_types::Code;
use http::HeaderValue;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

const SHARDS: usize = 64;

/// What may share one request to the origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Course {
    pub(crate) key: Key,
    pub(crate) variant: Variant,
    pub(crate) range: Option<HeaderValue>,
    /// The client has a condition of its own, which may be all that is answered.
    pub(crate) is_conditional: bool,
}

/// What came of a request that others wait for.
#[derive(Clone)]
pub(crate) enum Landing {
    /// A response that comes in now; it is for all whose fields it matches.
    Fill(Arc<Fill>),
    /// The origin has just said that this one holds.
    Holds(Arc<Stored>),
    /// The origin failed.
    Failed(Failure, Code),
    /// It is for the one who asked: all others go alone.
    Alone,
}

struct Flight {
    landing: watch::Sender<Option<Landing>>,
    ticket: Ticket,
}

/// All that are on their way.
pub(crate) struct Flights {
    shards: Vec<Mutex<HashMap<Course, Arc<Flight>>>>,
}

/// Who goes.
pub(crate) enum Joined {
    /// This request does, for all that join.
    Leads(Lead),
    /// Another one does already.
    Waits(watch::Receiver<Option<Landing>>),
}

/// The one that goes. When it ends without a word, those who wait see that.
pub(crate) struct Lead {
    flights: Arc<Flights>,
    course: Course,
    flight: Arc<Flight>,
}

impl Flights {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() })
    }

    /// Joins the request that is on its way on this course, if what it brings still counts; else leads.
    pub(crate) fn join(self: &Arc<Self>, course: Course, cache: &Cache, space: &Space) -> Joined {
        let ticket = cache.begin(&course.key);
        let mut shard = self.shard(&course.key);
        if let Some(flight) = shard.get(&course)
            && cache.is_current(space, &course.key, flight.ticket)
        {
            return Joined::Waits(flight.landing.subscribe());
        }
        let flight = Arc::new(Flight { landing: watch::Sender::new(None), ticket });
        shard.insert(course.clone(), flight.clone());
        Joined::Leads(Lead { flights: self.clone(), course, flight })
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Course, Arc<Flight>>> {
        self.shards[key.hash() as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    /// Tells those who wait.
    pub(crate) fn land(&self, landing: Landing) {
        self.flight.landing.send_replace(Some(landing));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(&self.course.key);
        if shard.get(&self.course).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            shard.remove(&self.course);
        }
    }
}
