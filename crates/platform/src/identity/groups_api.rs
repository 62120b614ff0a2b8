//! Groups of end users: the part of the API that makes them and says who is in them.

use super::{
    sessions_api::stage_of,
    users_api::{Which, find},
};
use crate::{ApiError, App, caller::Caller, error::document, wire::Query};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    routing::{delete, get, put},
};
use bastide_store::StoreError;
use bastide_types::Code;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

/// Most groups of a stage.
const GROUPS_MAX: i64 = 1000;
/// Longest name of a group, in bytes.
const NAME_BYTES_MAX: usize = 63;

#[derive(OpenApi)]
#[openapi(paths(list, create, remove, users, join, leave))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/stages/{stage}/groups", get(list).post(create))
        .route("/stages/{stage}/groups/{group}", delete(remove))
        .route("/stages/{stage}/groups/{group}/users", get(users))
        .route("/stages/{stage}/groups/{group}/users/{user}", put(join).delete(leave))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// A group of end users.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct GroupView {
    name: String,
    /// How many users are in it.
    users: i64,
}

/// A group to make.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGroup {
    /// At most 63 letters, digits, `-`, `_`, `.`.
    name: String,
}

/// A user in a group.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct GroupUser {
    id: String,
    email: String,
}

/// Lists the groups of a stage.
#[utoipa::path(get, path = "/stages/{stage}/groups", params(("stage" = String, Path, description = "Stage")), responses((status = 200, body = Vec<GroupView>), (status = 404, description = "No such stage")))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
) -> Result<Json<Vec<GroupView>>, ApiError> {
    let stage = stage_of(&app, &caller, &stage).await?;
    let groups = caller.store(&app).groups(&stage).await?;
    Ok(Json(groups.into_iter().map(|(name, users)| GroupView { name, users }).collect()))
}

/// Makes a group.
#[utoipa::path(post, path = "/stages/{stage}/groups", params(("stage" = String, Path, description = "Stage")), request_body = NewGroup, responses((status = 204, description = "Made"), (status = 404, description = "No such stage"), (status = 409, description = "The name is taken"), (status = 422, description = "No name, or too many groups")))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    body: Result<Json<NewGroup>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let name = document(body)?.name;
    let stage = stage_of(&app, &caller, &stage).await?;
    if !is_name(&name) {
        return Err(ApiError::because(
            Code::InputInvalid,
            "name: at most 63 letters, digits, `-`, `_`, `.`, beginning with a letter or digit",
        ));
    }
    let mut write = app.store.write().await?;
    let added = caller.store(&app).add_group(&mut write, &stage, &name, GROUPS_MAX).await;
    let added = added.map_err(|error| match error {
        StoreError::Taken => ApiError::because(Code::NameTaken, format!("there is a group {name}")),
        other => other.into(),
    })?;
    if !added {
        let why = format!("a stage may have {GROUPS_MAX} groups");
        return Err(ApiError::because(Code::InputInvalid, why));
    }
    caller.done(&app, write, "group.created", &format!("{stage}: {name}")).await
}

/// Removes a group. Tokens that name its roles count no longer.
#[utoipa::path(delete, path = "/stages/{stage}/groups/{group}", params(("stage" = String, Path, description = "Stage"), ("group" = String, Path, description = "Name of the group")), responses((status = 204, description = "Removed"), (status = 404, description = "No such group")))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path((stage, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let stage = stage_of(&app, &caller, &stage).await?;
    let mut write = app.store.write().await?;
    if !caller.store(&app).remove_group(&mut write, &stage, &name).await? {
        return Err(ApiError::new(Code::ApiUnknown));
    }
    caller.done(&app, write, "group.removed", &format!("{stage}: {name}")).await
}

/// Lists who is in a group.
#[utoipa::path(get, path = "/stages/{stage}/groups/{group}/users", params(("stage" = String, Path, description = "Stage"), ("group" = String, Path, description = "Name of the group"), Which), responses((status = 200, body = Vec<GroupUser>), (status = 404, description = "No such stage")))]
pub(crate) async fn users(
    State(app): State<App>,
    caller: Caller,
    Path((stage, name)): Path<(String, String)>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<GroupUser>>, ApiError> {
    let (stage, (after, most)) = (stage_of(&app, &caller, &stage).await?, which.page());
    let users = caller.store(&app).users_in(&stage, &name, after, most).await?;
    Ok(Json(users.into_iter().map(|(id, email)| GroupUser { id: id.to_string(), email }).collect()))
}

/// Puts an end user into a group.
#[utoipa::path(put, path = "/stages/{stage}/groups/{group}/users/{user}", params(("stage" = String, Path, description = "Stage"), ("group" = String, Path, description = "Name of the group"), ("user" = String, Path, description = "Id of the user")), responses((status = 204, description = "Done"), (status = 404, description = "No such group or user")))]
pub(crate) async fn join(
    State(app): State<App>,
    caller: Caller,
    Path((stage, name, user)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let (stage, user) = find(&app, &caller, &stage, &user).await?;
    let own = caller.store(&app);
    let mut write = app.store.write().await?;
    if !own.has_group(&mut write, &stage, &name).await? {
        return Err(ApiError::new(Code::ApiUnknown));
    }
    own.join_group(&mut write, &stage, &name, user.id).await?;
    caller.done(&app, write, "group.joined", &format!("{stage}: {name}, {}", user.email)).await
}

/// Takes an end user out of a group. Tokens that name its roles count no longer.
#[utoipa::path(delete, path = "/stages/{stage}/groups/{group}/users/{user}", params(("stage" = String, Path, description = "Stage"), ("group" = String, Path, description = "Name of the group"), ("user" = String, Path, description = "Id of the user")), responses((status = 204, description = "Done"), (status = 404, description = "The user is not in such a group")))]
pub(crate) async fn leave(
    State(app): State<App>,
    caller: Caller,
    Path((stage, name, user)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let (stage, user) = find(&app, &caller, &stage, &user).await?;
    let mut write = app.store.write().await?;
    if !caller.store(&app).leave_group(&mut write, &stage, &name, user.id).await? {
        return Err(ApiError::new(Code::ApiUnknown));
    }
    caller.done(&app, write, "group.left", &format!("{stage}: {name}, {}", user.email)).await
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    name.len() <= NAME_BYTES_MAX
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}
