//! `/token`: codes, refresh tokens and the proofs of clients become tokens (RFC 6749, OpenID Connect Core, RFC 8707).

use super::{
    CLI, Fault, Identity, SESSION_LIFE_S,
    authorize::known_scopes,
    clients::{Client, Kind},
    discovery::DEVICE_GRANT,
    fault::{Answer, oauth, text},
    form::Form,
    id_token::has,
    issue::{Epoch, Holder, Issued, Target},
    issuer::Issuer,
    tenant::Tenant,
};
use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bastide_identity::{
    opaque::{self, Opaque},
    pkce,
};
use bastide_store::{
    ClientRow, CodeOutcome, CodeRow, DeviceRow, MemberRow, NewSession, RefreshBy, RefreshOutcome, SessionUse,
    StoreError, Word, Write, now_s,
};
use bastide_types::Secret;
use serde_json::{Value, json};

const FORM_TYPE: &str = "application/x-www-form-urlencoded";
/// How long a confidential client may ask again with a refresh token whose answer was lost, in seconds.
const RETRY_S: i64 = 10;

/// A session that tokens are made for.
struct Begun {
    epoch: Epoch,
    session: String,
    until: i64,
    used: SessionUse,
    nonce: Option<String>,
}

/// POST `…/token`.
pub async fn token(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = client_form(&headers, &body)?;
    let answer = identity.granted(&issuer, &headers, &form).await;
    if let Err(Fault::OAuth { error: "invalid_grant", because }) = &answer {
        identity.note_refused(&issuer.tenant, &headers, "grant.refused", because).await?;
    }
    answer
}

/// The form that a client sends to one of its endpoints.
pub(super) fn client_form(headers: &HeaderMap, body: &Bytes) -> Answer<Form> {
    let kind = text(headers, "content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case(FORM_TYPE) {
        return Err(oauth("invalid_request", "The body is `application/x-www-form-urlencoded`."));
    }
    Form::read(body)
}

impl Identity {
    /// What a grant gives.
    async fn granted(&self, issuer: &Issuer, headers: &HeaderMap, form: &Form) -> Answer {
        let epoch = self.epoch().await?;
        match form.need("grant_type")? {
            "authorization_code" => {
                let client = self.authenticate(issuer, headers, form).await?;
                self.by_code(issuer, epoch, &client, form).await
            }
            "refresh_token" => {
                let client = self.authenticate(issuer, headers, form).await?;
                self.by_refresh(issuer, epoch, &client, form).await
            }
            DEVICE_GRANT => {
                let client = self.authenticate(issuer, headers, form).await?;
                self.by_device(issuer, epoch, &client, form).await
            }
            "client_credentials" => {
                let client = self.authenticate_proven(issuer, headers, form).await?;
                self.by_proof(issuer, epoch, client, form).await
            }
            _ => Err(oauth("unsupported_grant_type", "This grant is not offered.")),
        }
    }

    async fn by_code(&self, issuer: &Issuer, epoch: Epoch, client: &Client, form: &Form) -> Answer {
        demand_users(client)?;
        let tenant = &issuer.tenant;
        let (code, verifier) = (form.need("code")?, form.need("code_verifier")?);
        let hash = opaque::hash(code);
        let row = self.redeem(issuer, &hash, &client.id, verifier, form.need("redirect_uri")?).await?;
        let resource = match (row.resource.as_deref(), form.get("resource")) {
            (Some(bound), Some(asked)) if bound != asked => {
                return Err(oauth("invalid_target", "The code was asked for another resource."));
            }
            (bound, asked) => bound.or(asked),
        };
        let target = self.target_at(issuer, resource).await?;
        let member = self.active(tenant, row.member).await?.ok_or_else(spent)?;
        let refresh = Opaque::generate()?;
        let used = SessionUse {
            client: client.id.clone(),
            stage: row.stage.clone(),
            scope: row.scope.clone(),
            since: row.since,
            acr: row.acr,
            auth_time: row.since,
        };
        let mut write = self.store().write().await?;
        let sign_in_until = self.of(tenant).session_until(&mut write, &row.parent).await?;
        // The command line goes on when the browser signs out; a client of the web does not.
        let (parent, until) = match client.id.as_str() {
            CLI => (None, now_s() + SESSION_LIFE_S),
            _ => {
                (Some(row.parent.as_str()), sign_in_until.filter(|until| *until > now_s()).ok_or_else(spent)?)
            }
        };
        // Nobody holds the secret of this session: it lives by its refresh tokens.
        let hidden = Opaque::generate()?.hash;
        let new = NewSession { kind: "program", hash: &hidden, parent, member: member.id, until };
        let session = self.begin(tenant, &mut write, &hash, &new).await?;
        self.of(tenant).describe_session(&mut write, &session, &used).await?;
        self.of(tenant).add_refresh(&mut write, &refresh.hash, &session).await?;
        write.commit().await.map_err(StoreError::from)?;
        let begun = Begun { epoch, session, until, used, nonce: row.nonce };
        self.answer_member(issuer, client, member, &begun, target.as_ref(), &refresh.secret).await
    }

    /// Begins the session of a program that its user allowed elsewhere. It goes on when that browser signs
    /// out.
    pub(super) async fn begin_device(
        &self,
        issuer: &Issuer,
        epoch: Epoch,
        client: &Client,
        row: &DeviceRow,
        word: Word,
        target: Option<&Target>,
    ) -> Answer {
        let tenant = &issuer.tenant;
        let member = self.active(tenant, word.member).await?.ok_or_else(spent)?;
        let (refresh, hidden) = (Opaque::generate()?, Opaque::generate()?.hash);
        let used = SessionUse {
            client: client.id.clone(),
            stage: row.stage.clone(),
            scope: row.scope.clone(),
            since: word.since,
            acr: word.acr,
            auth_time: word.since,
        };
        let until = now_s() + SESSION_LIFE_S;
        let new = NewSession { kind: "program", hash: &hidden, parent: None, member: member.id, until };
        let mut write = self.store().write().await?;
        let store = self.of(tenant);
        let session = store.add_session(&mut write, &new).await?;
        store.describe_session(&mut write, &session, &used).await?;
        store.add_refresh(&mut write, &refresh.hash, &session).await?;
        store.audit(&mut write, &member.id.to_string(), "session.begun", &session).await?;
        write.commit().await.map_err(StoreError::from)?;
        let begun = Begun { epoch, session, until, used, nonce: None };
        self.answer_member(issuer, client, member, &begun, target, &refresh.secret).await
    }

    /// The tokens of a member's session.
    async fn answer_member(
        &self,
        issuer: &Issuer,
        client: &Client,
        member: MemberRow,
        begun: &Begun,
        target: Option<&Target>,
        refresh: &Secret,
    ) -> Answer {
        let Begun { epoch, session, until, used, nonce } = begun;
        let member = client.bound(member);
        let holder = Holder::Member { member: &member, session, used, until: *until, client_id: &client.id };
        let issued = self.issue_at(issuer, *epoch, &holder, target).await?;
        let id_token = self.id_token(issuer, &member, session, used, nonce.as_deref(), &issued.token).await?;
        Ok(answer(&issued, Some(refresh), id_token, &used.scope))
    }

    /// Takes a code and checks that it belongs to this client, redirect, verifier and issuer. Whatever comes
    /// of it, the code is spent.
    pub(super) async fn redeem(
        &self,
        issuer: &Issuer,
        hash: &[u8; 32],
        client: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Answer<CodeRow> {
        let mut write = self.store().write().await?;
        let outcome = self.of(&issuer.tenant).take_code(&mut write, hash).await?;
        write.commit().await.map_err(StoreError::from)?;
        match outcome {
            CodeOutcome::Taken(row)
                if row.client == client
                    && row.stage == issuer.stage_text()
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

    async fn by_refresh(&self, issuer: &Issuer, epoch: Epoch, client: &Client, form: &Form) -> Answer {
        demand_users(client)?;
        let tenant = &issuer.tenant;
        let hash = opaque::hash(form.need("refresh_token")?);
        // Before the token is spent: a mistyped resource or scope must not cost the session.
        let target = self.target_at(issuer, form.get("resource")).await?;
        let narrowed = match form.get("scope") {
            Some(asked) => self.narrowed(tenant, &hash, asked).await?,
            None => None,
        };
        let successor = Opaque::generate()?;
        let by = RefreshBy {
            client: &client.id,
            stage: issuer.stage_text(),
            retry_s: (client.kind == Kind::Confidential).then_some(RETRY_S),
        };
        let outcome = self.of(tenant).rotate_refresh(&hash, &successor.hash, &by).await?;
        let (session, mut used) = match outcome {
            RefreshOutcome::Rotated(session, used) => (session, used),
            RefreshOutcome::Reused | RefreshOutcome::Unknown => return Err(spent()),
        };
        if let Some(scope) = narrowed {
            used.scope = scope;
        }
        let member = self.active(tenant, session.member).await?.ok_or_else(spent)?;
        let begun = Begun { epoch, session: session.id, until: session.until, used, nonce: None };
        self.answer_member(issuer, client, member, &begun, target.as_ref(), &successor.secret).await
    }

    /// The scopes of this one answer, all of them given before (RFC 6749 §6). `None` when the token is not
    /// known: the rotation says what that means.
    async fn narrowed(&self, tenant: &Tenant, hash: &[u8; 32], asked: &str) -> Answer<Option<String>> {
        let Some((_, used)) = self.of(tenant).session_of_refresh(hash).await? else { return Ok(None) };
        let scope = known_scopes(asked);
        if scope.split(' ').filter(|one| !one.is_empty()).all(|one| has(&used.scope, one)) {
            Ok(Some(scope))
        } else {
            Err(oauth("invalid_scope", "The session was begun with fewer scopes."))
        }
    }

    async fn by_proof(&self, issuer: &Issuer, epoch: Epoch, client: Client, form: &Form) -> Answer {
        let grant = client.grant.unwrap_or_default();
        let row = match (client.kind, client.row) {
            (Kind::Service, Some(row)) => row,
            // Its roles are the most that it may do for its users; for itself it has none.
            (Kind::Confidential, Some(row)) => ClientRow { roles: Vec::new(), ..row },
            _ => return Err(oauth("unauthorized_client", "This client acts for its users only.")),
        };
        let target = self.target_at(issuer, form.get("resource")).await?;
        let holder = Holder::Client { client: &row, grant: &grant };
        let issued = self.issue_at(issuer, epoch, &holder, target.as_ref()).await?;
        Ok(answer(&issued, None, None, ""))
    }
}

fn spent() -> Fault {
    oauth("invalid_grant", "The code or token is not valid (any more).")
}

fn demand_users(client: &Client) -> Answer<()> {
    if client.has_users() {
        Ok(())
    } else {
        Err(oauth("unauthorized_client", "This client acts for itself, not for users."))
    }
}

fn answer(issued: &Issued, refresh: Option<&Secret>, id_token: Option<String>, scope: &str) -> Response {
    let mut body = json!({
        "access_token": issued.token,
        "token_type": "Bearer",
        "expires_in": issued.life_s,
    });
    let more = [
        ("refresh_token", refresh.map(|refresh| refresh.expose().to_owned())),
        ("id_token", id_token),
        ("scope", Some(scope.to_owned()).filter(|scope| !scope.is_empty())),
    ];
    for (key, value) in more {
        if let Some(value) = value {
            body[key] = Value::from(value);
        }
    }
    ([("cache-control", "no-store"), ("pragma", "no-cache")], Json(body)).into_response()
}
