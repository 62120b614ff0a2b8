//! How many replicas an app has in a stage, and how many a customer may have.

use crate::{
    ApiError, App,
    caller::Caller,
    deploy::{
        announce,
        scaler::{quota, scale_of},
    },
};
use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use bastide_store::{CustomerStore, RevisionRow, ScalingRow, StoreError};
use bastide_types::{AppName, Code, CustomerName, StageName, manifest::Scale};
use serde::{Deserialize, Serialize};

/// Scale of an app in a stage.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ScaleView {
    /// Fewest replicas.
    min: u32,
    /// Most replicas.
    max: u32,
    /// Processor use to aim at, in percent of what a replica may use.
    cpu_percent: Option<u32>,
    /// Memory use to aim at, in percent of what a replica may use.
    memory_percent: Option<u32>,
    /// Whether it was set for this stage; else the manifest says it.
    set_here: bool,
    /// Why there are as many replicas as there are.
    why: Option<String>,
}

impl ScaleView {
    pub(super) fn new(scale: &Scale, set_here: bool, known: Option<&ScalingRow>) -> Self {
        let range = scale.range();
        Self {
            min: *range.start(),
            max: *range.end(),
            cpu_percent: scale.cpu_target(),
            memory_percent: scale.memory_percent,
            set_here,
            why: known.map(|known| known.why.clone()),
        }
    }
}

/// How an app shall scale in a stage.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewScale {
    /// The stage.
    stage: String,
    /// As `[scale]` of the manifest; what is not said stays as it is. Null goes back to the manifest.
    scale: Option<Scale>,
}

/// Sets how many replicas an app has in a stage, until it is set otherwise.
#[utoipa::path(put, path = "/apps/{app}/scale", params(("app" = String, Path, description = "Name of the app")), request_body = NewScale, responses((status = 200, body = ScaleView), (status = 404, description = "No such app or stage"), (status = 409, description = "More than the quota allows"), (status = 422, description = "No such scale")))]
pub(crate) async fn replace(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<NewScale>, JsonRejection>,
) -> Result<Json<ScaleView>, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let invalid = |why: String| ApiError::because(Code::InputInvalid, why);
    let name = AppName::new(name).map_err(|_| unknown())?;
    let stage = StageName::new(new.stage).map_err(|error| invalid(format!("stage: {error}")))?;
    caller.demand_in(&stage)?;
    let own = caller.store(&app);
    let found = own.app_named(&name).await?.ok_or_else(unknown)?;
    if !own.stage_names().await?.contains(&stage) {
        return Err(invalid(format!("there is no stage `{stage}`")));
    }
    let revision = match own.serving(&stage).await?.get(&found.id) {
        Some(number) => own.revision(found.id, *number).await?,
        // Set before it is deployed there: what it was published with last says the rest.
        None => {
            own.revisions().await?.into_iter().filter(|one| one.app == found.id).max_by_key(|one| one.number)
        }
    };
    let revision = revision.ok_or_else(unknown)?;
    let scale = match new.scale {
        None => None,
        Some(asked) => {
            let scale = merged(&scale_of(&own, &stage, &revision).await?, &asked);
            scale.check().map_err(|error| invalid(error.to_string()))?;
            within_quota(&app, &own, &stage, &revision, &scale).await?;
            Some(scale)
        }
    };
    let mut write = app.store.write().await?;
    let before = own.stage_scale(&stage, found.id).await?;
    own.set_stage_scale(&mut write, &stage, found.id, scale.as_ref()).await?;
    let view = ScaleView::new(&scale.unwrap_or(revision.manifest.scale), scale.is_some(), None);
    let how = if scale.is_some() { "" } else { ", as its manifest says" };
    let detail = format!("{name} in {stage}: {} to {} replicas{how}", view.min, view.max);
    let what = ("app.scale", detail.as_str());
    caller.note_change(&own, &mut write, what, before.as_ref(), scale.as_ref()).await?;
    write.commit().await.map_err(StoreError::from)?;
    announce(&app, caller.customer.id, &stage).await?;
    Ok(Json(view))
}

/// What was asked for, and for the rest what held before. A number and a range exclude each other.
fn merged(before: &Scale, asked: &Scale) -> Scale {
    if asked.replicas.is_some() {
        return *asked;
    }
    let range = before.range();
    let min = asked.min.unwrap_or_else(|| (*range.start()).min(asked.max.unwrap_or(u32::MAX)));
    Scale {
        replicas: None,
        min: Some(min),
        max: Some(asked.max.unwrap_or_else(|| (*range.end()).max(min))),
        cpu_percent: asked.cpu_percent.or(before.cpu_percent),
        memory_percent: asked.memory_percent.or(before.memory_percent),
    }
}

/// The fewest must be there for the asking; more come as far as the quota goes.
async fn within_quota(
    app: &App,
    own: &CustomerStore<'_>,
    stage: &StageName,
    revision: &RevisionRow,
    scale: &Scale,
) -> Result<(), ApiError> {
    let mut counts = own.replica_counts().await?;
    counts.remove(&(stage.clone(), revision.app));
    let (others, quota) = (counts.values().sum::<u32>(), quota(app, own).await?);
    let fewest = *scale.range().start();
    if others + fewest > quota {
        let detail = format!("it would need {fewest}, and {others} of {quota} are in use by other apps");
        return Err(ApiError::because(Code::QuotaExceeded, detail));
    }
    Ok(())
}

/// Quota of a customer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct QuotaView {
    /// Most replicas in all stages.
    replicas: u32,
    /// Replicas that there are.
    used: u32,
}

/// A new quota.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewQuota {
    /// Most replicas in all stages.
    replicas: u32,
}

/// Shows how many replicas a customer may have and has (for operators).
#[utoipa::path(get, path = "/customers/{customer}/quota", params(("customer" = String, Path, description = "Name of the customer")), responses((status = 200, body = QuotaView), (status = 404, description = "No such customer")))]
pub(crate) async fn quota_of(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<Json<QuotaView>, ApiError> {
    let id = customer(&app, name).await?;
    let own = app.store.customer(id);
    Ok(Json(QuotaView {
        replicas: quota(&app, &own).await?,
        used: own.replica_counts().await?.values().sum(),
    }))
}

/// Sets how many replicas a customer may have. Nothing that runs is ended by it (for operators).
#[utoipa::path(put, path = "/customers/{customer}/quota", params(("customer" = String, Path, description = "Name of the customer")), request_body = NewQuota, responses((status = 200, body = QuotaView), (status = 404, description = "No such customer")))]
pub(crate) async fn set_quota(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<NewQuota>, JsonRejection>,
) -> Result<Json<QuotaView>, ApiError> {
    let id = customer(&app, name).await?;
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let own = app.store.customer(id);
    let mut write = app.store.write().await?;
    let before = quota(&app, &own).await?;
    own.set_quota(&mut write, new.replicas).await?;
    let what = ("customer.quota", "replicas");
    caller.note_change(&own, &mut write, what, Some(&before), Some(&new.replicas)).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(Json(QuotaView { replicas: new.replicas, used: own.replica_counts().await?.values().sum() }))
}

async fn customer(app: &App, name: String) -> Result<bastide_types::CustomerId, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let name = CustomerName::new(name).map_err(|_| unknown())?;
    Ok(app.store.customer_named(&name).await?.ok_or_else(unknown)?.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_stays_as_it_is() {
        let scale = |text: &str| serde_json::from_str::<Scale>(text).unwrap();
        let check = |before: &str, asked: &str, range: std::ops::RangeInclusive<u32>, cpu: Option<u32>| {
            let merged = merged(&scale(before), &scale(asked));
            merged.check().unwrap();
            assert_eq!((merged.range(), merged.cpu_target()), (range, cpu), "{before} {asked}");
        };
        check("{}", r#"{"replicas":5}"#, 5..=5, None);
        check(r#"{"replicas":3}"#, r#"{"max":8}"#, 3..=8, Some(70));
        check(r#"{"replicas":3}"#, r#"{"max":2}"#, 2..=2, None);
        check(r#"{"min":2,"max":8,"cpu_percent":50}"#, r#"{"min":4}"#, 4..=8, Some(50));
        check(r#"{"min":2,"max":8,"cpu_percent":50}"#, r#"{"min":9}"#, 9..=9, Some(50));
        check(r#"{"min":2,"max":8,"cpu_percent":50}"#, r#"{"cpu_percent":60}"#, 2..=8, Some(60));
    }
}
