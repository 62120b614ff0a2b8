//! `/token`: codes, refresh tokens and client secrets become access tokens (RFC 6749, RFC 8707).

use super::{
    CLI, Fault, GATEWAY, Identity, SESSION_LIFE_S,
    fault::{Answer, oauth, text},
    form::Form,
    issue::{Holder, Issued},
    tenant::Tenant,
};
use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bastide_identity::{
    opaque::{self, Opaque},
    pkce,
};
use bastide_store::{CodeOutcome, CodeRow, NewSession, RefreshOutcome, StoreError, Write, now_s};
use bastide_types::Secret;
use serde_json::json;

const FORM_TYPE: &str = "application/x-www-form-urlencoded";

/// POST `/identity/token`.
pub async fn token(
    State(identity): State<Identity>,
    tenant: Tenant,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    if !text(&headers, "content-type").is_some_and(|kind| kind.starts_with(FORM_TYPE)) {
        return Err(oauth("invalid_request", "The body is `application/x-www-form-urlencoded`."));
    }
    let form = Form::read(&body)?;
    match form.need("grant_type")? {
        "authorization_code" => identity.by_code(&tenant, &form).await,
        "refresh_token" => identity.by_refresh(&tenant, &form).await,
        "client_credentials" => identity.by_secret(&tenant, &headers, &form).await,
        _ => Err(oauth("unsupported_grant_type", "This grant is not offered.")),
    }
}

impl Identity {
    async fn by_code(&self, tenant: &Tenant, form: &Form) -> Answer {
        demand_program(form)?;
        let (code, verifier) = (form.need("code")?, form.need("code_verifier")?);
        let hash = opaque::hash(code);
        let row = self.redeem(tenant, &hash, CLI, verifier, form.need("redirect_uri")?).await?;
        let resource = match (row.resource.as_deref(), form.get("resource")) {
            (Some(bound), Some(asked)) if bound != asked => {
                return Err(oauth("invalid_target", "The code was asked for another resource."));
            }
            (bound, asked) => bound.or(asked),
        };
        let target = self.target(tenant, resource).await?;
        let member = self.active(tenant, row.member).await?.ok_or_else(spent)?;
        let refresh = Opaque::generate()?;
        let mut write = self.store().write().await?;
        // Nobody holds the secret of this session: it lives by its refresh tokens.
        let new = NewSession {
            kind: "program",
            hash: &Opaque::generate()?.hash,
            parent: None,
            member: member.id,
            until: now_s() + SESSION_LIFE_S,
        };
        let session = self.begin(tenant, &mut write, &hash, &new).await?;
        self.of(tenant).add_refresh(&mut write, &refresh.hash, &session).await?;
        write.commit().await.map_err(StoreError::from)?;
        let holder = Holder::Member { member: &member, session: &session, client_id: CLI };
        let issued = self.issue(tenant, &holder, target.as_ref()).await?;
        Ok(answer(&issued, Some(&refresh.secret)))
    }

    /// Takes a code and checks that it belongs to this client, redirect and verifier. Whatever comes of
    /// it, the code is spent.
    pub(super) async fn redeem(
        &self,
        tenant: &Tenant,
        hash: &[u8; 32],
        client: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Answer<CodeRow> {
        let mut write = self.store().write().await?;
        let outcome = self.of(tenant).take_code(&mut write, hash).await?;
        write.commit().await.map_err(StoreError::from)?;
        match outcome {
            CodeOutcome::Taken(row)
                if row.client == client
                    && row.redirect_uri == redirect_uri
                    && pkce::matches(verifier, &row.challenge) =>
            {
                Ok(row)
            }
            _ => Err(spent()),
        }
    }

    /// Begins the session that comes of a code, unless the code came again meanwhile.
    pub(super) async fn begin(
        &self,
        tenant: &Tenant,
        write: &mut Write,
        code: &[u8; 32],
        new: &NewSession<'_>,
    ) -> Answer<String> {
        let session = self.of(tenant).add_session(write, new).await?;
        if !self.of(tenant).code_became(write, code, &session).await? {
            return Err(spent());
        }
        self.of(tenant).audit(write, &new.member.to_string(), "session.begun", &session).await?;
        Ok(session)
    }

    async fn by_refresh(&self, tenant: &Tenant, form: &Form) -> Answer {
        demand_program(form)?;
        let token = form.need("refresh_token")?;
        // Before the token is spent: a mistyped resource must not cost the session.
        let target = self.target(tenant, form.get("resource")).await?;
        let successor = Opaque::generate()?;
        let outcome = self.of(tenant).rotate_refresh(&opaque::hash(token), &successor.hash).await?;
        let session = match outcome {
            RefreshOutcome::Rotated(session) => session,
            RefreshOutcome::Reused | RefreshOutcome::Unknown => return Err(spent()),
        };
        let member = self.active(tenant, session.member).await?.ok_or_else(spent)?;
        let holder = Holder::Member { member: &member, session: &session.id, client_id: CLI };
        let issued = self.issue(tenant, &holder, target.as_ref()).await?;
        Ok(answer(&issued, Some(&successor.secret)))
    }

    async fn by_secret(&self, tenant: &Tenant, headers: &HeaderMap, form: &Form) -> Answer {
        let (id, secret) = credentials(headers, form)?;
        let client = self.of(tenant).client(&id, &opaque::hash(secret.expose())).await?;
        let Some(client) = client else {
            let mut write = self.store().write().await?;
            self.of(tenant).audit(&mut write, "anonymous", "client.refused", "wrong id or secret").await?;
            write.commit().await.map_err(StoreError::from)?;
            return Err(oauth("invalid_client", "The client is unknown or its secret is wrong."));
        };
        let target = self.target(tenant, form.get("resource")).await?;
        let issued = self.issue(tenant, &Holder::Client(&client), target.as_ref()).await?;
        Ok(answer(&issued, None))
    }
}

fn spent() -> Fault {
    oauth("invalid_grant", "The code or token is not valid (any more).")
}

/// These grants are for the command line; a gateway redeems its codes elsewhere.
fn demand_program(form: &Form) -> Answer<()> {
    match form.need("client_id")? {
        CLI => Ok(()),
        GATEWAY => Err(oauth("unauthorized_client", "This client does not use this endpoint.")),
        _ => Err(oauth("invalid_client", "The client is unknown.")),
    }
}

/// Id and secret, by Basic authentication or in the form, never by both (RFC 6749 §2.3).
fn credentials(headers: &HeaderMap, form: &Form) -> Answer<(String, Secret)> {
    let refuse = || oauth("invalid_client", "Client authentication is missing or malformed.");
    if !headers.contains_key(header::AUTHORIZATION) {
        let id = form.get("client_id").ok_or_else(refuse)?;
        return Ok((id.to_owned(), Secret::new(form.get("client_secret").ok_or_else(refuse)?)));
    }
    if form.get("client_secret").is_some() {
        return Err(oauth("invalid_request", "The client authenticates in two ways."));
    }
    let value = text(headers, "authorization").ok_or_else(refuse)?;
    let (scheme, encoded) = value.split_once(' ').ok_or_else(refuse)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(refuse());
    }
    let bytes = BASE64_STANDARD.decode(encoded.trim()).map_err(|_| refuse())?;
    let pair = String::from_utf8(bytes).map_err(|_| refuse())?;
    let (id, secret) = pair.split_once(':').ok_or_else(refuse)?;
    // Both halves are form-encoded before they are joined.
    let decode = |part: &str| {
        url::form_urlencoded::parse(format!("v={part}").as_bytes()).next().map(|(_, v)| v.into_owned())
    };
    let id = decode(id).ok_or_else(refuse)?;
    if form.get("client_id").is_some_and(|sent| sent != id) {
        return Err(refuse());
    }
    Ok((id, Secret::new(decode(secret).ok_or_else(refuse)?)))
}

fn answer(issued: &Issued, refresh: Option<&Secret>) -> Response {
    let mut body = json!({
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.life_s,
    });
    if let Some(refresh) = refresh {
        body["refresh_token"] = refresh.expose().into();
    }
    ([("cache-control", "no-store"), ("pragma", "no-cache")], Json(body)).into_response()
}
