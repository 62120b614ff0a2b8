//! Network settings of stages: where apps may call to, and which app may call which.

use crate::{ApiError, App, caller::Caller, deploy, wire::Query};
use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use bastide_store::StoreError;
use bastide_types::{
    AppName, Code, StageName,
    egress::{EgressDecision, Host, host_and_port},
    network::{CALLEE_PORT, POSTGRES_NAME, StageNetwork, internal_name, is_internal_name},
    node::Isolation,
    service::POSTGRES_PORT,
};
use serde::{Deserialize, Serialize};

/// What would become of a call.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Explanation {
    /// Whether it would go out.
    allowed: bool,
    /// Whether it goes out only because the policy reports and does not enforce.
    reported: bool,
    /// The rule, range or mode that decides.
    why: String,
    /// What else there is to know.
    note: Option<String>,
}

/// Which call to explain.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    /// Host and port, such as `api.example.com:443`.
    to: String,
    /// Stage. Default: the first.
    stage: Option<String>,
}

/// Shows the network settings of a stage.
#[utoipa::path(get, path = "/stages/{stage}/network", params(("stage" = String, Path, description = "Name of the stage")), responses((status = 200, body = StageNetwork), (status = 404, description = "No such stage")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
) -> Result<Json<StageNetwork>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    Ok(Json(caller.store(&app).network(&stage).await?))
}

/// Replaces the network settings of a stage. They are in force as soon as its agents hear of them.
#[utoipa::path(put, path = "/stages/{stage}/network", params(("stage" = String, Path, description = "Name of the stage")), request_body = StageNetwork, responses((status = 200, body = StageNetwork), (status = 404, description = "No such stage"), (status = 422, description = "A rule that cannot be read")))]
pub(crate) async fn replace(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    body: Result<Json<StageNetwork>, JsonRejection>,
) -> Result<Json<StageNetwork>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    let before = caller.store(&app).network(&stage).await?;
    let Json(network) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let network =
        network.checked().map_err(|error| ApiError::because(Code::InputInvalid, error.to_string()))?;
    let own = caller.store(&app);
    // Settings from before may stay, so that the rest of them can be changed.
    let more = network.grants.iter().any(|grant| !before.grants.contains(grant));
    if more && app.config.isolation == Isolation::None {
        let detail = "grants need a runtime that isolates: here every app reaches every other anyway";
        return Err(ApiError::because(Code::IsolationMissing, detail));
    }
    let mut write = app.store.write().await?;
    own.set_network(&mut write, &stage, &network).await?;
    let what = ("stage.network", stage.as_str());
    caller.note_change(&own, &mut write, what, Some(&before), Some(&network)).await?;
    write.commit().await.map_err(StoreError::from)?;
    deploy::announce(&app, caller.customer.id, &stage).await?;
    Ok(Json(network))
}

/// Explains what would become of a call of an app to the outside, and why.
#[utoipa::path(get, path = "/apps/{app}/egress", params(("app" = String, Path, description = "Name of the app"), Call), responses((status = 200, body = Explanation), (status = 404, description = "No such app or stage")))]
pub(crate) async fn explain(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(call): Query<Call>,
) -> Result<Json<Explanation>, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let name = AppName::new(name).map_err(|_| unknown())?;
    let own = caller.store(&app);
    let found = own.app_named(&name).await?.ok_or_else(unknown)?;
    let stage = known(&app, &caller, call.stage).await?;
    let (host, port) = host_and_port(&call.to)
        .map_err(|error| ApiError::because(Code::InputInvalid, format!("`{}`: {error}", call.to)))?;
    let network = own.network(&stage).await?;
    Ok(Json(match &host {
        Host::Name(inside) if inside == POSTGRES_NAME => {
            explain_database(own.postgres(&stage).await?.iter().any(|login| login.app == found.id), port)
        }
        Host::Name(inside) if is_internal_name(inside) => explain_inside(&network, &name, inside, port),
        _ => explanation(network.egress.decide(&host, None, port), &host),
    }))
}

/// A call to the database of the app.
fn explain_database(there: bool, port: u16) -> Explanation {
    let (allowed, why) = match (there, port) {
        (true, POSTGRES_PORT) => (true, "the app's own database, in its own name".into()),
        (true, _) => (false, format!("the database is called on port {POSTGRES_PORT}")),
        (false, _) => (false, "the app has no database here".into()),
    };
    Explanation { allowed, reported: false, why, note: None }
}

/// A call to a name below `internal`: to another app of the stage.
fn explain_inside(network: &StageNetwork, from: &AppName, to: &str, port: u16) -> Explanation {
    let callee = network.callees(from).find(|callee| internal_name(callee) == to);
    let (allowed, why) = match callee {
        Some(callee) if port == CALLEE_PORT => (true, format!("grant: {from} → {callee}")),
        Some(_) => (false, format!("other apps are called on port {CALLEE_PORT}")),
        None => (false, "no grant lets this app call another under that name".into()),
    };
    Explanation { allowed, reported: false, why, note: None }
}

fn explanation(decision: EgressDecision, host: &Host) -> Explanation {
    let note = matches!(host, Host::Name(_)).then(|| {
        "A name is resolved when it is called; each address is judged then, and private ones never pass."
            .into()
    });
    Explanation { allowed: decision.allowed, reported: decision.reported, why: decision.why, note }
}

/// The stage of this name, or the first.
pub(crate) async fn known(app: &App, caller: &Caller, name: Option<String>) -> Result<StageName, ApiError> {
    let stages = caller.store(app).stage_names().await?;
    let found = match name {
        Some(name) => stages.into_iter().find(|stage| stage.as_str() == name),
        None => stages.into_iter().next(),
    };
    let found = found.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    caller.demand_in(&found)?;
    Ok(found)
}
