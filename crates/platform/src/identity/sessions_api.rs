//! Sessions, and what takes rights away: the part of the API that ends something at once.

use crate::{
    ApiError, App, caller::Caller, error::document, identity::internal::DEFAULT_LIMITS,
    permissions::Permission, wire::Query,
};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    routing::{delete, get, put},
};
use bastide_store::{MemberRow, SessionInfo, SessionLimits, Write};
use bastide_types::{AppName, Code, StageName, UserId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

/// Roles of which each organization keeps somebody: who has one can give all others.
const KEEPERS: &[&str] = &["administrator", "operator"];
/// Longest and shortest time from the beginning of a session, in seconds.
const MAX_S: std::ops::RangeInclusive<i64> = 3600..=45 * 86_400;
/// The same for the time without use.
const IDLE_S: std::ops::RangeInclusive<i64> = 300..=45 * 86_400;

#[derive(OpenApi)]
#[openapi(paths(
    list,
    end,
    end_all,
    of_member,
    end_of_member,
    suspend,
    set_roles,
    revoke_role,
    limits,
    set_limits
))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/sessions", get(list).delete(end_all))
        .route("/sessions/{session}", delete(end))
        .route("/members/{member}/sessions", get(of_member).delete(end_of_member))
        .route("/members/{member}/suspension", put(suspend))
        .route("/members/{member}/roles", put(set_roles))
        .route("/apps/{app}/roles/{stage}/{role}/{member}", delete(revoke_role))
        .route("/stages/{stage}/sessions", get(limits).put(set_limits))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// A session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SessionView {
    id: String,
    /// `sign-in` (at the Identity Service), `browser` or `program`.
    kind: String,
    /// The client of a program.
    #[serde(skip_serializing_if = "String::is_empty")]
    client: String,
    /// The stage of the app that a browser is signed in to.
    #[serde(skip_serializing_if = "String::is_empty")]
    stage: String,
    /// Seconds since 1970 at which the member signed in.
    since: i64,
    /// Seconds since 1970 at which it was last used, to a few minutes.
    seen: i64,
    /// Seconds since 1970 at which it ends.
    until: i64,
    /// Whether it is the one that asks.
    current: bool,
}

/// Whose sessions are meant.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whose {
    /// `me`, or `everybody`: of the whole organization, for whoever may end the sessions of others.
    of: Option<String>,
}

/// Whether somebody may do anything.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberSuspension {
    pub(super) suspended: bool,
}

/// Organization roles.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Roles {
    /// `administrator`, `developer`, or roles of one's own; `ROLE@STAGE` for one that counts in that stage only.
    roles: Vec<String>,
}

/// How long browser sessions last.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Seconds from the beginning: 1 hour to 45 days.
    max_s: i64,
    /// Seconds without use: 5 minutes to 45 days, and at most `max_s`.
    idle_s: i64,
}

/// Lists one's own sessions.
#[utoipa::path(get, path = "/sessions", responses((status = 200, body = Vec<SessionView>)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<SessionView>>, ApiError> {
    // A client has none: it shows its secret each time.
    let Ok(own) = caller.who.sub.parse() else { return Ok(Json(Vec::new())) };
    Ok(Json(shown(&caller, caller.store(&app).sessions_of(own).await?)))
}

/// Ends one's own session, with the sign-in that it came from and all that came of it.
#[utoipa::path(delete, path = "/sessions/{session}", params(("session" = String, Path, description = "Id of the session")), responses((status = 204, description = "Ended"), (status = 404, description = "No such session of the caller")))]
pub(crate) async fn end(
    State(app): State<App>,
    caller: Caller,
    Path(session): Path<String>,
) -> Result<StatusCode, ApiError> {
    let own: UserId = caller.who.sub.parse().map_err(|_| ApiError::new(Code::ApiUnknown))?;
    let store = caller.store(&app);
    if !store.sessions_of(own).await?.iter().any(|one| one.id == session) {
        return Err(ApiError::new(Code::ApiUnknown));
    }
    let mut write = app.store.write().await?;
    store.end_sign_in_of(&mut write, &session).await?;
    caller.done(&app, write, "session.ended", &session).await
}

/// Ends all sessions of the caller, or of the whole organization; then no token that was made before counts.
#[utoipa::path(delete, path = "/sessions", params(Whose), responses((status = 204, description = "Ended")))]
pub(crate) async fn end_all(
    State(app): State<App>,
    caller: Caller,
    Query(whose): Query<Whose>,
) -> Result<StatusCode, ApiError> {
    let store = caller.store(&app);
    match whose.of.as_deref() {
        Some("everybody") => {
            caller.demand(Permission::SessionsEnd)?;
            let mut write = app.store.write().await?;
            store.end_everything(&mut write).await?;
            let answer = caller.done(&app, write, "session.ended", "of everybody").await;
            app.wake.notify_one();
            answer
        }
        None | Some("me") => {
            let own: UserId = caller.who.sub.parse().map_err(|_| ApiError::new(Code::ApiUnknown))?;
            let mut write = app.store.write().await?;
            store.end_sessions_of(&mut write, own).await?;
            caller.done(&app, write, "session.ended", "all of one's own").await
        }
        Some(_) => Err(ApiError::because(Code::InputInvalid, "of: me, everybody")),
    }
}

/// Lists the sessions of a member.
#[utoipa::path(get, path = "/members/{member}/sessions", params(("member" = String, Path, description = "Id of the member")), responses((status = 200, body = Vec<SessionView>), (status = 404, description = "No such member")))]
pub(crate) async fn of_member(
    State(app): State<App>,
    caller: Caller,
    Path(member): Path<String>,
) -> Result<Json<Vec<SessionView>>, ApiError> {
    let member = find(&app, &caller, &member).await?;
    Ok(Json(shown(&caller, caller.store(&app).sessions_of(member.id).await?)))
}

/// Ends all sessions of a member.
#[utoipa::path(delete, path = "/members/{member}/sessions", params(("member" = String, Path, description = "Id of the member")), responses((status = 204, description = "Ended"), (status = 404, description = "No such member")))]
pub(crate) async fn end_of_member(
    State(app): State<App>,
    caller: Caller,
    Path(member): Path<String>,
) -> Result<StatusCode, ApiError> {
    let member = find(&app, &caller, &member).await?;
    let mut write = app.store.write().await?;
    caller.store(&app).end_sessions_of(&mut write, member.id).await?;
    caller.done(&app, write, "session.ended", &format!("all of {}", member.email)).await
}

/// Suspends a member, which ends their sessions at once, or lets them sign in again.
#[utoipa::path(put, path = "/members/{member}/suspension", params(("member" = String, Path, description = "Id of the member")), request_body = MemberSuspension, responses((status = 204, description = "Done"), (status = 404, description = "No such member"), (status = 422, description = "The last administrator")))]
pub(crate) async fn suspend(
    State(app): State<App>,
    caller: Caller,
    Path(member): Path<String>,
    body: Result<Json<MemberSuspension>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let suspended = document(body)?.suspended;
    let member = find(&app, &caller, &member).await?;
    let mut write = app.store.write().await?;
    caller.demand_reach(&app, &mut write, &member.roles).await?;
    if suspended {
        demand_another_keeper(&app, &caller, &mut write, &member).await?;
    }
    if !caller.store(&app).suspend_member(&mut write, member.id, suspended).await? {
        return Err(ApiError::because(Code::InputInvalid, "the invitation was not accepted yet"));
    }
    let what = if suspended { "member.suspended" } else { "member.resumed" };
    caller.done(&app, write, what, &member.email).await
}

/// Gives a member other organization roles. Tokens with the former ones count no longer.
#[utoipa::path(put, path = "/members/{member}/roles", params(("member" = String, Path, description = "Id of the member")), request_body = Roles, responses((status = 204, description = "Done"), (status = 404, description = "No such member"), (status = 422, description = "No such role, or the last administrator")))]
pub(crate) async fn set_roles(
    State(app): State<App>,
    caller: Caller,
    Path(member): Path<String>,
    body: Result<Json<Roles>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let roles = document(body)?.roles;
    let member = find(&app, &caller, &member).await?;
    if roles.is_empty() {
        return Err(ApiError::because(Code::InputInvalid, "roles: at least one"));
    }
    let mut write = app.store.write().await?;
    caller.demand_to_give(&app, &mut write, &roles).await?;
    caller.demand_reach(&app, &mut write, &member.roles).await?;
    if is_keeper(&member.roles) && !is_keeper(&roles) {
        demand_another_keeper(&app, &caller, &mut write, &member).await?;
    }
    caller.store(&app).set_member_roles(&mut write, member.id, &roles).await?;
    caller.changed(&app, write, ("member.roles", &member.email), Some(&member.roles), Some(&roles)).await
}

/// Takes a role of an app in a stage from a member or an end user. Tokens that name it count no longer.
#[utoipa::path(delete, path = "/apps/{app}/roles/{stage}/{role}/{member}", params(("app" = String, Path, description = "Name of the app"), ("stage" = String, Path, description = "Stage"), ("role" = String, Path, description = "The role"), ("member" = String, Path, description = "Id of the member or end user")), responses((status = 204, description = "Taken"), (status = 404, description = "Nobody of this id has such a role")))]
pub(crate) async fn revoke_role(
    State(app): State<App>,
    caller: Caller,
    Path((name, stage, role, member)): Path<(String, String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let id: UserId = member.parse().map_err(|_| unknown())?;
    let member = caller.store(&app).member(id).await?.ok_or_else(unknown)?;
    let (name, stage) =
        (AppName::new(name).map_err(|_| unknown())?, StageName::new(stage).map_err(|_| unknown())?);
    let store = caller.store(&app);
    let found = store.app_named(&name).await?.ok_or_else(unknown)?;
    let mut write = app.store.write().await?;
    if !store.revoke_app_role(&mut write, &stage, found.id, &role, member.id).await? {
        return Err(unknown());
    }
    let detail = format!("{name} {role} in {stage} from {}", member.email);
    caller.done(&app, write, "role.revoked", &detail).await
}

/// Shows how long browser sessions at the apps of a stage last.
#[utoipa::path(get, path = "/stages/{stage}/sessions", params(("stage" = String, Path, description = "Stage")), responses((status = 200, body = Limits), (status = 404, description = "No such stage")))]
pub(crate) async fn limits(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
) -> Result<Json<Limits>, ApiError> {
    let stage = stage_of(&app, &caller, &stage).await?;
    let found = caller.store(&app).session_limits(stage.as_str()).await?.unwrap_or(DEFAULT_LIMITS);
    Ok(Json(Limits { max_s: found.max_s, idle_s: found.idle_s }))
}

/// Decides how long browser sessions at the apps of a stage last. Those that live end by it, too.
#[utoipa::path(put, path = "/stages/{stage}/sessions", params(("stage" = String, Path, description = "Stage")), request_body = Limits, responses((status = 204, description = "Done"), (status = 404, description = "No such stage"), (status = 422, description = "Too long or too short")))]
pub(crate) async fn set_limits(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    body: Result<Json<Limits>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Limits { max_s, idle_s } = document(body)?;
    let stage = stage_of(&app, &caller, &stage).await?;
    if !MAX_S.contains(&max_s) {
        return Err(ApiError::because(Code::InputInvalid, "max_s: 3600 (1 h) to 3888000 (45 d)"));
    }
    if !IDLE_S.contains(&idle_s) || idle_s > max_s {
        return Err(ApiError::because(
            Code::InputInvalid,
            "idle_s: 300 (5 min) to 3888000 (45 d), at most max_s",
        ));
    }
    let mut write = app.store.write().await?;
    let before = caller.store(&app).session_limits(stage.as_str()).await?.unwrap_or(DEFAULT_LIMITS);
    let limits = SessionLimits { max_s, idle_s };
    caller.store(&app).set_session_limits(&mut write, stage.as_str(), limits).await?;
    let (old, new) = (Limits { max_s: before.max_s, idle_s: before.idle_s }, Limits { max_s, idle_s });
    caller.changed(&app, write, ("session.limits", stage.as_str()), Some(&old), Some(&new)).await
}

pub(super) fn shown(caller: &Caller, sessions: Vec<SessionInfo>) -> Vec<SessionView> {
    let view = |session: SessionInfo| SessionView {
        current: session.id == caller.who.sid,
        kind: if session.kind == "provider" { "sign-in".to_owned() } else { session.kind },
        id: session.id,
        client: session.client,
        stage: session.stage,
        since: session.since,
        seen: session.seen,
        until: session.until,
    };
    sessions.into_iter().map(view).collect()
}

pub(super) async fn find(app: &App, caller: &Caller, member: &str) -> Result<MemberRow, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let id: UserId = member.parse().map_err(|_| unknown())?;
    let found = caller.store(app).member(id).await?;
    found.filter(|member| member.stage.is_empty()).ok_or_else(unknown)
}

pub(super) async fn stage_of(app: &App, caller: &Caller, text: &str) -> Result<StageName, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let stage = StageName::new(text).map_err(|_| unknown())?;
    let there = caller.store(app).stage_names().await?.contains(&stage);
    caller.demand_in(&stage)?;
    if there { Ok(stage) } else { Err(unknown()) }
}

/// Nobody may lock an organization out of itself. Within the transaction of the change, so that two administrators
/// cannot take each other's place away at the same time.
async fn demand_another_keeper(
    app: &App,
    caller: &Caller,
    write: &mut Write,
    member: &MemberRow,
) -> Result<(), ApiError> {
    if !is_keeper(&member.roles) || member.state != "active" {
        return Ok(());
    }
    let others = caller.store(app).roles_of_others(write, member.id).await?;
    if others.iter().any(|roles| is_keeper(roles)) {
        return Ok(());
    }
    Err(ApiError::because(Code::InputInvalid, "this is the last administrator"))
}

fn is_keeper(roles: &[String]) -> bool {
    roles.iter().any(|role| KEEPERS.contains(&role.as_str()))
}
