//! Why the edge did not pass a request on.

use bastide_proxy::{Response, problem_response};
use bastide_types::{Code, Problem, RequestId};
use http::header;

/// A refusal on its way to the client.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Problem,
    retry_after_s: Option<u32>,
}

impl Refusal {
    /// A refusal with a code.
    pub(crate) fn new(code: Code) -> Self {
        Self { problem: code.problem(), retry_after_s: None }
    }
    /// A refusal with a detail that the client may know.
    pub(crate) fn because(code: Code, detail: impl Into<String>) -> Self {
        Self { problem: code.because(detail), retry_after_s: None }
    }
    /// The same, with the seconds after which the client may come again.
    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
    /// What is said.
    pub(crate) fn problem(&self) -> &Problem {
        &self.problem
    }
    /// The answer.
    pub(crate) fn response(self, id: RequestId, accept: Option<&str>) -> Response {
        let mut response = problem_response(self.problem, id, accept);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }

    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.problem.status
    }

    /// The code, when what stands behind the edge could not be reached or did not answer.
    pub(crate) fn upstream(&self) -> Option<Code> {
        Code::from_text(&self.problem.code).filter(|code| {
            matches!(code, Code::GatewayUnreachable | Code::GatewayTimeout | Code::OriginUnreachable)
        })
    }
}
