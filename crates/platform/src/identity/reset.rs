//! A new password for somebody who has forgotten theirs: a form that sends a letter, and the link that it brings.
//!
//! The form says the same for every address, and does about the same work.

use super::{
    Fault, Identity,
    fault::Answer,
    form::Form,
    invite::{Link, Shown},
    issuer::Issuer,
    letters::{self, LINK_LIFE_S},
    login::{EMAIL_BYTES_MAX, FREE_TRIES, demand_own_form, form_token, status_of},
    pages,
    source::{Count, Source},
};
use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use bastide_identity::opaque::{self, Opaque};
use bastide_store::{Counter, CustomerStore, LinkRow, MemberRow, StoreError, Write, now_s};
use bastide_types::{Code, StageName};

const NO_MAIL: &str = "Letters are not sent here. Ask an administrator for a link.";
/// What everybody hears who asks for a letter.
pub const ON_ITS_WAY: &str = "If that is possible with this address, a letter with a link is on its way to it. The link works once, \
                              within 15 minutes.";

/// GET `…/forgot`: the form that asks for an address.
pub async fn page(State(identity): State<Identity>, issuer: Issuer, headers: HeaderMap) -> Answer {
    if !identity.has_mail() {
        return pages::message(&issuer.tenant, "A new password", NO_MAIL);
    }
    pages::address(&issuer, &form_token(&headers)?, &pages::Ask::reset(), None)
}

/// POST `…/forgot`: sends a letter, if the address has an active account here.
pub async fn submit(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    if !identity.has_mail() {
        return pages::message(&issuer.tenant, "A new password", NO_MAIL);
    }
    let email = match identity.letter_for(&issuer, &headers, &form).await {
        Ok(email) => email,
        Err(Fault::Refused(problem, retry)) => {
            let page = pages::address(&issuer, &form_token(&headers)?, &pages::Ask::reset(), Some(&problem))?;
            return Ok(pages::retry_after(page, retry));
        }
        Err(other) => return Err(other),
    };
    let account = identity.account(&issuer, &email).await?;
    let store = identity.of(&issuer.tenant);
    let mut write = identity.store().write().await?;
    store.audit(&mut write, "anonymous", "password.forgotten", "").await?;
    if let Some(member) = account {
        identity.send_reset(&issuer, &mut write, &member).await?;
    }
    write.commit().await.map_err(StoreError::from)?;
    pages::message(&issuer.tenant, "A new password", ON_ITS_WAY)
}

/// GET `…/reset/{token}`.
pub async fn choose(
    State(identity): State<Identity>,
    issuer: Issuer,
    Path(Link { token }): Path<Link>,
    headers: HeaderMap,
) -> Answer {
    let (_, member) = identity.resets(&issuer, &token).await?;
    let ask = pages::Choose::reset(&member.email);
    pages::choose(
        &issuer,
        &format!("reset/{token}"),
        &form_token(&headers)?,
        &ask,
        &Shown::default(),
        StatusCode::OK,
    )
}

/// POST `…/reset/{token}`: the new password. All sessions of the account end, and nobody is signed in by it.
pub async fn accept(
    State(identity): State<Identity>,
    issuer: Issuer,
    Path(Link { token }): Path<Link>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let (link, member) = identity.resets(&issuer, &token).await?;
    let phc = match identity.chosen(&form).await? {
        Ok(phc) => phc,
        Err(refused) => {
            let (ask, status) = (pages::Choose::reset(&member.email), status_of(&refused.problem));
            let path = format!("reset/{token}");
            return pages::choose(&issuer, &path, &form_token(&headers)?, &ask, &refused.shown(), status);
        }
    };
    let store = identity.of(&issuer.tenant);
    let mut write = identity.store().write().await?;
    // Of two that come at once, one wins.
    if store.take_link(&mut write, &opaque::hash(&token)).await?.is_none()
        || !store.set_password(&mut write, member.id, &phc, link.mailed).await?
    {
        return Err(Code::LinkExpired.into());
    }
    let (stage, email) = (member.stage.as_str(), member.email.as_str());
    store.reset_tries(&mut write, Counter::Password { stage, email }).await?;
    store.reset_tries(&mut write, Counter::Letter { stage, email }).await?;
    store.audit(&mut write, &member.id.to_string(), "password.reset", "").await?;
    write.commit().await.map_err(StoreError::from)?;
    pages::message(&issuer.tenant, "A new password", "Your password is changed. Sign in with it.")
}

impl Identity {
    /// The address that a letter is asked for, unless too many are: from this source, or for this address.
    pub(super) async fn letter_for(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
    ) -> Answer<String> {
        let email = form.get("email").unwrap_or_default().trim().to_lowercase();
        if email.is_empty() || email.len() > EMAIL_BYTES_MAX || !email.contains('@') {
            return Err(Code::InputInvalid.because("Type an address such as ann@example.com.").into());
        }
        let locked = |wait_s| Fault::Refused(Code::LoginLocked.problem(), Some(wait_s));
        if let Count::Over(wait_s) = self.limits().letters.count(Source::of(headers), now_s()) {
            return Err(locked(wait_s));
        }
        let counter = Counter::Letter { stage: issuer.stage_text(), email: &email };
        self.of(&issuer.tenant).count_try(counter, FREE_TRIES).await?.map_err(locked)?;
        Ok(email)
    }

    /// Writes a letter by which somebody chooses another password.
    async fn send_reset(&self, issuer: &Issuer, write: &mut Write, member: &MemberRow) -> Answer<()> {
        let stage = StageName::new(&member.stage).ok();
        let home = self.issuer_of(&issuer.tenant, stage.clone());
        let link = reset_link(&self.of(&issuer.tenant), write, &home.url, member, true, &Opaque::generate()?)
            .await?;
        let letter = letters::reset(&member.email, &issuer.tenant.name, stage.as_ref(), &link);
        self.of(&issuer.tenant).post(write, &letter, now_s() + LINK_LIFE_S).await?;
        Ok(())
    }

    async fn resets(&self, issuer: &Issuer, token: &str) -> Answer<(LinkRow, MemberRow)> {
        let expired = || Fault::from(Code::LinkExpired);
        let link = self.of(&issuer.tenant).link(&opaque::hash(token)).await?.ok_or_else(expired)?;
        let member = match link.member {
            Some(member) if link.stage == issuer.stage_text() => self.active(&issuer.tenant, member).await?,
            _ => None,
        };
        Ok((link, member.ok_or_else(expired)?))
    }
}

/// Makes a link by which somebody chooses another password.
pub(super) async fn reset_link(
    own: &CustomerStore<'_>,
    write: &mut Write,
    issuer: &str,
    member: &MemberRow,
    mailed: bool,
    token: &Opaque,
) -> Result<String, StoreError> {
    let link = LinkRow {
        member: Some(member.id),
        stage: member.stage.clone(),
        email: member.email.clone(),
        mailed,
        until: now_s() + LINK_LIFE_S,
    };
    own.add_link(write, &token.hash, &link).await?;
    Ok(format!("{issuer}/reset/{}", token.secret.expose()))
}
