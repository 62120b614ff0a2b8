//! Registered clients: the part of the API by which administrators look after them.

use super::{
    client_keys_api::{self, ClientKeyView, NewClientKeys},
    clients::demand_redirect,
};
use crate::{ApiError, App, caller::Caller, error::document, wire::paging::Part};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::JsonRejection},
    routing::{delete, get, post, put},
};
use bastide_identity::opaque::Opaque;
use bastide_store::{ClientKeyRow, ClientRow, ClientSecretRow, StoreError, now_s};
use bastide_types::{Code, Secret, UserId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

/// Secrets that a client may have at the same time.
const SECRETS_MAX: i64 = 2;
/// Longest life of a secret, in days.
const SECRET_DAYS_MAX: u32 = 3650;
/// Most redirect URIs of a client, of each kind.
const REDIRECTS_MAX: usize = 50;

#[derive(OpenApi)]
#[openapi(paths(list, create, show, remove, suspend, add_secret, remove_secret))]
struct Description;

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(app: App) -> Router {
    Router::new()
        .route("/clients", get(list).post(create))
        .route("/clients/{client}", get(show).delete(remove))
        .route("/clients/{client}/suspension", put(suspend))
        .route("/clients/{client}/secrets", post(add_secret))
        .route("/clients/{client}/secrets/{secret}", delete(remove_secret))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(app)
}

/// A client.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ClientView {
    id: String,
    name: String,
    /// `public`, `confidential`, `service` or `device`.
    kind: String,
    redirect_uris: Vec<String>,
    post_logout_redirect_uris: Vec<String>,
    /// Where it hears that a session of its users has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    backchannel_logout_uri: Option<String>,
    roles: Vec<String>,
    suspended: bool,
    secrets: Vec<SecretView>,
    /// Public keys by which it proves itself.
    keys: Vec<ClientKeyView>,
}

/// A secret of a client, without the secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SecretView {
    id: String,
    /// Seconds since 1970; without an end when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
}

/// A client to register.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewClient {
    id: String,
    name: Option<String>,
    /// `public`, `confidential`, `service` or `device`.
    kind: String,
    /// Compared as text; on loopback any port is the same.
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    post_logout_redirect_uris: Vec<String>,
    /// Where it hears that a session of its users has ended (OpenID Connect Back-Channel Logout).
    #[serde(default)]
    backchannel_logout_uri: Option<String>,
    /// Organization roles: those of a service; for others the most that a member's token carries. `ROLE@STAGE` counts in
    /// that stage only.
    #[serde(default)]
    roles: Vec<String>,
    /// Public keys by which it proves itself; then it gets no secret.
    #[serde(default)]
    keys: Option<NewClientKeys>,
}

/// A client that was registered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedClient {
    id: String,
    /// Shown this once; public clients, devices and clients with keys have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    secret: Option<Secret>,
}

/// Whether a client may do anything.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suspension {
    suspended: bool,
}

/// A secret to make.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSecret {
    /// Days until it ends; without an end when missing.
    days: Option<u32>,
}

/// A new secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedSecret {
    id: String,
    /// Shown this once.
    #[schema(value_type = String)]
    secret: Secret,
}

/// Lists clients.
#[utoipa::path(get, path = "/clients", params(Part), responses((status = 200, body = Vec<ClientView>)))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(part): Query<Part>,
) -> Result<Json<Vec<ClientView>>, ApiError> {
    let (own, (after, most)) = (caller.store(&app), part.page());
    let rows = own.clients_after(after, most).await?;
    let Some(last) = rows.last().map(|row| row.id.clone()) else { return Ok(Json(Vec::new())) };
    let mut secrets = own.client_secrets_between(after, &last).await?;
    let mut keys = own.client_keys_between(after, &last).await?;
    let shown = rows.into_iter().map(|row| {
        let (secrets, keys) = (secrets.remove(&row.id), keys.remove(&row.id));
        view(row, secrets.unwrap_or_default(), keys.unwrap_or_default())
    });
    shown.collect::<Result<_, _>>().map(Json)
}

/// Registers a client. The secret of one that gets any is in the answer, and nowhere else.
#[utoipa::path(post, path = "/clients", request_body = NewClient, responses((status = 201, body = CreatedClient), (status = 409, description = "The id is taken")))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewClient>, JsonRejection>,
) -> Result<(StatusCode, Json<CreatedClient>), ApiError> {
    let new = document(body)?;
    let keys = new.keys.as_ref().map(NewClientKeys::checked).transpose()?;
    let row = checked(new)?;
    if keys.is_some() && !keeps_secret(&row) {
        return Err(ApiError::because(Code::InputInvalid, "keys: for confidential clients and services"));
    }
    if let Some(uri) = &row.backchannel_logout_uri {
        let sound = app.outbound.demand(uri);
        sound.map_err(|fault| {
            ApiError::because(Code::InputInvalid, format!("backchannel_logout_uri: {fault}"))
        })?;
    }
    let store = caller.store(&app);
    let mut write = app.store.write().await?;
    caller.demand_to_give(&app, &mut write, &row.roles).await?;
    match store.add_client(&mut write, &row).await {
        Ok(()) => {}
        Err(StoreError::Taken) => {
            return Err(ApiError::because(Code::NameTaken, format!("there is a client {}", row.id)));
        }
        Err(other) => return Err(other.into()),
    }
    let mut secret = None;
    if let Some(keys) = &keys {
        client_keys_api::put(&store, &mut write, &row.id, keys).await?;
    } else if keeps_secret(&row) {
        let made = Opaque::generate().map_err(ApiError::from)?;
        store.add_client_secret(&mut write, &row.id, &made.hash, None, SECRETS_MAX).await?;
        secret = Some(made.secret);
    }
    caller.done(&app, write, "client.created", &format!("{} ({})", row.id, row.kind)).await?;
    Ok((StatusCode::CREATED, Json(CreatedClient { id: row.id, secret })))
}

/// Shows a client.
#[utoipa::path(get, path = "/clients/{client}", params(("client" = String, Path, description = "Id of the client")), responses((status = 200, body = ClientView), (status = 404, description = "No such client")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<ClientView>, ApiError> {
    let store = caller.store(&app);
    let row = store.client_with_id(&id).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    let secrets = store.client_secrets(&id).await?;
    let keys = store.client_keys(&id).await?;
    view(row, secrets, keys).map(Json)
}

/// Removes a client and ends its sessions.
#[utoipa::path(delete, path = "/clients/{client}", params(("client" = String, Path, description = "Id of the client")), responses((status = 204, description = "Removed"), (status = 404, description = "No such client")))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut write = app.store.write().await?;
    found(caller.store(&app).remove_client(&mut write, &id).await?)?;
    caller.done(&app, write, "client.removed", &id).await
}

/// Suspends a client, which ends its sessions, or lets it work again.
#[utoipa::path(put, path = "/clients/{client}/suspension", params(("client" = String, Path, description = "Id of the client")), request_body = Suspension, responses((status = 204, description = "Done"), (status = 404, description = "No such client")))]
pub(crate) async fn suspend(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Result<Json<Suspension>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let suspended = document(body)?.suspended;
    let mut write = app.store.write().await?;
    found(caller.store(&app).suspend_client(&mut write, &id, suspended).await?)?;
    caller.done(&app, write, if suspended { "client.suspended" } else { "client.resumed" }, &id).await
}

/// Makes another secret; two may overlap while the client changes over.
#[utoipa::path(post, path = "/clients/{client}/secrets", params(("client" = String, Path, description = "Id of the client")), request_body = NewSecret, responses((status = 201, body = CreatedSecret), (status = 404, description = "No such client"), (status = 409, description = "It has two secrets")))]
pub(crate) async fn add_secret(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: Result<Json<NewSecret>, JsonRejection>,
) -> Result<(StatusCode, Json<CreatedSecret>), ApiError> {
    let days = document(body)?.days;
    if days.is_some_and(|days| days == 0 || days > SECRET_DAYS_MAX) {
        return Err(ApiError::because(Code::InputInvalid, format!("days: 1 to {SECRET_DAYS_MAX}")));
    }
    let store = caller.store(&app);
    let row = store.client_with_id(&id).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    if !keeps_secret(&row) {
        return Err(ApiError::because(Code::InputInvalid, "a client of this kind keeps no secret"));
    }
    let made = Opaque::generate().map_err(ApiError::from)?;
    let until = days.map(|days| now_s() + i64::from(days) * 86_400);
    let mut write = app.store.write().await?;
    caller.demand_reach(&app, &mut write, &row.roles).await?;
    let added = store.add_client_secret(&mut write, &id, &made.hash, until, SECRETS_MAX).await?;
    let secret_id = added.ok_or_else(|| {
        ApiError::because(Code::NameTaken, format!("{id} has two secrets; revoke one of them first"))
    })?;
    caller.done(&app, write, "client.secret.added", &format!("{id} {secret_id}")).await?;
    Ok((StatusCode::CREATED, Json(CreatedSecret { id: secret_id, secret: made.secret })))
}

/// Takes a secret away.
#[utoipa::path(delete, path = "/clients/{client}/secrets/{secret}", params(("client" = String, Path, description = "Id of the client"), ("secret" = String, Path, description = "Id of the secret")), responses((status = 204, description = "Removed"), (status = 404, description = "No such secret")))]
pub(crate) async fn remove_secret(
    State(app): State<App>,
    caller: Caller,
    Path((id, secret)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let mut write = app.store.write().await?;
    found(caller.store(&app).remove_client_secret(&mut write, &id, &secret).await?)?;
    caller.done(&app, write, "client.secret.removed", &format!("{id} {secret}")).await
}

/// A registration in which nothing is wrong.
fn checked(new: NewClient) -> Result<ClientRow, ApiError> {
    let invalid = |because: String| Err(ApiError::because(Code::InputInvalid, because));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    // Ids of users are no ids of clients, and ours are ours.
    let reserved = new.id.starts_with("bastide-") || new.id.parse::<UserId>().is_ok();
    if new.id.is_empty() || new.id.len() > 63 || !new.id.bytes().all(plain) || reserved {
        return invalid("id: at most 63 of a-z, 0-9, `-`, `_`; not beginning with `bastide-`".into());
    }
    if !matches!(new.kind.as_str(), "public" | "confidential" | "service" | "device") {
        return invalid("kind: public, confidential, service, device".into());
    }
    let no_browser = matches!(new.kind.as_str(), "service" | "device");
    if no_browser != new.redirect_uris.is_empty() || (no_browser && !new.post_logout_redirect_uris.is_empty())
    {
        return invalid("redirect_uris: at least one, and none for a service or device".into());
    }
    if no_browser && new.backchannel_logout_uri.is_some() {
        return invalid("backchannel_logout_uri: for clients whose users have browsers".into());
    }
    if new.redirect_uris.len().max(new.post_logout_redirect_uris.len()) > REDIRECTS_MAX {
        return invalid(format!("redirect_uris: at most {REDIRECTS_MAX}"));
    }
    for uri in new.redirect_uris.iter().chain(&new.post_logout_redirect_uris) {
        if let Err(because) = demand_redirect(uri, &new.kind) {
            return invalid(format!("redirect_uris: {because}"));
        }
    }
    let name = new.name.unwrap_or_else(|| new.id.clone());
    Ok(ClientRow {
        name: name.chars().filter(|c| !c.is_control()).take(100).collect(),
        id: new.id,
        kind: new.kind,
        redirect_uris: new.redirect_uris,
        post_logout_redirect_uris: new.post_logout_redirect_uris,
        backchannel_logout_uri: new.backchannel_logout_uri,
        roles: new.roles,
        suspended: false,
    })
}

/// Whether it runs where a secret or a private key can be kept.
pub(super) fn keeps_secret(row: &ClientRow) -> bool {
    matches!(row.kind.as_str(), "confidential" | "service")
}

fn view(
    row: ClientRow,
    secrets: Vec<ClientSecretRow>,
    keys: Vec<ClientKeyRow>,
) -> Result<ClientView, ApiError> {
    let secrets = secrets.into_iter().map(|secret| SecretView { id: secret.id, until: secret.until });
    Ok(ClientView {
        secrets: secrets.collect(),
        keys: client_keys_api::views(keys)?,
        id: row.id,
        name: row.name,
        kind: row.kind,
        redirect_uris: row.redirect_uris,
        post_logout_redirect_uris: row.post_logout_redirect_uris,
        backchannel_logout_uri: row.backchannel_logout_uri,
        roles: row.roles,
        suspended: row.suspended,
    })
}

pub(super) fn found(there: bool) -> Result<(), ApiError> {
    if there { Ok(()) } else { Err(ApiError::new(Code::ApiUnknown)) }
}
