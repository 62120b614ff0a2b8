//! Asking the API in process, as the one who looks at the page.

use axum::{Router, body::Body};
use bastide_types::{API, Code, Problem, header};
use http::{HeaderMap, Method, Request, header as field};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower::ServiceExt;

/// Longest answer of the API, in bytes.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Fields of the page's request that go along: host, who asks, and which request it is.
const PASSED: [&str; 3] = ["host", header::ASSERTION, header::REQUEST_ID];

/// The API; paths are below [`API`].
#[derive(Clone)]
pub struct Api(pub Router);

impl Api {
    /// GET.
    pub async fn get<T: DeserializeOwned>(&self, headers: &HeaderMap, path: &str) -> Result<T, Problem> {
        let (mut all, mut next) = self.ask::<Value>(headers, Method::GET, path, None).await?;
        while let (Some(path), Some(list)) = (next.take(), all.as_array_mut()) {
            let (page, after) = self.ask::<Vec<Value>>(headers, Method::GET, &path, None).await?;
            list.extend(page);
            next = after;
        }
        serde_json::from_value(all).map_err(|error| {
            tracing::error!(%error, path, "the API answered in another form");
            Code::Internal.problem()
        })
    }

    /// POST.
    pub async fn post<T: DeserializeOwned>(
        &self,
        headers: &HeaderMap,
        path: &str,
        body: &Value,
    ) -> Result<T, Problem> {
        self.ask(headers, Method::POST, path, Some(body)).await.map(|(answer, _)| answer)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        headers: &HeaderMap,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(T, Option<String>), Problem> {
        let mut request = Request::builder().method(method).uri(format!("{API}{path}"));
        for name in PASSED {
            for value in headers.get_all(name) {
                request = request.header(name, value);
            }
        }
        let body = match body {
            Some(json) => {
                request = request.header(field::CONTENT_TYPE, "application/json");
                Body::from(json.to_string())
            }
            None => Body::empty(),
        };
        let request = request.body(body).map_err(|_| Code::ApiUnknown.problem())?;
        let response = match self.0.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status();
        let next = next_page(response.headers());
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = bytes.map_err(|_| Code::Internal.problem())?.to_bytes();
        if status.is_success() {
            let answer = serde_json::from_slice(&bytes).map_err(|error| {
                tracing::error!(%error, path, "the API answered in another form");
                Code::Internal.problem()
            })?;
            return Ok((answer, next));
        }
        Err(serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            let code = if status.as_u16() == 404 { Code::ApiUnknown } else { Code::Internal };
            code.problem()
        }))
    }
}

/// Where a list goes on, below the API.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let (target, _) = headers.get(field::LINK)?.to_str().ok()?.strip_prefix('<')?.split_once('>')?;
    target.strip_prefix(API).map(str::to_owned)
}
