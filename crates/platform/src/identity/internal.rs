//! Browser sessions as gateways use them. Only peers with the role gateway get here.

use super::{Fault, GATEWAY, Identity, fault::Answer, issue::Holder, issuer::Issuer, tenant::Tenant};
use axum::{Json, extract::State};
use bastide_identity::opaque::{self, Opaque};
use bastide_store::{NewSession, StoreError, now_s};
use bastide_types::{Code, CustomerName, Secret};
use serde::{Deserialize, Serialize};

/// A code that came back to a gateway.
#[derive(Deserialize)]
pub struct Open {
    customer: String,
    code: Secret,
    code_verifier: Secret,
    redirect_uri: String,
}

/// The session that came of it.
#[derive(Serialize)]
pub struct Opened {
    session: Secret,
    max_age_s: i64,
}

/// Asks about a session.
#[derive(Deserialize)]
pub struct Ask {
    customer: String,
    session: Secret,
    #[serde(default)]
    resource: Option<String>,
}

/// An access token of a session.
#[derive(Serialize)]
pub struct Given {
    access_token: String,
    expires_at: u64,
}

/// POST `/internal/session/open`: 400 when the code is not good.
pub async fn open(State(identity): State<Identity>, Json(ask): Json<Open>) -> Answer<Json<Opened>> {
    let tenant = identity.named(&ask.customer).await?;
    let hash = opaque::hash(ask.code.expose());
    let verifier = ask.code_verifier.expose();
    let url = identity.domains().member_issuer(&tenant.name);
    let issuer = Issuer { tenant: tenant.clone(), stage: None, url };
    let row = identity.redeem(&issuer, &hash, GATEWAY, verifier, &ask.redirect_uri).await?;
    let member = identity.active(&tenant, row.member).await?.ok_or(Code::OAuthInvalid)?;
    let secret = Opaque::generate()?;
    let mut write = identity.store().write().await?;
    let until = identity.of(&tenant).session_until(&mut write, &row.parent).await?;
    let until = until.filter(|until| *until > now_s()).ok_or(Code::OAuthInvalid)?;
    let new = NewSession {
        kind: "browser",
        hash: &secret.hash,
        parent: Some(&row.parent),
        member: member.id,
        until,
    };
    identity.begin(&tenant, &mut write, &hash, &new).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(Json(Opened { session: secret.secret, max_age_s: until - now_s() }))
}

/// POST `/internal/session/token`: 404 when the session is dead, 400 when the resource is unknown.
pub async fn token(State(identity): State<Identity>, Json(ask): Json<Ask>) -> Answer<Json<Given>> {
    let tenant = identity.named(&ask.customer).await?;
    let dead = || Fault::from(Code::ApiUnknown);
    let session = identity.of(&tenant).session("browser", &opaque::hash(ask.session.expose())).await?;
    let session = session.ok_or_else(dead)?;
    let member = identity.active(&tenant, session.member).await?.ok_or_else(dead)?;
    let target = identity.target(&tenant, ask.resource.as_deref()).await?;
    let holder = Holder::Member { member: &member, session: &session.id, client_id: GATEWAY };
    let issued = identity.issue(&tenant, &holder, target.as_ref()).await?;
    Ok(Json(Given { access_token: issued.token, expires_at: issued.expires_at }))
}

/// POST `/internal/session/close`: ends the session and the sign-in that it came from.
pub async fn close(
    State(identity): State<Identity>,
    Json(ask): Json<Ask>,
) -> Answer<Json<serde_json::Value>> {
    let tenant = identity.named(&ask.customer).await?;
    identity.end(&tenant, ask.session.expose()).await?;
    Ok(Json(serde_json::json!({})))
}

impl Identity {
    /// The customer that a gateway names; the reserved operator among them.
    async fn named(&self, text: &str) -> Answer<Tenant> {
        if text == CustomerName::operator().as_str() {
            return self.tenant(&CustomerName::operator()).await;
        }
        self.tenant(&CustomerName::new(text).map_err(|_| Code::SiteUnknown)?).await
    }
}
