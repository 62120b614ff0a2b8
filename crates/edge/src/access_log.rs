//! The access log: one JSON line per request. No query, no cookie, no token.

use crate::{context::Context, lines::Lines};
use bastide_proxy::Response;
use bastide_types::header;
use serde_json::json;

pub(crate) fn add(lines: &Lines, cx: &Context, method: &str, path: &str, response: &Response) {
    let field = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let line = json!({
        "at": time(cx),
        "request": cx.id,
        "client": cx.client,
        "host": cx.host,
        "method": method,
        "path": masked(path),
        "bytes": http_body::Body::size_hint(response.body()).exact(),
        "status": response.status().as_u16(),
        "ms": (cx.begun.elapsed().as_secs_f64() * 1e5).round() / 100.0,
        "site": cx.site.as_deref(),
        "zone": field(header::ZONE),
        "replica": field(header::REPLICA),
        "waf": cx.verdict,
        "cache": cx.cache.map(bastide_cache::Status::value),
    });
    lines.add(line.to_string());
}

/// Milliseconds since 1970.
pub(crate) fn time(cx: &Context) -> u64 {
    cx.at.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Invitation links are secrets: whoever has one chooses the password.
pub(crate) fn masked(path: &str) -> &str {
    const INVITE: &str = "/identity/invite/";
    // In any spelling: the path stands here as it was sent.
    match crate::canonical::canonical(path) {
        Ok(canonical) if !canonical.starts_with(INVITE) => path,
        Ok(_) => INVITE,
        Err(_) if path.to_ascii_lowercase().contains("invite") => INVITE,
        Err(_) => path,
    }
}
