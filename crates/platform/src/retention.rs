//! What is old is given up: entries of audit trails, operations that ended long ago, and bans that have ended.

use crate::{ApiError, App};
use bastide_store::{StoreError, now_s};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_hours(1);
const LEASE_S: i64 = 600;
const DAY_S: i64 = 24 * 3600;

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

/// One look at all customers; nothing while another replica does it.
pub async fn pass(app: &App, now: i64) -> Result<(), ApiError> {
    if !app.store.lease("retention", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    let of = |days: std::num::NonZeroU16| now - i64::from(days.get()) * DAY_S;
    for customer in app.store.customers().await? {
        let own = app.store.customer(customer.id);
        let mut write = app.store.write().await?;
        let entries = own.give_up_audit(&mut write, of(app.config.audit_days)).await?;
        let operations = own.give_up_operations(&mut write, of(app.config.operation_days)).await?;
        let bans = own.give_up_bans(&mut write, now).await?;
        if bans > 0 {
            own.audit(&mut write, "system", "ban.ended", &format!("{bans} by their time")).await?;
        }
        write.commit().await.map_err(StoreError::from)?;
        if entries + operations + bans > 0 {
            tracing::info!(customer = %customer.name, entries, operations, bans, "given up by age");
        }
    }
    Ok(())
}
