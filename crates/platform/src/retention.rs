//! What is old is given up: entries of audit trails, operations that ended long ago, revisions that nobody can go back to, bans
//! that have ended, and images of no revision.

use crate::{ApiError, App, deploy::TURNS};
use bastide_store::{StoreError, now_s};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_hours(1);
const LEASE_S: i64 = 600;
const DAY_S: i64 = 24 * 3600;
/// Newest revisions of an app that are kept at any age.
const NEWEST_KEPT: u32 = 50;

/// Gives up what is old until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    loop {
        if let Err(error) = pass(&app, now_s()).await {
            tracing::warn!(problem = %error.0, "old entries are not given up; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One look at all customers, if no other replica does it, and at the images that lie here.
pub async fn pass(app: &App, now: i64) -> Result<(), ApiError> {
    if app.store.lease("retention", &app.config.name, LEASE_S).await? {
        rows(app, now).await?;
    }
    images(app, now).await
}

async fn rows(app: &App, now: i64) -> Result<(), ApiError> {
    let of = |days: std::num::NonZeroU16| now - i64::from(days.get()) * DAY_S;
    for customer in app.store.customers().await? {
        let own = app.store.customer(customer.id);
        let mut write = app.store.write().await?;
        let entries = own.give_up_audit(&mut write, of(app.config.audit_days)).await?;
        let operations = own.give_up_operations(&mut write, of(app.config.operation_days)).await?;
        let kept = (NEWEST_KEPT, TURNS);
        let revisions = own.give_up_revisions(&mut write, of(app.config.revision_days), kept).await?;
        let bans = own.give_up_bans(&mut write, now).await?;
        if bans > 0 {
            own.audit(&mut write, "system", "ban.ended", &format!("{bans} by their time")).await?;
        }
        write.commit().await.map_err(StoreError::from)?;
        if entries + operations + revisions + bans > 0 {
            tracing::info!(customer = %customer.name, entries, operations, revisions, bans, "given up by age");
        }
    }
    Ok(())
}

async fn images(app: &App, now: i64) -> Result<(), ApiError> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.try_into().unwrap_or_default());
    let (named, app) = (app.store.content_named().await?, app.clone());
    let swept = tokio::task::spawn_blocking(move || app.images.sweep(&named, now)).await;
    match swept {
        Ok(Ok(0)) => {}
        Ok(Ok(blobs)) => tracing::info!(blobs, "content of no revision is removed"),
        Ok(Err(error)) => tracing::warn!(%error, "images cannot be looked through"),
        Err(error) => tracing::warn!(%error, "images were not looked through"),
    }
    Ok(())
}
