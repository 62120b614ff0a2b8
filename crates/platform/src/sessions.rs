//! Tells gateways what happens to sessions: before the request that made it happen is answered, and with a heartbeat.
//!
//! SQL is the truth. What cannot be told now is told with the next heartbeat, or asked for by the gateways.

use crate::{ApiError, App};
use axum::{extract::State, middleware::Next, response::Response};
use bastide_store::{Store, StoreError};
use std::time::Duration;
use tokio::{sync::Mutex, time::timeout};
use tokio_util::sync::CancellationToken;

/// Time between heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// Longest time for which an answer waits.
const BEFORE_THE_ANSWER: Duration = Duration::from_millis(200);

/// Life and last number that this replica told.
pub(crate) struct Told(Mutex<(u64, u64)>);

impl Told {
    /// What happened before is asked for by whoever begins to listen.
    pub(crate) async fn so_far(store: &Store) -> Result<Self, StoreError> {
        Ok(Self(Mutex::new((store.version().await?.0, store.token_epoch().await?))))
    }
}

/// Tells what is new each second, or that nothing is, until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    loop {
        if let Err(error) = tell(&app, true).await {
            tracing::debug!(problem = %error.0, "gateways were not told of sessions");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BEAT) => {}
        }
    }
}

/// Answers only when gateways were told what the request made of sessions, or when that takes too long.
pub(crate) async fn tell_before_the_answer(
    State(app): State<App>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let before = app.store.feed_writes();
    let response = next.run(request).await;
    // Whatever this request wrote was counted between the two looks.
    if app.store.feed_writes() != before {
        match timeout(BEFORE_THE_ANSWER, tell(&app, false)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(problem = %error.0, "gateways are told of sessions later"),
            Err(_) => tracing::warn!("gateways are told of sessions later: the bus is slow"),
        }
    }
    response
}

/// Tells all that was not told; with `beat` also that there is nothing.
async fn tell(app: &App, beat: bool) -> Result<(), ApiError> {
    let mut told = app.told.0.lock().await;
    loop {
        let part = app.store.session_feed(told.0, told.1).await?;
        if part.entries.is_empty() && !beat {
            return Ok(());
        }
        app.bus.tell_sessions(&app.snapshots.sign(&part)?).await?;
        *told = (part.life, part.last);
        if !part.more {
            return Ok(());
        }
    }
}
