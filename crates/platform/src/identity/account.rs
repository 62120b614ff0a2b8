//! The page on which members see where they are signed in, and end it.

use super::{
    Fault, Identity,
    authorize::{SignIn, redirect},
    fault::Answer,
    form::Form,
    issuer::Issuer,
    login::{demand_own_form, form_token, with_sign_in, without_sign_in},
    pages,
    second::Onward,
};
use axum::{body::Bytes, extract::State, http::HeaderMap};
use bastide_store::{SessionInfo, StoreError};
use bastide_types::Code;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Where the page is, below its issuer.
pub const PATH: &str = "account/sessions";

/// A session as the page shows it.
pub struct Line {
    pub id: String,
    pub what: String,
    pub is_this: bool,
    /// UTC, after RFC 3339.
    pub since: String,
    pub seen: String,
    pub until: String,
}

/// GET: the sessions of whoever is signed in with this browser, or a form to sign in.
pub async fn page(State(identity): State<Identity>, issuer: Issuer, headers: HeaderMap) -> Answer {
    let token = form_token(&headers)?;
    match identity.signed_in(&issuer, &headers).await? {
        Some(sign_in) => {
            let lines = identity.lines(&issuer, &sign_in).await?;
            pages::sessions(&issuer, &token, Some(&sign_in.member), &lines, None)
        }
        None => pages::sessions(&issuer, &token, None, &[], None),
    }
}

/// POST: signs in, or ends one session of one's own (`session`), or `all`.
pub async fn submit(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let (sign_in, secret) = match identity.member_of_form(&issuer, &headers, &form, Onward::Sessions).await {
        Ok(Ok(found)) => found,
        Ok(Err(page)) => return Ok(page),
        Err(Fault::Refused(problem, _)) => {
            return pages::sessions(&issuer, &form_token(&headers)?, None, &[], Some(&problem));
        }
        Err(other) => return Err(other),
    };
    if let Some(secret) = secret {
        return Ok(with_sign_in(redirect(&issuer.path(PATH)), &secret));
    }
    if let Some(which) = form.get("session") {
        identity.end_own(&issuer, &sign_in, which).await?;
    }
    let mut response = redirect(&issuer.path(PATH));
    if identity.of(&issuer.tenant).session_with_id(&sign_in.session.id).await?.is_none() {
        without_sign_in(&mut response, &sign_in.member.stage);
    }
    Ok(response)
}

impl Identity {
    async fn lines(&self, issuer: &Issuer, sign_in: &SignIn) -> Answer<Vec<Line>> {
        let sessions = self.of(&issuer.tenant).sessions_of(sign_in.member.id).await?;
        Ok(sessions.into_iter().map(|session| line(session, &sign_in.session.id)).collect())
    }

    async fn end_own(&self, issuer: &Issuer, sign_in: &SignIn, which: &str) -> Answer<()> {
        let (store, member) = (self.of(&issuer.tenant), sign_in.member.id);
        let own = which == "all" || store.sessions_of(member).await?.iter().any(|one| one.id == which);
        if !own {
            return Err(Code::ApiUnknown.into());
        }
        let mut write = self.store().write().await?;
        if which == "all" {
            store.end_sessions_of(&mut write, member).await?;
        } else {
            store.end_sign_in_of(&mut write, which).await?;
        }
        store.audit(&mut write, &member.to_string(), "session.ended", which).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(())
    }
}

fn line(session: SessionInfo, this: &str) -> Line {
    let what = match session.kind.as_str() {
        "provider" => "Sign-in".to_owned(),
        "browser" if session.stage.is_empty() => "Browser on the Platform".to_owned(),
        "browser" => format!("Browser at apps in {}", session.stage),
        _ => format!("Program {}", session.client),
    };
    let is_this = session.id == this || session.parent.as_deref() == Some(this);
    let [since, seen, until] = [session.since, session.seen, session.until].map(utc);
    Line { id: session.id, what, is_this, since, seen, until }
}

/// A moment as pages show it: UTC, after RFC 3339.
pub(super) fn utc(at_s: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at_s).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    at.format(&Rfc3339).unwrap_or_default()
}
