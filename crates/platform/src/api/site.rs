//! How the hosts of a stage behave by themselves: error pages, maintenance, redirects, security fields.

use super::network::known;
use crate::{ApiError, App, caller::Caller, snapshot};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, State, rejection::JsonRejection},
};
use bastide_store::{CustomerStore, StoreError, Write, now_s};
use bastide_types::{
    Code, SiteSettings, StageName,
    site::{
        FieldInForce, FieldRule, Maintenance, Page, PageKind, Redirect, SETTINGS_BYTES_MAX, SecurityFields,
        SiteFault, StageHosts,
    },
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Most bytes of the settings of one customer, all stages together.
const CUSTOMER_BYTES_MAX: u64 = 256 * 1024;
/// Most bytes of the settings of all customers: a quarter of the largest Snapshot, so that nobody's settings keep other
/// news from the edges.
const ALL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Changes of a customer within a minute.
const CHANGES_PER_MINUTE: u64 = 60;
/// Longest detail in the audit trail, in characters.
const DETAIL_CHARS_MAX: usize = 2000;
/// What the audit trail calls a change.
const CHANGED: &str = "site.changed";

/// How the hosts of a stage behave.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct SiteView {
    /// Stage.
    stage: String,
    /// Pages of its own, and how many bytes they have.
    #[schema(value_type = BTreeMap<String, usize>)]
    pages: BTreeMap<PageKind, usize>,
    /// What is closed.
    maintenance: Maintenance,
    /// Redirects.
    redirects: Vec<Redirect>,
    /// What was said about security fields.
    #[schema(value_type = BTreeMap<String, FieldRule>)]
    fields: SecurityFields,
    /// Security fields of answers, with the defaults.
    fields_in_force: Vec<FieldInForce>,
}

/// A page of one's own.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PageView {
    /// A status, or `maintenance`.
    #[schema(value_type = String)]
    page: PageKind,
    /// The page as it was written.
    #[schema(value_type = String)]
    html: Page,
}

/// Shows how the hosts of a stage behave by themselves.
#[utoipa::path(get, path = "/stages/{stage}/site", params(("stage" = String, Path, description = "Name of the stage")), responses((status = 200, body = SiteView), (status = 404, description = "No such stage")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
) -> Result<Json<SiteView>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    let settings = read(&app, &caller, &stage).await?;
    Ok(Json(view(&stage, settings)))
}

/// Forgets all that was said about a stage's hosts: the defaults hold again.
#[utoipa::path(delete, path = "/stages/{stage}/site", params(("stage" = String, Path, description = "Name of the stage")), responses((status = 200, body = SiteView), (status = 404, description = "No such stage")))]
pub(crate) async fn reset(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
) -> Result<Json<SiteView>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    // Without reading what is there: this is the way out when it cannot be read.
    let write = app.store.write().await?;
    keep(&app, &caller, write, (&stage, SiteSettings::default()), "everything reset").await
}

/// Shows a page of one's own.
#[utoipa::path(get, path = "/stages/{stage}/site/pages/{page}", params(("stage" = String, Path, description = "Name of the stage"), ("page" = String, Path, description = "A status, or `maintenance`")), responses((status = 200, body = PageView), (status = 404, description = "No such stage or page")))]
pub(crate) async fn page(
    State(app): State<App>,
    caller: Caller,
    Path((stage, page)): Path<(String, String)>,
) -> Result<Json<PageView>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    let page: PageKind = page.parse().map_err(|_| ApiError::new(Code::ApiUnknown))?;
    let mut settings = read(&app, &caller, &stage).await?;
    let html = settings.pages.remove(&page).ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    Ok(Json(PageView { page, html }))
}

/// Sets a page of one's own: HTML as `application/octet-stream`, at most 32 KiB.
#[utoipa::path(put, path = "/stages/{stage}/site/pages/{page}", params(("stage" = String, Path, description = "Name of the stage"), ("page" = String, Path, description = "A status, or `maintenance`")), request_body(content = String, content_type = "application/octet-stream"), responses((status = 200, body = SiteView), (status = 404, description = "No such stage"), (status = 422, description = "No such page, or not one that can be used"), (status = 429, description = "Too much, or too often")))]
pub(crate) async fn put_page(
    State(app): State<App>,
    caller: Caller,
    Path((stage, page)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<SiteView>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    let kind: PageKind = page.parse().map_err(invalid)?;
    let html = String::from_utf8(body.into())
        .map_err(|_| ApiError::because(Code::SiteInvalid, "a page is text in UTF-8"))?;
    let detail = format!("page {kind} set, {} bytes", html.len());
    let html = Page::new(html).map_err(invalid)?;
    change(
        &app,
        &caller,
        &stage,
        |_| detail,
        |settings| {
            settings.pages.insert(kind, html);
        },
    )
    .await
}

/// Goes back to the built-in page.
#[utoipa::path(delete, path = "/stages/{stage}/site/pages/{page}", params(("stage" = String, Path, description = "Name of the stage"), ("page" = String, Path, description = "A status, or `maintenance`")), responses((status = 200, body = SiteView), (status = 404, description = "No such stage or page")))]
pub(crate) async fn remove_page(
    State(app): State<App>,
    caller: Caller,
    Path((stage, page)): Path<(String, String)>,
) -> Result<Json<SiteView>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    let kind: PageKind = page.parse().map_err(|_| ApiError::new(Code::ApiUnknown))?;
    if !read(&app, &caller, &stage).await?.pages.contains_key(&kind) {
        return Err(ApiError::new(Code::ApiUnknown));
    }
    change(
        &app,
        &caller,
        &stage,
        |_| format!("page {kind} removed"),
        |settings| {
            settings.pages.remove(&kind);
        },
    )
    .await
}

/// Closes a stage or some of its apps, or opens them again.
#[utoipa::path(put, path = "/stages/{stage}/site/maintenance", params(("stage" = String, Path, description = "Name of the stage")), request_body = Maintenance, responses((status = 200, body = SiteView), (status = 404, description = "No such stage"), (status = 422, description = "It makes no sense"), (status = 429, description = "Too often")))]
pub(crate) async fn maintenance(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    body: Result<Json<Maintenance>, JsonRejection>,
) -> Result<Json<SiteView>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    let Json(new) = body.map_err(unreadable)?;
    let detail = format!("maintenance {}", serde_json::to_string(&new).unwrap_or_default());
    change(&app, &caller, &stage, |_| detail, |settings| settings.maintenance = new).await
}

/// Replaces the redirects of a stage.
#[utoipa::path(put, path = "/stages/{stage}/site/redirects", params(("stage" = String, Path, description = "Name of the stage")), request_body = Vec<Redirect>, responses((status = 200, body = SiteView), (status = 404, description = "No such stage"), (status = 422, description = "One makes no sense, or leads in a circle"), (status = 429, description = "Too much, or too often")))]
pub(crate) async fn redirects(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    body: Result<Json<Vec<Redirect>>, JsonRejection>,
) -> Result<Json<SiteView>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    let Json(new) = body.map_err(unreadable)?;
    let listed = new.clone();
    let detail = move |before: &SiteSettings| differences(&before.redirects, &listed);
    change(&app, &caller, &stage, detail, |settings| settings.redirects = new).await
}

/// Replaces what is said about security fields of answers.
#[utoipa::path(put, path = "/stages/{stage}/site/fields", params(("stage" = String, Path, description = "Name of the stage")), request_body = BTreeMap<String, FieldRule>, responses((status = 200, body = SiteView), (status = 404, description = "No such stage"), (status = 422, description = "No such field, or a value that it cannot have"), (status = 429, description = "Too much, or too often")))]
pub(crate) async fn fields(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    body: Result<Json<SecurityFields>, JsonRejection>,
) -> Result<Json<SiteView>, ApiError> {
    let stage = known(&app, &caller, Some(stage)).await?;
    let Json(new) = body.map_err(unreadable)?;
    let detail = format!("fields {}", serde_json::to_string(&new).unwrap_or_default());
    change(&app, &caller, &stage, |_| detail, |settings| settings.fields = new).await
}

fn unreadable(error: JsonRejection) -> ApiError {
    ApiError::because(Code::SiteInvalid, error.body_text())
}

fn invalid(error: impl std::error::Error) -> ApiError {
    ApiError::because(Code::SiteInvalid, error.to_string())
}

impl From<SiteFault> for ApiError {
    fn from(fault: SiteFault) -> Self {
        invalid(fault)
    }
}

async fn read(app: &App, caller: &Caller, stage: &StageName) -> Result<SiteSettings, ApiError> {
    let mut all = caller.store(app).site_documents().await?;
    let Some(document) = all.remove(stage) else { return Ok(SiteSettings::default()) };
    document.read().map_err(|fault| ApiError::internal(&fault))
}

/// Changes settings: checked, kept, written into the audit trail, told to the edges.
async fn change(
    app: &App,
    caller: &Caller,
    stage: &StageName,
    detail: impl FnOnce(&SiteSettings) -> String,
    change: impl FnOnce(&mut SiteSettings),
) -> Result<Json<SiteView>, ApiError> {
    let own = caller.store(app);
    let custom = own.domains().await?.into_iter();
    let custom = custom.filter(|domain| domain.stage == *stage && domain.validated.is_some());
    let names = custom.map(|domain| domain.name.to_string());
    let hosts = StageHosts::new(&app.config.domains, &caller.customer.name, stage, names);
    let mut write = app.store.write().await?;
    let before = own.site(&mut write, stage).await?;
    let mut settings = before.clone();
    change(&mut settings);
    settings.check()?;
    // Redirects of a domain that is gone must not stand in the way of other changes.
    if settings.redirects != before.redirects {
        settings.check_redirects(&hosts)?;
    }
    let detail = detail(&before);
    keep(app, caller, write, (stage, settings), &detail).await
}

async fn keep(
    app: &App,
    caller: &Caller,
    mut write: Write,
    (stage, settings): (&StageName, SiteSettings),
    detail: &str,
) -> Result<Json<SiteView>, ApiError> {
    let own = caller.store(app);
    if own.audited_since(&mut write, CHANGED, now_s() - 60).await? >= CHANGES_PER_MINUTE {
        let why = format!("settings of sites may be changed {CHANGES_PER_MINUTE} times a minute");
        return Err(ApiError::because(Code::SiteLimit, why).retry_after(60));
    }
    own.set_site(&mut write, stage, &settings).await?;
    has_room(&own, &mut write, &settings).await?;
    let detail: String = format!("{stage}: {detail}").chars().take(DETAIL_CHARS_MAX).collect();
    own.audit(&mut write, &caller.who.sub, CHANGED, &detail).await?;
    write.commit().await.map_err(StoreError::from)?;
    snapshot::hint(app).await?;
    Ok(Json(view(stage, settings)))
}

/// Refuses settings that would not fit; they are in the transaction already.
async fn has_room(
    own: &CustomerStore<'_>,
    write: &mut Write,
    settings: &SiteSettings,
) -> Result<(), ApiError> {
    let of_stage = serde_json::to_string(settings).map_or(0, |text| text.len());
    let bytes = own.site_bytes(write).await?;
    let too_much = |whose: &str, found: u64, most: u64| {
        let why = format!("settings of {whose} may have {most} bytes, these would have {found}");
        Err(ApiError::because(Code::SiteLimit, why))
    };
    if of_stage > SETTINGS_BYTES_MAX {
        return too_much("a stage", of_stage as u64, SETTINGS_BYTES_MAX as u64);
    }
    if bytes.own > CUSTOMER_BYTES_MAX {
        return too_much("a customer", bytes.own, CUSTOMER_BYTES_MAX);
    }
    if bytes.all > ALL_BYTES_MAX {
        let why = "the settings of all customers together are too large; ask the operator";
        return Err(ApiError::because(Code::SiteLimit, why));
    }
    Ok(())
}

fn view(stage: &StageName, settings: SiteSettings) -> SiteView {
    SiteView {
        stage: stage.to_string(),
        pages: settings.pages.iter().map(|(kind, page)| (*kind, page.as_str().len())).collect(),
        maintenance: settings.maintenance,
        redirects: settings.redirects,
        fields_in_force: settings.fields.in_force(),
        fields: settings.fields,
    }
}

/// What came and what went, for the audit trail.
fn differences(before: &[Redirect], after: &[Redirect]) -> String {
    let line = |sign: char, redirect: &Redirect| {
        let host = redirect.host.as_deref().unwrap_or_default();
        format!("{sign} {host}{} → {} ({})", redirect.from, redirect.to, redirect.status.code())
    };
    let gone = before.iter().filter(|redirect| !after.contains(redirect)).map(|redirect| line('-', redirect));
    let new = after.iter().filter(|redirect| !before.contains(redirect)).map(|redirect| line('+', redirect));
    let all: Vec<String> = gone.chain(new).collect();
    format!("redirects {}", all.join(", "))
}
