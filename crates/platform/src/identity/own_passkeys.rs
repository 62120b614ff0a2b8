//! The page on which members and end users look after their own passkeys.

use super::{
    Fault, Identity,
    account::utc,
    authorize::{SignIn, redirect},
    fault::Answer,
    form::Form,
    issuer::Issuer,
    login::{demand_own_form, form_token, with_sign_in},
    pages,
    passkey::{Purpose, Question, is_fresh},
    second::Onward,
};
use axum::{body::Bytes, extract::State, http::HeaderMap};
use bastide_identity::{
    PasskeyFault,
    passkey::{NewAnswer, Owner},
};
use bastide_store::{PASSKEYS_MAX, StoreError};
use bastide_types::{Code, Problem, Secret};

/// Where the page is, below its issuer.
pub const PATH: &str = "account/passkeys";
/// Longest name of a passkey, in characters.
const NAME_CHARS_MAX: usize = 60;

/// A passkey as the page shows it; moments are UTC, after RFC 3339.
pub struct Line {
    pub id: String,
    pub name: String,
    pub made: String,
    pub used: Option<String>,
}

/// What somebody shows before something changes: a browser that was left open must not be enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: a passkey was shown in the last minutes.
    Fresh,
    /// The password, and a code where an app is set up.
    Password {
        /// Whether there is an app.
        code: bool,
    },
    /// A passkey: it is the only second factor.
    Passkey,
}

/// What the page shows to whoever is signed in.
pub struct Shown {
    pub lines: Vec<Line>,
    pub proof: Proof,
}

/// GET: somebody's own passkeys, or a form to sign in.
pub async fn page(State(identity): State<Identity>, issuer: Issuer, headers: HeaderMap) -> Answer {
    let sign_in = identity.signed_in(&issuer, &headers).await?;
    identity.passkeys_page(&issuer, &headers, sign_in.as_ref(), None).await
}

/// POST: signs in, takes a passkey away (`remove`), asks for a new one (`add`), or takes it (`question`).
pub async fn submit(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let sign_in = match identity.member_of_form(&issuer, &headers, &form, Onward::Passkeys).await {
        Ok(Ok((_, Some(cookies)))) => return Ok(with_sign_in(redirect(&issuer.path(PATH)), &cookies)),
        Ok(Ok((sign_in, None))) => sign_in,
        Ok(Err(page)) => return Ok(page),
        Err(Fault::Refused(problem, retry)) => {
            let page = identity.passkeys_page(&issuer, &headers, None, Some(&problem)).await?;
            return Ok(pages::retry_after(page, retry));
        }
        Err(other) => return Err(other),
    };
    match identity.passkeys_step(&issuer, &headers, &form, &sign_in).await {
        Err(Fault::Refused(problem, retry)) => {
            let page = identity.passkeys_page(&issuer, &headers, Some(&sign_in), Some(&problem)).await?;
            Ok(pages::retry_after(page, retry))
        }
        other => other,
    }
}

impl Identity {
    async fn passkeys_page(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        sign_in: Option<&SignIn>,
        problem: Option<&Problem>,
    ) -> Answer {
        let shown = match sign_in {
            None => None,
            Some(sign_in) => {
                let rows = self.of(&issuer.tenant).passkeys_of(sign_in.member.id).await?;
                let lines = rows.into_iter().map(|row| Line {
                    id: row.id(),
                    name: row.name,
                    made: utc(row.made),
                    used: row.used.map(utc),
                });
                Some(Shown { lines: lines.collect(), proof: self.proof(issuer, sign_in).await? })
            }
        };
        pages::passkeys(issuer, &form_token(headers)?, shown.as_ref(), problem)
    }

    /// What whoever is signed in shows before something changes.
    async fn proof(&self, issuer: &Issuer, sign_in: &SignIn) -> Answer<Proof> {
        let (store, member) = (self.of(&issuer.tenant), sign_in.member.id);
        if is_fresh(&sign_in.used) {
            return Ok(Proof::Fresh);
        }
        let code = store.has_second_factor(member).await?;
        let only = !code && store.count_passkeys(member).await? > 0;
        Ok(if only { Proof::Passkey } else { Proof::Password { code } })
    }

    async fn demand_proof(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        sign_in: &SignIn,
    ) -> Answer<()> {
        let member = &sign_in.member;
        let code = match self.proof(issuer, sign_in).await? {
            Proof::Fresh => return Ok(()),
            Proof::Passkey => return Err(Code::StepUpNeeded.because("Show a passkey first.").into()),
            Proof::Password { code } => code,
        };
        let password = Secret::new(form.get("password").unwrap_or_default());
        let shown = self.check_password(issuer, headers, &member.email, password).await?;
        // At a stage the same address may be another account.
        if shown.id != member.id {
            return Err(Code::LoginFailed.into());
        }
        if code {
            self.take_code(&issuer.tenant, member, form.get("code").unwrap_or_default()).await?;
        }
        Ok(())
    }

    async fn passkeys_step(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        sign_in: &SignIn,
    ) -> Answer {
        if form.get("question").is_some() {
            return self.take_new_passkey(issuer, headers, form, sign_in).await;
        }
        if let Some(id) = form.get("remove") {
            self.demand_proof(issuer, headers, form, sign_in).await?;
            self.remove_own_passkey(issuer, sign_in, id).await?;
        } else if form.get("action") == Some("add") {
            self.demand_proof(issuer, headers, form, sign_in).await?;
            return self.ask_new_passkey(issuer, headers, form, sign_in).await;
        }
        Ok(redirect(&issuer.path(PATH)))
    }

    async fn remove_own_passkey(&self, issuer: &Issuer, sign_in: &SignIn, id: &str) -> Answer<()> {
        let (tenant, store, member) = (&issuer.tenant, self.of(&issuer.tenant), &sign_in.member);
        let last = store.count_passkeys(member.id).await? == 1 && !store.has_second_factor(member.id).await?;
        if last && self.demands_factor(tenant, member).await? {
            return Err(Code::Forbidden.because("Your organization demands a second factor.").into());
        }
        let mut write = self.store().write().await?;
        let name = store.remove_passkey(&mut write, member.id, id).await?.ok_or(Code::ApiUnknown)?;
        store.audit(&mut write, &member.id.to_string(), "passkey.removed", &name).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// The page that asks for a new passkey.
    async fn ask_new_passkey(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        sign_in: &SignIn,
    ) -> Answer {
        let (tenant, member) = (&issuer.tenant, &sign_in.member);
        let have = self.passkeys_of(tenant, member.id).await?;
        // What authenticators show their users, who may have accounts in several stages.
        let email = match member.stage.as_str() {
            "" => member.email.clone(),
            stage => format!("{} ({stage})", member.email),
        };
        let owner = Owner { id: member.id.0, email: &email, name: &member.name };
        let asked = self.relying_party(tenant)?.ask_new(&owner, &have).map_err(Fault::Passkey)?;
        let purpose = Purpose::Registration {
            member: member.id,
            session: sign_in.session.id.clone(),
            name: name_of(form.get("name").unwrap_or_default()),
        };
        let kept = self.keep_question(issuer, headers, &purpose, asked.state).await?;
        let token = form_token(headers)?;
        let question = Question {
            options: &asked.options,
            secret: kept.secret.expose(),
            registers: true,
            problem: None,
        };
        let origin = self.domains().platform_url(&tenant.name);
        let fields = vec![("form_token", token.expose())];
        pages::passkey(issuer, PATH, &origin, &token, fields, &question, "")
    }

    async fn take_new_passkey(
        &self,
        issuer: &Issuer,
        headers: &HeaderMap,
        form: &Form,
        sign_in: &SignIn,
    ) -> Answer {
        let (tenant, store, own) = (&issuer.tenant, self.of(&issuer.tenant), sign_in.member.id);
        let refused = async |why: &str| -> Answer {
            Err(self.passkey_failed(tenant, headers, Some(own), &format!("a new one: {why}")).await?)
        };
        // The proof was for this sign-in: its secret changes with whoever sits there.
        let is_meant = |kept: &Purpose| matches!(kept, Purpose::Registration { member, session, .. } if *member == own && *session == sign_in.session.id);
        let kept = self.kept_question(issuer, headers, form, is_meant).await?;
        let Some((Purpose::Registration { name, .. }, state)) = kept else {
            return refused("its question is over, or was asked elsewhere or for something else").await;
        };
        let part = |name| form.get(name).unwrap_or_default();
        let answer = NewAnswer { client_data: part("client_data"), attestation: part("attestation") };
        let passkey = match self.relying_party(tenant)?.made(&state, &answer) {
            Ok(passkey) => passkey,
            Err(fault @ (PasskeyFault::Kept | PasskeyFault::Setup)) => return Err(Fault::Passkey(fault)),
            Err(fault) => return refused(&fault.to_string()).await,
        };
        let data = passkey.to_bytes().map_err(Fault::Passkey)?;
        let mut write = self.store().write().await?;
        match store.add_passkey(&mut write, own, &passkey.hash(), &name, &data).await {
            Ok(true) => {}
            Ok(false) => {
                let because = format!("{PASSKEYS_MAX} passkeys are the most; take one away first.");
                return Err(Code::InputInvalid.because(because).into());
            }
            Err(StoreError::Taken) => {
                drop(write);
                return refused("somebody has it already").await;
            }
            Err(error) => return Err(error.into()),
        }
        store.audit(&mut write, &own.to_string(), "passkey.added", &name).await?;
        write.commit().await.map_err(StoreError::from)?;
        Ok(redirect(&issuer.path(PATH)))
    }
}

/// What somebody calls a passkey.
fn name_of(typed: &str) -> String {
    let name: String = typed.trim().chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    if name.is_empty() { "Passkey".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_name_is_short_and_there_is_always_one() {
        let check = |typed: &str, expected: &str| assert_eq!(name_of(typed), expected);
        check("  My phone\n", "My phone");
        check(" \u{7}", "Passkey");
        check(&"ü".repeat(100), &"ü".repeat(60));
    }
}
