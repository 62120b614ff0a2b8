//! Signing in with a password.
//!
//! Guesses are counted for each address, and for each device that a member has signed in with before: a stranger
//! who locks the address does not lock the member's own devices. Failures are counted for each source, too.
//!
//! At the issuer of a stage its end users sign in, and members. An address that is both is the end user's there.

use super::{
    Fault, Identity, SESSION_LIFE_S,
    authorize::Request,
    fault::Answer,
    form::Form,
    issuer::Issuer,
    pages,
    second::{Onward, Owed},
    source::{Count, Source},
    tenant::{Tenant, cookie, demand_pair, demand_same_origin, set_cookie},
};
use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bastide_identity::opaque::{self, Opaque};
use bastide_store::{Counter, MemberRow, NewEntry, NewSession, SessionUse, StoreError, Write, now_s};
use bastide_types::{Acr, Code, Problem, Secret};

/// Cookie that belongs to the forms of our pages.
const FORM_COOKIE: &str = "__Host-bst-form";
const FORM_LIFE_S: i64 = 3600;
/// Cookie of the sign-in at the Identity Service.
const SIGN_IN_COOKIE: &str = "__Host-bst-sso";
/// Cookie of a browser in which a member has signed in before, and how long it counts, in seconds.
const DEVICE_COOKIE: &str = "__Host-bst-known";
const DEVICE_LIFE_S: i64 = 180 * 86_400;
/// Failures before waiting begins.
pub(super) const FREE_TRIES: i64 = 5;
/// Longest e-mail address (RFC 5321), in bytes.
pub(super) const EMAIL_BYTES_MAX: usize = 254;

/// The value that a page puts both into its form and into a cookie.
pub(super) fn form_token(headers: &HeaderMap) -> Answer<Secret> {
    // A second tab shares the value of the first.
    match cookie(headers, FORM_COOKIE).filter(|value| {
        value.len() == 43 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    }) {
        Some(value) => Ok(Secret::new(value)),
        None => Ok(Opaque::generate()?.secret),
    }
}

/// Puts the value of a page's form into its cookie.
pub(super) fn with_form_cookie(mut response: Response, token: &Secret) -> Response {
    add_cookie(&mut response, &set_cookie(FORM_COOKIE, token.expose(), FORM_LIFE_S));
    response
}

/// Refuses forms that did not come from our page in this browser.
pub(super) fn demand_own_form(
    identity: &Identity,
    tenant: &Tenant,
    headers: &HeaderMap,
    form: &Form,
) -> Answer<()> {
    demand_same_origin(headers, &identity.domains().platform_url(&tenant.name))?;
    demand_pair(cookie(headers, FORM_COOKIE), form.get("form_token"))
}

/// POST `…/login`.
pub async fn login(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let tenant = issuer.tenant.clone();
    let form = Form::read(&body)?;
    demand_own_form(&identity, &tenant, &headers, &form)?;
    let request = match identity.request(&issuer, &form).await? {
        Ok(request) => request,
        Err(refused) => return Ok(refused),
    };
    let email = form.get("username").unwrap_or_default().trim().to_lowercase();
    let password = Secret::new(form.get("password").unwrap_or_default());
    let member = match identity.check_password(&issuer, &headers, &email, password).await {
        Ok(member) => member,
        Err(Fault::Refused(problem, retry)) => {
            let page = identity.login_page(&issuer, &headers, &request, &email, Some(&problem)).await?;
            return Ok(pages::retry_after(page, retry));
        }
        Err(other) => return Err(other),
    };
    let request_acr = request.acr;
    let onward = Onward::Client(request);
    match identity.owed(&tenant, &member, request_acr).await? {
        Owed::Nothing => identity.enter(&issuer, &headers, &member, &onward).await,
        owed => identity.ask_second(&issuer, &headers, &member, owed, &onward).await,
    }
}

/// What a browser keeps of a sign-in.
pub(super) struct SignInCookies {
    /// The stage whose end user signed in; empty for members.
    stage: String,
    sign_in: Secret,
    /// For a device that was not known.
    device: Option<Secret>,
    /// Cookies of sign-ins that ended by this one.
    ended: Vec<String>,
}

/// Name of a cookie for the users of a stage; for members (empty) that itself.
fn cookie_for(name: &str, stage: &str) -> String {
    if stage.is_empty() { name.to_owned() } else { format!("{name}-{stage}") }
}

/// The hash of the device that a browser says to be.
fn device_of(headers: &HeaderMap, stage: &str) -> Option<[u8; 32]> {
    cookie(headers, &cookie_for(DEVICE_COOKIE, stage)).map(opaque::hash)
}

/// Secret of the sign-in that a browser says to have.
pub(super) fn sign_in_secret<'h>(headers: &'h HeaderMap, stage: &str) -> Option<&'h str> {
    cookie(headers, &cookie_for(SIGN_IN_COOKIE, stage))
}

/// Takes the cookie of a sign-in back.
pub(super) fn without_sign_in(response: &mut Response, stage: &str) {
    add_cookie(response, &set_cookie(&cookie_for(SIGN_IN_COOKIE, stage), "", 0));
}

impl Identity {
    /// The sign-in page with what this issuer offers.
    pub(super) async fn login_page(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        request: &Request,
        username: &str,
        problem: Option<&Problem>,
    ) -> Answer {
        let ways = pages::Ways {
            forgot: self.has_mail().then(|| issuer.path("forgot")),
            register: self.is_open(issuer).await?.then(|| issuer.path("register")),
            providers: self.offered_providers(issuer, &pages::query(request)).await?,
        };
        let shown = pages::Login { username, problem, ways: &ways };
        let status = problem.map_or(StatusCode::OK, status_of);
        pages::login(issuer, request, &form_token(headers)?, &shown, status)
    }

    /// The member or end user whose password this is.
    ///
    /// # Errors
    /// One and the same for a wrong address, a wrong password and somebody who is not active; another one
    /// while the address is locked.
    pub(super) async fn check_password(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        email: &str,
        password: Secret,
    ) -> Answer<MemberRow> {
        let (tenant, store) = (&issuer.tenant, self.of(&issuer.tenant));
        if email.is_empty() || email.len() > EMAIL_BYTES_MAX {
            return Err(self.login_failed(tenant, headers).await?);
        }
        // A place first, then the counts: a full pool must not use up tries.
        let slot = self.hasher().enter().await?;
        let member = self.account(issuer, email).await?;
        let pool = member.as_ref().map_or_else(|| issuer.stage_text(), |member| &member.stage).to_owned();
        let known = match device_of(headers, &pool) {
            Some(hash) => store.knows_device(&hash, &pool, email).await?.then_some(hash),
            None => None,
        };
        // Whoever guesses at a stage guesses at members, too, and must not learn from the counts who is what.
        let counters: Vec<_> = match &known {
            Some(device) => vec![Counter::Device(device)],
            None => issuer.pools().map(|stage| Counter::Password { stage, email }).collect(),
        };
        self.demand_tries(tenant, headers, &counters).await?;
        let phc = member.as_ref().and_then(|member| member.password.clone());
        let good = self.hasher().matches(slot, password, phc).await?;
        let Some(member) = member.filter(|_| good) else {
            return Err(self.login_failed(tenant, headers).await?);
        };
        let mut write = self.store().write().await?;
        for counter in counters {
            match counter {
                // The end user's success says nothing about guesses at the member of the same address.
                Counter::Password { stage: "", .. } if !pool.is_empty() => {
                    store.uncount_try(&mut write, counter).await?;
                }
                own => store.reset_tries(&mut write, own).await?,
            }
        }
        write.commit().await.map_err(StoreError::from)?;
        Ok(member)
    }

    /// The active account of an address at an issuer: the end user of its stage, or else the member.
    pub(super) async fn account(&self, issuer: &Issuer, email: &str) -> Answer<Option<MemberRow>> {
        let mut found = None;
        // All are looked for, so that every address costs the same.
        for pool in issuer.pools() {
            let here = self.of(&issuer.tenant).user_with_email(pool, email).await?;
            found = found.or(here.filter(|member| member.state == "active"));
        }
        Ok(found)
    }

    /// Counts a try, unless its source or one of its counters is locked. A known device is not stopped by failures
    /// of others at its source.
    async fn demand_tries(
        &self,
        tenant: &Tenant,
        headers: &HeaderMap,
        counters: &[Counter<'_>],
    ) -> Answer<()> {
        let locked = |wait_s| Fault::Refused(Code::LoginLocked.problem(), Some(wait_s));
        if !matches!(counters, [Counter::Device(_)])
            && let Some(wait_s) = self.limits().sign_ins.wait_s(Source::of(headers), now_s())
        {
            return Err(locked(wait_s));
        }
        for counter in counters {
            self.of(tenant).count_try(*counter, FREE_TRIES).await?.map_err(locked)?;
        }
        Ok(())
    }

    /// Counts a failed sign-in at its source and writes it down.
    async fn login_failed(&self, tenant: &Tenant, headers: &HeaderMap) -> Answer<Fault> {
        let detail = match self.limits().sign_ins.count(Source::of(headers), now_s()) {
            Count::Free => "e-mail or password wrong",
            Count::Reached => "e-mail or password wrong; its source has to wait now",
            Count::Over(_) => "e-mail or password wrong; its source had to wait",
        };
        // Not what was typed: people type passwords into the wrong field.
        let mut write = self.store().write().await?;
        let code = Some(Code::LoginFailed.as_str());
        let entry =
            NewEntry { who: "anonymous", what: "login.failed", detail, refused: code, ..NewEntry::default() };
        self.of(tenant).audit_entry(&mut write, &entry).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(Code::LoginFailed.into())
    }

    /// Writes an audit entry of its own.
    pub(super) async fn note(&self, tenant: &Tenant, who: &str, what: &str, detail: &str) -> Answer<()> {
        let mut write = self.store().write().await?;
        self.of(tenant).audit(&mut write, who, what, detail).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// Remembers the device of a sign-in; `None` when this member's sign-ins from it are known already.
    async fn meet_device(
        &self,
        tenant: &Tenant,
        write: &mut Write,
        headers: &HeaderMap,
        member: &MemberRow,
    ) -> Answer<Option<Secret>> {
        let store = self.of(tenant);
        if let Some(hash) = device_of(headers, &member.stage)
            && store.knows_device(&hash, &member.stage, &member.email).await?
        {
            return Ok(None);
        }
        // Never the value that came: somebody else may have put it there.
        let device = Opaque::generate()?;
        store.remember_device(write, &device.hash, member.id, now_s() + DEVICE_LIFE_S).await?;
        Ok(Some(device.secret))
    }

    /// Begins a sign-in with a new id and secret; those that it takes the place of in this browser end. An end user's
    /// leaves the member's alone, which is for other places.
    pub(super) async fn sign_in(
        &self,
        issuer: &Issuer,
        write: &mut Write,
        headers: &HeaderMap,
        member: &MemberRow,
        acr: Acr,
    ) -> Answer<(String, SignInCookies)> {
        let (tenant, store) = (&issuer.tenant, self.of(&issuer.tenant));
        let mut ended = Vec::new();
        for pool in issuer.pools().filter(|pool| member.stage.is_empty() || *pool == member.stage) {
            let Some(old) = sign_in_secret(headers, pool) else { continue };
            store.end_session(write, &opaque::hash(old)).await?;
            if pool != member.stage {
                ended.push(cookie_for(SIGN_IN_COOKIE, pool));
            }
        }
        let opaque = Opaque::generate()?;
        let new = NewSession {
            kind: "provider",
            hash: &opaque.hash,
            parent: None,
            member: member.id,
            until: now_s() + SESSION_LIFE_S,
        };
        let id = store.add_session(write, &new).await?;
        store.describe_session(write, &id, &signed_in_now(acr)).await?;
        store.audit(write, &member.id.to_string(), "login", &format!("{id} {acr}")).await?;
        let device = self.meet_device(tenant, write, headers, member).await?;
        Ok((id, SignInCookies { stage: member.stage.clone(), sign_in: opaque.secret, device, ended }))
    }

    /// Ends the session whose secret has this hash, and the sign-in that it came from.
    pub(super) async fn end(&self, tenant: &Tenant, hash: &[u8; 32]) -> Answer<()> {
        let mut write = self.store().write().await?;
        if let Some(member) = self.of(tenant).end_session(&mut write, hash).await? {
            self.of(tenant).audit(&mut write, &member.to_string(), "logout", "").await?;
        }
        write.commit().await.map_err(StoreError::from)?;
        Ok(())
    }
}

/// A sign-in of this very moment.
pub(super) fn signed_in_now(acr: Acr) -> SessionUse {
    SessionUse { since: now_s(), acr, auth_time: now_s(), ..SessionUse::default() }
}

/// Sets the cookies of a sign-in.
pub(super) fn with_sign_in(mut response: Response, cookies: &SignInCookies) -> Response {
    let name = |name: &str| cookie_for(name, &cookies.stage);
    let sign_in = cookies.sign_in.expose();
    add_cookie(&mut response, &set_cookie(&name(SIGN_IN_COOKIE), sign_in, SESSION_LIFE_S));
    if let Some(device) = &cookies.device {
        add_cookie(&mut response, &set_cookie(&name(DEVICE_COOKIE), device.expose(), DEVICE_LIFE_S));
    }
    for ended in &cookies.ended {
        add_cookie(&mut response, &set_cookie(ended, "", 0));
    }
    response
}

pub(super) fn add_cookie(response: &mut Response, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

pub(super) fn status_of(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
