//! As many replicas as an app needs, within what it and its customer may have. The rule itself is
//! [`bastide_balancer::scale`]; here it gets what is known, and what it decides is done.

use super::{announce, reconciler::DRAIN_AFTER_S};
use crate::{ApiError, App};
use bastide_balancer::scale::{Candidate, EVERY_S, Observed, decide, place, shed};
use bastide_store::{
    CustomerStore, ReplicaRow, RevisionRow, ScalingRow, StageRow, StoreError, now_s, raise_revision,
};
use bastide_types::{AppId, Code, StageName, manifest::Scale};
use std::collections::BTreeSet;

/// A measurement that is older says nothing any more, in seconds.
const FRESH_S: i64 = 60;
/// An app of a fixed number that has it is looked at so rarely, in seconds.
const FIXED_EVERY_S: i64 = 3600;

/// Scale of an app in a stage: what was set there, else what its manifest says.
pub(crate) async fn scale_of(
    own: &CustomerStore<'_>,
    stage: &StageName,
    revision: &RevisionRow,
) -> Result<Scale, ApiError> {
    Ok(own.stage_scale(stage, revision.app).await?.unwrap_or(revision.manifest.scale))
}

/// Replicas that a deployment begins with: as many as there are, so that a publish under load takes nothing
/// away, within the scale of the new revision.
///
/// # Errors
/// [`Code::QuotaExceeded`] when not even the fewest are left.
pub(crate) async fn at_begin(
    app: &App,
    own: &CustomerStore<'_>,
    stage: &StageName,
    revision: &RevisionRow,
) -> Result<u32, ApiError> {
    let range = scale_of(own, stage, revision).await?.range();
    let counts = own.replica_counts().await?;
    let there = counts.get(&(stage.clone(), revision.app)).copied().unwrap_or(0);
    let others = counts.values().sum::<u32>() - there;
    let quota = quota(app, own).await?;
    let wanted = there.clamp(*range.start(), *range.end());
    let possible = quota.saturating_sub(others);
    if possible < *range.start() {
        let detail = format!("it needs {}, {others} of {quota} are in use by other apps", range.start());
        return Err(ApiError::because(Code::QuotaExceeded, detail));
    }
    Ok(wanted.min(possible))
}

/// Most replicas of a customer.
pub(crate) async fn quota(app: &App, own: &CustomerStore<'_>) -> Result<u32, ApiError> {
    Ok(own.quota().await?.unwrap_or(app.config.replicas_per_customer))
}

/// Looks at the apps of a stage whose time has come.
pub(super) async fn look(app: &App, stage: &StageRow, busy: &BTreeSet<AppId>) -> Result<(), ApiError> {
    let own = app.store.customer(stage.customer);
    let (serving, now) = (own.serving(&stage.name).await?, now_s());
    let mut known = own.scaling(&stage.name).await?;
    let due = |id: &AppId| !busy.contains(id) && known.get(id).is_none_or(|one| one.look_at <= now);
    let due: Vec<(AppId, u32)> = serving.into_iter().filter(|(id, _)| due(id)).collect();
    if due.is_empty() {
        return Ok(());
    }
    let replicas = own.replicas(&stage.name).await?;
    let settings = own.settings_serving(&stage.name).await?;
    let mut left = quota(app, &own).await?.saturating_sub(own.replica_counts().await?.values().sum());
    let mut changed = false;
    let mut write = app.store.write().await?;
    for (id, number) in due {
        let Some(revision) = own.revision(id, number).await? else { continue };
        let there: Vec<&ReplicaRow> = replicas
            .iter()
            .filter(|one| one.app == id && one.revision == number && one.drain_at.is_none())
            .collect();
        let scale = scale_of(&own, &stage.name, &revision).await?;
        let mut row = known.remove(&id).unwrap_or_default();
        let used: Vec<_> = there.iter().map(|one| fresh(one, now)).collect();
        let resources = revision.manifest.resources;
        let decision = decide(&Observed { scale, resources, replicas: &used, left }, &mut row.advice, now);
        let count = u32::try_from(there.len()).unwrap_or(u32::MAX);
        if decision.replicas != count {
            changed = true;
            let detail = format!(
                "{} in {}: {count} to {} replicas ({})",
                revision.manifest.app.name, stage.name, decision.replicas, decision.why
            );
            tracing::info!(customer = %stage.customer_name, detail, "scaled");
            own.audit(&mut write, "system", "app.scaled", &detail).await?;
        }
        if decision.replicas > count {
            let zones: Vec<_> = there.iter().map(|one| one.zone.clone()).collect();
            let zones = place(&app.config.zones, &zones, decision.replicas - count);
            // Those that serve: newer ones may be what a deployment failed with.
            let version = settings.get(&id).copied().unwrap_or(0);
            own.add_replicas(&mut write, &stage.name, id, (number, version), &zones).await?;
            left = left.saturating_sub(decision.replicas - count);
        }
        if decision.replicas < count {
            let candidate = |one: &&ReplicaRow| Candidate {
                id: one.id,
                zone: one.zone.clone(),
                ready: one.state == "ready",
            };
            let there: Vec<_> = there.iter().map(candidate).collect();
            for gone in shed(&app.config.zones, &there, count - decision.replicas) {
                own.drain(&mut write, &stage.name, gone, now + DRAIN_AFTER_S).await?;
            }
        }
        let range = scale.range();
        let settled = range.start() == range.end() && decision.replicas == *range.start();
        let pause = if settled { FIXED_EVERY_S } else { EVERY_S };
        row = ScalingRow { look_at: now + pause, why: decision.why, ..row };
        own.keep_scaling(&mut write, &stage.name, id, &row).await?;
    }
    if changed {
        own.raise_generation(&mut write, &stage.name).await?;
        raise_revision(&mut write).await?;
    }
    write.commit().await.map_err(StoreError::from)?;
    if changed {
        announce(app, stage.customer, &stage.name).await?;
    }
    Ok(())
}

/// What a replica uses, if that is known and it gets requests.
fn fresh(replica: &ReplicaRow, now: i64) -> Option<bastide_types::message::Usage> {
    let (usage, at) = replica.usage?;
    (replica.state == "ready" && now - at <= FRESH_S).then_some(usage)
}
