//! Organization roles: the built-in ones, and those that a customer makes out of permissions.

use crate::{
    ApiError, App,
    caller::Caller,
    error::document,
    permissions::{BUILT_IN, Permission, Permissions, of_role},
};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    routing::{get, put},
};
use bastide_store::{RoleRow, StoreError, Write};
use bastide_types::Code;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

/// Most roles of one's own.
const ROLES_MAX: usize = 100;
/// Longest name of a role, in bytes.
const NAME_BYTES_MAX: usize = 63;

#[derive(OpenApi)]
#[openapi(paths(permissions, list, create, change, remove))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/permissions", get(permissions))
        .route("/roles", get(list).post(create))
        .route("/roles/{role}", put(change).delete(remove))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// A permission.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PermissionView {
    name: &'static str,
    /// What it allows.
    what: &'static str,
}

/// An organization role.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RoleView {
    name: String,
    /// Whether every organization has it.
    built_in: bool,
    /// Names of its permissions.
    permissions: Vec<&'static str>,
}

/// A role to make.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRole {
    /// At most 63 of a-z, 0-9, `-`.
    name: String,
    /// Names of its permissions.
    permissions: Vec<String>,
}

/// Other permissions of a role.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleChange {
    /// Names of its permissions.
    permissions: Vec<String>,
}

/// Lists the permissions that roles may hold here.
#[utoipa::path(get, path = "/permissions", responses((status = 200, body = Vec<PermissionView>)))]
pub(crate) async fn permissions(caller: Caller) -> Json<Vec<PermissionView>> {
    let here = Permission::ALL.iter().filter(|one| caller.customer.name.is_operator() || !one.is_office());
    Json(here.map(|one| PermissionView { name: one.as_str(), what: one.what() }).collect())
}

/// Lists organization roles with their permissions.
#[utoipa::path(get, path = "/roles", responses((status = 200, body = Vec<RoleView>)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<RoleView>>, ApiError> {
    let own = caller.store(&app).roles().await?;
    let names = BUILT_IN.iter().map(|name| (*name, true));
    let names = names.chain(own.iter().map(|row| (row.name.as_str(), false)));
    let view = |(name, built_in): (&str, bool)| {
        let held = of_role(name, &caller.customer.name, &own)?;
        let permissions = held.iter().map(|one| one.as_str()).collect();
        Some(RoleView { name: name.to_owned(), built_in, permissions })
    };
    Ok(Json(names.filter_map(view).collect()))
}

/// Makes a role.
#[utoipa::path(post, path = "/roles", request_body = NewRole, responses((status = 204, description = "Made"), (status = 403, description = "It would hold more than the caller"), (status = 409, description = "The name is taken"), (status = 422, description = "No such permission, or too many roles")))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewRole>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let new = document(body)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if new.name.is_empty() || new.name.len() > NAME_BYTES_MAX || !new.name.bytes().all(plain) {
        return Err(ApiError::because(Code::InputInvalid, "name: at most 63 of a-z, 0-9, `-`"));
    }
    let taken = || ApiError::because(Code::NameTaken, format!("there is a role {}", new.name));
    if BUILT_IN.contains(&new.name.as_str()) {
        return Err(taken());
    }
    let row = RoleRow { name: new.name.clone(), permissions: read(&caller, &new.permissions)? };
    let store = caller.store(&app);
    let mut write = app.store.write().await?;
    if store.roles_in(&mut write).await?.len() >= ROLES_MAX {
        let why = format!("an organization may have {ROLES_MAX} roles of its own");
        return Err(ApiError::because(Code::InputInvalid, why));
    }
    store.add_role(&mut write, &row).await.map_err(|error| match error {
        StoreError::Taken => taken(),
        other => other.into(),
    })?;
    caller.done(&app, write, "role.created", &detail(&row)).await
}

/// Gives a role other permissions. In force at once for everybody who has it.
#[utoipa::path(put, path = "/roles/{role}", params(("role" = String, Path, description = "Name of the role")), request_body = RoleChange, responses((status = 204, description = "Changed"), (status = 403, description = "It holds, or would hold, more than the caller"), (status = 404, description = "No such role of one's own"), (status = 422, description = "No such permission")))]
pub(crate) async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<RoleChange>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let row = RoleRow { name, permissions: read(&caller, &document(body)?.permissions)? };
    let mut write = app.store.write().await?;
    demand_own(&app, &caller, &mut write, &row.name).await?;
    let store = caller.store(&app);
    let before = store.roles_in(&mut write).await?.into_iter().find(|one| one.name == row.name);
    store.change_role(&mut write, &row).await?;
    let old = before.map(|one| one.permissions);
    caller.changed(&app, write, ("role.changed", &row.name), old.as_ref(), Some(&row.permissions)).await
}

/// Removes a role that nobody has.
#[utoipa::path(delete, path = "/roles/{role}", params(("role" = String, Path, description = "Name of the role")), responses((status = 204, description = "Removed"), (status = 403, description = "It holds more than the caller"), (status = 404, description = "No such role of one's own"), (status = 422, description = "Somebody has it")))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let store = caller.store(&app);
    let mut write = app.store.write().await?;
    demand_own(&app, &caller, &mut write, &name).await?;
    let holders = store.role_holders(&mut write, &name).await?;
    if holders > 0 {
        let why = format!("{holders} members or clients have the role {name}; give them another first");
        return Err(ApiError::because(Code::InputInvalid, why));
    }
    store.remove_role(&mut write, &name).await?;
    caller.done(&app, write, "role.removed", &name).await
}

/// A role of one's own, within one's reach.
async fn demand_own(app: &App, caller: &Caller, write: &mut Write, name: &str) -> Result<(), ApiError> {
    let own = caller.store(app).roles_in(write).await?;
    if !own.iter().any(|row| row.name == name) {
        return Err(ApiError::new(Code::ApiUnknown));
    }
    caller.demand_reach(app, write, &[name.to_owned()]).await
}

/// Permissions by their names, none of which the caller lacks; sorted, each once.
fn read(caller: &Caller, names: &[String]) -> Result<Vec<String>, ApiError> {
    let mut named = Permissions::new();
    for name in names {
        let known =
            Permission::named(name).filter(|one| caller.customer.name.is_operator() || !one.is_office());
        named.insert(known.ok_or_else(|| {
            ApiError::because(Code::InputInvalid, format!("permissions: there is no {}", short(name)))
        })?);
    }
    if let Some(more) = named.iter().find(|one| !caller.may(**one)) {
        return Err(ApiError::because(
            Code::Forbidden,
            format!("you do not hold {} yourself", more.as_str()),
        ));
    }
    Ok(named.iter().map(|one| one.as_str().to_owned()).collect())
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn detail(row: &RoleRow) -> String {
    format!("{}: {}", row.name, row.permissions.join(", "))
}
