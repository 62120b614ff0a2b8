//! Why the gateway did not pass a request on, and how that is said.

use bastide_proxy::{Response, problem_response};
use bastide_types::{Code, Problem, RequestId, header};
use http::{HeaderMap, HeaderValue};

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

    /// With a field whose value is worked out.
    pub(crate) fn saying(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The answer.
    pub(crate) fn response(self, id: RequestId, accept: Option<&str>) -> Response {
        let code = HeaderValue::from_str(&self.problem.code);
        let mut response = problem_response(self.problem, id, accept);
        let headers = response.headers_mut();
        headers.extend(self.headers);
        // The edge may show a page of the customer's; answers of apps are never taken for ours.
        if let Ok(code) = code {
            headers.insert(header::REFUSAL, code);
        }
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, headers: HeaderMap::new() }
    }
}
