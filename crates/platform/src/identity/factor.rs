//! Second factors of members: offering one, taking its codes, and the page on which members look after their own.

use super::{
    Fault, Identity,
    authorize::{SignIn, redirect},
    fault::Answer,
    form::Form,
    issuer::Issuer,
    login::{demand_own_form, form_token, with_sign_in},
    pages,
    passkey::is_fresh,
    second::Onward,
    tenant::Tenant,
};
use axum::{body::Bytes, extract::State, http::HeaderMap};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bastide_identity::{TotpSecret, opaque, totp};
use bastide_store::{Counter, MemberRow, NewEntry, StoreError, Write, now_s};
use bastide_types::{Code, Problem, Secret};

/// Where the page is, below its issuer.
pub const PATH: &str = "account/second-factor";
/// Wrong codes that a member may type before waiting begins.
pub(super) const FREE_TRIES: i64 = 5;
/// How long an offered secret may be confirmed, in seconds.
const OFFER_LIFE_S: i64 = 900;
const RECOVERY_CODES: usize = 10;

/// A secret that a member may set an app up with.
pub struct Offer {
    /// Base32, to be typed into an app.
    pub text: Secret,
    /// For a QR code.
    pub uri: Secret,
    /// What comes back with the first code: the secret, sealed for this member and some minutes.
    pub sealed: String,
}

/// What the page shows.
pub enum Shown<'a> {
    /// A form to sign in.
    Nobody,
    /// A form to begin with.
    Without,
    /// An offer to confirm.
    Offered(&'a Offer),
    /// How many recovery codes are left, and whether the organization demands the factor.
    With { left: i64, demanded: bool },
}

/// GET: whether the member has a second factor, or a form to sign in.
pub async fn page(State(identity): State<Identity>, issuer: Issuer, headers: HeaderMap) -> Answer {
    let sign_in = identity.signed_in(&issuer, &headers).await?;
    identity.factor_page(&issuer, &headers, sign_in.as_ref(), None).await
}

/// POST: signs in, or does what `action` says: `begin`, `confirm`, `renew`, `remove`.
pub async fn submit(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let entered = identity.member_of_form(&issuer, &headers, &form, Onward::SecondFactor).await;
    let sign_in = match entered {
        Ok(Ok((_, Some(cookies)))) => return Ok(with_sign_in(redirect(&issuer.path(PATH)), &cookies)),
        Ok(Ok((sign_in, None))) => sign_in,
        Ok(Err(page)) => return Ok(page),
        Err(Fault::Refused(problem, _)) => {
            return identity.factor_page(&issuer, &headers, None, Some(&problem)).await;
        }
        Err(other) => return Err(other),
    };
    match identity.factor_step(&issuer, &headers, &form, &sign_in).await {
        Err(Fault::Refused(problem, _)) if form.get("action") == Some("confirm") => {
            let token = form_token(&headers)?;
            match identity.offered_again(&issuer.tenant, &sign_in.member, &form) {
                Some(offer) => pages::factor(&issuer, &token, &Shown::Offered(&offer), Some(&problem)),
                None => identity.factor_page(&issuer, &headers, Some(&sign_in), Some(&problem)).await,
            }
        }
        Err(Fault::Refused(problem, _)) => {
            identity.factor_page(&issuer, &headers, Some(&sign_in), Some(&problem)).await
        }
        other => other,
    }
}

impl Identity {
    async fn factor_page(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        sign_in: Option<&SignIn>,
        problem: Option<&Problem>,
    ) -> Answer {
        let token = form_token(headers)?;
        let store = self.of(&issuer.tenant);
        let shown = match sign_in {
            None => Shown::Nobody,
            Some(sign_in) if store.second_factor(sign_in.member.id).await?.is_none() => Shown::Without,
            Some(sign_in) => Shown::With {
                left: store.recovery_codes_left(sign_in.member.id).await?,
                demanded: self.demands_factor(&issuer.tenant, &sign_in.member).await?,
            },
        };
        pages::factor(issuer, &token, &shown, problem)
    }

    async fn factor_step(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        sign_in: &SignIn,
    ) -> Answer {
        let (tenant, member) = (&issuer.tenant, &sign_in.member);
        let (action, code) = (form.get("action"), form.get("code").unwrap_or_default());
        if action == Some("confirm") {
            let mut write = self.store().write().await?;
            let codes = self.enrol(tenant, &mut write, member, form).await?;
            write.commit().await.map_err(StoreError::from)?;
            return pages::recovery(issuer, &form_token(headers)?, &codes, &Onward::SecondFactor);
        }
        // A browser that somebody left open must not be enough for the rest.
        let password = Secret::new(form.get("password").unwrap_or_default());
        let shown = self.check_password(issuer, headers, &member.email, password).await?;
        // At a stage the same address may be another account.
        if shown.id != member.id {
            return Err(Code::LoginFailed.into());
        }
        let store = self.of(tenant);
        match action {
            Some("begin") => {
                if store.count_passkeys(member.id).await? > 0 && !is_fresh(&sign_in.used) {
                    let because = "Sign in with your passkey first; ten minutes later it counts no longer.";
                    return Err(Code::StepUpNeeded.because(because).into());
                }
                let offer = self.offer(tenant, member)?;
                pages::factor(issuer, &form_token(headers)?, &Shown::Offered(&offer), None)
            }
            Some("renew") => {
                self.take_code(tenant, member, code).await?;
                let codes = recovery_codes()?;
                let mut write = self.store().write().await?;
                store.set_recovery_codes(&mut write, member.id, &hashes(&codes)).await?;
                store.audit(&mut write, &member.id.to_string(), "recovery-codes.renewed", "").await?;
                write.commit().await.map_err(StoreError::from)?;
                pages::recovery(issuer, &form_token(headers)?, &codes, &Onward::SecondFactor)
            }
            Some("remove") => {
                if self.demands_factor(tenant, member).await? {
                    return Err(Code::Forbidden.because("Your organization demands a second factor.").into());
                }
                self.take_code(tenant, member, code).await?;
                let mut write = self.store().write().await?;
                store.remove_second_factor(&mut write, member.id).await?;
                store.audit(&mut write, &member.id.to_string(), "second-factor.removed", "").await?;
                write.commit().await.map_err(StoreError::from)?;
                Ok(redirect(&issuer.path(PATH)))
            }
            _ => Ok(redirect(&issuer.path(PATH))),
        }
    }

    /// Whether the organization demands a second factor of this member. Of end users nobody does.
    pub(super) async fn demands_factor(&self, tenant: &Tenant, member: &MemberRow) -> Answer<bool> {
        Ok(member.stage.is_empty() && self.of(tenant).sign_in_policy().await?.second_factor)
    }

    /// Offers a member a secret.
    pub(super) fn offer(&self, tenant: &Tenant, member: &MemberRow) -> Answer<Offer> {
        let secret = TotpSecret::generate()?;
        let sealed = self.of(tenant).seal_offer(member.id, secret.bytes(), now_s() + OFFER_LIFE_S)?;
        Ok(offer_of(tenant, member, &secret, BASE64_URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// The offer that a form brings back, while it is good.
    pub(super) fn offered_again(&self, tenant: &Tenant, member: &MemberRow, form: &Form) -> Option<Offer> {
        let (secret, sealed) = self.offered(tenant, member, form)?;
        Some(offer_of(tenant, member, &secret, sealed.to_owned()))
    }

    fn offered<'f>(
        &self,
        tenant: &Tenant,
        member: &MemberRow,
        form: &'f Form,
    ) -> Option<(TotpSecret, &'f str)> {
        let sealed = form.get("offer")?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
        Some((TotpSecret::from_bytes(&self.of(tenant).open_offer(member.id, &bytes)?)?, sealed))
    }

    /// Makes an offer the member's second factor when the form brings its code, too; the recovery codes.
    ///
    /// # Errors
    /// [`Code::SecondFactorWrong`]; [`Code::LinkExpired`] for an offer that is too old, or another one's.
    pub(super) async fn enrol(
        &self,
        tenant: &Tenant,
        write: &mut Write,
        member: &MemberRow,
        form: &Form,
    ) -> Answer<Vec<Secret>> {
        let too_old = || Fault::from(Code::LinkExpired.because("Begin again with a new secret."));
        let (secret, _) = self.offered(tenant, member, form).ok_or_else(too_old)?;
        let code = without_blanks(form.get("code").unwrap_or_default());
        let step = secret.step_of(&code, now_s().unsigned_abs()).ok_or(Code::SecondFactorWrong)?;
        let codes = recovery_codes()?;
        let store = self.of(tenant);
        let added = store.add_second_factor(write, member.id, secret.bytes(), step, &hashes(&codes)).await;
        match added {
            Err(StoreError::Taken) => return Err(too_old()),
            other => other?,
        }
        store.audit(write, &member.id.to_string(), "second-factor.added", "authenticator app").await?;
        Ok(codes)
    }

    /// Takes a code of the member's app, or a recovery code: each counts once.
    ///
    /// # Errors
    /// [`Code::SecondFactorWrong`]; [`Code::LoginLocked`] after too many wrong ones.
    pub(super) async fn take_code(&self, tenant: &Tenant, member: &MemberRow, typed: &str) -> Answer<()> {
        let (store, code) = (self.of(tenant), without_blanks(typed));
        let of_app = totp::is_code(&code);
        let counter = if of_app { Counter::Totp(member.id) } else { Counter::RecoveryCode(member.id) };
        let locked = |wait_s| Fault::Refused(Code::LoginLocked.problem(), Some(wait_s));
        store.count_try(counter, FREE_TRIES).await?.map_err(locked)?;
        let secret = store.second_factor(member.id).await?;
        let secret = secret.as_deref().and_then(TotpSecret::from_bytes);
        let step = secret.and_then(|secret| secret.step_of(&code, now_s().unsigned_abs()));
        let mut write = self.store().write().await?;
        let good = match step {
            Some(step) => store.take_step(&mut write, member.id, step).await?,
            None if of_app => false,
            None => {
                let hash = opaque::hash(&totp::typed_recovery_code(typed));
                store.take_recovery_code(&mut write, member.id, &hash).await?
            }
        };
        let who = member.id.to_string();
        if !good {
            let kind = if of_app { "code of the app" } else { "recovery code" };
            let refused = Some(Code::SecondFactorWrong.as_str());
            let what = "second-factor.failed";
            let entry = NewEntry { who: &who, what, detail: kind, refused, ..NewEntry::default() };
            store.audit_entry(&mut write, &entry).await?;
            write.commit().await.map_err(StoreError::from)?;
            return Err(Code::SecondFactorWrong.into());
        }
        store.reset_tries(&mut write, counter).await?;
        if !of_app {
            store.audit(&mut write, &who, "recovery-code.used", "").await?;
        }
        write.commit().await.map_err(StoreError::from)?;
        Ok(())
    }
}

fn offer_of(tenant: &Tenant, member: &MemberRow, secret: &TotpSecret, sealed: String) -> Offer {
    let issuer = format!("Bastide {}", tenant.name);
    Offer { text: secret.text(), uri: secret.uri(&issuer, &member.email), sealed }
}

/// Apps show a code in two groups.
fn without_blanks(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

fn recovery_codes() -> Answer<Vec<Secret>> {
    (0..RECOVERY_CODES).map(|_| Ok(totp::recovery_code()?)).collect()
}

fn hashes(codes: &[Secret]) -> Vec<[u8; 32]> {
    codes.iter().map(|code| opaque::hash(&totp::typed_recovery_code(code.expose()))).collect()
}
