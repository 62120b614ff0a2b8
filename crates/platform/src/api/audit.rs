//! The audit trail: read, checked, handed out.

use crate::{ApiError, App, caller::Caller, wire::Query};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use bastide_store::AuditFilter;
use bastide_types::{AuditEntry, Code};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};

/// Entries of an answer when nothing is said.
const ENTRIES: u32 = 50;
/// Most entries of an answer.
const ENTRIES_MAX: u32 = 500;
/// Media type of an export: one JSON object a line.
const LINES: &str = "application/x-ndjson";

/// Which entries.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// Only entries of a smaller number: `next` of the answer before.
    before: Option<u64>,
    /// Most entries, 1 to 500. Default: 50.
    limit: Option<u32>,
    /// Only those of this subject.
    who: Option<String>,
    /// Only those whose kind begins so, such as `app.`.
    what: Option<String>,
    /// Only what was refused, or only what was done.
    refused: Option<bool>,
    /// Only from this second since 1970 on.
    since: Option<i64>,
    /// Only before this second since 1970.
    until: Option<i64>,
}

/// Entries, the newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Trail {
    /// Entries.
    #[schema(value_type = Vec<EntryView>)]
    entries: Vec<AuditEntry>,
    /// `before` of the next page; missing after the last.
    next: Option<u64>,
}

/// An entry, as it is described.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "it only describes `AuditEntry`, which knows no OpenAPI")]
pub(crate) struct EntryView {
    /// Counts up from 1, without a hole.
    sequence: u64,
    /// Seconds since 1970.
    at: i64,
    /// Id of a member or client, `system`, or `anonymous`.
    who: String,
    /// What happened; for refused requests the operation.
    what: String,
    /// On what.
    detail: String,
    /// Address of the network that it came from.
    address: String,
    /// Request that it belongs to.
    request: String,
    /// `done`, or the code of the refusal.
    outcome: String,
    /// What was there before.
    old: Option<String>,
    /// What is there now.
    new: Option<String>,
}

/// What became of checking the chain.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Verification {
    /// Whether every entry is as it was written.
    whole: bool,
    /// What is wrong, and with which entry.
    fault: Option<String>,
    /// Entries up to this number were given up by age.
    given_up: Option<u64>,
    /// Number and hash of the last entry. Noted elsewhere, it shows later that nothing before it was made anew.
    tip: Option<String>,
}

/// Where an export goes on.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct From {
    /// Only entries of a larger number. Default: 0.
    after: Option<u64>,
    /// Most entries, 1 to 500. Default: 500.
    limit: Option<u32>,
}

/// Lists the audit trail of your organization, the newest entries first.
#[utoipa::path(get, path = "/audit", params(Which), responses((status = 200, body = Trail), (status = 422, description = "A question that cannot be read")))]
pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Trail>, ApiError> {
    let limit = within(which.limit, ENTRIES)?;
    let filter = AuditFilter {
        before: which.before,
        who: which.who,
        what: which.what,
        refused: which.refused,
        since: which.since,
        until: which.until,
    };
    // One more tells whether there is a next page.
    let mut entries = caller.store(&app).audit_page(&filter, limit + 1).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| more).map(|entry| entry.sequence);
    Ok(Json(Trail { entries, next }))
}

/// Checks the chain of your organization's audit trail from its begin to its end.
#[utoipa::path(get, path = "/audit/verification", responses((status = 200, body = Verification)))]
pub(crate) async fn verify(State(app): State<App>, caller: Caller) -> Result<Json<Verification>, ApiError> {
    Ok(Json(match caller.store(&app).verify_audit().await? {
        Ok(verdict) => Verification {
            whole: true,
            fault: None,
            given_up: Some(verdict.before.sequence).filter(|up_to| *up_to > 0),
            tip: Some(verdict.last.to_string()),
        },
        Err(fault) => {
            tracing::error!(customer = %caller.customer.name, %fault, "the audit trail is not whole");
            Verification { whole: false, fault: Some(fault.to_string()), given_up: None, tip: None }
        }
    }))
}

/// Hands out the audit trail with its hashes, the oldest entries first, one JSON object a line.
#[utoipa::path(get, path = "/audit/export", params(From), responses((status = 200, body = String, content_type = "application/x-ndjson"), (status = 422, description = "A question that cannot be read")))]
pub(crate) async fn export(
    State(app): State<App>,
    caller: Caller,
    Query(from): Query<From>,
) -> Result<Response, ApiError> {
    let limit = within(from.limit, ENTRIES_MAX)?;
    let mut text = String::new();
    for line in caller.store(&app).audit_lines(from.after.unwrap_or(0), limit).await? {
        text.push_str(&serde_json::to_string(&line).map_err(|error| ApiError::internal(&error))?);
        text.push('\n');
    }
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    Ok(response)
}

fn within(limit: Option<u32>, default: u32) -> Result<u32, ApiError> {
    match limit.unwrap_or(default) {
        limit @ 1..=ENTRIES_MAX => Ok(limit),
        other => {
            let detail = format!("limit: {other} is not within 1 to {ENTRIES_MAX}");
            Err(ApiError::because(Code::InputInvalid, detail))
        }
    }
}
