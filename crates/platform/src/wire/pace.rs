//! How many requests a customer may make in a minute: by service, and fewer of those that cost most.
//!
//! Each replica counts what it lets through, and tells the others once a second over SQL. So a customer gets what it should
//! have of all replicas together, give or take what comes within that second; a replica that cannot read or write counts on
//! alone. Pages of the Portal are not counted, what they are made of neither.

use crate::{ApiError, App, api::Service};
use bastide_store::{PaceRow, now_s};
use bastide_types::{Code, CustomerId};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

const EXCHANGE: Duration = Duration::from_secs(1);
const MINUTE_S: i64 = 60;

/// How many requests there may be in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Of a customer at one service. Default 100.
    pub requests_per_service: NonZeroU32,
    /// Of a customer that build, deploy or exchange something. Default 10.
    pub deployments: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).expect("not zero");
        Self { requests_per_service: number(100), deployments: number(10) }
    }
}

/// Requests that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// All of a service.
    Service(Service),
    /// Those of a service that cost most.
    Heavy(Service),
}

impl Class {
    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::Service(service) => service.name().to_owned(),
            Self::Heavy(service) => format!("{}-heavy", service.name()),
        }
    }

    /// Most requests in a minute.
    pub fn limit(self, limits: &Limits) -> u32 {
        match self {
            Self::Service(_) => limits.requests_per_service.get(),
            Self::Heavy(_) => limits.deployments.get(),
        }
    }
}

/// What an operation counts as: always for its service, too.
pub fn classes(method: &str, path: &str) -> Vec<Class> {
    let service = Service::of(path);
    let ends = ["/publish", "/deployments", "/rollback", "/rotate", "/rotation"];
    let is_heavy = method == "POST" && ends.iter().any(|end| path.ends_with(end));
    let mut all = vec![Class::Service(service)];
    if is_heavy {
        all.push(Class::Heavy(service));
    }
    all
}

/// What was counted in this minute.
#[derive(Default)]
pub(crate) struct Pace(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    minute: i64,
    own: HashMap<(CustomerId, Class), u32>,
    others: HashMap<(CustomerId, Class), u32>,
    told: HashMap<(CustomerId, Class), u32>,
}

impl Counts {
    fn turn(&mut self, minute: i64) {
        if self.minute != minute {
            *self = Self { minute, ..Self::default() };
        }
    }
}

impl Pace {
    /// Counts a request, or refuses it. A refused one counts nowhere.
    pub(crate) fn take(
        &self,
        limits: &Limits,
        customer: CustomerId,
        method: &str,
        path: &str,
        now_s: i64,
    ) -> Result<(), ApiError> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.turn(now_s / MINUTE_S);
        let classes = classes(method, path);
        for class in &classes {
            let used = |map: &HashMap<_, u32>| map.get(&(customer, *class)).copied().unwrap_or(0);
            let limit = class.limit(limits);
            if used(&counts.own) + used(&counts.others) >= limit {
                let left = MINUTE_S - now_s.rem_euclid(MINUTE_S);
                let detail = format!("{limit} requests of a customer in a minute ({})", class.name());
                return Err(ApiError::because(Code::TooManyRequests, detail).retry_after(left.unsigned_abs()));
            }
        }
        for class in classes {
            *counts.own.entry((customer, class)).or_default() += 1;
        }
        Ok(())
    }

    /// What others do not know yet.
    fn news(&self, now_s: i64) -> Vec<PaceRow> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.turn(now_s / MINUTE_S);
        let Counts { minute, own, told, .. } = &mut *counts;
        let news: Vec<_> =
            own.iter().filter(|(key, count)| told.get(*key) != Some(count)).map(|(k, c)| (*k, *c)).collect();
        told.extend(news.iter().copied());
        let row = |((customer, class), requests): ((CustomerId, Class), u32)| PaceRow {
            customer,
            minute: *minute,
            class: class.name(),
            requests,
        };
        news.into_iter().map(row).collect()
    }

    /// What others counted.
    fn hear(&self, rows: Vec<PaceRow>, now_s: i64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.turn(now_s / MINUTE_S);
        let classes = Service::ALL.into_iter().flat_map(|one| [Class::Service(one), Class::Heavy(one)]);
        let named: HashMap<_, _> = classes.map(|class| (class.name(), class)).collect();
        counts.others.clear();
        for row in rows.into_iter().filter(|row| row.minute == now_s / MINUTE_S) {
            if let Some(class) = named.get(&row.class) {
                *counts.others.entry((row.customer, *class)).or_default() += row.requests;
            }
        }
    }
}

/// Tells and hears once a second, until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EXCHANGE) => {}
        }
        let now = now_s();
        let news = app.pace.news(now);
        let exchanged = app.store.exchange_pace(&app.config.name, &news, now / MINUTE_S).await;
        match exchanged {
            Ok(rows) => app.pace.hear(rows, now),
            Err(error) => tracing::debug!(%error, "replicas do not count together"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(service: u32, heavy: u32) -> Limits {
        let number = |number| NonZeroU32::new(number).unwrap();
        Limits { requests_per_service: number(service), deployments: number(heavy) }
    }

    #[test]
    fn each_customer_and_service_has_its_own_count_and_a_minute_ends() {
        let (pace, limits) = (Pace::default(), limits(3, 1));
        let (acme, beta) = (CustomerId::generate(), CustomerId::generate());
        let take = |customer, path, now| pace.take(&limits, customer, "GET", path, now).is_ok();
        for _ in 0..3 {
            assert!(take(acme, "/apps", 60));
        }
        assert!(!take(acme, "/apps/{app}", 61), "the same service");
        assert!(take(acme, "/members", 61), "another one");
        assert!(take(beta, "/apps", 61), "another customer");
        assert!(take(acme, "/apps", 120), "another minute");
    }

    #[test]
    fn what_costs_most_counts_twice_and_waits_until_the_minute_ends() {
        let (pace, limits, acme) = (Pace::default(), limits(100, 2), CustomerId::generate());
        let publish = |now| pace.take(&limits, acme, "POST", "/apps/{app}/publish", now);
        assert!(publish(60).is_ok() && publish(61).is_ok());
        let ApiError(problem, retry_after, _) = publish(75).unwrap_err();
        assert_eq!((problem.status, retry_after), (429, Some(45)));
        assert!(publish(120).is_ok());
    }

    #[test]
    fn replicas_count_together() {
        let (one, other, limits, acme) =
            (Pace::default(), Pace::default(), limits(10, 5), CustomerId::generate());
        let take = |pace: &Pace| pace.take(&limits, acme, "GET", "/apps", 60).is_ok();
        for _ in 0..6 {
            assert!(take(&one));
        }
        let told = one.news(60);
        assert_eq!(told.len(), 1);
        assert!(one.news(60).is_empty(), "told once");
        other.hear(told, 60);
        assert_eq!((0..10).filter(|_| take(&other)).count(), 4);
        other.hear(Vec::new(), 121);
        assert!(other.news(121).is_empty(), "of another minute");
    }
}
