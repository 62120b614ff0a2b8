//! Why the gateway did not pass a request on, and how that is said.

use bastide_proxy::{Response, problem_response};
use bastide_types::{Code, Problem, RequestId};
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

    /// The answer.
    pub(crate) fn response(self, id: RequestId, accept: Option<&str>) -> Response {
        let mut response = problem_response(self.problem, id, accept);
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, headers: HeaderMap::new() }
    }
}
