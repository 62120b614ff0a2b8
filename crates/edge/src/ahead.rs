//! Short request bodies are taken whole before anybody behind hears of the request, so that a client that sends slowly
//! holds a connection to us and none to a gateway or origin. Longer ones, and those of unknown length, are streamed.

use crate::refusal::Refusal;
use bastide_proxy::Request;
use bastide_types::Code;
use http_body::Body as _;

/// The longest body that is short.
const SHORT_BYTES: u64 = 64 * 1024;

/// Whether the body of this request is to be taken whole.
pub(crate) fn is_short(request: &Request) -> bool {
    request.body().size_hint().exact().is_some_and(|length| (1..=SHORT_BYTES).contains(&length))
}

/// Takes the body of this request, if it is short.
///
/// # Errors
/// [`Code::BadRequest`] when it ends early or its framing breaks.
pub(crate) async fn take_short(request: &mut Request) -> Result<(), Refusal> {
    if is_short(request) {
        let taken = request.body_mut().prefix(SHORT_BYTES as usize).await;
        taken.map_err(|error| Refusal::because(Code::BadRequest, error.to_string()))?;
    }
    Ok(())
}
