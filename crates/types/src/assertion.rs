//! What a gateway says to an app or a platform service about who asks.

use crate::{Acr, CustomerId, RequestId};
use serde::{Deserialize, Serialize};

/// Claims of the gateway's assertion: an EdDSA JWT of `typ` `bst+jwt`, at most 60 s valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// Always `bastide-gateway`.
    pub iss: String,
    /// `platform`, or the address of the app ([`crate::Domains::app_url`]).
    pub aud: String,
    /// Who asks: a user id or an API client's id.
    pub sub: String,
    /// E-mail of a user, name of an API client.
    pub name: String,
    /// Customer whose issuer vouches for `sub`.
    pub org: CustomerId,
    /// Name of that customer.
    pub org_name: String,
    /// Stage, for apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Organization roles for the Platform, app roles of this app for an app.
    pub roles: Vec<String>,
    /// Session that this belongs to.
    pub sid: String,
    /// How well the sign-in is secured.
    #[serde(default)]
    pub acr: Acr,
    /// Seconds since 1970 at which it was.
    #[serde(default)]
    pub auth_time: u64,
    /// Request that this belongs to.
    pub request: RequestId,
    /// Seconds since 1970.
    pub iat: u64,
    /// Seconds since 1970, at most `iat` + 60.
    pub exp: u64,
}

/// Value of [`Assertion::iss`].
pub const ISSUER: &str = "bastide-gateway";
/// Value of [`Assertion::aud`] for platform services.
pub const PLATFORM_AUDIENCE: &str = "platform";
