//! Customers, for operators.

use crate::{ApiError, App, caller::Caller, orgs};
use axum::{Json, extract::State, extract::rejection::JsonRejection};
use bastide_types::{Code, CustomerName};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// A customer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Customer {
    id: String,
    name: String,
    platform_url: String,
}

/// A customer to create.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCustomer {
    /// First label of its hosts.
    name: String,
    /// E-mail address of its first administrator.
    administrator_email: String,
}

/// A created customer. Secret and link are shown this once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct CreatedCustomer {
    id: String,
    name: String,
    platform_url: String,
    invitation_link: String,
    client: FirstClient,
}

/// An API client with its secret.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct FirstClient {
    id: String,
    secret: String,
}

/// Lists customers.
#[utoipa::path(get, path = "/customers", responses((status = 200, body = Vec<Customer>)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Json<Vec<Customer>>, ApiError> {
    let rows = app.store.customers().await?;
    let customers = rows.into_iter().filter(|row| !row.name.is_operator());
    let shown = customers.map(|row| Customer {
        id: row.id.to_string(),
        platform_url: app.config.domains.platform_url(&row.name),
        name: row.name.to_string(),
    });
    Ok(Json(shown.collect()))
}

/// Creates a customer with its stages, issuers, first administrator and an API client.
#[utoipa::path(post, path = "/customers", request_body = NewCustomer, responses((status = 201, body = CreatedCustomer), (status = 409, description = "The name is taken")))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewCustomer>, JsonRejection>,
) -> Result<(StatusCode, Json<CreatedCustomer>), ApiError> {
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let name = CustomerName::new(new.name)
        .map_err(|error| ApiError::because(Code::InputInvalid, format!("name: {error}")))?;
    let made = orgs::create(&app, &name, &new.administrator_email, &caller.who.sub).await?;
    let created = CreatedCustomer {
        id: made.id.to_string(),
        platform_url: app.config.domains.platform_url(&name),
        name: name.to_string(),
        invitation_link: made.invitation_link,
        client: FirstClient { id: made.client_id, secret: made.client_secret.expose().to_owned() },
    };
    Ok((StatusCode::CREATED, Json(created)))
}
