//! Apps: list, show, publish, promote, and the operations that these begin.

use super::scale::ScaleView;
use crate::{
    ApiError, App,
    build::{self, About},
    caller::Caller,
    deploy::{impact::Impact, lifecycle},
    domains,
    error::document,
    permissions::Permission,
    wire::Query,
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_store::{AppRow, DomainRow, OperationRow, ReplicaRow, RevisionRow, ScalingRow};
use bastide_types::{
    AppId, AppName, Code, Problem, StageName,
    manifest::{Resources, Scale},
    tree::Tree,
};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Longest time for which somebody waits for news of an operation.
const WAIT: Duration = Duration::from_secs(20);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An app.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct AppView {
    id: String,
    name: String,
    stages: Vec<StageView>,
}

/// An app in a stage.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct StageView {
    stage: String,
    /// `serving`, `starting` or `absent`.
    status: String,
    /// Number of the revision that serves.
    revision: Option<u32>,
    /// Image of that revision.
    image: Option<String>,
    url: String,
    /// How many replicas there may be; missing where the app does not serve.
    scale: Option<ScaleView>,
    replicas: Vec<ReplicaView>,
}

/// A replica.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ReplicaView {
    id: String,
    zone: String,
    revision: u32,
    /// `starting`, `ready`, `draining` or `failed`.
    state: String,
    reason: Option<String>,
    /// How often it was started again.
    restarts: u32,
    /// How it ended last: exit code, signal, out of memory.
    last_end: Option<EndView>,
    /// What it uses, on average over 15 seconds; missing until that is known.
    usage: Option<UsageView>,
}

/// How a replica ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct EndView {
    /// Seconds since 1970.
    at: u64,
    why: String,
}

/// What a replica uses, and what it may use.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct UsageView {
    /// Thousandths of a processor.
    cpu_millis: u32,
    cpu_millis_max: u32,
    memory_bytes: u64,
    memory_bytes_max: u64,
}

/// A begun operation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Begun {
    operation: String,
    app: String,
    revision: u32,
    image: String,
    /// What everybody should know who runs apps here.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
    /// Version of the revision, once it came to the last stage.
    version: Option<String>,
    /// What users will notice.
    warnings: Vec<String>,
}

impl Begun {
    pub(crate) fn new(app: &App, operation: uuid::Uuid, revision: &RevisionRow) -> Self {
        Self {
            operation: operation.to_string(),
            app: revision.manifest.app.name.to_string(),
            revision: revision.number,
            image: revision.image.to_string(),
            version: revision.version.clone(),
            warning: app.config.isolation.warning(),
            warnings: Vec::new(),
        }
    }
}

/// Where to promote to.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDeployment {
    /// The next stage.
    stage: String,
    /// Version that the revision gets in the last stage. Default: the next minor one; the first is 0.1.0.
    #[serde(default)]
    version: Option<String>,
    /// Say what would happen, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// An operation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct OperationView {
    id: String,
    kind: String,
    app: String,
    stage: String,
    revision: u32,
    /// `running`, `finished` or `failed`.
    status: String,
    /// Seconds since 1970 at which it began.
    at: i64,
    /// How far it is, in percent.
    progress: u8,
    steps: Vec<StepView>,
    /// Why it failed: problem details (RFC 9457).
    #[schema(schema_with = super::description::problem_or_null)]
    problem: Option<Problem>,
    url: Option<String>,
}

/// A step of an operation.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct StepView {
    name: String,
    status: String,
    message: Option<String>,
}

/// Lists the apps of your organization.
#[utoipa::path(get, path = "/apps", responses((status = 200, body = Vec<AppView>)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<AppView>>, ApiError> {
    let there = There::look(&app, &caller).await?;
    let rows = caller.store(&app).apps().await?;
    Ok(Json(rows.into_iter().map(|row| there.view(&app, &caller, row)).collect()))
}

/// Shows an app with its stages and replicas.
#[utoipa::path(get, path = "/apps/{app}", params(("app" = String, Path, description = "Name of the app")), responses((status = 200, body = AppView), (status = 404, description = "No such app")))]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<AppView>, ApiError> {
    let name = AppName::new(name).map_err(|_| ApiError::new(Code::ApiUnknown))?;
    let row = caller.store(&app).app_named(&name).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    Ok(Json(There::look(&app, &caller).await?.view(&app, &caller, row)))
}

/// What there is of a customer, read once for all of its apps.
struct There {
    stages: Vec<StageThere>,
    revisions: BTreeMap<(AppId, u32), RevisionRow>,
}

/// What there is in a stage.
struct StageThere {
    name: StageName,
    serving: BTreeMap<AppId, u32>,
    replicas: BTreeMap<AppId, Vec<ReplicaRow>>,
    scales: BTreeMap<AppId, Scale>,
    scaling: BTreeMap<AppId, ScalingRow>,
    default: Option<DomainRow>,
}

impl There {
    async fn look(app: &App, caller: &Caller) -> Result<Self, ApiError> {
        let own = caller.store(app);
        let mut stages = Vec::new();
        for name in own.stage_names().await?.into_iter().filter(|stage| caller.sees(stage)) {
            let mut replicas = BTreeMap::<_, Vec<_>>::new();
            for row in own.replicas(&name).await? {
                replicas.entry(row.app).or_default().push(row);
            }
            stages.push(StageThere {
                serving: own.serving(&name).await?,
                scales: own.stage_scales(&name).await?,
                scaling: own.scaling(&name).await?,
                default: own.default_domain(&name).await?,
                replicas,
                name,
            });
        }
        let revisions = own.revisions_in_use().await?;
        let revisions = revisions.into_iter().map(|row| ((row.app, row.number), row)).collect();
        Ok(Self { stages, revisions })
    }

    fn view(&self, app: &App, caller: &Caller, row: AppRow) -> AppView {
        let stages = self.stages.iter().map(|stage| self.in_stage(app, caller, stage, &row));
        AppView { id: row.id.to_string(), stages: stages.collect(), name: row.name.to_string() }
    }

    fn in_stage(&self, app: &App, caller: &Caller, stage: &StageThere, row: &AppRow) -> StageView {
        let serving = stage.serving.get(&row.id).copied();
        let revision = |number| self.revisions.get(&(row.id, number));
        let serves = serving.and_then(revision);
        let replicas = stage.replicas.get(&row.id).into_iter().flatten();
        let limits = |number| revision(number).map(|found| found.manifest.resources);
        let replicas: Vec<_> = replicas.map(|one| replica(limits(one.revision), one.clone())).collect();
        let status = match (serving, replicas.is_empty()) {
            (Some(_), _) => "serving",
            (None, false) => "starting",
            (None, true) => "absent",
        };
        let scale = serves.map(|revision| {
            let set = stage.scales.get(&row.id);
            ScaleView::new(set.unwrap_or(&revision.manifest.scale), set.is_some(), stage.scaling.get(&row.id))
        });
        let default = stage.default.as_ref();
        StageView {
            stage: stage.name.to_string(),
            status: status.into(),
            revision: serving,
            image: serves.map(|found| found.image.to_string()),
            url: domains::address_below(app, &caller.customer.name, default, &stage.name, &row.name),
            scale,
            replicas,
        }
    }
}

fn replica(limits: Option<Resources>, row: ReplicaRow) -> ReplicaView {
    let limits = limits.unwrap_or_default();
    ReplicaView {
        id: row.id.to_string(),
        zone: row.zone.to_string(),
        revision: row.revision,
        state: row.state,
        reason: row.reason,
        restarts: row.restarts,
        last_end: row.last_end.map(|end| EndView { at: end.at_s, why: end.why }),
        usage: row.usage.map(|(usage, _)| UsageView {
            cpu_millis: usage.cpu_millis,
            cpu_millis_max: limits.cpu_millis,
            memory_bytes: usage.memory_bytes,
            memory_bytes_max: u64::from(limits.memory_mb) * 1024 * 1024,
        }),
    }
}

/// How to publish.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct How {
    /// Say what would happen, and do nothing.
    dry_run: bool,
}

/// Publishes an app: the body is the gzipped tar of a directory with a `bastide.toml`. It may begin with an entry
/// `.bastide/changes.json` that says what an earlier publish brought already. What is to be said about the revision, at
/// most 2,000 characters, is in the field `bastide-message`: UTF-8 as base64url.
#[utoipa::path(post, path = "/apps/{app}/publish", params(("app" = String, Path, description = "Name of the app"), How, ("bastide-message" = Option<String>, Header, description = "What is to be said about the revision, as base64url")), request_body(content = Vec<u8>, content_type = "application/gzip"), responses((status = 202, body = Begun), (status = 200, body = Impact, description = "What would happen, when only that was asked"), (status = 409, description = "Blocked"), (status = 422, description = "Archive or manifest not acceptable")))]
pub(crate) async fn publish(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(how): Query<How>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let name =
        AppName::new(name).map_err(|error| ApiError::because(Code::InputInvalid, error.to_string()))?;
    demand_first(&app, &caller).await?;
    let about = About { message: message(&headers)?, dry_run: how.dry_run };
    let published = build::publish(&app, &caller, &name, about, body).await?;
    Ok(begun_or_impact(&app, published.operation, &published.revision, published.impact))
}

/// What is published goes to the first stage.
async fn demand_first(app: &App, caller: &Caller) -> Result<(), ApiError> {
    match caller.store(app).stage_names().await?.first() {
        Some(first) => caller.demand_in(first),
        None => caller.demand_everywhere(),
    }
}

/// Most characters of what is said about a revision.
const MESSAGE_CHARS_MAX: usize = 2000;

fn message(headers: &HeaderMap) -> Result<String, ApiError> {
    let invalid = |why: &str| ApiError::because(Code::InputInvalid, format!("bastide-message: {why}"));
    let Some(value) = headers.get("bastide-message") else { return Ok(String::new()) };
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(value.as_bytes()).map_err(|_| invalid("not base64url"))?;
    let text = String::from_utf8(bytes).map_err(|_| invalid("not UTF-8"))?;
    if text.chars().count() > MESSAGE_CHARS_MAX {
        return Err(invalid("at most 2,000 characters"));
    }
    Ok(text)
}

/// What was published last, by content: whoever publishes need not send it again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ContentView {
    /// Files by their paths, null for directories.
    #[schema(schema_with = super::description::tree)]
    files: Tree,
}

/// Shows what the newest publish of an app brought, by content.
#[utoipa::path(get, path = "/apps/{app}/content", params(("app" = String, Path, description = "Name of the app")), responses((status = 200, body = ContentView), (status = 404, description = "No such app, or nothing is remembered")))]
pub(crate) async fn content(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ContentView>, ApiError> {
    let name = AppName::new(name).map_err(|_| ApiError::new(Code::ApiUnknown))?;
    demand_first(&app, &caller).await?;
    let found = caller.store(&app).app_named(&name).await?;
    found.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    let files = build::newest(&app, caller.customer.id, &name).await?;
    Ok(Json(ContentView { files }))
}

/// What was begun; or what would happen, when only that was asked.
pub(super) fn begun_or_impact(
    app: &App,
    operation: Option<uuid::Uuid>,
    revision: &RevisionRow,
    impact: Impact,
) -> Response {
    match operation {
        None => Json(impact).into_response(),
        Some(operation) => {
            let mut begun = Begun::new(app, operation, revision);
            begun.warnings = impact.warnings;
            (StatusCode::ACCEPTED, Json(begun)).into_response()
        }
    }
}

/// Promotes the revision of the stage before to a stage: the same image. In the last stage it gets a version.
#[utoipa::path(post, path = "/apps/{app}/deployments", params(("app" = String, Path, description = "Name of the app")), request_body = NewDeployment, responses((status = 202, body = Begun), (status = 200, body = Impact, description = "What would happen, when only that was asked"), (status = 409, description = "Busy, or out of order"), (status = 422, description = "No such stage or version")))]
pub(crate) async fn promote(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    body: Result<Json<NewDeployment>, JsonRejection>,
) -> Result<Response, ApiError> {
    let new = document(body)?;
    let name = AppName::new(name).map_err(|_| ApiError::new(Code::ApiUnknown))?;
    let invalid = |why: String| ApiError::because(Code::InputInvalid, why);
    let stage = StageName::new(new.stage).map_err(|error| invalid(format!("stage: {error}")))?;
    let version = new.version.map(|text| text.parse()).transpose();
    let version = version.map_err(|_| invalid("version: three numbers, such as 1.2.0".into()))?;
    caller.demand_in(&stage)?;
    let stages = caller.store(&app).stage_names().await?;
    if let Some(before) = lifecycle::before(&stages, &stage) {
        caller.demand_also(Permission::AppsRead, before)?;
    }
    caller.demand_sign_in(&app, Permission::AppsDeploy, Some(&stage)).await?;
    let planned = lifecycle::promote(&app, &caller.store(&app), &name, &stage, version).await?;
    let operation = if new.dry_run { None } else { Some(lifecycle::start(&app, &caller, &planned).await?) };
    Ok(begun_or_impact(&app, operation, &planned.revision, planned.impact))
}

/// Which state of an operation its reader knows.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    /// Wait until there are more than so many finished steps, or until the operation ends; at most 20 seconds.
    #[param(maximum = 1000)]
    after: Option<u16>,
}

/// Shows an operation.
#[utoipa::path(get, path = "/operations/{id}", params(("id" = String, Path, description = "Id of the operation"), Known), responses((status = 200, body = OperationView), (status = 404, description = "No such operation")))]
pub(crate) async fn operation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(known): Query<Known>,
) -> Result<Json<OperationView>, ApiError> {
    let unknown = || ApiError::new(Code::ApiUnknown);
    let id = id.parse().map_err(|_| unknown())?;
    let own = caller.store(&app);
    let until = tokio::time::Instant::now() + WAIT;
    let (row, steps) = loop {
        let (row, steps) =
            own.operation(id).await?.filter(|(row, _)| caller.sees(&row.stage)).ok_or_else(unknown)?;
        let done = steps.iter().filter(|step| step.status != "running").count();
        let is_news = known.after.is_none_or(|after| done > usize::from(after)) || row.status != "running";
        if is_news || tokio::time::Instant::now() >= until {
            break (row, steps);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let name = own.apps().await?.into_iter().find(|found| found.id == row.app).ok_or_else(unknown)?.name;
    let customer = (caller.customer.id, &caller.customer.name);
    let url = domains::address(&app, customer, &row.stage, &name).await?;
    let all = if row.status == "running" { own.replicas(&row.stage).await? } else { Vec::new() };
    let mut steps: Vec<_> = steps
        .into_iter()
        .map(|step| StepView { name: step.name, status: step.status, message: step.message })
        .collect();
    let (progress, now) = progress(&row, &all);
    steps.extend(now);
    Ok(Json(OperationView {
        id: row.id.to_string(),
        kind: row.kind,
        app: name.to_string(),
        stage: row.stage.to_string(),
        revision: row.revision,
        status: row.status,
        at: row.at,
        progress,
        steps,
        problem: row.problem,
        url: Some(url),
    }))
}

/// How far an operation is, in percent, and the step that it is at.
fn progress(row: &OperationRow, all: &[ReplicaRow]) -> (u8, Option<StepView>) {
    if row.status != "running" {
        return (100, None);
    }
    let running = |name: &str, message: String| {
        Some(StepView { name: name.into(), status: "running".into(), message: Some(message) })
    };
    if row.kind == "undeploy" {
        let left = all.iter().filter(|replica| replica.app == row.app).count();
        return (50, running("drain", format!("{left} replicas are left")));
    }
    let made = row.made(all);
    let ready = made.iter().filter(|replica| replica.state == "ready").count();
    let percent = 10 + 80 * ready / made.len().max(1);
    let step = running("start", format!("{ready} of {} replicas ready", made.len()));
    (u8::try_from(percent).unwrap_or(90), step)
}
