//! What becomes of tokens afterwards: `/userinfo`, `/introspect` (RFC 7662), `/revoke` (RFC 7009).

use super::{
    Identity,
    fault::Answer,
    id_token::{about, has},
    issuer::Issuer,
    token::client_form,
};
use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::{
    Claims, Expect, claims,
    claims::PLATFORM_STAGE,
    opaque,
    verify::{self, verify},
};
use bastide_store::{MemberRow, SessionRow, SessionUse, StoreError, now_s};
use bastide_types::{StageName, snapshot};
use serde_json::{Value, json};

/// A live access token of a member.
struct Held {
    claims: Claims,
    used: SessionUse,
    member: MemberRow,
}

/// GET `…/userinfo`: by the token in the header.
pub async fn userinfo(State(identity): State<Identity>, issuer: Issuer, headers: HeaderMap) -> Answer {
    identity.userinfo(&issuer, in_header(&headers)).await
}

/// POST `…/userinfo`: by the token in the header or in the form (RFC 6750 §2.2), never by both. In the query
/// none counts: addresses end up in logs.
pub async fn userinfo_form(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = if body.is_empty() { None } else { Some(client_form(&headers, &body)?) };
    let token = match form.as_ref().and_then(|form| form.get("access_token")) {
        Some(_) if headers.contains_key(header::AUTHORIZATION) => {
            return Ok(bearer(StatusCode::BAD_REQUEST, Some("invalid_request")));
        }
        Some(token) => Some(token),
        None => in_header(&headers),
    };
    identity.userinfo(&issuer, token).await
}

/// The token of the one `Authorization` field.
fn in_header(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// A refusal in the form of RFC 6750 §3.
fn bearer(status: StatusCode, error: Option<&'static str>) -> Response {
    let challenge = match error {
        Some("insufficient_scope") => {
            "Bearer realm=\"bastide\", error=\"insufficient_scope\", scope=\"openid\""
        }
        Some("invalid_request") => "Bearer realm=\"bastide\", error=\"invalid_request\"",
        Some(_) => "Bearer realm=\"bastide\", error=\"invalid_token\"",
        None => "Bearer realm=\"bastide\"",
    };
    let body = Json(json!({ "error": error.unwrap_or("invalid_token") }));
    (status, [(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))], body).into_response()
}

/// POST `…/introspect`: for clients with a secret or key. A token that does not count (any more) is `inactive`,
/// whatever it was.
pub async fn introspect(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = client_form(&headers, &body)?;
    let client = identity.authenticate_proven(&issuer, &headers, &form).await?;
    let token = form.need("token")?;
    let refresh = identity.refresh_session(&issuer, token, &client.id).await?;
    let said = match refresh {
        Some((session, used)) => json!({
            "active": true,
            "client_id": used.client,
            "sub": session.member.to_string(),
            "scope": used.scope,
            "exp": session.until,
            "iss": issuer.url,
            "sid": session.id,
        }),
        None => identity.access_said(&issuer, token).await?,
    };
    Ok(Json(said).into_response())
}

/// POST `…/revoke`: ends the session of a refresh or access token of this client. What is unknown, or
/// somebody else's, is left alone and not told apart (RFC 7009 §2.2).
pub async fn revoke(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = client_form(&headers, &body)?;
    let client = identity.authenticate(&issuer, &headers, &form).await?;
    let token = form.need("token")?;
    let session = match identity.refresh_session(&issuer, token, &client.id).await? {
        Some((session, _)) => Some((session.id, session.member.to_string())),
        None => {
            let held = identity.held(&issuer, token).await?;
            let held = held.filter(|held| held.claims.client_id == client.id);
            held.map(|held| (held.claims.sid, held.claims.sub))
        }
    };
    if let Some((session, member)) = session {
        let mut write = identity.store().write().await?;
        identity.of(&issuer.tenant).delete_session(&mut write, &session).await?;
        identity
            .of(&issuer.tenant)
            .audit(&mut write, &member, "session.ended", "its token was revoked")
            .await?;
        write.commit().await.map_err(StoreError::from)?;
    }
    Ok(StatusCode::OK.into_response())
}

impl Identity {
    async fn userinfo(&self, issuer: &Issuer, token: Option<&str>) -> Answer {
        let Some(token) = token else { return Ok(bearer(StatusCode::UNAUTHORIZED, None)) };
        let Some(held) = self.held(issuer, token).await? else {
            return Ok(bearer(StatusCode::UNAUTHORIZED, Some("invalid_token")));
        };
        if !has(&held.used.scope, "openid") {
            return Ok(bearer(StatusCode::FORBIDDEN, Some("insufficient_scope")));
        }
        Ok(Json(Value::Object(about(&held.member, &held.used.scope))).into_response())
    }

    /// The session of an unspent refresh token of this client and issuer.
    async fn refresh_session(
        &self,
        issuer: &Issuer,
        token: &str,
        client: &str,
    ) -> Answer<Option<(SessionRow, SessionUse)>> {
        if !opaque::has_form(token) {
            return Ok(None);
        }
        let found = self.of(&issuer.tenant).session_of_refresh(&opaque::hash(token)).await?;
        let own = found.filter(|(_, used)| used.client == client && used.stage == issuer.stage_text());
        match own {
            Some((session, used)) => {
                let active = self.active(&issuer.tenant, session.member).await?.is_some();
                Ok(active.then_some((session, used)))
            }
            None => Ok(None),
        }
    }

    /// What introspection says about an access token.
    async fn access_said(&self, issuer: &Issuer, token: &str) -> Answer<Value> {
        let inactive = json!({ "active": false });
        let Some(claims) = self.own_claims(issuer, token).await? else { return Ok(inactive) };
        let scope = if claims.is_client() {
            let store = self.of(&issuer.tenant);
            let client = store.client_with_id(&claims.client_id).await?;
            let granted = store.has_grant(&claims.client_id, &claims.sid).await?;
            if client.is_none_or(|client| client.suspended) || !granted {
                return Ok(inactive);
            }
            String::new()
        } else {
            let Some(held) = self.held(issuer, token).await? else { return Ok(inactive) };
            held.used.scope
        };
        let mut said = json!({
            "active": true,
            "token_type": "Bearer",
            "client_id": claims.client_id,
            "sub": claims.sub,
            "aud": claims.aud,
            "iss": claims.iss,
            "exp": claims.exp,
            "nbf": claims.nbf,
            "iat": claims.iat,
            "jti": claims.jti,
            "sid": claims.sid,
        });
        if !scope.is_empty() {
            said["scope"] = scope.into();
        }
        Ok(said)
    }

    /// The access token of a member whose session is alive.
    async fn held(&self, issuer: &Issuer, token: &str) -> Answer<Option<Held>> {
        let Some(claims) = self.own_claims(issuer, token).await? else { return Ok(None) };
        let Some((session, used)) = self.of(&issuer.tenant).session_with_id(&claims.sid).await? else {
            return Ok(None);
        };
        let member = self.active(&issuer.tenant, session.member).await?;
        Ok(member.filter(|member| member.id.to_string() == claims.sub).map(|member| Held {
            claims,
            used,
            member,
        }))
    }

    /// Claims of an access token that this issuer signed, whose time is now and which was not revoked with its subject,
    /// client or customer, whatever its audience.
    async fn own_claims(&self, issuer: &Issuer, token: &str) -> Answer<Option<Claims>> {
        let Some(audience) = audience(token) else { return Ok(None) };
        let signed_by = snapshot::Issuer {
            url: issuer.url.clone(),
            keys: self.of(&issuer.tenant).verifying_keys(issuer.stage.as_ref()).await?,
            token_epoch: self.of(&issuer.tenant).token_floor().await?,
        };
        let org = issuer.tenant.id.to_string();
        let expect = Expect {
            audience: &audience,
            org: &org,
            stage: issuer.stage.as_ref().map_or(PLATFORM_STAGE, StageName::as_str),
            life_max_s: claims::CLIENT_LIFE_S,
        };
        let Ok(claims) = verify(token, &signed_by, &expect, now_s().unsigned_abs()) else { return Ok(None) };
        let cut = self.of(&issuer.tenant).token_cut(&claims.sub, &claims.client_id).await?;
        Ok((claims.epoch >= cut).then_some(claims))
    }
}

/// The audience that a token names. The check of its signature covers it.
fn audience(token: &str) -> Option<String> {
    if token.len() > verify::TOKEN_BYTES_MAX {
        return None;
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&bytes).ok()?;
    Some(claims.get("aud")?.as_str()?.to_owned())
}
