//! The life of revisions: listed, compared, rolled back, taken out; and the operations that these begin.

use super::apps::{Begun, begun_or_impact};
use crate::{
    ApiError, App,
    caller::Caller,
    deploy::{
        diff::{Difference, between},
        impact::Impact,
        lifecycle,
    },
    error::document,
    permissions::Permission,
    wire::Query,
};
use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    response::Response,
};
use bastide_store::{CustomerStore, RevisionRow};
use bastide_types::{AppId, AppName, Code, StageName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Entries of a list when nothing is said.
const LIST: u32 = 50;
/// Most entries of a list.
const LIST_MAX: u32 = 500;

/// A revision.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RevisionView {
    /// Number, counting up per app.
    number: u32,
    /// Digest over image, configuration, routes, access rules and policy.
    digest: String,
    /// Its image.
    image: String,
    /// What its publisher says about it.
    message: String,
    /// Who published it.
    by: String,
    /// Seconds since 1970.
    at: i64,
    /// What it is called in the last stage, once it came there.
    version: Option<String>,
    /// Stages in which it serves.
    stages: Vec<String>,
    /// Whether it is what was published.
    whole: bool,
}

/// The newest revisions of an app.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Revisions {
    /// The newest first.
    revisions: Vec<RevisionView>,
}

/// The newest operations.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Operations {
    /// The newest first.
    operations: Vec<OperationLine>,
}

/// An operation in a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct OperationLine {
    id: String,
    /// `publish`, `promote`, `rollback`, `undeploy`, `rotate` or `settings`.
    kind: String,
    app: String,
    stage: String,
    revision: u32,
    /// `running`, `finished` or `failed`.
    status: String,
    /// Seconds since 1970 at which it began.
    at: i64,
    /// Why it failed, as a code.
    code: Option<String>,
}

/// What to go back to.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRollback {
    /// The stage.
    stage: String,
    /// A revision that served there. Default: the one before.
    #[serde(default)]
    to: Option<u32>,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Where to take an app out.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUndeployment {
    /// The stage.
    stage: String,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What to compare.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sides {
    /// Number of a revision, or a stage: what serves there.
    from: String,
    /// The same.
    to: String,
}

/// Which operations.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// Only those of this app.
    app: Option<String>,
    /// Most operations, 1 to 500. Default: 50.
    limit: Option<u32>,
}

/// How many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Most {
    /// Most revisions, 1 to 500. Default: 50.
    limit: Option<u32>,
}

/// Differences between two revisions.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Comparison {
    /// Number of the one.
    from: u32,
    /// Number of the other.
    to: u32,
    /// What is different; nothing when both are the same.
    differences: Vec<Difference>,
}

/// Rolls an app back in a stage: image, configuration, routes, access rules and policy of a revision that served there.
#[utoipa::path(post, path = "/apps/{app}/rollbacks", params(("app" = String, Path, description = "Name of the app")), request_body = NewRollback, responses((status = 202, body = Begun), (status = 200, body = Impact, description = "What would happen, when only that was asked"), (status = 404, description = "No such app"), (status = 409, description = "Nothing to go back to, or blocked"), (status = 422, description = "No such stage")))]
pub(crate) async fn roll_back(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<NewRollback>, JsonRejection>,
) -> Result<Response, ApiError> {
    let new = document(body)?;
    let (name, stage) = (app_name(name)?, stage_name(new.stage)?);
    caller.demand_in(&stage)?;
    caller.demand_sign_in(&app, Permission::AppsDeploy, Some(&stage)).await?;
    let planned = lifecycle::roll_back(&app, &caller.store(&app), &name, &stage, new.to).await?;
    let operation = if new.dry_run { None } else { Some(lifecycle::start(&app, &caller, &planned).await?) };
    Ok(begun_or_impact(&app, operation, &planned.revision, planned.impact))
}

/// Takes an app out of a stage. Its revisions and its data stay.
#[utoipa::path(post, path = "/apps/{app}/undeployments", params(("app" = String, Path, description = "Name of the app")), request_body = NewUndeployment, responses((status = 202, body = Begun), (status = 200, body = Impact, description = "What would happen, when only that was asked"), (status = 404, description = "No such app"), (status = 409, description = "It does not serve there, or is busy"), (status = 422, description = "No such stage")))]
pub(crate) async fn undeploy(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<NewUndeployment>, JsonRejection>,
) -> Result<Response, ApiError> {
    let new = document(body)?;
    let (name, stage) = (app_name(name)?, stage_name(new.stage)?);
    caller.demand_in(&stage)?;
    caller.demand_sign_in(&app, Permission::AppsDeploy, Some(&stage)).await?;
    let planned = lifecycle::plan_undeploy(&caller.store(&app), &name, &stage).await?;
    let operation =
        if new.dry_run { None } else { Some(lifecycle::undeploy(&app, &caller, &planned).await?) };
    Ok(begun_or_impact(&app, operation, &planned.revision, planned.impact))
}

/// Lists the revisions of an app, the newest first.
#[utoipa::path(get, path = "/apps/{app}/revisions", params(("app" = String, Path, description = "Name of the app"), Most), responses((status = 200, body = Revisions), (status = 404, description = "No such app")))]
pub(crate) async fn revisions(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(most): Query<Most>,
) -> Result<Json<Revisions>, ApiError> {
    let limit = within(most.limit)?;
    let own = caller.store(&app);
    let id = find(&own, &app_name(name)?).await?;
    let mut serving: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (stage, number) in own.serving_of(id).await?.into_iter().filter(|(stage, _)| caller.sees(stage)) {
        serving.entry(number).or_default().push(stage.to_string());
    }
    let view = |row: RevisionRow| RevisionView {
        number: row.number,
        digest: row.digest.to_string(),
        image: row.image.to_string(),
        message: row.message,
        by: row.by,
        at: row.at,
        version: row.version,
        stages: serving.remove(&row.number).unwrap_or_default(),
        whole: row.vouched,
    };
    let revisions = own.revisions_of(id, limit).await?.into_iter().map(view).collect();
    Ok(Json(Revisions { revisions }))
}

/// Compares two revisions of an app, or what serves in two stages.
#[utoipa::path(get, path = "/apps/{app}/diff", params(("app" = String, Path, description = "Name of the app"), Sides), responses((status = 200, body = Comparison), (status = 404, description = "No such app or revision"), (status = 409, description = "It does not serve in that stage"), (status = 422, description = "Neither a number nor a stage")))]
pub(crate) async fn diff(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(sides): Query<Sides>,
) -> Result<Json<Comparison>, ApiError> {
    let own = caller.store(&app);
    for text in [&sides.from, &sides.to].into_iter().filter(|text| text.parse::<u32>().is_err()) {
        caller.demand_in(&stage_name(text.clone())?)?;
    }
    let id = find(&own, &app_name(name)?).await?;
    let (from, to) = (side(&own, id, &sides.from).await?, side(&own, id, &sides.to).await?);
    Ok(Json(Comparison { from: from.number, to: to.number, differences: between(&from, &to) }))
}

/// Lists operations, the newest first.
#[utoipa::path(get, path = "/operations", params(Which), responses((status = 200, body = Operations), (status = 404, description = "No such app")))]
pub(crate) async fn operations(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Operations>, ApiError> {
    let limit = within(which.limit)?;
    let own = caller.store(&app);
    let names: BTreeMap<AppId, AppName> =
        own.apps().await?.into_iter().map(|row| (row.id, row.name)).collect();
    let id = match which.app {
        Some(name) => Some(find(&own, &app_name(name)?).await?),
        None => None,
    };
    let rows = own.operations(id, limit).await?.into_iter().filter(|row| caller.sees(&row.stage));
    let lines = rows.map(|row| OperationLine {
        id: row.id.to_string(),
        kind: row.kind,
        app: names.get(&row.app).map(ToString::to_string).unwrap_or_default(),
        stage: row.stage.to_string(),
        revision: row.revision,
        status: row.status,
        at: row.at,
        code: row.problem.map(|problem| problem.code.into_owned()),
    });
    Ok(Json(Operations { operations: lines.collect() }))
}

async fn side(own: &CustomerStore<'_>, app: AppId, text: &str) -> Result<RevisionRow, ApiError> {
    let number = match text.parse() {
        Ok(number) => number,
        Err(_) => {
            let stage = stage_name(text.to_owned())?;
            let serving = own.serving_of(app).await?.remove(&stage);
            serving.ok_or_else(|| {
                ApiError::because(Code::NothingBefore, format!("it does not serve in `{stage}`"))
            })?
        }
    };
    own.revision(app, number).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))
}

async fn find(own: &CustomerStore<'_>, name: &AppName) -> Result<AppId, ApiError> {
    Ok(own.app_named(name).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))?.id)
}

fn app_name(text: String) -> Result<AppName, ApiError> {
    AppName::new(text).map_err(|_| ApiError::new(Code::ApiUnknown))
}

fn stage_name(text: String) -> Result<StageName, ApiError> {
    StageName::new(text).map_err(|error| ApiError::because(Code::InputInvalid, format!("stage: {error}")))
}

fn within(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit.unwrap_or(LIST) {
        limit @ 1..=LIST_MAX => Ok(limit),
        other => Err(ApiError::because(
            Code::InputInvalid,
            format!("limit: {other} is not within 1 to {LIST_MAX}"),
        )),
    }
}
