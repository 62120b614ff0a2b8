//! Apps: list, show, publish, promote, and the operations that these begin.

use super::scale::ScaleView;
use crate::{ApiError, App, build, caller::Caller, deploy, domains};
use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::JsonRejection},
};
use bastide_store::{AppRow, ReplicaRow, RevisionRow};
use bastide_types::{AppName, Code, Problem, StageName, manifest::Resources};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, btree_map::Entry};

pub(crate) const PUBLISHERS: &[&str] = &["developer", "administrator"];

/// An app.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AppView {
    id: String,
    name: String,
    stages: Vec<StageView>,
}

/// An app in a stage.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct StageView {
    stage: String,
    /// `serving`, `starting` or `absent`.
    status: String,
    /// Number of the revision that serves.
    revision: Option<u32>,
    /// Image of that revision.
    image: Option<String>,
    url: String,
    /// How many replicas there may be; missing where the app does not serve.
    scale: Option<ScaleView>,
    replicas: Vec<ReplicaView>,
}

/// A replica.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ReplicaView {
    id: String,
    zone: String,
    revision: u32,
    /// `starting`, `ready`, `draining` or `failed`.
    state: String,
    reason: Option<String>,
    /// How often it was started again.
    restarts: u32,
    /// How it ended last: exit code, signal, out of memory.
    last_end: Option<EndView>,
    /// What it uses, on average over 15 seconds; missing until that is known.
    usage: Option<UsageView>,
}

/// How a replica ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct EndView {
    /// Seconds since 1970.
    at: u64,
    why: String,
}

/// What a replica uses, and what it may use.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct UsageView {
    /// Thousandths of a processor.
    cpu_millis: u32,
    cpu_millis_max: u32,
    memory_bytes: u64,
    memory_bytes_max: u64,
}

/// A begun operation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Begun {
    operation: String,
    app: String,
    revision: u32,
    image: String,
    /// What everybody should know who runs apps here.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

impl Begun {
    pub(crate) fn new(app: &App, operation: uuid::Uuid, revision: &RevisionRow) -> Self {
        Self {
            operation: operation.to_string(),
            app: revision.manifest.app.name.to_string(),
            revision: revision.number,
            image: revision.image.to_string(),
            warning: app.config.isolation.warning(),
        }
    }
}

/// Where to promote to.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDeployment {
    /// The next stage.
    stage: String,
}

/// An operation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct OperationView {
    id: String,
    kind: String,
    app: String,
    stage: String,
    revision: u32,
    /// `running`, `finished` or `failed`.
    status: String,
    steps: Vec<StepView>,
    /// Why it failed: problem details (RFC 9457).
    #[schema(value_type = Option<Object>)]
    problem: Option<Problem>,
    url: Option<String>,
}

/// A step of an operation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct StepView {
    name: String,
    status: String,
    message: Option<String>,
}

/// Lists the apps of your organization.
#[utoipa::path(get, path = "/api/apps", responses((status = 200, body = Vec<AppView>)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<AppView>>, ApiError> {
    let mut views = Vec::new();
    for row in caller.store(&app).apps().await? {
        views.push(view(&app, &caller, row).await?);
    }
    Ok(Json(views))
}

/// Shows an app with its stages and replicas.
#[utoipa::path(get, path = "/api/apps/{app}", params(("app" = String, Path, description = "Name of the app")), responses((status = 200, body = AppView), (status = 404, description = "No such app")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<AppView>, ApiError> {
    let name = AppName::new(name).map_err(|_| ApiError::new(Code::ApiUnknown))?;
    let row = caller.store(&app).app_named(&name).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    Ok(Json(view(&app, &caller, row).await?))
}

async fn view(app: &App, caller: &Caller, row: AppRow) -> Result<AppView, ApiError> {
    let own = caller.store(app);
    let mut stages = Vec::new();
    for stage in own.stage_names().await? {
        let serving = own.serving(&stage).await?.get(&row.id).copied();
        let rows = own.replicas(&stage).await?;
        let rows: Vec<_> = rows.into_iter().filter(|replica| replica.app == row.id).collect();
        let mut revisions = BTreeMap::new();
        for number in rows.iter().map(|replica| replica.revision).chain(serving) {
            if let (Entry::Vacant(place), Some(revision)) =
                (revisions.entry(number), own.revision(row.id, number).await?)
            {
                place.insert(revision);
            }
        }
        let image = serving.and_then(|number| revisions.get(&number)).map(|found| found.image.to_string());
        let scale = match serving.and_then(|number| revisions.get(&number)) {
            Some(revision) => Some(ScaleView::of(&own, &stage, revision).await?),
            None => None,
        };
        let limits = |number| revisions.get(&number).map(|found| found.manifest.resources);
        let replicas: Vec<_> = rows.into_iter().map(|row| replica(limits(row.revision), row)).collect();
        let status = match (serving, replicas.is_empty()) {
            (Some(_), _) => "serving",
            (None, false) => "starting",
            (None, true) => "absent",
        };
        let customer = (caller.customer.id, &caller.customer.name);
        let url = domains::address(app, customer, &stage, &row.name).await?;
        stages.push(StageView {
            stage: stage.to_string(),
            status: status.into(),
            revision: serving,
            image,
            url,
            scale,
            replicas,
        });
    }
    Ok(AppView { id: row.id.to_string(), name: row.name.to_string(), stages })
}

fn replica(limits: Option<Resources>, row: ReplicaRow) -> ReplicaView {
    let limits = limits.unwrap_or_default();
    ReplicaView {
        id: row.id.to_string(),
        zone: row.zone.to_string(),
        revision: row.revision,
        state: row.state,
        reason: row.reason,
        restarts: row.restarts,
        last_end: row.last_end.map(|end| EndView { at: end.at_s, why: end.why }),
        usage: row.usage.map(|(usage, _)| UsageView {
            cpu_millis: usage.cpu_millis,
            cpu_millis_max: limits.cpu_millis,
            memory_bytes: usage.memory_bytes,
            memory_bytes_max: u64::from(limits.memory_mb) * 1024 * 1024,
        }),
    }
}

/// Publishes an app: the body is the gzipped tar of a directory with a `bastide.toml`.
#[utoipa::path(post, path = "/api/apps/{app}/publish", params(("app" = String, Path, description = "Name of the app")), request_body(content = Vec<u8>, content_type = "application/gzip"), responses((status = 202, body = Begun), (status = 422, description = "Archive or manifest not acceptable")))]
pub(crate) async fn publish(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<Begun>), ApiError> {
    caller.need(PUBLISHERS)?;
    let name =
        AppName::new(name).map_err(|error| ApiError::because(Code::InputInvalid, error.to_string()))?;
    let published = build::publish(&app, &caller, &name, body).await?;
    let begun = Begun {
        operation: published.operation.to_string(),
        app: name.to_string(),
        revision: published.revision,
        image: published.image.to_string(),
        warning: app.config.isolation.warning(),
    };
    Ok((StatusCode::ACCEPTED, Json(begun)))
}

/// Promotes the revision of the stage before to a stage: the same image.
#[utoipa::path(post, path = "/api/apps/{app}/deployments", params(("app" = String, Path, description = "Name of the app")), request_body = NewDeployment, responses((status = 202, body = Begun), (status = 409, description = "Busy, or out of order")))]
pub(crate) async fn promote(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<NewDeployment>, JsonRejection>,
) -> Result<(StatusCode, Json<Begun>), ApiError> {
    caller.need(PUBLISHERS)?;
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let name = AppName::new(name).map_err(|_| ApiError::new(Code::ApiUnknown))?;
    let stage = StageName::new(new.stage)
        .map_err(|error| ApiError::because(Code::InputInvalid, format!("stage: {error}")))?;
    let (operation, revision) = deploy::promote(&app, &caller, &name, &stage).await?;
    Ok((StatusCode::ACCEPTED, Json(Begun::new(&app, operation, &revision))))
}

/// Shows an operation.
#[utoipa::path(get, path = "/api/operations/{id}", params(("id" = String, Path, description = "Id of the operation")), responses((status = 200, body = OperationView), (status = 404, description = "No such operation")))]
pub(crate) async fn operation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OperationView>, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let id = id.parse().map_err(|_| unknown())?;
    let own = caller.store(&app);
    let (row, steps) = own.operation(id).await?.ok_or_else(unknown)?;
    let name = own.apps().await?.into_iter().find(|found| found.id == row.app).ok_or_else(unknown)?.name;
    let customer = (caller.customer.id, &caller.customer.name);
    let url = domains::address(&app, customer, &row.stage, &name).await?;
    let steps = steps.into_iter().map(|step| StepView {
        name: step.name,
        status: step.status,
        message: step.message,
    });
    Ok(Json(OperationView {
        id: row.id.to_string(),
        kind: row.kind,
        app: name.to_string(),
        stage: row.stage.to_string(),
        revision: row.revision,
        status: row.status,
        steps: steps.collect(),
        problem: row.problem,
        url: Some(url),
    }))
}
