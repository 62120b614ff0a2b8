//! Where requests come from, for the audit trail.

use axum::{extract::Request, middleware::Next, response::Response};
use bastide_store::Origin;
use bastide_types::{RequestId, header::REQUEST_ID};
use http::HeaderMap;
use std::net::IpAddr;

/// What a request changes is written down with its address and its id. Both are the edge's and the gateway's word,
/// which remove that of everybody else.
pub(crate) async fn note(request: Request, next: Next) -> Response {
    let origin = of(request.headers());
    origin.of(next.run(request)).await
}

fn of(headers: &HeaderMap) -> Origin {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let address = said("x-forwarded-for").and_then(|text| text.parse::<IpAddr>().ok());
    let id = said(REQUEST_ID).and_then(|text| text.parse::<RequestId>().ok());
    Origin {
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        request: id.map(|id| id.to_string()).unwrap_or_default(),
    }
}
