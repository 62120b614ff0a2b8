//! Signing in with a password.

use super::{
    Fault, Identity, SESSION_LIFE_S,
    authorize::{SIGN_IN_COOKIE, redirect},
    fault::Answer,
    form::Form,
    issuer::Issuer,
    pages,
    tenant::{Tenant, cookie, demand_pair, demand_same_origin, set_cookie},
};
use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bastide_identity::opaque::{self, Opaque};
use bastide_store::{MemberRow, NewSession, StoreError, Write, now_s};
use bastide_types::{Code, Problem, Secret};

/// Cookie that belongs to the forms of our pages.
const FORM_COOKIE: &str = "__Host-bst-form";
const FORM_LIFE_S: i64 = 3600;
/// Failures before waiting begins.
const FREE_TRIES: i64 = 5;
/// Longest e-mail address (RFC 5321), in bytes.
const EMAIL_BYTES_MAX: usize = 254;

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
    let member = match identity.check_password(&tenant, &email, password).await {
        Ok(member) => member,
        Err(Fault::Refused(problem, retry)) => {
            let (token, status) = (form_token(&headers)?, status_of(&problem));
            let mut page = pages::login(&issuer, &request, &token, &email, Some(&problem), status)?;
            if let Some(seconds) = retry {
                page.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            return Ok(page);
        }
        Err(other) => return Err(other),
    };
    let mut write = identity.store().write().await?;
    let (session, secret) = identity.sign_in(&tenant, &mut write, &headers, &member).await?;
    let to = identity.code(&issuer, &mut write, &request, &session, now_s(), &member).await?;
    write.commit().await.map_err(StoreError::from)?;
    Ok(with_sign_in(redirect(&to), &secret))
}

impl Identity {
    /// The member whose password this is.
    ///
    /// # Errors
    /// One and the same for a wrong address, a wrong password and a member who is not active; another one
    /// while the address is locked.
    pub(super) async fn check_password(
        &self,
        tenant: &Tenant,
        email: &str,
        password: Secret,
    ) -> Answer<MemberRow> {
        let store = self.of(tenant);
        if email.is_empty() || email.len() > EMAIL_BYTES_MAX {
            return Err(Code::LoginFailed.into());
        }
        // A place first, then the count: a full pool must not use up tries.
        let slot = self.hasher().enter().await?;
        if let Err(wait_s) = store.count_login(email, FREE_TRIES).await? {
            return Err(Fault::Refused(Code::LoginLocked.problem(), Some(wait_s)));
        }
        let member = store.member_with_email(email).await?.filter(|member| member.state == "active");
        let phc = member.as_ref().and_then(|member| member.password.clone());
        let good = self.hasher().matches(slot, password, phc).await?;
        let mut write = self.store().write().await?;
        let Some(member) = member.filter(|_| good) else {
            // Not what was typed: people type passwords into the wrong field.
            store.audit(&mut write, "anonymous", "login.failed", "e-mail or password wrong").await?;
            write.commit().await.map_err(StoreError::from)?;
            return Err(Code::LoginFailed.into());
        };
        store.reset_login(&mut write, email).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(member)
    }

    /// Begins a sign-in with a new id and secret; one that this browser had before ends.
    pub(super) async fn sign_in(
        &self,
        tenant: &Tenant,
        write: &mut Write,
        headers: &HeaderMap,
        member: &MemberRow,
    ) -> Answer<(String, Secret)> {
        let store = self.of(tenant);
        if let Some(old) = cookie(headers, SIGN_IN_COOKIE) {
            store.end_session(write, &opaque::hash(old)).await?;
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
        store.audit(write, &member.id.to_string(), "login", &id).await?;
        Ok((id, opaque.secret))
    }

    /// Ends the session of this secret, and the sign-in that it came from.
    pub(super) async fn end(&self, tenant: &Tenant, secret: &str) -> Answer<()> {
        let mut write = self.store().write().await?;
        if let Some(member) = self.of(tenant).end_session(&mut write, &opaque::hash(secret)).await? {
            self.of(tenant).audit(&mut write, &member.to_string(), "logout", "").await?;
        }
        write.commit().await.map_err(StoreError::from)?;
        Ok(())
    }
}

/// Sets the cookie of a sign-in.
pub(super) fn with_sign_in(mut response: Response, secret: &Secret) -> Response {
    add_cookie(&mut response, &set_cookie(SIGN_IN_COOKIE, secret.expose(), SESSION_LIFE_S));
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
