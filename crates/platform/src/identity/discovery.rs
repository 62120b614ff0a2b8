//! What clients read about an issuer: endpoints and public keys (OpenID Connect Discovery, RFC 8414, RFC 7517).

use super::{Identity, fault::Answer, issuer::Issuer};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use bastide_identity::{client_key::CLIENT_ALGORITHMS, id_token::RSA_EXPONENT};
use bastide_store::KeyKind;
use bastide_types::Acr;
use serde_json::json;

/// Keys and endpoints change rarely and are public.
const PUBLIC: [(&str, &str); 1] = [("cache-control", "public, max-age=60")];
/// Scopes that mean something here.
pub(super) const SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];
/// Grant of programs without a browser (RFC 8628 §3.4).
pub(super) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// `/.well-known/openid-configuration` below the issuer, and `/.well-known/oauth-authorization-server` above
/// it. It names what works and nothing else.
pub async fn document(issuer: Issuer) -> Response {
    let at = |endpoint: &str| format!("{}/{endpoint}", issuer.url);
    let proven = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
    let proven_or_public = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];
    let body = json!({
        "issuer": issuer.url,
        "authorization_endpoint": at("authorize"),
        "token_endpoint": at("token"),
        "device_authorization_endpoint": at("device_authorization"),
        "userinfo_endpoint": at("userinfo"),
        "revocation_endpoint": at("revoke"),
        "introspection_endpoint": at("introspect"),
        "end_session_endpoint": at("logout"),
        "jwks_uri": at("jwks"),
        "scopes_supported": SCOPES,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials", DEVICE_GRANT],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": proven_or_public,
        "token_endpoint_auth_signing_alg_values_supported": CLIENT_ALGORITHMS,
        "revocation_endpoint_auth_methods_supported": proven_or_public,
        "revocation_endpoint_auth_signing_alg_values_supported": CLIENT_ALGORITHMS,
        "introspection_endpoint_auth_methods_supported": proven,
        "introspection_endpoint_auth_signing_alg_values_supported": CLIENT_ALGORITHMS,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "acr_values_supported": [Acr::Password, Acr::Mfa, Acr::Passkey],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash",
            "sid", "name", "email", "email_verified"],
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
        "claims_parameter_supported": false,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "authorization_response_iss_parameter_supported": true,
    });
    (PUBLIC, Json(body)).into_response()
}

/// `/jwks`: the keys of access tokens (Ed25519) and of ID tokens (RSA): those that sign, that will, and that did.
pub async fn keys(State(identity): State<Identity>, issuer: Issuer) -> Answer {
    identity.demand_id_key(&issuer).await?;
    let (store, stage) = (identity.of(&issuer.tenant), issuer.stage.as_ref());
    let access = store.public_keys(stage, KeyKind::Access).await?.into_iter().map(|key| {
        let (kid, x) = (key.kid, key.public);
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": x })
    });
    let id = store.public_keys(stage, KeyKind::Id).await?.into_iter().map(|key| {
        let (kid, n) = (key.kid, key.public);
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": RSA_EXPONENT })
    });
    let keys: Vec<_> = access.chain(id).collect();
    Ok((PUBLIC, Json(json!({ "keys": keys }))).into_response())
}
