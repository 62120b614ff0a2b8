//! Public keys of registered clients: the part of the API by which administrators look after them.

use super::{
    client_api::{found, keeps_secret},
    clients::kept_key,
};
use crate::{ApiError, App, caller::Caller, error::document};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    routing::{delete, get},
};
use bastide_identity::{ClientKey, client_key::CLIENT_KEYS_MAX};
use bastide_store::{ClientKeyRow, CustomerStore, KeysAdded, Write, now_s};
use bastide_types::Code;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(paths(list, add, remove))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/clients/{client}/keys", get(list).post(add))
        .route("/clients/{client}/keys/{kid}", delete(remove))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// Public keys to give a client: one as a JWK, or a set of them (RFC 7517): `{"keys": [...]}`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(value_type = Object)]
pub(crate) struct NewClientKeys(Value);

/// The public keys of a client.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ClientKeys {
    keys: Vec<ClientKeyView>,
}

/// A public key of a client.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ClientKeyView {
    kid: String,
    /// The one algorithm that it is used by: `ES256`, `EdDSA`, `RS256` or `PS256`.
    alg: &'static str,
    /// Seconds since 1970 at which it was given.
    since: i64,
    /// The key, as a JWK.
    #[schema(value_type = Object)]
    jwk: Value,
}

impl NewClientKeys {
    /// The keys, if nothing is wrong with them.
    pub(super) fn checked(&self) -> Result<Vec<ClientKeyRow>, ApiError> {
        let keys = ClientKey::read_all(&self.0);
        let keys = keys.map_err(|fault| ApiError::because(Code::InputInvalid, fault.to_string()))?;
        let row = |key: ClientKey| ClientKeyRow {
            kid: key.kid().to_owned(),
            jwk: key.jwk().to_string(),
            since: now_s(),
        };
        Ok(keys.into_iter().map(row).collect())
    }
}

/// Lists the public keys of a client.
#[utoipa::path(get, path = "/clients/{client}/keys", params(("client" = String, Path, description = "Id of the client")), responses((status = 200, body = ClientKeys), (status = 404, description = "No such client")))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ClientKeys>, ApiError> {
    let store = caller.store(&app);
    found(store.client_with_id(&id).await?.is_some())?;
    Ok(Json(ClientKeys { keys: views(store.client_keys(&id).await?)? }))
}

/// Gives a client public keys, by which it proves itself from now on (`private_key_jwt`, RFC 7523). A private key is
/// refused.
#[utoipa::path(post, path = "/clients/{client}/keys", params(("client" = String, Path, description = "Id of the client")), request_body = NewClientKeys, responses((status = 201, body = ClientKeys), (status = 404, description = "No such client"), (status = 409, description = "It has a key of this id, or four keys"), (status = 422, description = "No key that would do")))]
pub(crate) async fn add(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Result<Json<NewClientKeys>, JsonRejection>,
) -> Result<(StatusCode, Json<ClientKeys>), ApiError> {
    let keys = document(body)?.checked()?;
    let store = caller.store(&app);
    let row = store.client_with_id(&id).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    if !keeps_secret(&row) {
        return Err(ApiError::because(Code::InputInvalid, "a client of this kind keeps no key"));
    }
    let mut write = app.store.write().await?;
    caller.demand_reach(&app, &mut write, &row.roles).await?;
    put(&store, &mut write, &id, &keys).await?;
    caller.done(&app, write, "client.key.added", &format!("{id} {}", kids(&keys))).await?;
    Ok((StatusCode::CREATED, Json(ClientKeys { keys: views(store.client_keys(&id).await?)? })))
}

/// Takes a public key away; tokens that the client got for itself by it count no longer.
#[utoipa::path(delete, path = "/clients/{client}/keys/{kid}", params(("client" = String, Path, description = "Id of the client"), ("kid" = String, Path, description = "Id of the key")), responses((status = 204, description = "Removed"), (status = 404, description = "No such key")))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path((id, kid)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let mut write = app.store.write().await?;
    found(caller.store(&app).remove_client_key(&mut write, &id, &kid).await?)?;
    caller.done(&app, write, "client.key.removed", &format!("{id} {kid}")).await
}

/// Gives a client these keys, in the transaction of the change.
pub(super) async fn put(
    store: &CustomerStore<'_>,
    write: &mut Write,
    client: &str,
    keys: &[ClientKeyRow],
) -> Result<(), ApiError> {
    let taken = |why: String| Err(ApiError::because(Code::NameTaken, why));
    match store.add_client_keys(write, client, keys, CLIENT_KEYS_MAX).await? {
        KeysAdded::Done => Ok(()),
        KeysAdded::Known => taken(format!("{client} has a key of this id; remove it first")),
        KeysAdded::TooMany => {
            taken(format!("{client} may have {CLIENT_KEYS_MAX} keys; remove one of them first"))
        }
    }
}

/// The ids of keys, for the audit trail.
pub(super) fn kids(keys: &[ClientKeyRow]) -> String {
    keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>().join(" ")
}

/// Keys of a client, to show.
pub(super) fn views(rows: Vec<ClientKeyRow>) -> Result<Vec<ClientKeyView>, ApiError> {
    let view = |row: ClientKeyRow| {
        let key = kept_key(&row.jwk)?;
        Ok(ClientKeyView { kid: row.kid, alg: key.algorithm(), since: row.since, jwk: key.jwk() })
    };
    rows.into_iter().map(view).collect()
}
