//! Providers of identity outside: the part of the API by which administrators set them up.

use super::{
    idp::{Auth, IdpConfig},
    provider::discover,
    sessions_api::stage_of,
};
use crate::{ApiError, App, caller::Caller, error::document, wire::Query};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    routing::get,
};
use bastide_identity::IdKey;
use bastide_store::{IdpRow, StoreError};
use bastide_types::{Code, Secret, StageName};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

/// Most providers of a stage, or of the members.
const IDPS_MAX: usize = 20;
/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 1024;

#[derive(OpenApi)]
#[openapi(paths(list, create, show, change, remove))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/idps", get(list).post(create))
        .route("/idps/{idp}", get(show).put(change).delete(remove))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// Whose users a provider knows.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Of {
    /// End users of this stage; members when missing.
    stage: Option<String>,
}

/// A provider of identity.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct IdpView {
    id: String,
    config: IdpConfig,
    /// Whether it has a secret of ours.
    has_secret: bool,
    /// What the provider must be told: where it sends browsers back to.
    redirect_uri: String,
    /// Where it may tell of sign-outs (OpenID Connect Back-Channel Logout).
    backchannel_logout_uri: String,
    /// Where it finds the public half of our key.
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_uri: Option<String>,
}

/// A provider to set up.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewIdp {
    /// At most 31 of a-z, 0-9, `-`.
    id: String,
    /// Our secret there.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    secret: Option<Secret>,
    config: IdpConfig,
}

/// Another decision about a provider.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdpChange {
    /// Our secret there; that of before when missing.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    secret: Option<Secret>,
    config: IdpConfig,
}

/// Lists providers.
#[utoipa::path(get, path = "/idps", params(Of), responses((status = 200, body = Vec<IdpView>), (status = 404, description = "No such stage")))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(of): Query<Of>,
) -> Result<Json<Vec<IdpView>>, ApiError> {
    let stage = place(&app, &caller, &of).await?;
    let rows = caller.store(&app).idps(text(stage.as_ref())).await?;
    rows.into_iter().map(|row| view(&app, &caller, stage.as_ref(), row)).collect::<Result<_, _>>().map(Json)
}

/// Sets a provider up. It is asked at once for what it says about itself.
#[utoipa::path(post, path = "/idps", params(Of), request_body = NewIdp, responses((status = 201, body = IdpView), (status = 403, description = "Its users could do more than the caller"), (status = 404, description = "No such stage"), (status = 409, description = "The id is taken"), (status = 422, description = "A setting, or the provider, will not do")))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Query(of): Query<Of>,
    body: Result<Json<NewIdp>, JsonRejection>,
) -> Result<(StatusCode, Json<IdpView>), ApiError> {
    let stage = place(&app, &caller, &of).await?;
    let new = document(body)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if new.id.is_empty() || new.id.len() > 31 || !new.id.bytes().all(plain) {
        return Err(ApiError::because(Code::InputInvalid, "id: at most 31 of a-z, 0-9, `-`"));
    }
    let row = IdpRow {
        stage: text(stage.as_ref()).to_owned(),
        id: new.id,
        config: String::new(),
        secret: None,
        private: None,
    };
    let row = decided(&app, row, new.config, new.secret).await?;
    let own = caller.store(&app);
    if own.idps(&row.stage).await?.len() >= IDPS_MAX {
        return Err(ApiError::because(Code::InputInvalid, format!("at most {IDPS_MAX} providers")));
    }
    let mut write = app.store.write().await?;
    demand_power(&app, &caller, &mut write, &row).await?;
    own.add_idp(&mut write, &row).await.map_err(|error| match error {
        StoreError::Taken => ApiError::because(Code::NameTaken, format!("there is a provider {}", row.id)),
        other => other.into(),
    })?;
    caller.done(&app, write, "idp.created", &named(&row)).await?;
    Ok((StatusCode::CREATED, Json(view(&app, &caller, stage.as_ref(), row)?)))
}

/// Shows a provider.
#[utoipa::path(get, path = "/idps/{idp}", params(("idp" = String, Path, description = "Id of the provider"), Of), responses((status = 200, body = IdpView), (status = 404, description = "No such provider")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(of): Query<Of>,
) -> Result<Json<IdpView>, ApiError> {
    let (stage, row) = find(&app, &caller, &of, &id).await?;
    Ok(Json(view(&app, &caller, stage.as_ref(), row)?))
}

/// Replaces what was decided about a provider. One that is not offered any more is not asked.
#[utoipa::path(put, path = "/idps/{idp}", params(("idp" = String, Path, description = "Id of the provider"), Of), request_body = IdpChange, responses((status = 200, body = IdpView), (status = 403, description = "Its users could do more than the caller"), (status = 404, description = "No such provider"), (status = 422, description = "A setting, or the provider, will not do")))]
pub(crate) async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(of): Query<Of>,
    body: Result<Json<IdpChange>, JsonRejection>,
) -> Result<Json<IdpView>, ApiError> {
    let (stage, before) = find(&app, &caller, &of, &id).await?;
    let IdpChange { secret, config } = document(body)?;
    let is_elsewhere = read(&before)?.issuer != config.issuer;
    let row = decided(&app, before, config, secret).await?;
    let own = caller.store(&app);
    let mut write = app.store.write().await?;
    demand_power(&app, &caller, &mut write, &row).await?;
    if is_elsewhere {
        // Another provider has other users, whatever it calls them.
        own.remove_idp(&mut write, &row.stage, &row.id).await?;
        own.add_idp(&mut write, &row).await?;
    } else {
        own.change_idp(&mut write, &row).await?;
    }
    caller.done(&app, write, "idp.changed", &named(&row)).await?;
    Ok(Json(view(&app, &caller, stage.as_ref(), row)?))
}

/// Removes a provider. Sign-ins that came from it end; accounts stay.
#[utoipa::path(delete, path = "/idps/{idp}", params(("idp" = String, Path, description = "Id of the provider"), Of), responses((status = 204, description = "Removed"), (status = 404, description = "No such provider")))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(of): Query<Of>,
) -> Result<StatusCode, ApiError> {
    let (_, row) = find(&app, &caller, &of, &id).await?;
    let mut write = app.store.write().await?;
    demand_power(&app, &caller, &mut write, &row).await?;
    caller.store(&app).remove_idp(&mut write, &row.stage, &row.id).await?;
    caller.done(&app, write, "idp.removed", &named(&row)).await
}

/// A provider in which nothing is wrong, as far as can be seen from here.
async fn decided(
    app: &App,
    before: IdpRow,
    config: IdpConfig,
    secret: Option<Secret>,
) -> Result<IdpRow, ApiError> {
    let invalid = |why: String| ApiError::because(Code::InputInvalid, why);
    config.check(!before.stage.is_empty()).map_err(invalid)?;
    let issuer = app.outbound.demand(&config.issuer).map_err(|fault| invalid(format!("issuer: {fault}")))?;
    if issuer.query().is_some() {
        return Err(invalid("issuer: an address without a query".to_owned()));
    }
    let secret = secret.map(|secret| secret.expose().to_owned()).or(before.secret);
    let has_secret = secret.as_ref().is_some_and(|secret| (1..=SECRET_BYTES_MAX).contains(&secret.len()));
    let needs_secret = matches!(config.auth, Auth::ClientSecretBasic | Auth::ClientSecretPost);
    if needs_secret && !has_secret {
        return Err(invalid("secret: what the provider gave you, or another `auth`".to_owned()));
    }
    if config.enabled {
        let found = discover(&app.outbound, &config.issuer).await;
        found.map_err(|fault| invalid(format!("issuer: {fault}")))?;
    }
    let private = match (config.auth, before.private) {
        (Auth::PrivateKeyJwt, None) => {
            let made = tokio::task::spawn_blocking(IdKey::generate).await;
            Some(made.map_err(|error| ApiError::internal(&error))??.1)
        }
        (_, kept) => kept,
    };
    let config = serde_json::to_string(&config).map_err(|error| ApiError::internal(&error))?;
    Ok(IdpRow { config, secret: secret.filter(|_| needs_secret), private, ..before })
}

/// Whoever sets a provider of members up decides who is whom among them: that needs all that any of them may do.
async fn demand_power(
    app: &App,
    caller: &Caller,
    write: &mut bastide_store::Write,
    row: &IdpRow,
) -> Result<(), ApiError> {
    if !row.stage.is_empty() {
        return Ok(());
    }
    caller.demand_reach(app, write, &["administrator".to_owned()]).await?;
    caller.demand_to_give(app, write, &read(row)?.roles).await
}

async fn find(
    app: &App,
    caller: &Caller,
    of: &Of,
    id: &str,
) -> Result<(Option<StageName>, IdpRow), ApiError> {
    let stage = place(app, caller, of).await?;
    let row = caller.store(app).idp(text(stage.as_ref()), id).await?;
    Ok((stage, row.ok_or_else(|| ApiError::new(Code::ApiUnknown))?))
}

async fn place(app: &App, caller: &Caller, of: &Of) -> Result<Option<StageName>, ApiError> {
    match &of.stage {
        Some(stage) => stage_of(app, caller, stage).await.map(Some),
        // Members are in no stage.
        None => caller.demand_everywhere().map(|()| None),
    }
}

fn text(stage: Option<&StageName>) -> &str {
    stage.map_or("", StageName::as_str)
}

fn read(row: &IdpRow) -> Result<IdpConfig, ApiError> {
    serde_json::from_str(&row.config).map_err(|error| ApiError::internal(&error))
}

fn view(app: &App, caller: &Caller, stage: Option<&StageName>, row: IdpRow) -> Result<IdpView, ApiError> {
    let (domains, name) = (&app.config.domains, &caller.customer.name);
    let issuer = stage.map_or_else(|| domains.member_issuer(name), |stage| domains.stage_issuer(name, stage));
    let at = |endpoint: &str| format!("{issuer}/broker/{}/{endpoint}", row.id);
    let config = read(&row)?;
    Ok(IdpView {
        redirect_uri: at("callback"),
        backchannel_logout_uri: at("backchannel_logout"),
        jwks_uri: (config.auth == Auth::PrivateKeyJwt).then(|| at("jwks")),
        has_secret: row.secret.is_some(),
        id: row.id,
        config,
    })
}

fn named(row: &IdpRow) -> String {
    if row.stage.is_empty() { row.id.clone() } else { format!("{}: {}", row.stage, row.id) }
}
