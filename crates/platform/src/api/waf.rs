//! Policies of the WAF: shown and set, from the office down to one app.

use crate::{
    ApiError, App,
    caller::Caller,
    permissions::Permission,
    snapshot,
    waf::{Office, Place, id_of, judge},
    wire::Query,
};
use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use bastide_store::{CustomerStore, NewEntry, OfficeLevel, StoreError};
use bastide_types::{
    AppId, AppName, Code, CustomerName, Digest, StageName, WafPolicy,
    waf::{AllowExclusions, LayerBy, WafLayer},
};
use serde::{Deserialize, Serialize};

/// Which level is meant. Without anything: the top, which is the office's.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Level {
    /// Hosts of the Platform (for operators).
    platform: bool,
    /// Customer (for operators).
    customer: Option<String>,
    /// Stage.
    stage: Option<String>,
    /// App in the stage.
    app: Option<String>,
}

/// What is said at a level, and what it comes to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PolicyView {
    /// Which level.
    level: String,
    /// What is said there by whoever asks.
    layer: WafLayer,
    /// What holds there.
    policy: WafPolicy,
    /// Its version, as the log has it.
    version: String,
    /// Which exclusions customers may add.
    #[schema(value_type = serde_json::Value)]
    allow_exclusions: AllowExclusions,
}

/// A level that there is, and that the caller may see.
enum At<'s> {
    Office(OfficeLevel),
    Stage { own: CustomerStore<'s>, stage: StageName, place: Place, shown: String },
}

/// Shows what is said at a level, and what holds there.
#[utoipa::path(get, path = "/waf/policy", params(Level), responses((status = 200, body = PolicyView), (status = 404, description = "No such customer, stage or app")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Query(level): Query<Level>,
) -> Result<Json<PolicyView>, ApiError> {
    let at = find(&app, &caller, level).await?;
    Ok(Json(view(&app, &at).await?))
}

/// Replaces what is said at a level: at the top and for the Platform by operators, below by them or the customer's
/// administrators. Whatever would loosen what is said above is refused.
#[utoipa::path(put, path = "/waf/policy", params(Level), request_body = WafLayer, responses((status = 200, body = PolicyView), (status = 403, description = "The level is the office's"), (status = 404, description = "No such customer, stage or app"), (status = 409, description = "It would loosen what is said above"), (status = 422, description = "It makes no sense")))]
pub(crate) async fn replace(
    State(app): State<App>,
    caller: Caller,
    Query(level): Query<Level>,
    body: Result<Json<WafLayer>, JsonRejection>,
) -> Result<Json<PolicyView>, ApiError> {
    let at = find(&app, &caller, level).await?;
    let Json(layer) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    // What is judged and what is written belong together: nobody changes a level above meanwhile.
    let mut write = app.store.write().await?;
    let before = view(&app, &at).await?.layer;
    let office = Office::of(&app).await?;
    match &at {
        At::Office(OfficeLevel::Office) => {
            if !is_office(&caller) {
                return Err(ApiError::because(Code::Forbidden, "the top level is the security office's"));
            }
            layer.check()?;
            app.store.set_waf_office(&mut write, OfficeLevel::Office, &layer).await?;
        }
        At::Office(OfficeLevel::Platform) => {
            judge(&office.top, &layer, LayerBy::Office, &office.allowed)?;
            app.store.set_waf_office(&mut write, OfficeLevel::Platform, &layer).await?;
        }
        At::Stage { own, stage, place, .. } => {
            let above = office.above(&own.waf_layers(stage).await?, *place);
            judge(&above, &layer, place.by, &office.allowed)?;
            own.set_waf_layer(&mut write, stage, place.app, place.by, &layer).await?;
        }
    }
    let detail = at.shown();
    let what = ("waf.policy", detail.as_str());
    caller.note_change(&caller.store(&app), &mut write, what, Some(&before), Some(&layer)).await?;
    if let At::Stage { own, place: Place { by: LayerBy::Office, .. }, .. } = &at {
        // The customer sees what the office did to its sites.
        let (old, new) = (json(&before)?, json(&layer)?);
        let entry = NewEntry {
            who: "security office",
            what: "waf.policy",
            detail: &detail,
            refused: None,
            old: Some(&old),
            new: Some(&new),
        };
        own.audit_entry(&mut write, &entry).await?;
    }
    write.commit().await.map_err(StoreError::from)?;
    snapshot::hint(&app).await?;
    Ok(Json(view(&app, &at).await?))
}

fn json(layer: &WafLayer) -> Result<String, ApiError> {
    serde_json::to_string(layer).map_err(|error| ApiError::internal(&error))
}

async fn view(app: &App, at: &At<'_>) -> Result<PolicyView, ApiError> {
    let office = Office::of(app).await?;
    let (layer, policy) = match at {
        At::Office(level) => {
            let policy = match level {
                OfficeLevel::Office => office.top,
                OfficeLevel::Platform => office.platform,
            };
            (app.store.waf_office(*level).await?, policy)
        }
        At::Stage { own, stage, place, .. } => {
            let layers = own.waf_layers(stage).await?;
            let said = layers.iter().find(|row| (row.app, row.by) == (place.app, place.by));
            let layer = said.map(|row| row.layer.clone()).unwrap_or_default();
            (layer, office.policy(&layers, place.app))
        }
    };
    let version = Digest::short(&id_of(&policy)?);
    Ok(PolicyView { level: at.shown(), layer, policy, version, allow_exclusions: office.allowed })
}

/// Finds the level; to those who may not know of it, it is not there.
async fn find<'s>(app: &'s App, caller: &Caller, level: Level) -> Result<At<'s>, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let office = is_office(caller);
    if (level.platform || level.customer.is_some()) && !office {
        return Err(unknown());
    }
    let Some(stage) = level.stage else {
        if level.app.is_some() || level.customer.is_some() {
            return Err(ApiError::because(Code::InputInvalid, "say which stage is meant"));
        }
        caller.demand_everywhere()?;
        return Ok(At::Office(if level.platform { OfficeLevel::Platform } else { OfficeLevel::Office }));
    };
    caller.demand_in_named(&stage)?;
    let customer = match level.customer {
        Some(name) => {
            let name = CustomerName::new(name).map_err(|_| unknown())?;
            app.store.customer_named(&name).await?.ok_or_else(unknown)?
        }
        None if office => return Err(ApiError::because(Code::InputInvalid, "say which customer is meant")),
        None => caller.customer.clone(),
    };
    let own = app.store.customer(customer.id);
    let stage = StageName::new(stage).map_err(|_| unknown())?;
    if !own.stage_names().await?.contains(&stage) {
        return Err(unknown());
    }
    let id: Option<AppId> = match &level.app {
        Some(name) => {
            let name = AppName::new(name.clone()).map_err(|_| unknown())?;
            Some(own.app_named(&name).await?.ok_or_else(unknown)?.id)
        }
        None => None,
    };
    let by = if office { LayerBy::Office } else { LayerBy::Customer };
    let app = level.app.map(|app| format!(", {app}")).unwrap_or_default();
    let shown = format!("{}, {stage}{app}", customer.name);
    Ok(At::Stage { own, stage, place: Place { app: id, by }, shown })
}

fn is_office(caller: &Caller) -> bool {
    caller.may(Permission::OfficePolicies)
}

impl At<'_> {
    fn shown(&self) -> String {
        match self {
            Self::Office(OfficeLevel::Office) => "office".into(),
            Self::Office(OfficeLevel::Platform) => "platform".into(),
            Self::Stage { shown, .. } => shown.clone(),
        }
    }
}
