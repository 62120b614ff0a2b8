//! Why the edge did not pass a request on.

use bastide_proxy::{Response, problem_response};
use bastide_types::{Code, Problem, RequestId};

/// A refusal on its way to the client.
#[derive(Debug)]
pub(crate) struct Refusal(Problem);

impl Refusal {
    /// A refusal with a code.
    pub(crate) fn new(code: Code) -> Self {
        Self(code.problem())
    }
    /// A refusal with a detail that the client may know.
    pub(crate) fn because(code: Code, detail: impl Into<String>) -> Self {
        Self(code.because(detail))
    }
    /// The answer.
    pub(crate) fn response(self, id: RequestId, accept: Option<&str>) -> Response {
        problem_response(self.0, id, accept)
    }

    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.0.status
    }

    /// The code, when what stands behind the edge could not be reached or did not answer.
    pub(crate) fn upstream(&self) -> Option<Code> {
        Code::from_text(&self.0.code).filter(|code| {
            matches!(code, Code::GatewayUnreachable | Code::GatewayTimeout | Code::OriginUnreachable)
        })
    }
}
