//! What an access token says (RFC 9068, strict profile).

use bastide_types::Acr;
use serde::{Deserialize, Serialize};

/// Claims of an access token. Every one has exactly one form and is required, unless its absence means the least, so
/// that no claim can be left out or dressed up as another type. Others than these are refused: only we make these tokens,
/// and one that says more was not made by this version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// A user id, or an API client's id.
    pub sub: String,
    /// The one audience.
    pub aud: String,
    /// Seconds since 1970: refused from then on.
    pub exp: u64,
    /// Seconds since 1970: refused before.
    pub nbf: u64,
    /// Seconds since 1970: when it was issued.
    pub iat: u64,
    /// Id of this token.
    pub jti: String,
    /// Session that it belongs to; for API clients the id of the grant.
    pub sid: String,
    /// Id of the customer.
    pub org: String,
    /// Stage, or `platform`.
    pub stage: String,
    /// OAuth client.
    pub client_id: String,
    /// Epoch of the issuer when it was issued.
    pub epoch: u64,
    /// Name to show; never an e-mail address.
    pub name: String,
    /// Organization roles on the Platform, app roles for an app.
    pub roles: Vec<String>,
    /// How the user showed who they are. Absent in tokens of an earlier version, which are the weakest.
    #[serde(default)]
    pub acr: Acr,
    /// Seconds since 1970 at which that was.
    #[serde(default)]
    pub auth_time: u64,
}

impl Claims {
    /// Whether an API client asks for itself: it is its own subject. Ids of users are never ids of clients.
    pub fn is_client(&self) -> bool {
        self.sub == self.client_id
    }

    /// Longest life of a token of this kind, in seconds.
    pub(crate) fn kind_life_s(&self) -> u64 {
        if self.is_client() { CLIENT_LIFE_S } else { USER_LIFE_S }
    }
}

/// Value of [`Claims::stage`] in tokens for the Platform.
pub const PLATFORM_STAGE: &str = "platform";
/// Longest life of a member's or end user's access token, in seconds.
pub const USER_LIFE_S: u64 = 300;
/// Longest life of an API client's access token, in seconds.
pub const CLIENT_LIFE_S: u64 = 3600;
