//! Who is asking.

use crate::{ApiError, App, caller::Caller, permissions::Permissions};
use axum::{Json, extract::State};
use bastide_types::UserId;
use serde::Serialize;
use std::collections::BTreeMap;

/// Who is asking.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Whoami {
    /// User id, or an API client's id.
    subject: String,
    /// Name to show.
    name: String,
    /// E-mail address, for members.
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// Customer.
    customer: String,
    /// Organization roles.
    roles: Vec<String>,
    /// What these roles hold everywhere.
    permissions: Vec<&'static str>,
    /// What roles for single stages hold besides, by stage.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stages: BTreeMap<String, Vec<&'static str>>,
    /// Session.
    session: String,
    /// What everybody should know who runs apps here.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

/// Says who is asking.
#[utoipa::path(get, path = "/whoami", responses((status = 200, body = Whoami), (status = 401, description = "No valid token")))]
pub(crate) async fn whoami(State(app): State<App>, caller: Caller) -> Result<Json<Whoami>, ApiError> {
    let email = match caller.who.sub.parse::<UserId>() {
        Ok(id) => caller.store(&app).member(id).await?.map(|member| member.email),
        Err(_) => None,
    };
    let names = |held: &Permissions| held.iter().map(|one| one.as_str()).collect();
    let stages = caller.held.stages().iter();
    Ok(Json(Whoami {
        subject: caller.who.sub.clone(),
        name: caller.who.name.clone(),
        email,
        customer: caller.customer.name.to_string(),
        roles: caller.who.roles.clone(),
        permissions: names(caller.held.everywhere()),
        stages: stages.map(|(stage, held)| (stage.to_string(), names(held))).collect(),
        session: caller.who.sid.clone(),
        warning: app.config.isolation.warning(),
    }))
}
