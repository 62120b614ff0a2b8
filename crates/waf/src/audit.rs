//! What a transaction came to, for the log.

use crate::Mode;
use serde::Serialize;

/// Longest text that is kept of a value.
pub(crate) const LOGDATA_BYTES_MAX: usize = 512;

/// A rule that matched and is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Rule id.
    pub id: u32,
    /// Message, macros expanded.
    pub msg: String,
    /// Severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// What matched, macros expanded, bounded; always valid text.
    pub logdata: String,
    /// Tags.
    pub tags: Vec<String>,
    /// File of the rule.
    pub file: String,
    /// Line of the rule.
    pub line: usize,
    /// Phase, 1 to 5.
    pub phase: usize,
}

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Engine mode.
    pub mode: Mode,
    /// Whether the request or its answer was refused.
    pub blocked: bool,
    /// Whether it would have been, in mode `block`.
    pub would_block: bool,
    /// Rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Method and target, bounded; always valid text.
    pub request: String,
    /// Score of the request's phases.
    pub inbound_score: i64,
    /// Score of the response's phases.
    pub outbound_score: i64,
    /// Value of the request field `X-CRS-Test`, by which test runs find their requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// Rules that matched.
    pub matches: Vec<Match>,
    /// Whether it belongs into the log at all.
    #[serde(skip)]
    pub wanted: bool,
}

/// Bytes as bounded, valid text.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(LOGDATA_BYTES_MAX)];
    String::from_utf8_lossy(cut).into_owned()
}
