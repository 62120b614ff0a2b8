//! Signing in by a provider of identity outside: authorization code with PKCE, state and nonce, once for each browser.
//!
//! A provider speaks for the users of the stage that it is set up for, or for the members. Whom it sends is known by its
//! own id for them; an address alone makes nobody an account that is there already, unless both have proven it.

use super::{
    Fault, Identity,
    authorize::redirect,
    fault::{Answer, oauth},
    form::Form,
    idp::{Existing, IdpConfig, Sent},
    issuer::Issuer,
    login::add_cookie,
    members::display_name,
    provider::{Provider, ProviderFault},
    second::{Onward, Owed},
    tenant::{Tenant, cookie, set_cookie},
};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, HeaderValue, header},
    response::IntoResponse,
};
use bastide_identity::{
    IdKey, Upstream,
    id_token::RSA_EXPONENT,
    opaque::{self, Opaque},
    pkce, upstream,
};
use bastide_store::{IdpLogin, IdpRow, MemberRow, StoreError, Write, now_s};
use bastide_types::{Acr, Code, StageName};
use serde_json::json;
use std::sync::Arc;
use url::Url;

/// Cookie of a browser on its way, and how long that may take, in seconds.
const COOKIE: &str = "__Host-bst-idp";
const LIFE_S: i64 = 600;
/// How long a logout token is remembered, in seconds: longer than it counts.
const LOGOUT_LIFE_S: i64 = 900;

/// What the path of a provider holds; the issuer reads the rest.
#[derive(serde::Deserialize)]
pub struct At {
    pub idp: String,
}

/// Why somebody whom a provider sends is not signed in: for them, and for the audit trail.
struct NotWelcome {
    why: &'static str,
    detail: &'static str,
}

/// A provider that is offered, and what was decided about it.
struct Known {
    row: IdpRow,
    config: IdpConfig,
}

/// GET `…/broker/{idp}/begin`: sends the browser to the provider. With `of=members` at a stage, to one of the members'.
pub async fn begin(
    State(identity): State<Identity>,
    issuer: Issuer,
    Path(At { idp }): Path<At>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let query = query.unwrap_or_default();
    let form = Form::read(query.as_bytes())?;
    if let Err(refused) = identity.request(&issuer, &form).await? {
        return Ok(refused);
    }
    let stage = if form.get("of") == Some("members") { "" } else { issuer.stage_text() };
    let known = identity.known(&issuer.tenant, stage, &idp).await?;
    let provider = identity.provider(&issuer.tenant, &known, None).await?;
    let (state, nonce, verifier) = (Opaque::generate()?, Opaque::generate()?, Opaque::generate()?);
    let browser = match cookie(&headers, COOKIE).filter(|value| opaque::has_form(value)) {
        // A second tab shares the value of the first.
        Some(value) => value.to_owned(),
        None => Opaque::generate()?.secret.expose().to_owned(),
    };
    let login = IdpLogin {
        stage: stage.to_owned(),
        idp,
        issuer: issuer.stage_text().to_owned(),
        browser: opaque::hash(&browser),
        verifier: verifier.secret.expose().to_owned(),
        nonce: nonce.secret.expose().to_owned(),
        request: query,
        until: now_s() + LIFE_S,
    };
    let mut write = identity.store().write().await?;
    identity.of(&issuer.tenant).add_idp_login(&mut write, &state.hash, &login).await?;
    write.commit().await.map_err(StoreError::from)?;
    let mut to = Url::parse(&provider.authorization_endpoint).map_err(|_| Code::ProviderFailed)?;
    let scope = std::iter::once("openid").chain(known.config.scopes.iter().map(String::as_str));
    to.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &known.config.client_id)
        .append_pair("redirect_uri", &identity.way_back_of(&issuer.tenant, &known.row))
        .append_pair("scope", &scope.collect::<Vec<_>>().join(" "))
        .append_pair("state", state.secret.expose())
        .append_pair("nonce", &login.nonce)
        .append_pair("code_challenge", &pkce::challenge(&login.verifier))
        .append_pair("code_challenge_method", "S256");
    if form.get("prompt") == Some("login") {
        to.query_pairs_mut().append_pair("prompt", "login");
    }
    let mut response = redirect(to.as_str());
    add_cookie(&mut response, &set_cookie(COOKIE, &browser, LIFE_S));
    Ok(response)
}

/// GET `…/broker/{idp}/callback`: the browser comes back with a code, or with word that there is none.
pub async fn callback(
    State(identity): State<Identity>,
    home: Issuer,
    Path(At { idp }): Path<At>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let form = Form::read(query.unwrap_or_default().as_bytes())?;
    let tenant = &home.tenant;
    let login = identity.came_back(&home, &idp, &headers, &form).await?;
    let known = identity.known(tenant, &login.stage, &idp).await?;
    let issuer = identity.issuer_of(tenant, StageName::new(&login.issuer).ok());
    // The request is read again: what it asks for may be gone meanwhile.
    let mut request = match identity.request(&issuer, &Form::read(login.request.as_bytes())?).await? {
        Ok(request) => request,
        Err(refused) => return Ok(refused),
    };
    // The provider has shown who it is just now.
    request.prompt.login = false;
    let sent = identity.sent(tenant, &known, &login, &form).await?;
    let mut write = identity.store().write().await?;
    let member = match identity.welcome(tenant, &mut write, &known, &sent).await? {
        Ok(member) => member,
        Err(refused) => {
            drop(write);
            let detail = format!("{idp}: {}", refused.detail);
            identity.note(tenant, "anonymous", "login.failed", &detail).await?;
            return Err(Code::ProviderRefused.because(refused.why).into());
        }
    };
    write.commit().await.map_err(StoreError::from)?;
    let onward = Onward::Client(request.clone());
    match identity.owed(tenant, &member, request.acr).await? {
        Owed::Nothing => {}
        // The code ends the sign-in; the provider's session is not known then.
        owed => return identity.ask_second(&issuer, &headers, &member, owed, &onward).await,
    }
    let store = identity.of(tenant);
    let mut write = identity.store().write().await?;
    let (session, cookies) = identity.sign_in(&issuer, &mut write, &headers, &member, Acr::Password).await?;
    let from = (known.row.stage.as_str(), known.row.id.as_str());
    store.note_idp_session(&mut write, &session, from, &sent.subject, sent.sid.as_deref()).await?;
    let used = super::login::signed_in_now(Acr::Password);
    let to = identity.code(&issuer, &mut write, &request, &session, &used, &member).await?;
    write.commit().await.map_err(StoreError::from)?;
    let mut response = super::login::with_sign_in(redirect(&to), &cookies);
    add_cookie(&mut response, &set_cookie(COOKIE, "", 0));
    Ok(response)
}

/// GET `…/broker/{idp}/jwks`: the public half of our key at this provider.
pub async fn keys(State(identity): State<Identity>, issuer: Issuer, Path(At { idp }): Path<At>) -> Answer {
    let row = identity.of(&issuer.tenant).idp(issuer.stage_text(), &idp).await?;
    let private = row.and_then(|row| row.private).ok_or(Code::ApiUnknown)?;
    let key = IdKey::from_pkcs8(&private)?;
    let key =
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": key.kid, "n": key.n, "e": RSA_EXPONENT });
    Ok(Json(json!({ "keys": [key] })).into_response())
}

/// POST `…/broker/{idp}/backchannel_logout`: the provider tells that somebody has signed out there.
pub async fn signed_out(
    State(identity): State<Identity>,
    issuer: Issuer,
    Path(At { idp }): Path<At>,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    let token = form.need("logout_token")?;
    let invalid = || oauth("invalid_request", "This logout token does not count.");
    let tenant = &issuer.tenant;
    let known = identity.known(tenant, issuer.stage_text(), &idp).await?;
    let provider = identity.provider(tenant, &known, upstream::key_id(token).as_deref()).await?;
    let ours = ours(&known, &provider);
    let logout = ours.logout(token, now_s().unsigned_abs()).map_err(|_| invalid())?;
    let store = identity.of(tenant);
    let linked = match &logout.sub {
        Some(subject) => store.idp_link(&known.row.stage, &idp, subject).await?,
        None => None,
    };
    let mut write = identity.store().write().await?;
    if !store.take_idp_logout(&mut write, &opaque::hash(&logout.jti), now_s() + LOGOUT_LIFE_S).await? {
        return Err(invalid());
    }
    let (subject, sid) = (logout.sub.as_deref(), logout.sid.as_deref());
    store.end_idp_sessions(&mut write, &known.row.stage, &idp, subject, sid).await?;
    if let (Some(member), None) = (linked, sid) {
        // Everywhere, then: also what went on after its sign-in was over.
        store.end_sessions_of(&mut write, member).await?;
    }
    let who = linked.map_or_else(|| "system".to_owned(), |member| member.to_string());
    store.audit(&mut write, &who, "logout", &format!("told by {idp}")).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], "").into_response())
}

fn ours<'a>(known: &'a Known, provider: &'a Arc<Provider>) -> Upstream<'a> {
    Upstream { issuer: &known.config.issuer, client_id: &known.config.client_id, keys: &provider.keys }
}

/// Whether somebody whom a provider sends is the account that has the address. An address that is not proven on both sides
/// is no reason: whoever was quicker to claim it would have the other's account.
fn is_the_same(config: &IdpConfig, sent: &Sent, there: &MemberRow) -> bool {
    sent.verified
        && match config.existing {
            Existing::Verified => there.verified || there.state == "invited",
            Existing::Provider => true,
            Existing::Never => false,
        }
}

/// A refusal that its user sees; the cause is for the log.
fn failed(tenant: &Tenant, known: &Known, fault: &ProviderFault) -> Fault {
    let idp = known.row.id.as_str();
    tracing::warn!(error = fault as &dyn std::error::Error, customer = %tenant.name, idp, "a provider of identity failed");
    Code::ProviderFailed.because("Try again, or sign in another way.").into()
}

impl Identity {
    async fn known(&self, tenant: &Tenant, stage: &str, idp: &str) -> Answer<Known> {
        let row = self.of(tenant).idp(stage, idp).await?.ok_or(Code::ApiUnknown)?;
        let config: IdpConfig = serde_json::from_str(&row.config).map_err(|_| Code::Internal)?;
        if config.enabled { Ok(Known { row, config }) } else { Err(Code::ApiUnknown.into()) }
    }

    async fn provider(&self, tenant: &Tenant, known: &Known, kid: Option<&str>) -> Answer<Arc<Provider>> {
        let found = self.providers().get(self.outbound(), &known.config.issuer, kid).await;
        found.map_err(|fault| failed(tenant, known, &fault))
    }

    /// Where a provider sends browsers back to: an address of its own, so that no other one can answer for it.
    pub(super) fn way_back_of(&self, tenant: &Tenant, row: &IdpRow) -> String {
        let home = self.issuer_of(tenant, StageName::new(&row.stage).ok());
        format!("{}/broker/{}/callback", home.url, row.id)
    }

    /// What this browser went away with.
    async fn came_back(
        &self,
        home: &Issuer,
        idp: &str,
        headers: &HeaderMap,
        form: &Form,
    ) -> Answer<IdpLogin> {
        let invalid = || {
            Fault::from(
                Code::OAuthInvalid.because("The sign-in was not begun here, or took too long. Begin again."),
            )
        };
        let hash = opaque::hash(form.get("state").unwrap_or_default());
        let mut write = self.store().write().await?;
        let login = self.of(&home.tenant).take_idp_login(&mut write, &hash).await?;
        write.commit().await.map_err(StoreError::from)?;
        let browser = cookie(headers, COOKIE).map(opaque::hash);
        let login = login.filter(|login| {
            Some(login.browser) == browser && login.idp == idp && login.stage == home.stage_text()
        });
        login.ok_or_else(invalid)
    }

    /// Whom the provider sends.
    async fn sent(&self, tenant: &Tenant, known: &Known, login: &IdpLogin, form: &Form) -> Answer<Sent> {
        let provider = self.provider(tenant, known, None).await?;
        // Another provider's answer could be mixed in (RFC 9207).
        let iss = form.get("iss");
        if iss.is_some_and(|iss| iss != known.config.issuer) || (provider.says_iss && iss.is_none()) {
            return Err(Code::OAuthInvalid.because("The answer comes from another provider.").into());
        }
        let Some(code) = form.get("code") else {
            let detail = format!("{}: no code", known.row.id);
            self.note(tenant, "anonymous", "login.failed", &detail).await?;
            return Err(Code::ProviderRefused.because("The provider did not sign you in.").into());
        };
        let back = self.way_back_of(tenant, &known.row);
        let at = (&known.row, &known.config);
        let token = provider.redeem(self.outbound(), at, code, &login.verifier, &back).await;
        let token = token.map_err(|fault| failed(tenant, known, &fault))?;
        let provider = self.provider(tenant, known, upstream::key_id(&token).as_deref()).await?;
        let claims = ours(known, &provider).id_token(&token, &login.nonce, now_s().unsigned_abs());
        let claims = claims.map_err(|fault| failed(tenant, known, &fault.into()))?;
        Ok(known.config.read(&claims))
    }

    /// The account of whom a provider sends: theirs since before, or the one with the proven address, or a new one.
    async fn welcome(
        &self,
        tenant: &Tenant,
        write: &mut Write,
        known: &Known,
        sent: &Sent,
    ) -> Answer<Result<MemberRow, NotWelcome>> {
        let (store, row) = (self.of(tenant), &known.row);
        let linked = store.idp_link(&row.stage, &row.id, &sent.subject).await?;
        let member = match linked {
            Some(id) => store.member(id).await?,
            None => match self.met(tenant, write, known, sent).await? {
                Ok(member) => Some(member),
                Err(refused) => return Ok(Err(refused)),
            },
        };
        let member = member.filter(|member| member.state == "active" && member.stage == row.stage);
        let Some(member) = member else {
            return Ok(Err(NotWelcome { why: "This account may not sign in.", detail: "not active" }));
        };
        self.follow_groups(tenant, write, known, sent, &member).await?;
        Ok(Ok(member))
    }

    /// Somebody who comes from a provider for the first time.
    async fn met(
        &self,
        tenant: &Tenant,
        write: &mut Write,
        known: &Known,
        sent: &Sent,
    ) -> Answer<Result<MemberRow, NotWelcome>> {
        let (store, Known { row, config }) = (self.of(tenant), known);
        let refuse = |why, detail| Ok(Err(NotWelcome { why, detail }));
        let Some(email) = &sent.email else {
            return refuse("The provider names no e-mail address.", "no address");
        };
        let member = match store.user_with_email(&row.stage, email).await? {
            Some(there) if !is_the_same(config, sent, &there) => {
                let why = "There is an account with this address already. Sign in with its password.";
                return refuse(why, "the address has an account");
            }
            Some(there) if there.state == "invited" => {
                store.activate(write, there.id).await?;
                store.audit(write, &there.id.to_string(), "invitation.accepted", &row.id).await?;
                MemberRow { state: "active".into(), verified: true, ..there }
            }
            Some(there) => there,
            None if !config.create => {
                return refuse("You have no account here. Ask an administrator.", "no account");
            }
            None if row.stage.is_empty() && !sent.verified => {
                return refuse(
                    "The provider has not proven your e-mail address.",
                    "the address is not proven",
                );
            }
            None => {
                let name = display_name(sent.name.clone(), email);
                let invited = MemberRow::invited(&row.stage, email, &name, config.roles.clone());
                let new = MemberRow { state: "active".into(), verified: sent.verified, ..invited };
                store.add_member(write, &new).await?;
                store.audit(write, &new.id.to_string(), "user.registered", &row.id).await?;
                new
            }
        };
        store.link_idp(write, &row.stage, &row.id, &sent.subject, member.id).await?;
        Ok(Ok(member))
    }

    /// Puts somebody into the groups that the provider says, and out of those of its rules that it does not.
    async fn follow_groups(
        &self,
        tenant: &Tenant,
        write: &mut Write,
        known: &Known,
        sent: &Sent,
        member: &MemberRow,
    ) -> Answer<()> {
        let (store, config) = (self.of(tenant), &known.config);
        let Ok(stage) = StageName::new(&known.row.stage) else { return Ok(()) };
        if config.claims.groups.is_none() {
            return Ok(());
        }
        for rule in &config.groups {
            // Several values may lead to one group.
            let said = config
                .groups
                .iter()
                .any(|other| other.group == rule.group && sent.groups.contains(&other.value));
            if !said {
                store.leave_group(write, &stage, &rule.group, member.id).await?;
            } else if store.has_group(write, &stage, &rule.group).await? {
                store.join_group(write, &stage, &rule.group, member.id).await?;
            }
        }
        Ok(())
    }

    /// Providers that a sign-in page offers: name and where to.
    pub(super) async fn offered_providers(
        &self,
        issuer: &Issuer,
        query: &str,
    ) -> Answer<Vec<(String, String)>> {
        let mut offered = Vec::new();
        for pool in issuer.pools() {
            for row in self.of(&issuer.tenant).idps(pool).await? {
                let Ok(config) = serde_json::from_str::<IdpConfig>(&row.config) else { continue };
                let of = if pool == issuer.stage_text() { "" } else { "&of=members" };
                let path = issuer.path(&format!("broker/{}/begin", row.id));
                if config.enabled {
                    offered.push((config.name, format!("{path}?{query}{of}")));
                }
            }
        }
        Ok(offered)
    }
}
