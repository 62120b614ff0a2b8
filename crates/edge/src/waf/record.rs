//! The audit log of the WAF: one JSON line per transaction that matched.
//!
//! Values of arguments, the query, credentials and bodies stay out; the edge that stands alone writes values, for
//! whoever tunes rules with it, but never credentials.

use crate::{access_log, context::SiteNames, lines::Lines};
use bastide_proxy::RawHead;
use bastide_types::RequestId;
use bastide_waf::{Audit, Match};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Longest text of a header field, path or query in the log, in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// Matches that are told of one transaction; the others are counted.
const MATCHES_MAX: usize = 100;
/// Fields that may be told: none of them holds a credential.
const FIELDS: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "if-modified-since",
    "if-none-match",
    "origin",
    "range",
    "referer",
    "request-range",
    "sec-ch-ua",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-crs-test",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-http-method",
    "x-http-method-override",
    "x-requested-with",
];
/// Fields that hold credentials.
const CREDENTIALS: &[&str] = &["authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token"];

/// Where the lines go, and what they hold.
pub(crate) struct AuditLog {
    lines: Lines,
    pub(crate) masked: bool,
}

/// What is known of a transaction when it begins.
pub(crate) struct Record {
    pub(crate) id: RequestId,
    pub(crate) at: SystemTime,
    pub(crate) client: IpAddr,
    pub(crate) raw: Arc<RawHead>,
    pub(crate) site: Option<Arc<SiteNames>>,
    /// Policy and rules under which it was judged.
    pub(crate) policy: Arc<str>,
    pub(crate) rules: Arc<str>,
    /// Status of the answer, once there is one.
    pub(crate) status: Option<u16>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: RequestId,
    client: IpAddr,
    /// Host, as sent.
    site: String,
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    names: Option<&'a SiteNames>,
    request: LineRequest,
    response: LineResponse,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<u32>,
    scores: Scores,
    rule_ids: Vec<u32>,
    messages: &'a [Match],
    #[serde(skip_serializing_if = "Option::is_none")]
    more_messages: Option<usize>,
    #[serde(skip_serializing_if = "str::is_empty")]
    policy: &'a str,
    rules: &'a str,
}

#[derive(Serialize)]
struct LineRequest {
    method: String,
    uri: String,
    protocol: String,
    headers: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct LineResponse {
    status: Option<u16>,
}

#[derive(Serialize)]
struct Scores {
    inbound: i64,
    outbound: i64,
}

impl AuditLog {
    pub(crate) fn open(path: &Path, masked: bool) -> std::io::Result<Self> {
        Ok(Self { lines: Lines::open(path)?, masked })
    }

    /// Adds the line of a transaction that has ended.
    pub(crate) fn add(&self, record: &Record, audit: &Audit) {
        let mut rule_ids: Vec<u32> = audit.matches.iter().map(|one| one.id).collect();
        rule_ids.sort_unstable();
        rule_ids.dedup();
        let told = audit.matches.len().min(MATCHES_MAX);
        let line = Line {
            time: time(record.at),
            request_id: record.id,
            client: record.client,
            site: field(&record.raw, "host"),
            names: record.site.as_deref(),
            request: request(&record.raw, self.masked),
            response: LineResponse { status: record.status },
            verdict: verdict(audit),
            decided_by: audit.rule,
            scores: Scores { inbound: audit.inbound_score, outbound: audit.outbound_score },
            rule_ids,
            messages: &audit.matches[..told],
            more_messages: (audit.matches.len() > told).then(|| audit.matches.len() - told),
            policy: &record.policy,
            rules: &record.rules,
        };
        match serde_json::to_string(&line) {
            Ok(line) => self.lines.add(line),
            Err(error) => tracing::error!(%error, "a line of the WAF audit log cannot be written"),
        }
    }
}

/// `block`: refused. `detect`: it would have been, in mode `block`. `pass`: rules matched, and not enough of them.
fn verdict(audit: &Audit) -> &'static str {
    match (audit.blocked, audit.would_block) {
        (true, _) => "block",
        (false, true) => "detect",
        (false, false) => "pass",
    }
}

fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // Milliseconds are enough for people, and all lines sort as text.
    let nanos = i128::try_from(since.as_millis()).unwrap_or_default() * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}

fn request(raw: &RawHead, masked: bool) -> LineRequest {
    let mut headers = BTreeMap::new();
    for (name, value) in &raw.headers {
        let name = shown(name);
        let lower = name.to_ascii_lowercase();
        let is_told =
            if masked { FIELDS.contains(&lower.as_str()) } else { !CREDENTIALS.contains(&lower.as_str()) };
        if !is_told {
            continue;
        }
        let value = if masked && lower == "referer" { without_query(value) } else { shown(value) };
        // Of fields that are there twice the one told first keeps its spelling.
        headers
            .entry(name)
            .and_modify(|own: &mut String| own.push_str(&format!(", {value}")))
            .or_insert(value);
    }
    LineRequest {
        method: shown(&raw.method),
        uri: if masked {
            access_log::masked(&without_query(&raw.target)).to_owned()
        } else {
            shown(&raw.target)
        },
        protocol: shown(raw.protocol()),
        headers,
    }
}

fn field(raw: &RawHead, name: &str) -> String {
    let mut found = raw.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
    found.next().map(|(_, value)| shown(value)).unwrap_or_default()
}

fn without_query(target: &[u8]) -> String {
    match target.iter().position(|b| *b == b'?') {
        Some(at) => shown(&target[..at]) + "?***",
        None => shown(target),
    }
}

/// Bounded text of one line; bytes that are no UTF-8 as `\xHH`.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let mut out = String::with_capacity(cut.len());
    for chunk in cut.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    const HEAD: &[u8] =
        b"GET /a/b?password=hunter2 HTTP/1.1\r\nHost: shop.example\r\nCookie: session=hunter2\r\n\
        Authorization: Bearer hunter2\r\nReferer: https://x.example/?token=hunter2\r\nUser-Agent: Agent/1\r\n\
        X-Mine: hunter2\r\n\r\n";

    #[test]
    fn what_is_masked_shows_no_value_and_no_credential() {
        let told = request(&RawHead::salvage(&Bytes::from_static(HEAD)), true);
        let text = serde_json::to_string(&told).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(told.uri, "/a/b?***");
        assert_eq!(told.headers.keys().collect::<Vec<_>>(), ["Host", "Referer", "User-Agent"]);
    }

    #[test]
    fn what_is_not_masked_shows_values_but_no_credential() {
        let told = request(&RawHead::salvage(&Bytes::from_static(HEAD)), false);
        assert_eq!(told.uri, "/a/b?password=hunter2");
        assert_eq!(told.headers.keys().collect::<Vec<_>>(), ["Host", "Referer", "User-Agent", "X-Mine"]);
    }

    proptest! {
        #[test]
        fn whatever_was_sent_is_one_line(head: Vec<u8>) {
            let told = request(&RawHead::salvage(&head.into()), false);
            prop_assert!(!serde_json::to_string(&told).unwrap().contains('\n'));
        }
    }
}
