//! What the runtime is like: what keeps apps apart, and which addresses outsiders see.

use crate::{ApiError, App};
use axum::{Json, extract::State};
use bastide_types::node::{Isolation, ZoneAddress};
use serde::Serialize;

/// What the runtime is like.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RuntimeView {
    /// `kernel` or `none`.
    #[schema(value_type = String)]
    isolation: Isolation,
    /// What everybody should know who uses it.
    warning: Option<&'static str>,
    /// Address that outsiders see, for each zone.
    egress: Vec<ZoneAddress>,
}

/// Says what keeps apps apart, and with which addresses each zone's apps call outside.
#[utoipa::path(get, path = "/runtime", responses((status = 200, body = RuntimeView), (status = 401, description = "No valid token")))]
pub(crate) async fn show(State(app): State<App>) -> Result<Json<RuntimeView>, ApiError> {
    let isolation = app.config.isolation;
    let egress = app.config.egress_addresses.clone();
    Ok(Json(RuntimeView { isolation, warning: isolation.warning(), egress }))
}
