//! Errors of the services, and how they are said over HTTP.

use axum::{
    Json,
    extract::{Request, rejection::JsonRejection},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bastide_store::StoreError;
use bastide_types::{Code, Problem, RequestId, StepUp, header::REQUEST_ID, problem};
use http::{HeaderValue, StatusCode, header};
use std::path::PathBuf;
use tracing::Instrument;

/// A platform replica could not start or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the configuration cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Certificates.
    #[error("the certificates cannot be used")]
    Tls(#[from] bastide_tls::TlsError),
    /// Bus.
    #[error("the bus cannot be used")]
    Bus(#[from] bastide_bus::BusError),
    /// Store.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// Keys.
    #[error("a key cannot be used")]
    Key(#[from] bastide_identity::KeyError),
    /// Mail.
    #[error("the settings of mail cannot be used")]
    Mail(#[from] crate::mail::MailFault),
    /// Resolver.
    #[error("names cannot be resolved")]
    Resolver(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Listener.
    #[error("cannot listen")]
    Listen(#[source] std::io::Error),
}

/// The document of a request.
///
/// # Errors
/// [`Code::InputInvalid`] with what is wrong with it.
pub fn document<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, ApiError> {
    body.map(|Json(body)| body).map_err(|error| ApiError::because(Code::InputInvalid, error.body_text()))
}

/// A refusal of the API.
#[derive(Debug)]
pub struct ApiError(pub Problem, pub Option<u64>, pub Option<StepUp>);

impl ApiError {
    /// Only the code.
    pub fn new(code: Code) -> Self {
        Self(code.problem(), None, None)
    }
    /// With a detail.
    pub fn because(code: Code, detail: impl Into<String>) -> Self {
        Self(code.because(detail), None, None)
    }
    /// The sign-in is not good enough: says what would be, to programs too.
    pub fn step_up(demand: StepUp) -> Self {
        let max_age = demand.max_age_s.map(|max_s| format!("&max_age={max_s}")).unwrap_or_default();
        let page = format!("/.bastide/step-up?acr={}{max_age}", demand.acr);
        let says = demand.says();
        let detail =
            format!("{says} Run `bastide login --mfa`, or open {page} in the browser, and try again.");
        Self(Code::StepUpNeeded.because(detail), None, Some(demand))
    }
    /// With the seconds after which it may be tried again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.1 = Some(seconds);
        self
    }
    /// Our fault: the cause goes to the log, once.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        tracing::error!(error = text, "a request failed");
        Self::new(Code::Internal)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Taken => Self::new(Code::NameTaken),
            StoreError::Unmet => Self::new(Code::PreconditionFailed),
            StoreError::Repeated => Self::new(Code::KeyBusy).retry_after(1),
            away if away.is_away() => {
                tracing::warn!(error = &away as &dyn std::error::Error, "the database does not answer");
                Self::new(Code::PlatformUnavailable).retry_after(1)
            }
            other => Self::internal(&other),
        }
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(&error)
    }
}

impl From<bastide_identity::KeyError> for ApiError {
    fn from(error: bastide_identity::KeyError) -> Self {
        Self::internal(&error)
    }
}

impl From<bastide_bus::BusError> for ApiError {
    fn from(error: bastide_bus::BusError) -> Self {
        Self::internal(&error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.0.json()).into_response();
        response.extensions_mut().insert(self.0);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = self.2.and_then(|demand| HeaderValue::from_str(&demand.challenge()).ok());
            let challenge = challenge.unwrap_or(HeaderValue::from_static("Bearer"));
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.1 {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Makes every refusal a problem with the id of its request, those of the web framework too.
pub(crate) async fn dress(request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()?.parse().ok());
    let trace = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let span = tracing::info_span!("platform", request = id.map(tracing::field::display::<RequestId>));
    let mut response = next.run(request).instrument(span).await;
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return response;
    }
    let ours = response.extensions_mut().remove::<Problem>();
    let problem = match id {
        Some(id) => ours.unwrap_or_else(|| of_status(response.status())).of_request(id),
        None => ours.unwrap_or_else(|| of_status(response.status())),
    };
    let problem = problem.of_trace(trace.as_deref());
    let mut dressed = ApiError(problem, None, None).into_response();
    for name in [header::ALLOW, header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
        if let Some(value) = response.headers_mut().remove(&name) {
            dressed.headers_mut().insert(name, value);
        }
    }
    dressed
}

/// What the framework refused by itself: an address or a body that it cannot read.
fn of_status(status: StatusCode) -> Problem {
    let code = match status {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Code::ApiUnknown,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        status if status.is_client_error() => Code::InputInvalid,
        _ => Code::Internal,
    };
    code.problem()
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
