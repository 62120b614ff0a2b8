//! A problem as a response: JSON for programs, a page for browsers.

use crate::{Body, Response};
use bastide_types::{Problem, RequestId, header as names, problem};
use http::{HeaderValue, StatusCode, header};

/// The response that says `problem` for request `id`; `accept` is the request's Accept field.
pub fn problem_response(problem: Problem, id: RequestId, accept: Option<&str>) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let problem = problem.of_request(id);
    let html = Problem::wants_html(accept);
    let (kind, body) = if html {
        ("text/html; charset=utf-8", problem.html())
    } else {
        (problem::MEDIA_TYPE, problem.json())
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if html {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    }
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(names::REQUEST_ID, id);
    }
    response
}
