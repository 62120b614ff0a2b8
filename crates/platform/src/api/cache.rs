//! Purging what edges store: by address, prefix, group, app or stage.

use crate::{ApiError, App, caller::Caller};
use axum::{Json, extract::State, extract::rejection::JsonRejection};
use bastide_store::StoreError;
use bastide_types::{AppId, AppName, Code, Purge, Site, StageName};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use url::Url;

const PURGERS: &[&str] = &["developer", "administrator"];
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
#[utoipa::path(post, path = "/api/cache/purges", request_body = NewPurge, responses((status = 202, body = Purged), (status = 404, description = "No such stage or app"), (status = 422, description = "It says nothing, or too much"), (status = 429, description = "Too many purges")))]
pub(crate) async fn purge(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewPurge>, JsonRejection>,
) -> Result<(StatusCode, Json<Purged>), ApiError> {
    caller.need(PURGERS)?;
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let wanted = read(&app, &caller, new)?;
    let own = caller.store(&app);
    let unknown = || ApiError::new(Code::ApiUnknown);
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
    let (epoch, revision, _) = app.store.version().await?;
    if let Err(error) = app.bus.hint_snapshot(epoch, revision).await {
        // The edges find out by themselves, only later.
        tracing::debug!(%error, "no hint of a purge");
        app.wake.notify_one();
    }
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

fn read(app: &App, caller: &Caller, new: NewPurge) -> Result<Wanted, ApiError> {
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
        let found = Url::parse(address).ok().and_then(|url| {
            let Site::Runtime(customer, stage) = app.config.domains.site(url.host_str()?)? else {
                return None;
            };
            let segment = url.path_segments()?.next()?;
            (customer == caller.customer.name).then_some((stage, AppName::new(segment).ok()?, url))
        });
        // Of another customer, or of nobody: the same words.
        let (stage, app, url) = found.ok_or_else(|| wrong("this is no address of one of your apps"))?;
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
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
