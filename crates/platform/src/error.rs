//! Errors of the services, and how they are said over HTTP.

use axum::response::{IntoResponse, Response};
use bastide_store::StoreError;
use bastide_types::{Code, Problem, problem};
use http::{HeaderValue, StatusCode, header};
use std::path::PathBuf;

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
    /// Listener.
    #[error("cannot listen")]
    Listen(#[source] std::io::Error),
}

/// A refusal of the API.
#[derive(Debug)]
pub struct ApiError(pub Problem, pub Option<u64>);

impl ApiError {
    /// Only the code.
    pub fn new(code: Code) -> Self {
        Self(code.problem(), None)
    }
    /// With a detail.
    pub fn because(code: Code, detail: impl Into<String>) -> Self {
        Self(code.because(detail), None)
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
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.1 {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
