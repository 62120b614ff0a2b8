//! What an organization demands of sign-ins, and second factors that are lost: the part of the API for administrators.

use super::sessions_api::find;
use crate::{ApiError, App, caller::Caller, error::document, permissions::Permission};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    routing::{delete, get},
};
use bastide_store::{SignInPolicy, StepUpRule};
use bastide_types::{Code, StageName, StepUp};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

/// Most rules for permissions.
const RULES_MAX: usize = 100;

#[derive(OpenApi)]
#[openapi(paths(policy, set_policy, reset_second_factor, reset_passkeys))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/sign-in/policy", get(policy).put(set_policy))
        .route("/members/{member}/second-factor", delete(reset_second_factor))
        .route("/members/{member}/passkeys", delete(reset_passkeys))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// What is demanded of sign-ins.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    /// Whether every member needs a second factor. Those without set it up at their next sign-in.
    second_factor: bool,
    /// What permissions demand of the sign-in of members who use them. Clients are not asked.
    #[serde(default)]
    step_up: Vec<StepUpView>,
}

/// What a permission demands of a sign-in.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepUpView {
    /// Name of the permission, such as `apps.deploy`.
    permission: String,
    /// Only in this stage; for `apps.deploy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    /// `password`, `mfa` or `passkey`.
    acr: String,
    /// Most seconds since the sign-in, 60 to 86 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_age_s: Option<u64>,
}

/// Shows what is demanded of sign-ins.
#[utoipa::path(get, path = "/sign-in/policy", responses((status = 200, body = Policy)))]
pub(crate) async fn policy(State(app): State<App>, caller: Caller) -> Result<Json<Policy>, ApiError> {
    let found = caller.store(&app).sign_in_policy().await?;
    let view = |rule: StepUpRule| StepUpView {
        permission: rule.permission,
        stage: rule.stage.map(|stage| stage.to_string()),
        acr: rule.demand.acr.to_string(),
        max_age_s: rule.demand.max_age_s,
    };
    let step_up = found.step_up.into_iter().map(view).collect();
    Ok(Json(Policy { second_factor: found.second_factor, step_up }))
}

/// Decides what is demanded of sign-ins from now on.
#[utoipa::path(put, path = "/sign-in/policy", request_body = Policy, responses((status = 204, description = "Done"), (status = 422, description = "No such permission or stage, or a demand that nobody meets")))]
pub(crate) async fn set_policy(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<Policy>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Policy { second_factor, step_up } = document(body)?;
    let stages = caller.store(&app).stage_names().await?;
    let step_up = rules(step_up, &stages).map_err(|what| ApiError::because(Code::InputInvalid, what))?;
    let policy = SignInPolicy { second_factor, step_up };
    let mut write = app.store.write().await?;
    caller.store(&app).set_sign_in_policy(&mut write, &policy).await?;
    let factor = if second_factor { "second factor demanded" } else { "second factor up to each member" };
    let rules = policy.step_up.iter().map(|rule| rule.permission.as_str()).collect::<Vec<_>>().join(", ");
    let detail = if rules.is_empty() { factor.to_owned() } else { format!("{factor}; step-up for {rules}") };
    caller.done(&app, write, "sign-in.policy", &detail).await
}

/// What a rule may demand in one stage only.
const IN_STAGE: [Permission; 3] =
    [Permission::AppsDeploy, Permission::SettingsWrite, Permission::SecretsWrite];

/// Checks what was written.
fn rules(views: Vec<StepUpView>, stages: &[StageName]) -> Result<Vec<StepUpRule>, &'static str> {
    if views.len() > RULES_MAX {
        return Err("step_up: at most 100");
    }
    let rule = |view: StepUpView| {
        let permission = Permission::named(&view.permission).filter(|one| *one != Permission::Account);
        let permission =
            permission.ok_or("step_up.permission: see `bastide role permissions`; not `account`")?;
        let stage = view.stage.map(StageName::new).transpose().map_err(|_| "step_up.stage: no stage")?;
        if let Some(stage) = &stage
            && (!IN_STAGE.contains(&permission) || !stages.contains(stage))
        {
            return Err(
                "step_up.stage: one of your stages, with the permission apps.deploy, settings.write or secrets.write",
            );
        }
        let acr = view.acr.parse().map_err(|_| "step_up.acr: password, mfa or passkey")?;
        let demand = StepUp { acr, max_age_s: view.max_age_s };
        if !demand.is_sound() {
            return Err("step_up: acr is password, mfa or passkey, max_age_s 60 to 86400");
        }
        Ok(StepUpRule { permission: permission.as_str().to_owned(), stage, demand })
    };
    views.into_iter().map(rule).collect()
}

/// Takes the second factor from a member who has lost it, and ends the member's sessions: who found it may hold them.
#[utoipa::path(delete, path = "/members/{member}/second-factor", params(("member" = String, Path, description = "Id of the member")), responses((status = 204, description = "Reset"), (status = 404, description = "No such member"), (status = 422, description = "The member has none")))]
pub(crate) async fn reset_second_factor(
    State(app): State<App>,
    caller: Caller,
    Path(member): Path<String>,
) -> Result<StatusCode, ApiError> {
    let member = find(&app, &caller, &member).await?;
    let mut write = app.store.write().await?;
    caller.demand_reach(&app, &mut write, &member.roles).await?;
    let store = caller.store(&app);
    if !store.remove_second_factor(&mut write, member.id).await? {
        return Err(ApiError::because(Code::InputInvalid, "the member has no second factor"));
    }
    store.end_sessions_of(&mut write, member.id).await?;
    caller.done(&app, write, "second-factor.reset", &member.email).await
}

/// Takes all passkeys from a member who has lost one, and ends the member's sessions: who found it may hold them.
#[utoipa::path(delete, path = "/members/{member}/passkeys", params(("member" = String, Path, description = "Id of the member")), responses((status = 204, description = "Reset"), (status = 404, description = "No such member"), (status = 422, description = "The member has none")))]
pub(crate) async fn reset_passkeys(
    State(app): State<App>,
    caller: Caller,
    Path(member): Path<String>,
) -> Result<StatusCode, ApiError> {
    let member = find(&app, &caller, &member).await?;
    let mut write = app.store.write().await?;
    caller.demand_reach(&app, &mut write, &member.roles).await?;
    let store = caller.store(&app);
    if store.remove_passkeys(&mut write, member.id).await? == 0 {
        return Err(ApiError::because(Code::InputInvalid, "the member has no passkey"));
    }
    store.end_sessions_of(&mut write, member.id).await?;
    caller.done(&app, write, "passkeys.reset", &member.email).await
}
