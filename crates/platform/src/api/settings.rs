//! Settings and secrets of an app in a stage.

use crate::{
    ApiError, App,
    caller::Caller,
    error::document,
    settings::{Asked, Outcome, change, short},
};
use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use bastide_store::SettingRow;
use bastide_types::{AppName, Code, Secret, StageName};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is set for an app in a stage.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SettingsView {
    /// Counts changes of settings and secrets; 0 when there never was one.
    version: u32,
    /// The version that the replicas have which serve; another than the newest while it is brought to them, or when they
    /// did not start with it.
    serving_version: Option<u32>,
    /// In the order of their names.
    settings: Vec<SettingView>,
}

/// A setting, or what may be said of a secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SettingView {
    name: String,
    /// Whether it is a secret.
    secret: bool,
    /// What it is; null for secrets.
    value: Option<String>,
    /// The same for the same value of this name. Nobody finds the value by it.
    fingerprint: String,
    /// Who set it.
    by: String,
    /// Seconds since 1970 at which that was.
    at: i64,
    /// Version from which on it holds.
    since: u32,
}

/// What to change. What is not named stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSettings {
    /// Values by name.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    set: BTreeMap<String, Secret>,
    /// Names to remove.
    #[serde(default)]
    unset: BTreeSet<String>,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What was changed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SettingsChanged {
    /// The newest version.
    version: u32,
    /// What is other than before.
    set: Vec<String>,
    /// What was there and is no more.
    unset: Vec<String>,
    /// What brings it to the replicas; null where the app does not serve, and where nothing changes.
    operation: Option<String>,
    app: String,
    /// Revision that serves.
    revision: Option<u32>,
    warnings: Vec<String>,
}

/// Shows what is set for an app in a stage. Of secrets it shows who set them when, and never what they are.
#[utoipa::path(get, path = "/apps/{app}/stages/{stage}/settings", params(("app" = String, Path, description = "Name of the app"), ("stage" = String, Path, description = "Name of the stage")), responses((status = 200, body = SettingsView), (status = 404, description = "No such app or stage")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(at): Path<(String, String)>,
) -> Result<Json<SettingsView>, ApiError> {
    view(&app, &caller, at, |_| true).await
}

/// Shows the secrets of an app in a stage: who set them when, and never what they are.
#[utoipa::path(get, path = "/apps/{app}/stages/{stage}/secrets", params(("app" = String, Path, description = "Name of the app"), ("stage" = String, Path, description = "Name of the stage")), responses((status = 200, body = SettingsView), (status = 404, description = "No such app or stage")))]
pub(crate) async fn show_secrets(
    State(app): State<App>,
    caller: Caller,
    Path(at): Path<(String, String)>,
) -> Result<Json<SettingsView>, ApiError> {
    view(&app, &caller, at, |row| row.secret).await
}

/// Sets and removes settings of an app in a stage. Where it serves, its replicas are replaced by new ones of the same
/// revision, without a gap.
#[utoipa::path(put, path = "/apps/{app}/stages/{stage}/settings", params(("app" = String, Path, description = "Name of the app"), ("stage" = String, Path, description = "Name of the stage")), request_body = NewSettings, responses((status = 202, body = SettingsChanged), (status = 200, body = SettingsChanged, description = "No replica is replaced, or only that was asked what would happen"), (status = 404, description = "No such app or stage"), (status = 409, description = "Busy, or the app cannot do without it"), (status = 422, description = "A name, a value, or the size of all will not do")))]
pub(crate) async fn replace(
    State(app): State<App>,
    caller: Caller,
    Path(at): Path<(String, String)>,
    body: Result<Json<NewSettings>, JsonRejection>,
) -> Result<Response, ApiError> {
    changed(&app, &caller, at, document(body)?, false).await
}

/// Sets and removes secrets of an app in a stage. They are told to its replicas and to nobody else.
#[utoipa::path(put, path = "/apps/{app}/stages/{stage}/secrets", params(("app" = String, Path, description = "Name of the app"), ("stage" = String, Path, description = "Name of the stage")), request_body = NewSettings, responses((status = 202, body = SettingsChanged), (status = 200, body = SettingsChanged, description = "No replica is replaced, or only that was asked what would happen"), (status = 404, description = "No such app or stage"), (status = 409, description = "Busy, or the app cannot do without it"), (status = 422, description = "A name, a value, or the size of all will not do")))]
pub(crate) async fn replace_secrets(
    State(app): State<App>,
    caller: Caller,
    Path(at): Path<(String, String)>,
    body: Result<Json<NewSettings>, JsonRejection>,
) -> Result<Response, ApiError> {
    changed(&app, &caller, at, document(body)?, true).await
}

async fn view(
    app: &App,
    caller: &Caller,
    at: (String, String),
    is_wanted: fn(&SettingRow) -> bool,
) -> Result<Json<SettingsView>, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let (name, stage) = names(at)?;
    let own = caller.store(app);
    let id = own.app_named(&name).await?.ok_or_else(unknown)?.id;
    if !own.stage_names().await?.contains(&stage) {
        return Err(unknown());
    }
    let rows = own.settings(&stage, id).await?.into_iter().filter(is_wanted);
    Ok(Json(SettingsView {
        version: own.settings_version(&stage, id).await?,
        serving_version: own.settings_serving(&stage).await?.get(&id).copied(),
        settings: rows.map(setting).collect(),
    }))
}

fn setting(row: SettingRow) -> SettingView {
    SettingView {
        fingerprint: short(&row.fingerprint),
        name: row.name,
        secret: row.secret,
        value: row.value,
        by: row.who,
        at: row.at,
        since: row.since,
    }
}

async fn changed(
    app: &App,
    caller: &Caller,
    at: (String, String),
    new: NewSettings,
    secret: bool,
) -> Result<Response, ApiError> {
    let (name, stage) = names(at)?;
    let NewSettings { set, unset, dry_run } = new;
    let asked = Asked { app: name, stage, secret, set, unset, dry_run };
    let outcome = change(app, caller, &asked).await?;
    let Outcome { version, set, unset, operation, revision, warnings } = outcome;
    let status = if operation.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    let operation = operation.map(|id| id.to_string());
    let app = asked.app.to_string();
    Ok((status, Json(SettingsChanged { version, set, unset, operation, app, revision, warnings }))
        .into_response())
}

fn names((app, stage): (String, String)) -> Result<(AppName, StageName), ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    Ok((AppName::new(app).map_err(|_| unknown())?, StageName::new(stage).map_err(|_| unknown())?))
}
