//! End users of a stage: the part of the API by which administrators look after them.

use super::{
    letters,
    members::{INVITATION_S, Invitation, address, display_name, password_link},
    sessions_api::{MemberSuspension, SessionView, shown, stage_of},
};
use crate::{ApiError, App, caller::Caller, error::document, permissions::Permission, wire::Query};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    routing::{delete, get, post, put},
};
use bastide_identity::opaque::Opaque;
use bastide_store::{Beside, CustomerStore, MemberRow, StoreError, now_s};
use bastide_types::{Code, StageName, UserId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

/// Most users in one answer.
pub(super) const PAGE_MAX: u32 = 100;

#[derive(OpenApi)]
#[openapi(paths(
    list,
    invite,
    show,
    remove,
    suspend,
    reset_second_factor,
    reset_passkeys,
    sessions,
    end_sessions,
    reset_password,
    registration,
    set_registration
))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/stages/{stage}/users", get(list).post(invite))
        .route("/stages/{stage}/users/{user}", get(show).delete(remove))
        .route("/stages/{stage}/users/{user}/suspension", put(suspend))
        .route("/stages/{stage}/users/{user}/second-factor", delete(reset_second_factor))
        .route("/stages/{stage}/users/{user}/passkeys", delete(reset_passkeys))
        .route("/stages/{stage}/users/{user}/sessions", get(sessions).delete(end_sessions))
        .route("/stages/{stage}/users/{user}/password-reset", post(reset_password))
        .route("/stages/{stage}/registration", get(registration).put(set_registration))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// An end user of a stage.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct UserView {
    id: String,
    email: String,
    name: String,
    /// `invited`, `active` or `inactive`.
    state: String,
    /// Whether mail has proven the address.
    email_verified: bool,
    groups: Vec<String>,
    /// Whether the user signs in with a code of an app, too.
    second_factor: bool,
    /// How many passkeys the user has.
    passkeys: i64,
}

/// Somebody to invite.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    email: String,
    name: Option<String>,
    /// Groups of the stage to put the user into.
    #[serde(default)]
    groups: Vec<String>,
}

/// Whether everybody may make an account.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    open: bool,
}

/// Which users to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// The user with this address.
    email: Option<String>,
    /// Users whose addresses come after this one.
    pub(super) after: Option<String>,
    /// How many: 1 to 100, which is the default.
    pub(super) limit: Option<u32>,
}

impl Which {
    pub(super) fn page(&self) -> (&str, u32) {
        (self.after.as_deref().unwrap_or_default(), self.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX))
    }
}

/// Lists end users of a stage, by their addresses.
#[utoipa::path(get, path = "/stages/{stage}/users", params(("stage" = String, Path, description = "Stage"), Which), responses((status = 200, body = Vec<UserView>), (status = 404, description = "No such stage")))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<UserView>>, ApiError> {
    let (stage, own) = (stage_of(&app, &caller, &stage).await?, caller.store(&app));
    let rows = match &which.email {
        Some(email) => {
            own.user_with_email(stage.as_str(), &email.trim().to_lowercase()).await?.into_iter().collect()
        }
        None => {
            let (after, most) = which.page();
            own.users(&stage, after, most).await?
        }
    };
    views(&own, &stage, rows).await.map(Json)
}

/// Invites somebody to a stage, or renews the invitation of somebody who has not accepted yet.
#[utoipa::path(post, path = "/stages/{stage}/users", params(("stage" = String, Path, description = "Stage")), request_body = NewUser, responses((status = 201, body = Invitation), (status = 404, description = "No such stage"), (status = 409, description = "Already a user"), (status = 422, description = "No address, or no such group")))]
pub(crate) async fn invite(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    body: Result<Json<NewUser>, JsonRejection>,
) -> Result<(StatusCode, Json<Invitation>), ApiError> {
    let new = document(body)?;
    let (stage, own) = (stage_of(&app, &caller, &stage).await?, caller.store(&app));
    if !new.groups.is_empty() {
        caller.demand(Permission::GroupsWrite)?;
    }
    let email = address(&new.email)?;
    let row = MemberRow::invited(stage.as_str(), &email, &display_name(new.name, &email), Vec::new());
    let token = Opaque::generate()?;
    let mut write = app.store.write().await?;
    let id = own
        .renew_invited(&mut write, &row)
        .await?
        .ok_or_else(|| ApiError::because(Code::NameTaken, format!("{email} is a user of {stage} already")))?;
    for group in &new.groups {
        if !own.has_group(&mut write, &stage, group).await? {
            return Err(ApiError::because(Code::InputInvalid, "groups: there is no such group"));
        }
        own.join_group(&mut write, &stage, group, id).await?;
    }
    let (until, mailed) = (now_s() + INVITATION_S, app.mailer.is_some());
    own.add_invitation_by(&mut write, &token.hash, id, until, mailed).await?;
    let name = &caller.customer.name;
    let link = format!("{}/invite/{}", app.config.domains.stage_issuer(name, &stage), token.secret.expose());
    let letter = letters::invitation(&email, name, Some(&stage), &link);
    let made = Invitation::deliver(&app, &own, &mut write, letter, link, INVITATION_S).await?;
    own.audit(&mut write, &caller.who.sub, "user.invited", &format!("{stage}: {email}")).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Shows an end user.
#[utoipa::path(get, path = "/stages/{stage}/users/{user}", params(("stage" = String, Path, description = "Stage"), ("user" = String, Path, description = "Id of the user")), responses((status = 200, body = UserView), (status = 404, description = "No such user")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path((stage, user)): Path<(String, String)>,
) -> Result<Json<UserView>, ApiError> {
    let (stage, row) = find(&app, &caller, &stage, &user).await?;
    let shown = views(&caller.store(&app), &stage, vec![row]).await?;
    shown.into_iter().next().map(Json).ok_or_else(|| ApiError::new(Code::ApiUnknown))
}

/// Removes an end user with all that belongs to them; their sessions end at once.
#[utoipa::path(delete, path = "/stages/{stage}/users/{user}", params(("stage" = String, Path, description = "Stage"), ("user" = String, Path, description = "Id of the user")), responses((status = 204, description = "Removed"), (status = 404, description = "No such user")))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path((stage, user)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (stage, row) = find(&app, &caller, &stage, &user).await?;
    let mut write = app.store.write().await?;
    caller.store(&app).remove_user(&mut write, row.id).await?;
    caller.done(&app, write, "user.removed", &format!("{stage}: {}", row.email)).await
}

/// Suspends an end user, which ends their sessions at once, or lets them sign in again.
#[utoipa::path(put, path = "/stages/{stage}/users/{user}/suspension", params(("stage" = String, Path, description = "Stage"), ("user" = String, Path, description = "Id of the user")), request_body = MemberSuspension, responses((status = 204, description = "Done"), (status = 404, description = "No such user"), (status = 422, description = "The invitation was not accepted yet")))]
pub(crate) async fn suspend(
    State(app): State<App>,
    caller: Caller,
    Path((stage, user)): Path<(String, String)>,
    body: Result<Json<MemberSuspension>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let suspended = document(body)?.suspended;
    let (stage, row) = find(&app, &caller, &stage, &user).await?;
    let mut write = app.store.write().await?;
    if !caller.store(&app).suspend_member(&mut write, row.id, suspended).await? {
        return Err(ApiError::because(Code::InputInvalid, "the invitation was not accepted yet"));
    }
    let what = if suspended { "user.suspended" } else { "user.resumed" };
    caller.done(&app, write, what, &format!("{stage}: {}", row.email)).await
}

/// Takes the second factor from an end user who has lost it, and ends their sessions.
#[utoipa::path(delete, path = "/stages/{stage}/users/{user}/second-factor", params(("stage" = String, Path, description = "Stage"), ("user" = String, Path, description = "Id of the user")), responses((status = 204, description = "Reset"), (status = 404, description = "No such user"), (status = 422, description = "The user has none")))]
pub(crate) async fn reset_second_factor(
    State(app): State<App>,
    caller: Caller,
    Path((stage, user)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (stage, row) = find(&app, &caller, &stage, &user).await?;
    let (store, mut write) = (caller.store(&app), app.store.write().await?);
    if !store.remove_second_factor(&mut write, row.id).await? {
        return Err(ApiError::because(Code::InputInvalid, "the user has no second factor"));
    }
    store.end_sessions_of(&mut write, row.id).await?;
    caller.done(&app, write, "second-factor.reset", &format!("{stage}: {}", row.email)).await
}

/// Takes all passkeys from an end user who has lost one, and ends their sessions.
#[utoipa::path(delete, path = "/stages/{stage}/users/{user}/passkeys", params(("stage" = String, Path, description = "Stage"), ("user" = String, Path, description = "Id of the user")), responses((status = 204, description = "Reset"), (status = 404, description = "No such user"), (status = 422, description = "The user has none")))]
pub(crate) async fn reset_passkeys(
    State(app): State<App>,
    caller: Caller,
    Path((stage, user)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (stage, row) = find(&app, &caller, &stage, &user).await?;
    let (store, mut write) = (caller.store(&app), app.store.write().await?);
    if store.remove_passkeys(&mut write, row.id).await? == 0 {
        return Err(ApiError::because(Code::InputInvalid, "the user has no passkey"));
    }
    store.end_sessions_of(&mut write, row.id).await?;
    caller.done(&app, write, "passkeys.reset", &format!("{stage}: {}", row.email)).await
}

/// Lists the sessions of an end user.
#[utoipa::path(get, path = "/stages/{stage}/users/{user}/sessions", params(("stage" = String, Path, description = "Stage"), ("user" = String, Path, description = "Id of the user")), responses((status = 200, body = Vec<SessionView>), (status = 404, description = "No such user")))]
pub(crate) async fn sessions(
    State(app): State<App>,
    caller: Caller,
    Path((stage, user)): Path<(String, String)>,
) -> Result<Json<Vec<SessionView>>, ApiError> {
    let (_, row) = find(&app, &caller, &stage, &user).await?;
    Ok(Json(shown(&caller, caller.store(&app).sessions_of(row.id).await?)))
}

/// Ends all sessions of an end user.
#[utoipa::path(delete, path = "/stages/{stage}/users/{user}/sessions", params(("stage" = String, Path, description = "Stage"), ("user" = String, Path, description = "Id of the user")), responses((status = 204, description = "Ended"), (status = 404, description = "No such user")))]
pub(crate) async fn end_sessions(
    State(app): State<App>,
    caller: Caller,
    Path((stage, user)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (stage, row) = find(&app, &caller, &stage, &user).await?;
    let mut write = app.store.write().await?;
    caller.store(&app).end_sessions_of(&mut write, row.id).await?;
    caller.done(&app, write, "session.ended", &format!("all of {stage}: {}", row.email)).await
}

/// Makes a link by which an end user who has forgotten the password chooses another one.
#[utoipa::path(post, path = "/stages/{stage}/users/{user}/password-reset", params(("stage" = String, Path, description = "Stage"), ("user" = String, Path, description = "Id of the user")), responses((status = 201, body = Invitation), (status = 404, description = "No such user"), (status = 422, description = "The user is not active")))]
pub(crate) async fn reset_password(
    State(app): State<App>,
    caller: Caller,
    Path((stage, user)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Invitation>), ApiError> {
    let (stage, row) = find(&app, &caller, &stage, &user).await?;
    let mut write = app.store.write().await?;
    let made = password_link(&app, &caller, &mut write, &row, Some(&stage)).await?;
    caller.done(&app, write, "password.link", &format!("{stage}: {}", row.email)).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Shows whether everybody may make an account at a stage.
#[utoipa::path(get, path = "/stages/{stage}/registration", params(("stage" = String, Path, description = "Stage")), responses((status = 200, body = Registration), (status = 404, description = "No such stage")))]
pub(crate) async fn registration(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
) -> Result<Json<Registration>, ApiError> {
    let stage = stage_of(&app, &caller, &stage).await?;
    Ok(Json(Registration { open: caller.store(&app).is_open(&stage).await? }))
}

/// Lets everybody make an account at a stage, or nobody any more.
#[utoipa::path(put, path = "/stages/{stage}/registration", params(("stage" = String, Path, description = "Stage")), request_body = Registration, responses((status = 204, description = "Done"), (status = 404, description = "No such stage"), (status = 422, description = "No mail is sent here")))]
pub(crate) async fn set_registration(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    body: Result<Json<Registration>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let open = document(body)?.open;
    let stage = stage_of(&app, &caller, &stage).await?;
    if open && app.mailer.is_none() {
        let why = "without mail nobody proves an address; the operator sets it up: `bastide up --identity-settings`";
        return Err(ApiError::because(Code::InputInvalid, why));
    }
    let mut write = app.store.write().await?;
    caller.store(&app).set_open(&mut write, &stage, open).await?;
    let what = if open { "registration.opened" } else { "registration.closed" };
    caller.done(&app, write, what, stage.as_str()).await
}

/// An end user of this very stage.
pub(super) async fn find(
    app: &App,
    caller: &Caller,
    stage: &str,
    user: &str,
) -> Result<(StageName, MemberRow), ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let stage = stage_of(app, caller, stage).await?;
    let id: UserId = user.parse().map_err(|_| unknown())?;
    let found = caller.store(app).member(id).await?;
    let found = found.filter(|row| row.stage == stage.as_str()).ok_or_else(unknown)?;
    Ok((stage, found))
}

/// Users, in the order of their addresses.
async fn views(
    own: &CustomerStore<'_>,
    stage: &StageName,
    rows: Vec<MemberRow>,
) -> Result<Vec<UserView>, ApiError> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
    let mut beside = own.beside(stage.as_str(), &first.email, &last.email).await?;
    let view = |row: MemberRow| {
        let Beside { groups, second_factor, passkeys } = beside.remove(&row.id).unwrap_or_default();
        UserView {
            groups,
            second_factor,
            passkeys,
            id: row.id.to_string(),
            email: row.email,
            name: row.name,
            state: row.state,
            email_verified: row.verified,
        }
    };
    Ok(rows.into_iter().map(view).collect())
}
