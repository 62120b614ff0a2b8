//! Browser sessions as gateways use them. Only peers with the role gateway get here.

use super::{Fault, GATEWAY, Identity, SESSION_LIFE_S, fault::Answer, issue::Holder, tenant::Tenant};
use axum::{Json, extract::State};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::{
    claims::USER_LIFE_S,
    opaque::{self, Opaque},
};
use bastide_store::{NewSession, Presented, SessionLimits, SessionRow, SessionUse, StoreError, now_s};
use bastide_types::{Code, CustomerName, Secret, Site, StageName};
use serde::{Deserialize, Serialize};
use url::Url;

/// A token lives at most this part of the time that its session may idle.
const IDLE_PARTS: i64 = 5;
/// Shortest life of a token of a browser session, in seconds.
const TOKEN_LIFE_MIN_S: i64 = 60;
/// How long a secret serves after another one took its place, in seconds: for requests that were under way.
const FORMER_S: i64 = 30;
/// Life of a token that is asked for by a secret which cannot be renewed now, in seconds.
const UNRENEWED_S: i64 = 10;

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
    /// SHA-256 of its secret, base64url.
    hash: String,
    #[serde(default)]
    resource: Option<String>,
    /// Seconds since 1970 at which the gateway saw it used last; 0 when it did not.
    #[serde(default)]
    used_s: i64,
    /// Whether a browser waits, which can be given another secret.
    #[serde(default)]
    renew: bool,
}

/// An access token of a session.
#[derive(Serialize)]
pub struct Given {
    access_token: String,
    expires_at: u64,
    /// Seconds since 1970 at which the session ends.
    until_s: i64,
    /// Seconds without use after which it ends.
    idle_s: i64,
    /// The secret that takes the place of the one that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    renewed: Option<Opened>,
}

/// Limits that hold where nobody decided otherwise.
pub const DEFAULT_LIMITS: SessionLimits = SessionLimits { max_s: SESSION_LIFE_S, idle_s: SESSION_LIFE_S };

/// POST `/internal/session/open`: 400 when the code is not good.
pub async fn open(State(identity): State<Identity>, Json(ask): Json<Open>) -> Answer<Json<Opened>> {
    let tenant = identity.named(&ask.customer).await?;
    let hash = opaque::hash(ask.code.expose());
    let verifier = ask.code_verifier.expose();
    // The host decides the issuer: a code of another one is worth nothing there.
    let issuer = identity.issuer_of(&tenant, identity.stage_of_callback(&tenant, &ask.redirect_uri).await?);
    let row = identity.redeem(&issuer, &hash, GATEWAY, verifier, &ask.redirect_uri).await?;
    let member = identity.active(&tenant, row.member).await?.ok_or(Code::OAuthInvalid)?;
    let secret = Opaque::generate()?;
    let store = identity.of(&tenant);
    // All that is read by other connections comes before the transaction: who writes must not wait for one.
    let stage = issuer.stage_text().to_owned();
    let limits = store.session_limits(&stage).await?.unwrap_or(DEFAULT_LIMITS);
    let mut write = identity.store().write().await?;
    let sign_in_until = store.session_until(&mut write, &row.parent).await?;
    let sign_in_until = sign_in_until.filter(|until| *until > now_s()).ok_or(Code::OAuthInvalid)?;
    let until = now_s() + limits.max_s;
    // On the Platform's own pages nobody stays longer than they are signed in.
    let until = if stage.is_empty() { until.min(sign_in_until) } else { until };
    let new = NewSession {
        kind: "browser",
        hash: &secret.hash,
        parent: Some(&row.parent),
        member: member.id,
        until,
    };
    let id = identity.begin(&tenant, &mut write, &hash, &new).await?;
    let (acr, auth_time) = (row.acr, row.since);
    let used = SessionUse { stage, since: now_s(), acr, auth_time, ..SessionUse::default() };
    store.describe_session(&mut write, &id, &used).await?;
    let told = BASE64_URL_SAFE_NO_PAD.encode(secret.hash);
    store.session_began(&mut write, &told, row.resource.as_deref()).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(Json(Opened { session: secret.secret, max_age_s: until - now_s() }))
}

/// POST `/internal/session/token`: 404 when the session is dead, 400 when the resource is unknown.
pub async fn token(State(identity): State<Identity>, Json(ask): Json<Ask>) -> Answer<Json<Given>> {
    let tenant = identity.named(&ask.customer).await?;
    let dead = || Fault::from(Code::ApiUnknown);
    let epoch = identity.epoch().await?;
    let store = identity.of(&tenant);
    let (session, renewed) = identity.renewed(&tenant, &ask).await?.ok_or_else(dead)?;
    let (_, used) = store.session_with_id(&session.id).await?.ok_or_else(dead)?;
    let limits = store.session_limits(&used.stage).await?.unwrap_or(DEFAULT_LIMITS);
    // Gateways say when a session is used only when they ask: the shorter it may idle, the more often they do.
    let life_s = (limits.idle_s / IDLE_PARTS).clamp(TOKEN_LIFE_MIN_S, USER_LIFE_S.cast_signed());
    if !store.use_session(&session.id, ask.used_s, limits.idle_s + life_s).await? {
        return Err(dead());
    }
    let member = identity.active(&tenant, session.member).await?.ok_or_else(dead)?;
    let target = identity.target(&tenant, ask.resource.as_deref()).await?;
    let until = session.until.min(now_s() + life_s);
    let holder =
        Holder::Member { member: &member, session: &session.id, used: &used, until, client_id: GATEWAY };
    let issued = identity.issue(&tenant, epoch, &holder, target.as_ref()).await?;
    Ok(Json(Given {
        access_token: issued.token,
        expires_at: issued.expires_at,
        until_s: session.until,
        idle_s: limits.idle_s,
        renewed,
    }))
}

/// POST `/internal/session/close`: ends the session and the sign-in that it came from.
pub async fn close(
    State(identity): State<Identity>,
    Json(ask): Json<Ask>,
) -> Answer<Json<serde_json::Value>> {
    let tenant = identity.named(&ask.customer).await?;
    identity.end(&tenant, &ask.hash()?).await?;
    Ok(Json(serde_json::json!({})))
}

impl Ask {
    fn hash(&self) -> Result<[u8; 32], Code> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&self.hash).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or(Code::ApiUnknown)
    }
}

impl Identity {
    /// The session that is asked about; where the rights of its user have changed, with another secret in place of the one
    /// that was shown. What is got by a secret that is on its way out ends with it.
    async fn renewed(&self, tenant: &Tenant, ask: &Ask) -> Answer<Option<(SessionRow, Option<Opened>)>> {
        let (store, hash) = (self.of(tenant), ask.hash()?);
        let within =
            |session: SessionRow, until: i64| SessionRow { until: session.until.min(until), ..session };
        let (session, presented) = match store.browser_session(&hash).await? {
            None => return Ok(None),
            Some((session, Presented::Outdated)) if ask.renew => {
                let (secret, former_until) = (Opaque::generate()?, now_s() + FORMER_S);
                let mut write = self.store().write().await?;
                if store.renew_secret(&mut write, &session.id, (&hash, &secret.hash), former_until).await? {
                    let who = session.member.to_string();
                    store.audit(&mut write, &who, "session.renewed", &session.id).await?;
                    write.commit().await.map_err(StoreError::from)?;
                    let max_age_s = session.until - now_s();
                    return Ok(Some((session, Some(Opened { session: secret.secret, max_age_s }))));
                }
                // Another request was faster: this one's secret is the former one now.
                drop(write);
                match store.browser_session(&hash).await? {
                    Some(found) => found,
                    None => return Ok(None),
                }
            }
            Some(found) => found,
        };
        Ok(Some(match presented {
            Presented::Own => (session, None),
            Presented::Outdated => (within(session, now_s() + UNRENEWED_S), None),
            Presented::Former(until) => (within(session, until), None),
        }))
    }

    /// The stage on whose host a sign-in began; none for the Platform's own.
    async fn stage_of_callback(&self, tenant: &Tenant, redirect_uri: &str) -> Answer<Option<StageName>> {
        let url = Url::parse(redirect_uri).map_err(|_| Code::OAuthInvalid)?;
        let host = url.host_str().ok_or(Code::OAuthInvalid)?;
        Ok(match self.domains().site(host) {
            Some(Site::Runtime(_, stage)) => Some(stage),
            Some(Site::Platform(_)) => None,
            None => Some(self.proven_domain(tenant, host).await?.ok_or(Code::OAuthInvalid)?.stage),
        })
    }

    /// The customer that a gateway names; the reserved operator among them.
    async fn named(&self, text: &str) -> Answer<Tenant> {
        if text == CustomerName::operator().as_str() {
            return self.tenant(&CustomerName::operator()).await;
        }
        self.tenant(&CustomerName::new(text).map_err(|_| Code::SiteUnknown)?).await
    }
}
