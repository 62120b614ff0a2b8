//! Requests that were refused are in the audit trail, too; so many that nobody fills it with them.

use crate::{App, caller::Caller};
use axum::response::Response;
use bastide_store::{NewEntry, Result, StoreError, now_s};
use bastide_types::{Code, CustomerId, Problem};
use http::{Method, StatusCode};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Most entries of a customer in a window.
const MOST: u32 = 60;
const WINDOW_S: i64 = 60;

/// How many refusals of each customer were written lately.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<HashMap<CustomerId, Window>>);

#[derive(Default)]
struct Window {
    began: i64,
    written: u32,
    left_out: u64,
}

impl Refusals {
    /// Whether another one is written; if so, how many were left out since the last.
    fn next(&self, customer: CustomerId, now: i64) -> Option<u64> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(customer).or_default();
        // Also when the clock was set back.
        if now - window.began >= WINDOW_S || window.began > now {
            (window.began, window.written) = (now, 0);
        }
        if window.written >= MOST {
            window.left_out += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

/// The code of a refusal that is worth an entry: of a change, or of whatever was forbidden. Not that somebody was
/// too fast.
pub(super) fn worth_an_entry(method: &Method, response: &Response) -> Option<String> {
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    let is_worth_it = failed
        && status != StatusCode::TOO_MANY_REQUESTS
        && (!method.is_safe() || status == StatusCode::FORBIDDEN);
    let code = || {
        response
            .extensions()
            .get::<Problem>()
            .map_or(Code::Internal.as_str().into(), |one| one.code.to_string())
    };
    is_worth_it.then(code)
}

/// Writes a refused request down. What cannot be written changes no answer.
pub(super) async fn note(
    app: &App,
    caller: &Caller,
    (method, operation, path): (&Method, &str, &str),
    code: &str,
) {
    let Some(left_out) = app.refusals.next(caller.customer.id, now_s()) else { return };
    let mut detail = path.chars().take(200).collect::<String>();
    if left_out > 0 {
        detail.push_str(&format!("; {left_out} more refusals before this one are not in the trail"));
    }
    let what = format!("{method} {operation}");
    let entry = NewEntry {
        who: &caller.who.sub,
        what: &what,
        detail: &detail,
        refused: Some(code),
        ..NewEntry::default()
    };
    if let Err(error) = write(app, caller, &entry).await {
        tracing::error!(%error, what, "a refusal is not in the audit trail");
    }
}

async fn write(app: &App, caller: &Caller, entry: &NewEntry<'_>) -> Result<()> {
    let mut write = app.store.write().await?;
    caller.store(app).audit_entry(&mut write, entry).await?;
    write.commit().await.map_err(StoreError::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_one_customer_are_bounded_and_those_left_out_are_told() {
        let refusals = Refusals::default();
        let (acme, beta) = (CustomerId::generate(), CustomerId::generate());
        for _ in 0..MOST {
            assert_eq!(refusals.next(acme, 1000), Some(0));
        }
        for now in [1000, 1059] {
            assert_eq!(refusals.next(acme, now), None);
        }
        assert_eq!(refusals.next(beta, 1059), Some(0));
        assert_eq!(refusals.next(acme, 1060), Some(2));
        assert_eq!(refusals.next(acme, 1061), Some(0));
        assert_eq!(refusals.next(acme, 10), Some(0), "the clock was set back");
    }
}
