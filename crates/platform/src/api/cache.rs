//! What edges store: purging it, its figures, and why a request is answered as it is.

use crate::{ApiError, App, caller::Caller, domains, snapshot, wire::Query};
use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use bastide_store::StoreError;
use bastide_types::{
    AppId, AppName, Code, Purge, Site, StageName,
    cache::{CacheAbout, CacheAnswer, CacheDecision, CacheFigures, CacheQuestion, CacheRequest, CacheSays},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use url::Url;

/// Purges of a customer within a minute.
const PURGES_MAX: u64 = 60;
/// Longest address, prefix or group name, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// What edges should forget: one of `url`, `prefix`, `group`, or nothing of these for all of the app or stage.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NewPurge {
    /// An address of an app, as people use it. It names stage and app, too.
    url: Option<String>,
    /// The beginning of addresses of an app, as people use them. It names stage and app, too.
    prefix: Option<String>,
    /// A cache group (RFC 9875) of an app.
    group: Option<String>,
    /// Stage; needed without `url` or `prefix`.
    stage: Option<String>,
    /// App; without it all apps of the stage are meant.
    app: Option<String>,
}

/// A purge that is on its way to the edges.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Purged {
    /// Its number; they grow.
    number: u64,
    /// Stage.
    stage: String,
    /// App; all of the stage without.
    app: Option<String>,
}

/// Makes edges forget stored responses. In force on all of them within a second.
#[utoipa::path(post, path = "/cache/purges", request_body = NewPurge, responses((status = 202, body = Purged), (status = 404, description = "No such stage or app"), (status = 422, description = "It says nothing, or too much"), (status = 429, description = "Too many purges")))]
pub(crate) async fn purge(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewPurge>, JsonRejection>,
) -> Result<(StatusCode, Json<Purged>), ApiError> {
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let wanted = read(&app, &caller, new).await?;
    let own = caller.store(&app);
    let unknown = || ApiError::new(Code::ApiUnknown);
    caller.demand_in(&wanted.stage)?;
    if !own.stage_names().await?.contains(&wanted.stage) {
        return Err(unknown());
    }
    let id: Option<AppId> = match &wanted.app {
        Some(name) => Some(own.app_named(name).await?.ok_or_else(unknown)?.id),
        None => None,
    };
    let mut write = app.store.write().await?;
    if own.recent_purges(&mut write).await? >= PURGES_MAX {
        return Err(ApiError::new(Code::PurgeLimit).retry_after(60));
    }
    let number = own.purge(&mut write, &wanted.stage, id, &wanted.purge).await?;
    let what = serde_json::to_string(&wanted.purge).unwrap_or_default();
    let of = wanted.app.as_ref().map_or("all apps", AppName::as_str);
    let detail = format!("{}: {of}: {what}", wanted.stage);
    own.audit(&mut write, &caller.who.sub, "cache.purge", &detail).await?;
    write.commit().await.map_err(StoreError::from)?;
    snapshot::hint(&app).await?;
    let app = wanted.app.map(|name| name.to_string());
    Ok((StatusCode::ACCEPTED, Json(Purged { number, stage: wanted.stage.to_string(), app })))
}

/// A purge that was asked for, checked.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    stage: StageName,
    app: Option<AppName>,
    purge: Purge,
}

async fn read(app: &App, caller: &Caller, new: NewPurge) -> Result<Wanted, ApiError> {
    let wrong = |why: &str| ApiError::because(Code::InputInvalid, why);
    let texts = [&new.url, &new.prefix, &new.group];
    if texts.iter().filter(|text| text.is_some()).count() > 1 {
        return Err(wrong("give one of `url`, `prefix` and `group`"));
    }
    if texts
        .iter()
        .any(|text| text.as_ref().is_some_and(|text| text.is_empty() || text.len() > TEXT_BYTES_MAX))
    {
        return Err(wrong("an address, prefix or group has 1 to 4096 bytes"));
    }
    if let Some(address) = new.url.as_ref().or(new.prefix.as_ref()) {
        if new.stage.is_some() || new.app.is_some() {
            return Err(wrong("the address names stage and app already"));
        }
        let (stage, app, url) = address_of_an_app(app, caller, address).await?;
        let target = target(&url);
        let purge = if new.url.is_some() { Purge::Url(target) } else { Purge::Prefix(target) };
        return Ok(Wanted { stage, app: Some(app), purge });
    }
    let stage = new.stage.ok_or_else(|| wrong("say what to purge: `url`, `prefix`, or `stage`"))?;
    let unknown = || ApiError::new(Code::ApiUnknown);
    let stage = StageName::new(stage).map_err(|_| unknown())?;
    let app = new.app.map(AppName::new).transpose().map_err(|_| unknown())?;
    let purge = match new.group {
        Some(_) if app.is_none() => return Err(wrong("a group belongs to an app: give `app`")),
        Some(group) => Purge::Group(group),
        None => Purge::All,
    };
    Ok(Wanted { stage, app, purge })
}

/// Stage and app of an address that people use, and that address below the app's name, as edges key it. One of another
/// customer, and one of nobody: the same words.
async fn address_of_an_app(
    app: &App,
    caller: &Caller,
    text: &str,
) -> Result<(StageName, AppName, Url), ApiError> {
    let wrong = || ApiError::because(Code::InputInvalid, "this is no address of one of your apps");
    let mut url = Url::parse(text).map_err(|_| wrong())?;
    let host = url.host_str().ok_or_else(wrong)?.to_owned();
    let stage = match app.config.domains.site(&host) {
        Some(Site::Runtime(customer, stage)) if customer == caller.customer.name => stage,
        Some(_) => return Err(wrong()),
        None => {
            let domain = domains::owned(app, caller.customer.id, &host).await?.ok_or_else(wrong)?;
            if let Some(root) = domain.app {
                let path = format!("/{root}{}", url.path());
                url.set_path(&path);
            }
            domain.stage
        }
    };
    let segment = url.path_segments().and_then(|mut segments| segments.next()).ok_or_else(wrong)?;
    let name = AppName::new(segment).map_err(|_| wrong())?;
    Ok((stage, name, url))
}

/// Path and query.
fn target(url: &Url) -> String {
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}

/// Which figures to show.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Which {
    /// Only this stage.
    stage: Option<String>,
    /// Only this app.
    app: Option<String>,
}

/// Figures of all edges that answered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Figures {
    /// Names of these edges.
    edges: Vec<String>,
    /// Figures by stage and app, added up.
    apps: Vec<AppFigures>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct AppFigures {
    #[serde(flatten)]
    figures: CacheFigures,
    hit_ratio: Option<f64>,
}

/// Shows what became of requests at the edges, and what they store, by app.
#[utoipa::path(get, path = "/cache/figures", params(Which), responses((status = 200, body = Figures), (status = 503, description = "No edge answers")))]
pub(crate) async fn figures(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Figures>, ApiError> {
    if let Some(stage) = &which.stage {
        caller.demand_in_named(stage)?;
    }
    let (mut edges, mut all) = (Vec::new(), BTreeMap::<(String, String), CacheFigures>::new());
    for answer in ask(&app, &caller, CacheAbout::Figures).await? {
        let CacheSays::Figures(list) = answer.says else { continue };
        edges.push(answer.edge);
        let wanted = |asked: &Option<String>, own: &String| asked.as_ref().is_none_or(|asked| asked == own);
        for own in list {
            let seen = StageName::new(own.stage.clone()).is_ok_and(|stage| caller.sees(&stage));
            if seen && wanted(&which.stage, &own.stage) && wanted(&which.app, &own.app) {
                let key = (own.stage.clone(), own.app.clone());
                all.entry(key).and_modify(|sum| sum.add(&own)).or_insert(own);
            }
        }
    }
    edges.sort();
    let apps = all.into_values().map(|figures| AppFigures { hit_ratio: figures.hit_ratio(), figures });
    Ok(Json(Figures { edges, apps: apps.collect() }))
}

/// A request to explain. It is not made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewQuestion {
    /// An address of an app, as people use it.
    url: String,
    /// Method. Default: GET.
    #[serde(default)]
    method: Option<String>,
    /// Fields that matter, such as `["accept-encoding", "br"]`; at most 32.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<String>>)]
    fields: Vec<(String, String)>,
}

/// Fields of a request to explain.
const FIELDS_MAX: usize = 32;

/// What each edge would do with a request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Explanations {
    /// Stage that the address is of.
    stage: String,
    /// App that the address is of.
    app: String,
    /// What each edge says.
    edges: Vec<EdgeExplanation>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct EdgeExplanation {
    edge: String,
    /// Nothing when this edge does not know the app (yet).
    decision: Option<CacheDecision>,
}

/// Explains what the edges would do with a request, and why, with the section of the RFC.
#[utoipa::path(post, path = "/cache/why", request_body = NewQuestion, responses((status = 200, body = Explanations), (status = 404, description = "No such app"), (status = 422, description = "No address of an app"), (status = 503, description = "No edge answers")))]
pub(crate) async fn why(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewQuestion>, JsonRejection>,
) -> Result<Json<Explanations>, ApiError> {
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let bytes =
        new.url.len() + new.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if new.fields.len() > FIELDS_MAX || bytes > TEXT_BYTES_MAX {
        return Err(ApiError::because(Code::InputInvalid, "an address and its fields have 1 to 4096 bytes"));
    }
    let (stage, name, url) = address_of_an_app(&app, &caller, &new.url).await?;
    caller.demand_in(&stage)?;
    let found = caller.store(&app).app_named(&name).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    let host = url.host_str().unwrap_or_default();
    let request = CacheRequest {
        stage: stage.clone(),
        app: found.id,
        method: new.method.unwrap_or_else(|| "GET".to_owned()),
        host: url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
        target: target(&url),
        fields: new.fields,
    };
    let answers = ask(&app, &caller, CacheAbout::Why(request)).await?;
    let mut edges: Vec<_> = answers
        .into_iter()
        .filter_map(|answer| match answer.says {
            CacheSays::Why(decision) => Some(EdgeExplanation { edge: answer.edge, decision }),
            CacheSays::Figures(_) => None,
        })
        .collect();
    edges.sort_by(|one, other| one.edge.cmp(&other.edge));
    Ok(Json(Explanations { stage: stage.to_string(), app: name.to_string(), edges }))
}

/// Asks all edges about the caller's customer.
async fn ask(app: &App, caller: &Caller, about: CacheAbout) -> Result<Vec<CacheAnswer>, ApiError> {
    let question = CacheQuestion { customer: caller.customer.id, about };
    bastide_bus::ask::edges(app.bus.bus(), &question).await.map_err(|error| {
        tracing::warn!(%error, "no edge says what it stores");
        ApiError::new(Code::EdgesSilent)
    })
}
