//! Custom domains: claim, prove, serve with, give up.

use crate::{
    ApiError, App,
    caller::Caller,
    domains::{WARN_BEFORE_S, check},
};
use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use bastide_store::{DomainRow, DomainState, NewCertificate, StoreError, now_s};
use bastide_types::{AppName, Code, DomainName, Secret, StageName};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Claims of a customer within an hour.
const CLAIMS_PER_HOUR: u64 = 30;
/// Between two looks at one domain that somebody asks for, in seconds.
const VERIFY_EVERY_S: i64 = 5;

/// A domain of the customer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct DomainView {
    /// Host name, in ASCII.
    domain: String,
    /// Stage that it belongs to.
    stage: String,
    /// The only app that it serves, at `/`.
    app: Option<String>,
    /// Whether addresses of the stage are shown with it.
    default: bool,
    /// `pending-validation`, `pending-certificate`, `issued`, `active`, `failed` or `expired`.
    state: &'static str,
    /// The TXT record that proves ownership.
    record: RecordView,
    /// Host to which a CNAME record should lead.
    target: String,
    /// Until when the record must be there; only while it is awaited (RFC 3339).
    validate_until: Option<String>,
    /// `acme` or `uploaded`.
    certificate: Option<String>,
    /// When the certificate ends (RFC 3339).
    certificate_until: Option<String>,
    /// What needs attention.
    problem: Option<String>,
}

/// A record to write into the DNS.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct RecordView {
    name: String,
    value: String,
}

/// A domain to claim.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDomain {
    /// Host name.
    domain: String,
    /// Stage.
    stage: String,
    /// The only app that it shall serve, at `/`. Default: all apps of the stage, below their names.
    app: Option<String>,
}

/// A certificate of one's own.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnCertificate {
    /// Chain, PEM, leaf first.
    chain: String,
    /// Private key, PEM.
    key: String,
}

/// Which domain is the default.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Default {
    /// A proven domain of the stage; without one, the built-in host is the default.
    domain: Option<String>,
}

/// A name that was given up.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct LockView {
    /// `domain` or `customer`.
    kind: String,
    /// The name.
    label: String,
    /// Id of the customer who gave it up.
    customer: String,
    /// Until when nobody else may take it (RFC 3339).
    until: String,
}

/// Lists the customer's domains.
#[utoipa::path(get, path = "/domains", responses((status = 200, body = Vec<DomainView>)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<DomainView>>, ApiError> {
    let rows = caller.store(&app).domains().await?;
    let seen = rows.into_iter().filter(|row| caller.sees(&row.stage));
    Ok(Json(seen.map(|row| view(&app, &caller, row)).collect()))
}

/// Claims a domain for a stage. It serves once its ownership is proven.
#[utoipa::path(post, path = "/domains", request_body = NewDomain, responses((status = 201, body = DomainView), (status = 404, description = "No such stage"), (status = 409, description = "Claimed already"), (status = 422, description = "Not a domain that can be used"), (status = 429, description = "Too many")))]
pub(crate) async fn add(
    State(app): State<App>,
    caller: Caller,
    body: Result<Json<NewDomain>, JsonRejection>,
) -> Result<(StatusCode, Json<DomainView>), ApiError> {
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let name = usable(&app, &new.domain)?;
    let stage = super::network::known(&app, &caller, Some(new.stage)).await?;
    let root = new.app.map(AppName::new).transpose();
    let root = root.map_err(|error| ApiError::because(Code::InputInvalid, format!("app: {error}")))?;
    let own = caller.store(&app);
    let mut write = app.store.write().await?;
    let most = app.config.custom_domains.domains_max;
    if own.domains().await?.len() >= most as usize {
        return Err(ApiError::because(Code::DomainLimit, format!("a customer may have {most} domains")));
    }
    if own.audited_since(&mut write, "domain.added", now_s() - 3600).await? >= CLAIMS_PER_HOUR {
        let detail = format!("{CLAIMS_PER_HOUR} domains may be added in an hour");
        return Err(ApiError::because(Code::DomainLimit, detail).retry_after(3600));
    }
    own.claim_domain(&mut write, &name, &stage, root.as_ref()).await.map_err(|error| match error {
        StoreError::Taken => {
            ApiError::because(Code::NameTaken, format!("`{name}` is among your domains already"))
        }
        other => other.into(),
    })?;
    own.audit(&mut write, &caller.who.sub, "domain.added", &format!("{stage}: {name}")).await?;
    write.commit().await.map_err(StoreError::from)?;
    let row = found(&app, &caller, &name).await?;
    Ok((StatusCode::CREATED, Json(view(&app, &caller, row))))
}

/// Looks for the record of a domain now.
#[utoipa::path(post, path = "/domains/{domain}/verify", params(("domain" = String, Path, description = "Host name")), responses((status = 200, body = DomainView), (status = 404, description = "No such domain"), (status = 409, description = "Not proven, or somebody else's"), (status = 429, description = "Too often")))]
pub(crate) async fn verify(
    State(app): State<App>,
    caller: Caller,
    Path(domain): Path<String>,
) -> Result<Json<DomainView>, ApiError> {
    let row = found(&app, &caller, &named(&domain)?).await?;
    if row.checked.is_some_and(|at| now_s() < at + VERIFY_EVERY_S) {
        let detail = format!("a domain is looked at every {VERIFY_EVERY_S} seconds at most");
        return Err(ApiError::because(Code::DomainLimit, detail).retry_after(VERIFY_EVERY_S.unsigned_abs()));
    }
    match row.state(now_s()) {
        DomainState::Failed => return Err(again(&row, "was lost")),
        DomainState::Expired if row.validated.is_none() => {
            return Err(again(&row, "was not proven within 72 hours"));
        }
        _ => {}
    }
    check::look(&app, &row).await?;
    app.domains.wake.notify_one();
    let row = found(&app, &caller, &row.name).await?;
    if row.validated.is_none() {
        let why = row.problem.unwrap_or_default();
        return Err(ApiError::because(Code::DomainUnproven, why));
    }
    Ok(Json(view(&app, &caller, row)))
}

/// Gives a domain up, at once.
#[utoipa::path(delete, path = "/domains/{domain}/claim", params(("domain" = String, Path, description = "Host name")), responses((status = 204, description = "Gone"), (status = 404, description = "No such domain")))]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(domain): Path<String>,
) -> Result<StatusCode, ApiError> {
    let row = found(&app, &caller, &named(&domain)?).await?;
    let own = caller.store(&app);
    let mut write = app.store.write().await?;
    if !own.remove_domain(&mut write, &row.name).await? {
        return Err(ApiError::new(Code::ApiUnknown));
    }
    own.audit(&mut write, &caller.who.sub, "domain.removed", &check::detail(&row)).await?;
    write.commit().await.map_err(StoreError::from)?;
    app.wake.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// Serves a proven domain with a certificate of one's own.
#[utoipa::path(put, path = "/domains/{domain}/certificate", params(("domain" = String, Path, description = "Host name")), request_body = OwnCertificate, responses((status = 200, body = DomainView), (status = 404, description = "No such domain"), (status = 409, description = "Not proven"), (status = 422, description = "Not a certificate that can serve it")))]
pub(crate) async fn certificate(
    State(app): State<App>,
    caller: Caller,
    Path(domain): Path<String>,
    body: Result<Json<OwnCertificate>, JsonRejection>,
) -> Result<Json<DomainView>, ApiError> {
    // What is wrong with the body is not repeated: it holds a key.
    let Json(new) =
        body.map_err(|_| ApiError::because(Code::InputInvalid, "give `chain` and `key`, as PEM texts"))?;
    let row = found(&app, &caller, &named(&domain)?).await?;
    if row.validated.is_none() {
        let detail = format!("first prove that `{}` is yours", row.name);
        return Err(ApiError::because(Code::DomainUnproven, detail));
    }
    let key = Secret::new(new.key);
    let not_after =
        bastide_tls::check_site(row.name.as_str(), &new.chain, key.expose(), OffsetDateTime::now_utc())
            .map_err(|fault| ApiError::because(Code::CertificateInvalid, fault.to_string()))?;
    let own = caller.store(&app);
    let mut write = app.store.write().await?;
    let new = NewCertificate { source: "uploaded", chain: &new.chain, key: &key, not_after };
    own.put_certificate(&mut write, &row.name, &new).await?;
    own.audit(&mut write, &caller.who.sub, "domain.certificate", &check::detail(&row)).await?;
    write.commit().await.map_err(StoreError::from)?;
    app.domains.wake.notify_one();
    let row = found(&app, &caller, &row.name).await?;
    Ok(Json(view(&app, &caller, row)))
}

/// Chooses the domain with which addresses of a stage are shown.
#[utoipa::path(put, path = "/stages/{stage}/default-domain", params(("stage" = String, Path, description = "Name of the stage")), request_body = Default, responses((status = 204, description = "Chosen"), (status = 404, description = "No such stage or domain"), (status = 409, description = "Not proven")))]
pub(crate) async fn set_default(
    State(app): State<App>,
    caller: Caller,
    Path(stage): Path<String>,
    body: Result<Json<Default>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Json(new) = body.map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))?;
    let stage: StageName = super::network::known(&app, &caller, Some(stage)).await?;
    let row = match &new.domain {
        Some(domain) => Some(found(&app, &caller, &named(domain)?).await?),
        None => None,
    };
    if let Some(row) = &row {
        if row.stage != stage {
            return Err(ApiError::new(Code::ApiUnknown));
        }
        if row.validated.is_none() {
            return Err(ApiError::new(Code::DomainUnproven));
        }
    }
    let own = caller.store(&app);
    let mut write = app.store.write().await?;
    own.set_default_domain(&mut write, &stage, row.as_ref().map(|row| &row.name)).await?;
    let what = row.as_ref().map_or("the built-in host", |row| row.name.as_str());
    own.audit(&mut write, &caller.who.sub, "domain.default", &format!("{stage}: {what}")).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists names that were given up and are locked, for operators.
#[utoipa::path(get, path = "/locks", responses((status = 200, body = Vec<LockView>)))]
pub(crate) async fn locks(State(app): State<App>) -> Result<Json<Vec<LockView>>, ApiError> {
    let shown = app.store.locks().await?.into_iter().map(|lock| LockView {
        kind: lock.kind,
        label: lock.label,
        customer: lock.customer.to_string(),
        until: date(lock.until),
    });
    Ok(Json(shown.collect()))
}

/// Lifts the lock of a name, for operators.
#[utoipa::path(delete, path = "/locks/{label}/lock", params(("label" = String, Path, description = "The name")), responses((status = 204, description = "Lifted"), (status = 404, description = "Not locked")))]
pub(crate) async fn unlock(
    State(app): State<App>,
    caller: Caller,
    Path(label): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut write = app.store.write().await?;
    if !app.store.unlock(&mut write, &label).await? {
        return Err(ApiError::new(Code::ApiUnknown));
    }
    caller.store(&app).audit(&mut write, &caller.who.sub, "label.unlocked", &label).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A domain that may be claimed here at all.
fn usable(app: &App, text: &str) -> Result<DomainName, ApiError> {
    let name =
        DomainName::new(text).map_err(|error| ApiError::because(Code::DomainInvalid, error.to_string()))?;
    let domains = &app.config.domains;
    // Above them, too: the host of a base domain's parent could set cookies for all of us.
    for base in [&domains.platform, &domains.runtime] {
        let is_above = base.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
        if name.is_at_or_below(base) || is_above {
            let detail = format!("`{name}` belongs to Bastide itself");
            return Err(ApiError::because(Code::DomainInvalid, detail));
        }
    }
    Ok(name)
}

fn named(text: &str) -> Result<DomainName, ApiError> {
    DomainName::new(text).map_err(|_| ApiError::new(Code::ApiUnknown))
}

async fn found(app: &App, caller: &Caller, name: &DomainName) -> Result<DomainRow, ApiError> {
    let row = caller.store(app).domain(name).await?.ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    caller.demand_in(&row.stage)?;
    Ok(row)
}

fn again(row: &DomainRow, what: &str) -> ApiError {
    ApiError::because(Code::DomainUnproven, format!("`{}` {what}; add it again", row.name))
}

fn view(app: &App, caller: &Caller, row: DomainRow) -> DomainView {
    let now = now_s();
    let state = row.state(now);
    let ends_soon = row.certificate.as_ref().is_some_and(|(_, ends)| *ends < now + WARN_BEFORE_S);
    let certificate = match (&row.certificate, state) {
        (Some(_), DomainState::Expired) => Some("the certificate has expired".to_owned()),
        (Some((_, ends)), _) if ends_soon => Some(format!("the certificate ends on {}", date(*ends))),
        (None, DomainState::PendingCertificate) => Some(match &row.order_problem {
            Some(problem) => problem.clone(),
            None if app.config.custom_domains.acme.is_some() => "the certificate is being ordered".into(),
            None => "upload a certificate: this installation asks no authority for one".into(),
        }),
        _ => None,
    };
    let elsewhere = (state == DomainState::Issued).then(|| "the name does not lead here yet".to_owned());
    let waits = state == DomainState::PendingValidation;
    DomainView {
        record: RecordView { name: row.name.record(), value: check::record_value(&row) },
        target: app.config.domains.runtime_host(&caller.customer.name, &row.stage),
        validate_until: waits.then(|| date(row.created + bastide_store::CLAIM_LIFE_S)),
        certificate_until: row.certificate.as_ref().map(|(_, ends)| date(*ends)),
        certificate: row.certificate.map(|(source, _)| source),
        problem: row.problem.or(certificate).or(elsewhere),
        state: state.as_str(),
        default: row.is_default,
        app: row.app.map(|app| app.to_string()),
        stage: row.stage.to_string(),
        domain: row.name.to_string(),
    }
}

/// RFC 3339.
fn date(seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}
