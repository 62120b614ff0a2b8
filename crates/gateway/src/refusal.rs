//! Why the gateway did not pass a request on, and how that is said.

use bastide_proxy::{Body, Response};
use bastide_types::{Code, Problem, RequestId, header, problem};
use http::{HeaderMap, HeaderValue, StatusCode};

/// A refusal on its way to the client.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Problem,
    headers: HeaderMap,
}

impl Refusal {
    /// A refusal with a code.
    pub(crate) fn new(code: Code) -> Self {
        Self::from(code.problem())
    }

    /// With a field of its own.
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// The answer.
    pub(crate) fn response(self, id: RequestId, accept: Option<&str>) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = self.problem.of_request(id);
        let html = Problem::wants_html(accept);
        let (kind, body) = if html {
            ("text/html; charset=utf-8", problem.html())
        } else {
            (problem::MEDIA_TYPE, problem.json())
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.extend(self.headers);
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if html {
            headers.insert("content-security-policy", HeaderValue::from_static("default-src 'none'"));
        }
        if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
            headers.insert(header::REQUEST_ID, id);
        }
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, headers: HeaderMap::new() }
    }
}
