//! What clients read about an issuer: endpoints and public keys (OpenID Connect Discovery, RFC 7517).

use super::{Identity, fault::Answer, tenant::Tenant};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use bastide_types::{Code, StageName};
use serde_json::json;

/// Keys and endpoints change rarely and are public.
const CACHE: [(&str, &str); 1] = [("cache-control", "public, max-age=60")];

/// `/.well-known/openid-configuration` of the members' issuer.
pub async fn members(State(identity): State<Identity>, tenant: Tenant) -> Response {
    document(&identity, &tenant, &identity.domains().member_issuer(&tenant.name))
}

/// The same of a stage's issuer; sign-in and tokens are at the members' endpoints.
pub async fn stage(State(identity): State<Identity>, tenant: Tenant, Path(stage): Path<String>) -> Answer {
    let stage = identity.stage(&tenant, &stage).await?;
    Ok(document(&identity, &tenant, &identity.domains().stage_issuer(&tenant.name, &stage)))
}

/// `/jwks` of the members' issuer.
pub async fn member_keys(State(identity): State<Identity>, tenant: Tenant) -> Answer {
    identity.keys(&tenant, None).await
}

/// `/s/{stage}/jwks`.
pub async fn stage_keys(
    State(identity): State<Identity>,
    tenant: Tenant,
    Path(stage): Path<String>,
) -> Answer {
    let stage = identity.stage(&tenant, &stage).await?;
    identity.keys(&tenant, Some(&stage)).await
}

impl Identity {
    async fn stage(&self, tenant: &Tenant, text: &str) -> Answer<StageName> {
        let stage = StageName::new(text).map_err(|_| Code::ApiUnknown)?;
        let known = self.of(tenant).stage_names().await?;
        if known.contains(&stage) { Ok(stage) } else { Err(Code::ApiUnknown.into()) }
    }

    async fn keys(&self, tenant: &Tenant, stage: Option<&StageName>) -> Answer {
        let keys = self.of(tenant).signing_keys(stage).await?.into_iter().map(|key| key.public);
        let keys: Vec<_> = keys
            .map(|key| json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.kid, "x": key.x }))
            .collect();
        Ok((CACHE, Json(json!({ "keys": keys }))).into_response())
    }
}

fn document(identity: &Identity, tenant: &Tenant, issuer: &str) -> Response {
    let base = identity.domains().member_issuer(&tenant.name);
    let body = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "end_session_endpoint": format!("{base}/logout"),
        "jwks_uri": format!("{issuer}/jwks"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "authorization_response_iss_parameter_supported": true,
    });
    (CACHE, Json(body)).into_response()
}
