//! Refusals of the Identity Service, and how they are said.

use super::breached::BreachedFault;
use axum::{
    Json,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bastide_identity::{KeyError, PasskeyFault};
use bastide_store::StoreError;
use bastide_types::{Code, Problem, header as field, problem};
use serde_json::json;

/// Why a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A refusal that the client may read; with seconds after which to retry.
    #[error("refused")]
    Refused(#[source] Problem, Option<i64>),
    /// A refusal in the form of RFC 6749 §5.2.
    #[error("refused: {error}")]
    OAuth {
        /// Value of `error`.
        error: &'static str,
        /// Value of `error_description`.
        because: &'static str,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// A key failed.
    #[error("a key failed")]
    Key(#[from] KeyError),
    /// The list of breached passwords failed.
    #[error("the list of breached passwords failed")]
    Breached(#[from] BreachedFault),
    /// Passkeys cannot be asked for, or what was kept of one cannot be read.
    #[error("passkeys failed")]
    Passkey(#[source] PasskeyFault),
    /// Hashing failed.
    #[error("a password could not be hashed")]
    Hash,
    /// A page could not be written.
    #[error("a page could not be written")]
    Page(#[from] askama::Error),
}

/// Shorthand.
pub type Answer<T = Response> = Result<T, Fault>;

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem, None)
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        code.problem().into()
    }
}

/// A refusal in the form of RFC 6749 §5.2.
pub fn oauth(error: &'static str, because: &'static str) -> Fault {
    Fault::OAuth { error, because }
}

impl Fault {
    /// What the client may know.
    pub fn problem(self) -> Problem {
        match self {
            Self::Refused(problem, _) => problem,
            Self::OAuth { because, .. } => Code::OAuthInvalid.because(because),
            Self::Store(_)
            | Self::Key(_)
            | Self::Breached(_)
            | Self::Passkey(_)
            | Self::Hash
            | Self::Page(_) => {
                tracing::error!(error = &self as &dyn std::error::Error, "identity failed");
                Code::Internal.problem()
            }
        }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let retry = match &self {
            Self::Refused(_, retry) => *retry,
            _ => None,
        };
        if let Self::OAuth { error, because } = self {
            let status =
                if error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
            let body = json!({ "error": error, "error_description": because, "code": Code::OAuthInvalid });
            let mut response = (status, Json(body)).into_response();
            if status == StatusCode::UNAUTHORIZED {
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"bastide\""));
            }
            return response;
        }
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if let Some(seconds) = retry {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(problem);
        response
    }
}

/// Nothing is there.
pub async fn unknown() -> Fault {
    Code::ApiUnknown.into()
}

/// Writes a refusal as page or JSON, with its request, and closes every answer to caches and frames.
pub async fn dress(request: Request, next: Next) -> Response {
    let wants_page = Problem::wants_html(text(request.headers(), header::ACCEPT.as_str()));
    let id = text(request.headers(), field::REQUEST_ID).and_then(|id| id.parse().ok());
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.extensions_mut().insert(Code::MethodNotAllowed.problem());
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let problem = match id {
            Some(id) => problem.of_request(id),
            None => problem,
        };
        let (kind, body) = if wants_page {
            ("text/html; charset=utf-8", problem.html())
        } else {
            (problem::MEDIA_TYPE, problem.json())
        };
        *response.body_mut() = body.into();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let headers = response.headers_mut();
    let mut default = |name: &'static str, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default("cache-control", "no-store");
    default("content-security-policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'");
    default("x-content-type-options", "nosniff");
    // `same-origin`, because with `no-referrer` a browser would send `Origin: null` with our own forms.
    default("referrer-policy", "same-origin");
    response
}

/// A header field as text, if it is there once.
pub fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
