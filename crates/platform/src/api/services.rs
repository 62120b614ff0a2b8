//! What apps have besides their replicas: databases, and new passwords for them.

use super::apps::Begun;
use crate::{ApiError, App, caller::Caller, deploy, services};
use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use bastide_store::StoreError;
use bastide_types::{AppName, Code, StageName, network::POSTGRES_NAME, service::POSTGRES_PORT};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// A service of an app in a stage.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ServiceView {
    stage: String,
    /// `postgres`.
    kind: &'static str,
    /// Where the app finds it, from inside.
    at: String,
    /// Name of the database.
    database: String,
    /// Role that the newest replicas sign in with. The password is known to them only.
    user: String,
    /// Most connections at a time.
    connections: u32,
    /// `ready`, `waiting` for the server, or `kept`: there, but not asked for by the revision that serves.
    status: &'static str,
    /// What it waits for.
    problem: Option<String>,
}

/// Which stage's password to change.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// Stage. Default: the first.
    stage: Option<String>,
}

/// Lists what an app has in each stage.
#[utoipa::path(get, path = "/apps/{app}/services", params(("app" = String, Path, description = "Name of the app")), responses((status = 200, body = Vec<ServiceView>), (status = 404, description = "No such app")))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<ServiceView>>, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let name = AppName::new(name).map_err(|_| unknown())?;
    let own = caller.store(&app);
    let found = own.app_named(&name).await?.ok_or_else(unknown)?;
    let mut views = Vec::new();
    for stage in own.stage_names().await?.into_iter().filter(|stage| caller.sees(stage)) {
        let logins = own.postgres(&stage).await?;
        let Some(newest) = logins.iter().filter(|login| login.app == found.id).max_by_key(|login| login.id)
        else {
            continue;
        };
        let serving = match own.serving(&stage).await?.get(&found.id) {
            Some(number) => own.revision(found.id, *number).await?,
            None => None,
        };
        let asked = serving.is_none_or(|revision| revision.manifest.services.postgres.is_some());
        let status = match newest.applied {
            None => "waiting",
            Some(_) if asked => "ready",
            Some(_) => "kept",
        };
        views.push(ServiceView {
            stage: stage.to_string(),
            kind: "postgres",
            at: format!("{POSTGRES_NAME}:{POSTGRES_PORT}"),
            database: newest.database.clone(),
            user: newest.user(),
            connections: newest.connections,
            status,
            problem: newest.problem.clone(),
        });
    }
    Ok(Json(views))
}

/// Gives an app another role and password for its database. New replicas of the same revision start with them;
/// the old ones end with the last replica that uses them.
#[utoipa::path(post, path = "/apps/{app}/services/postgres/rotate", params(("app" = String, Path, description = "Name of the app")), request_body = Rotation, responses((status = 202, body = Begun), (status = 404, description = "No such app or stage, or no database there"), (status = 409, description = "Busy, or not serving")))]
pub(crate) async fn rotate(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<Rotation>, JsonRejection>,
) -> Result<(StatusCode, Json<Begun>), ApiError> {
    let Json(rotation) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let unknown = || ApiError::new(Code::ApiUnknown);
    let name = AppName::new(name).map_err(|_| unknown())?;
    let own = caller.store(&app);
    let stage: StageName = super::network::known(&app, &caller, rotation.stage).await?;
    let found = own.app_named(&name).await?.ok_or_else(unknown)?;
    let number = own.serving(&stage).await?.get(&found.id).copied().ok_or_else(|| {
        ApiError::because(Code::StageOrder, format!("`{name}` does not serve in `{stage}`"))
    })?;
    let revision = own.revision(found.id, number).await?.ok_or_else(|| ApiError::new(Code::Internal))?;
    let wanted = revision.manifest.services.postgres.as_ref().ok_or_else(|| {
        let detail = format!("`{name}` asks for no database: its manifest has no [services.postgres]");
        ApiError::because(Code::ApiUnknown, detail)
    })?;
    services::offered(&app, &revision.manifest)?;
    let mut write = app.store.write().await?;
    own.add_postgres_login(&mut write, &stage, found.id, services::connections(&app, wanted)).await?;
    let operation =
        deploy::begin(&app, &mut write, &own, "rotate", &stage, &revision, &caller.who.sub).await?;
    write.commit().await.map_err(StoreError::from)?;
    deploy::announce(&app, caller.customer.id, &stage).await?;
    Ok((StatusCode::ACCEPTED, Json(Begun::new(&app, operation, &revision))))
}
