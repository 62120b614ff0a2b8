//! What can be wrong with a head, and with what stands behind.

use http::StatusCode;

/// What is wrong with a head; the words are stable and stand in the detail of the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HeadFault {
    /// The request line is not `method target HTTP/1.x`.
    #[error("bad-request-line")]
    RequestLine,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("unsupported-version")]
    Version,
    /// A field name or the space around it.
    #[error("bad-header-name")]
    HeaderName,
    /// A field value: control characters, bare CR, NUL, folding.
    #[error("bad-header-value")]
    HeaderValue,
    /// Folded lines (RFC 9112 §5.2).
    #[error("obs-fold")]
    ObsFold,
    /// A CR without LF.
    #[error("bare-cr")]
    BareCr,
    /// An LF without CR.
    #[error("bare-lf")]
    BareLf,
    /// A method that is not capital letters, `-` and `_`.
    #[error("bad-method")]
    Method,
    /// TRACE, which shows a client's secrets to whoever may make it send one.
    #[error("trace-not-served")]
    Trace,
    /// No Host field.
    #[error("missing-host")]
    MissingHost,
    /// More than one Host field.
    #[error("duplicate-host")]
    DuplicateHost,
    /// Host is not a host.
    #[error("malformed-host")]
    MalformedHost,
    /// The absolute target names another host than the Host field.
    #[error("target-and-host-differ")]
    TargetHost,
    /// The target has no form that we serve.
    #[error("bad-target")]
    Target,
    /// CONNECT.
    #[error("connect-not-served")]
    Connect,
    /// Content-Length is not one plain number, or stands there twice.
    #[error("bad-content-length")]
    ContentLength,
    /// Content-Length with Transfer-Encoding.
    #[error("content-length-and-transfer-encoding")]
    BothLengths,
    /// Transfer-Encoding other than exactly `chunked`, or in HTTP/1.0.
    #[error("bad-transfer-encoding")]
    TransferEncoding,
    /// Too many bytes or fields.
    #[error("head-too-large")]
    TooLarge,
    /// The target is too long.
    #[error("target-too-long")]
    TargetTooLong,
    /// It, or the body after it, did not arrive in time.
    #[error("head-timeout")]
    Timeout,
    /// Chunks that are not framed as RFC 9112 §7.1 says; found after the head.
    #[error("bad-chunk")]
    Chunk,
    /// An expectation other than `100-continue`.
    #[error("unknown-expectation")]
    Expectation,
}

impl HeadFault {
    /// Status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Trace | Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// What went wrong behind us.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or the peer is not who it should be.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// The deadline passed.
    #[error("the deadline passed")]
    TimedOut,
    /// The connection ended before the head of the answer.
    #[error("the connection ended before an answer")]
    BeforeHead(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A request that got no answer.
#[derive(Debug)]
pub struct SendFailure {
    /// What went wrong.
    pub error: UpstreamError,
    /// The request, when nothing of it was sent: it may go elsewhere.
    pub unsent: Option<crate::Request>,
}
