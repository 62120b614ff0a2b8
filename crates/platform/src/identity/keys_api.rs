//! Keys of the organization's issuers: the part of the API that shows and exchanges them.

use crate::{ApiError, App, caller::Caller, error::document, keys};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State, rejection::JsonRejection},
    routing::{get, post},
};
use bastide_store::{KeyKind, KeyRow};
use bastide_types::{Code, StageName};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(paths(list, rotate))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/keys", get(list))
        .route("/keys/rotation", post(rotate))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// A key of an issuer, without its private half.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct KeyView {
    /// The stage whose issuer has it; missing for the organization's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<String>,
    /// What it signs: `access` or `id` tokens.
    signs: &'static str,
    /// `current`, `next` or `previous`.
    state: &'static str,
    /// Id.
    id: String,
    /// Seconds since 1970 at which it came into this state.
    since: i64,
}

/// Which issuers' keys to exchange. Without anything: those of the organization's own.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeyRotation {
    /// The issuer of this stage.
    stage: Option<String>,
    /// All issuers of the organization.
    all: bool,
    /// Whether the present keys are known to others: then they are gone at once, and all sessions and tokens with them.
    emergency: bool,
}

/// Lists the keys of the organization's issuers.
#[utoipa::path(get, path = "/keys", responses((status = 200, body = Vec<KeyView>)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<KeyView>>, ApiError> {
    let own = caller.store(&app);
    let mut shown = Vec::new();
    for stage in issuers(&app, &caller).await? {
        for kind in [KeyKind::Access, KeyKind::Id] {
            let keys = own.public_keys(stage.as_ref(), kind).await?;
            shown.extend(keys.into_iter().map(|key| view(stage.as_ref(), key)));
        }
    }
    Ok(Json(shown))
}

/// Lets the next keys sign; in an emergency, takes all keys away and ends everything that they signed.
#[utoipa::path(post, path = "/keys/rotation", request_body = KeyRotation, responses((status = 204, description = "Exchanged"), (status = 404, description = "No such stage"), (status = 409, description = "The next key was not published long enough")))]
pub(crate) async fn rotate(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<KeyRotation>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let KeyRotation { stage, all, emergency } = document(body)?;
    let known = issuers(&app, &caller).await?;
    let wanted: Vec<Option<StageName>> = match (stage, all) {
        (Some(_), true) => return Err(ApiError::because(Code::InputInvalid, "give one of `stage`, `all`")),
        (None, true) => known,
        (None, false) => vec![None],
        (Some(stage), false) => {
            let found = known.into_iter().flatten().find(|one| one.as_str() == stage);
            vec![Some(found.ok_or_else(|| ApiError::new(Code::ApiUnknown))?)]
        }
    };
    let (customer, by) = (caller.customer.id, &caller.who.sub);
    if emergency {
        keys::replace(&app, customer, &wanted, by).await?;
    } else {
        keys::rotate(&app, customer, &wanted, by).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The organization's own issuer, and those of its stages.
async fn issuers(app: &App, caller: &Caller) -> Result<Vec<Option<StageName>>, ApiError> {
    let stages = caller.store(app).stage_names().await?;
    Ok(std::iter::once(None).chain(stages.into_iter().map(Some)).collect())
}

fn view(stage: Option<&StageName>, key: KeyRow) -> KeyView {
    KeyView {
        stage: stage.map(ToString::to_string),
        signs: key.kind.as_str(),
        state: key.state.as_str(),
        id: key.kid,
        since: key.since,
    }
}
