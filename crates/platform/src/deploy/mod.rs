//! The Deploy Service: which revision should run where, moved there without a gap.

pub(crate) mod desired;
pub(crate) mod diff;
pub(crate) mod impact;
pub(crate) mod lifecycle;
pub mod reconciler;
pub(crate) mod scaler;
pub(crate) mod version;

pub(crate) use lifecycle::TURNS;

use crate::{ApiError, App, services, settings};
use bastide_balancer::scale::place;
use bastide_store::{CustomerStore, NewOperation, RevisionRow, StoreError, Write, now_s};
use bastide_types::{Code, CustomerId, StageName, manifest::StartupProbe};
use uuid::Uuid;

/// Begins to deploy a revision to a stage, in the transaction of the caller.
pub(crate) async fn begin(
    app: &App,
    write: &mut Write,
    own: &CustomerStore<'_>,
    kind: &str,
    stage: &StageName,
    revision: &RevisionRow,
    by: &str,
) -> Result<Uuid, ApiError> {
    if !revision.vouched {
        return Err(ApiError::new(Code::RevisionChanged));
    }
    settings::demand(&revision.manifest, &own.settings_in(write, stage, revision.app).await?)?;
    services::want(app, write, own, stage, revision.app, &revision.manifest).await?;
    // An app that says that it starts slowly is given that time.
    let asked = revision.manifest.probes.startup.limit_s;
    let slow = if asked > StartupProbe::default().limit_s { asked.saturating_add(10) } else { 0 };
    let deadline = now_s() + i64::from(app.config.deploy_timeout_s.max(slow));
    let new = NewOperation { kind, app: revision.app, stage, revision: revision.number, deadline };
    let replicas = scaler::at_begin(app, own, stage, revision).await?;
    let zones = place(&app.config.zones, &[], replicas);
    let operation = own.begin_operation(write, &new, &zones).await.map_err(|error| match error {
        StoreError::Taken => ApiError::new(Code::DeployBusy),
        other => other.into(),
    })?;
    if kind == "publish" {
        let image = format!("revision {} as image {}", revision.number, revision.image.short());
        own.set_step(write, operation, "build", "finished", &image).await?;
    }
    let detail = format!("{} revision {} to {stage}", revision.manifest.app.name, revision.number);
    own.audit(write, by, &format!("app.{kind}"), &detail).await?;
    Ok(operation)
}

/// Tells the agents of a stage that there is a newer desired state; a lost hint only costs time.
pub(crate) async fn announce(app: &App, customer: CustomerId, stage: &StageName) -> Result<(), ApiError> {
    for row in app.store.customer(customer).stages().await?.iter().filter(|row| row.name == *stage) {
        if let Err(error) = app.bus.notify_state(&row.account, row.generation).await {
            tracing::debug!(%error, "no hint to the agents");
        }
    }
    app.wake.notify_one();
    app.wake_services.notify_one();
    Ok(())
}
