//! Members and roles of apps: the part of the API that belongs to identity.

use crate::{ApiError, App, caller::Caller};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    routing::get,
};
use bastide_identity::opaque::Opaque;
use bastide_store::{MemberRow, StoreError, Write, now_s};
use bastide_types::{AppName, Code, CustomerId, CustomerName, StageName, UserId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

/// Life of an invitation, in seconds.
const INVITATION_S: i64 = 7 * 24 * 3600;
const ORGANIZATION_ROLES: &[&str] = &["administrator", "developer"];

#[derive(OpenApi)]
#[openapi(paths(list, invite_member, roles, grant))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/api/members", get(list).post(invite_member))
        .route("/api/apps/{app}/roles", get(roles).put(grant))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// A member.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Member {
    id: String,
    email: String,
    name: String,
    /// `invited`, `active` or `inactive`.
    state: String,
    roles: Vec<String>,
}

/// Somebody to invite.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMember {
    email: String,
    name: Option<String>,
    /// `administrator`, `developer`.
    roles: Vec<String>,
}

/// An invitation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Invitation {
    /// Works once and for seven days.
    link: String,
}

/// A role of an app in a stage.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    stage: String,
    role: String,
    /// Address of the member.
    email: String,
}

/// Lists members.
#[utoipa::path(get, path = "/api/members", responses((status = 200, body = Vec<Member>)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<Member>>, ApiError> {
    caller.need(&["administrator", "developer", "operator"])?;
    let members = caller.store(&app).members().await?;
    let shown = members.into_iter().map(|member| Member {
        id: member.id.to_string(),
        email: member.email,
        name: member.name,
        state: member.state,
        roles: member.roles,
    });
    Ok(Json(shown.collect()))
}

/// Invites somebody.
#[utoipa::path(post, path = "/api/members", request_body = NewMember, responses((status = 201, body = Invitation), (status = 409, description = "Already a member")))]
pub(crate) async fn invite_member(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewMember>, JsonRejection>,
) -> Result<(StatusCode, Json<Invitation>), ApiError> {
    caller.need(&["administrator", "operator"])?;
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    // `operator` means something only in the operator organization, and only operators give it.
    let may = |role: &str| {
        ORGANIZATION_ROLES.contains(&role)
            || (role == "operator" && caller.customer.name.is_operator() && caller.has("operator"))
    };
    if new.roles.is_empty() || !new.roles.iter().all(|role| may(role)) {
        return Err(ApiError::because(Code::InputInvalid, "roles: administrator, developer"));
    }
    let mut write = app.store.write().await?;
    let customer = &caller.customer;
    let link = invite(&app, &mut write, customer.id, &customer.name, &new.email, new.name, new.roles).await?;
    caller.store(&app).audit(&mut write, &caller.who.sub, "member.invited", &new.email).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok((StatusCode::CREATED, Json(Invitation { link })))
}

/// Adds an invited member, or renews the invitation of one who has not accepted yet; the link that makes
/// them active. Links made before stop working.
pub(crate) async fn invite(
    app: &App,
    write: &mut Write,
    customer: CustomerId,
    customer_name: &CustomerName,
    email: &str,
    name: Option<String>,
    roles: Vec<String>,
) -> Result<String, ApiError> {
    let email = email.trim().to_lowercase();
    let plausible = email.len() <= 254
        && email
            .split_once('@')
            .is_some_and(|(local, host)| !local.is_empty() && !host.is_empty() && !host.contains('@'))
        && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    if !plausible {
        return Err(ApiError::because(Code::InputInvalid, "email: an address such as ann@example.com"));
    }
    let local = email.split('@').next().unwrap_or_default().to_owned();
    let name: String = name.unwrap_or(local).chars().filter(|c| !c.is_control()).take(100).collect();
    let member = MemberRow {
        id: UserId::generate(),
        email: email.clone(),
        name,
        state: "invited".into(),
        roles,
        password: None,
    };
    let own = app.store.customer(customer);
    let id = own
        .renew_invited(write, &member)
        .await?
        .ok_or_else(|| ApiError::because(Code::NameTaken, format!("{email} is a member already")))?;
    let token = Opaque::generate()?;
    own.add_invitation(write, &token.hash, id, now_s() + INVITATION_S).await?;
    Ok(format!("{}/invite/{}", app.config.domains.member_issuer(customer_name), token.secret.expose()))
}

/// Lists who has which role of an app.
#[utoipa::path(get, path = "/api/apps/{app}/roles", params(("app" = String, Path, description = "Name of the app")), responses((status = 200, body = Vec<Grant>), (status = 404, description = "No such app")))]
pub(crate) async fn roles(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Vec<Grant>>, ApiError> {
    caller.need(&["administrator", "developer"])?;
    let own = caller.store(&app);
    let found = find(&app, &caller, &name).await?;
    let members = own.members().await?;
    let email = |id: UserId| members.iter().find(|member| member.id == id).map(|member| member.email.clone());
    let grants = own.app_roles(found).await?;
    let shown = grants.into_iter().filter_map(|(stage, role, member)| {
        Some(Grant { stage: stage.to_string(), role, email: email(member)? })
    });
    Ok(Json(shown.collect()))
}

/// Gives a member a role of an app in a stage.
#[utoipa::path(put, path = "/api/apps/{app}/roles", params(("app" = String, Path, description = "Name of the app")), request_body = Grant, responses((status = 204, description = "Granted"), (status = 404, description = "No such app")))]
pub(crate) async fn grant(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<Grant>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    caller.need(&["administrator"])?;
    let Json(grant) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let invalid = |what: &str| ApiError::because(Code::InputInvalid, what);
    let found = find(&app, &caller, &name).await?;
    let own = caller.store(&app);
    let stage = StageName::new(grant.stage).map_err(|error| invalid(&format!("stage: {error}")))?;
    if !own.stage_names().await?.contains(&stage) {
        return Err(invalid("stage: there is no such stage"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if grant.role.is_empty() || grant.role.len() > 64 || !grant.role.bytes().all(plain) {
        return Err(invalid("role: letters, digits, `-`, `_`"));
    }
    let email = grant.email.trim().to_lowercase();
    let member =
        own.member_with_email(&email).await?.ok_or_else(|| invalid("email: nobody here has this address"))?;
    let mut write = app.store.write().await?;
    own.grant_app_role(&mut write, &stage, found, &grant.role, member.id).await?;
    own.audit(
        &mut write,
        &caller.who.sub,
        "role.granted",
        &format!("{name} {} in {stage} to {email}", grant.role),
    )
    .await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(app: &App, caller: &Caller, name: &str) -> Result<bastide_types::AppId, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let name = AppName::new(name).map_err(|_| unknown())?;
    Ok(caller.store(app).app_named(&name).await?.ok_or_else(unknown)?.id)
}
