//! Operations that change something: once for each key, and only under their conditions.

use super::{Gate, condition, once};
use crate::{ApiError, api::JSON_BYTES_MAX, build::UPLOAD_BYTES_MAX, caller::Caller};
use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use bastide_store::{Demands, demanding};
use bastide_types::Code;
use http::{HeaderValue, header};
use std::sync::Arc;

/// Answers an operation that changes something. `path` is the router's.
pub(crate) async fn write(
    gate: &Gate,
    path: &str,
    caller: &Caller,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let condition = condition::condition(gate, path, caller, &parts.uri, &parts.headers)?;
    let key = once::key_of(&parts)?;
    let asked = once::Asked::new(&parts);
    let mut once = None;
    if let Some(key) = key {
        let known = caller.store(&gate.app).once(&caller.who.sub, &key).await?;
        if let Some(row) = known {
            return once::again(row, &asked, body, UPLOAD_BYTES_MAX).await;
        }
        once = Some(once::demand(caller, key, &asked));
    }
    // Handlers stream large bodies; small ones are read whole, also where a handler needs none.
    let body =
        match parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
        {
            _ if once.is_none() => body,
            Some(0..=JSON_BYTES_MAX) => Body::from(
                axum::body::to_bytes(asked.reading(body), JSON_BYTES_MAX)
                    .await
                    .map_err(|_| ApiError::because(Code::InputInvalid, "the body broke off"))?,
            ),
            _ => asked.reading(body),
        };
    let demands = Arc::new(Demands::new(once, condition));
    let response = demanding(demands.clone(), next.run(Request::from_parts(parts, body))).await;
    Ok(no_store(match demands.done() {
        Some(once) => once::keep(&gate.app, once, response).await,
        None => response,
    }))
}

/// Answers of writes may hold what is shown once.
fn no_store(mut response: Response) -> Response {
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
