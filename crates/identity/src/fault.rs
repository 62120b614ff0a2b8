//! Why a token is refused.

/// The check that failed. The words are stable: they stand in the detail of the refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Longer than [`crate::verify::TOKEN_BYTES_MAX`].
    #[error("too-large")]
    TooLarge,
    /// Not a signed token of our form.
    #[error("malformed")]
    Malformed,
    /// Another kind of token (`typ`).
    #[error("wrong-type")]
    WrongType,
    /// The header holds a member that we do not allow.
    #[error("header-not-allowed")]
    HeaderNotAllowed,
    /// The issuer has no such key.
    #[error("unknown-key")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("bad-signature")]
    BadSignature,
    /// Made by another issuer.
    #[error("wrong-issuer")]
    WrongIssuer,
    /// Made for another audience.
    #[error("wrong-audience")]
    WrongAudience,
    /// Made for another customer.
    #[error("wrong-customer")]
    WrongCustomer,
    /// Made for another stage.
    #[error("wrong-stage")]
    WrongStage,
    /// No longer valid.
    #[error("expired")]
    Expired,
    /// Not valid yet, or issued in the future.
    #[error("not-yet-valid")]
    NotYetValid,
    /// Valid for longer than such a token may be.
    #[error("too-long-lived")]
    TooLongLived,
    /// Of an earlier epoch of the issuer.
    #[error("revoked")]
    Revoked,
}
