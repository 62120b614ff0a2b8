//! Moves operations on: whatever is ready serves, whatever is replaced drains, whatever is late fails.
//!
//! It takes no input and is idempotent; it runs on a signal and on a timer, in one replica at a time
//! (a lease row), and picks up whatever a killed replica left.

use super::{announce, scaler};
use crate::{ApiError, App};
use bastide_store::{NewEntry, OperationRow, ReplicaRow, StageRow, StoreError, now_s, raise_revision};
use bastide_types::{Code, Problem};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_millis(500);
const LEASE_S: i64 = 3;
/// Seconds between the switch of routes and the drain of the old replicas: Snapshots travel meanwhile.
pub(super) const DRAIN_AFTER_S: i64 = 2;

/// Reconciles until `stop`.
pub(crate) async fn run(app: App, stop: CancellationToken) {
    let mut hinted = None;
    loop {
        if let Err(error) = pass(&app, &mut hinted).await {
            tracing::warn!(problem = %error.0, "reconciling failed; it is tried again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.wake.notified() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One look at everything; nothing while another replica holds the lease. `hinted` is the Snapshot that
/// edges and gateways were told of last.
pub async fn pass(app: &App, hinted: &mut Option<(u64, u64)>) -> Result<(), ApiError> {
    if !app.store.lease("reconciler", &app.config.name, LEASE_S).await? {
        return Ok(());
    }
    // What fails for one customer must not hold up the others.
    let operations = app.store.running_operations().await?;
    for operation in &operations {
        if let Err(error) = advance(app, operation).await {
            tracing::warn!(problem = %error.0, operation = %operation.id, "an operation is not moved on");
        }
    }
    for stage in app.store.readable_stages().await? {
        if let Err(error) = drain(app, &stage).await {
            tracing::warn!(problem = %error.0, customer = %stage.customer_name, stage = %stage.name, "nothing drains");
        }
        // An app that is being deployed is left alone: its replicas are counted when it serves.
        let busy = operations.iter().filter(|one| one.customer == stage.customer && one.stage == stage.name);
        let busy = busy.map(|one| one.app).collect();
        if let Err(error) = scaler::look(app, &stage, &busy).await {
            tracing::warn!(problem = %error.0, customer = %stage.customer_name, stage = %stage.name, "nothing scales");
        }
    }
    let (epoch, revision, _) = app.store.version().await?;
    if *hinted != Some((epoch, revision)) && app.bus.hint_snapshot(epoch, revision).await.is_ok() {
        *hinted = Some((epoch, revision));
    }
    Ok(())
}

/// One operation: its replicas are ready, not yet, or too late.
async fn advance(app: &App, operation: &OperationRow) -> Result<(), ApiError> {
    let own = app.store.customer(operation.customer);
    let all = own.replicas(&operation.stage).await?;
    if operation.kind == "undeploy" {
        return take_out(app, operation, &all).await;
    }
    let new = operation.made(&all);
    let ready = new.iter().filter(|replica| replica.state == "ready").count();
    let message = format!("{ready} of {} replicas ready", new.len());
    if ready == new.len() && !new.is_empty() {
        let keep: Vec<_> = new.iter().map(|replica| replica.id).collect();
        let mut write = app.store.write().await?;
        if !own.end_operation(&mut write, operation.id, None).await? {
            return Ok(());
        }
        own.set_step(&mut write, operation.id, "start", "finished", &message).await?;
        own.serve(
            &mut write,
            &operation.stage,
            operation.app,
            operation.revision,
            &keep,
            now_s() + DRAIN_AFTER_S,
        )
        .await?;
        let step = format!("revision {} serves in {}", operation.revision, operation.stage);
        own.set_step(&mut write, operation.id, "switch", "finished", &step).await?;
        write.commit().await.map_err(StoreError::from)?;
        announce(app, operation.customer, &operation.stage).await?;
    } else if now_s() > operation.deadline {
        fail(app, operation, &new, &message).await?;
    }
    Ok(())
}

/// An app that leaves a stage has left when its last replica ended.
async fn take_out(app: &App, operation: &OperationRow, all: &[ReplicaRow]) -> Result<(), ApiError> {
    let left = all.iter().filter(|replica| replica.app == operation.app).count();
    let late = now_s() > operation.deadline;
    if left > 0 && !late {
        return Ok(());
    }
    let own = app.store.customer(operation.customer);
    let problem = (left > 0).then(|| Code::DeployFailed.because(format!("{left} replicas do not end")));
    let mut write = app.store.write().await?;
    if own.end_operation(&mut write, operation.id, problem.as_ref()).await? {
        let (status, message) = match &problem {
            None => ("finished", "all replicas have ended".to_owned()),
            Some(problem) => ("failed", problem.detail.clone().unwrap_or_default()),
        };
        own.set_step(&mut write, operation.id, "drain", status, &message).await?;
        write.commit().await.map_err(StoreError::from)?;
    }
    Ok(())
}

async fn fail(
    app: &App,
    operation: &OperationRow,
    new: &[&ReplicaRow],
    message: &str,
) -> Result<(), ApiError> {
    let own = app.store.customer(operation.customer);
    // What ended a replica says more than that the next life of it does not answer yet.
    let ended = new.iter().find_map(|replica| replica.last_end.as_ref().map(|end| end.why.clone()));
    let reason = ended.or_else(|| new.iter().find_map(|replica| replica.reason.clone()));
    let logins = own.postgres(&operation.stage).await?;
    let waits = logins.into_iter().filter(|login| login.app == operation.app).find_map(|login| login.problem);
    let reason = reason.or(waits);
    let detail = reason.map(|reason| format!("{message}; {reason}")).unwrap_or_else(|| message.to_owned());
    let problem: Problem = Code::DeployFailed.because(detail);
    let mut write = app.store.write().await?;
    if !own.end_operation(&mut write, operation.id, Some(&problem)).await? {
        return Ok(());
    }
    own.set_step(&mut write, operation.id, "start", "failed", message).await?;
    for replica in new {
        own.drain(&mut write, &operation.stage, replica.id, now_s()).await?;
    }
    // A replica of the revision that serves is in the Snapshot.
    raise_revision(&mut write).await?;
    let id = operation.id.to_string();
    let refused = Some(problem.code.as_ref());
    let entry =
        NewEntry { who: "system", what: "operation.failed", detail: &id, refused, ..NewEntry::default() };
    own.audit_entry(&mut write, &entry).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Replicas whose time has come drain; those that are gone are forgotten.
async fn drain(app: &App, stage: &StageRow) -> Result<(), ApiError> {
    let own = app.store.customer(stage.customer);
    let now = now_s();
    let replicas = own.replicas(&stage.name).await?;
    let due: Vec<_> = replicas.iter().filter(|r| r.drain_at.is_some_and(|at| at > 0 && at <= now)).collect();
    let gone: Vec<_> =
        replicas.iter().filter(|r| r.drain_at == Some(0) && (r.state == "gone" || !r.seen)).collect();
    if due.is_empty() && gone.is_empty() {
        return Ok(());
    }
    let mut write = app.store.write().await?;
    for replica in &due {
        own.drain(&mut write, &stage.name, replica.id, 0).await?;
    }
    for replica in &gone {
        own.forget_replica(&mut write, &stage.name, replica.id).await?;
    }
    // Values of settings that went with the last replica that had them.
    own.give_up_settings(&mut write, &stage.name).await?;
    own.raise_generation(&mut write, &stage.name).await?;
    write.commit().await.map_err(StoreError::from)?;
    announce(app, stage.customer, &stage.name).await
}
