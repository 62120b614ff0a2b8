//! Invitations: a link, once, for seven days; whoever has it chooses the password. Those of end users are links of their
//! stage's issuer.

use super::{
    Fault, Identity,
    authorize::redirect,
    fault::Answer,
    form::Form,
    guess::Grade,
    issuer::Issuer,
    login::{demand_own_form, form_token, status_of, with_sign_in},
    pages, password,
};
use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use bastide_identity::opaque;
use bastide_store::{Counter, MemberRow, StoreError};
use bastide_types::{Acr, Code, Problem, Secret};

/// What the form shows of what was sent before.
#[derive(Default)]
pub struct Shown<'a> {
    pub problem: Option<&'a Problem>,
    pub grade: Option<Grade>,
}

/// A password that will not do.
pub(super) struct Refused {
    pub problem: Problem,
    grade: Grade,
}

impl Refused {
    /// What its form shows next.
    pub fn shown(&self) -> Shown<'_> {
        Shown { problem: Some(&self.problem), grade: Some(self.grade) }
    }
}

const BREACHED: &str =
    "It is known to whoever guesses: it is in a list of passwords that were stolen elsewhere.";

/// What the path of a link holds; the issuer reads the rest.
#[derive(serde::Deserialize)]
pub struct Link {
    pub token: String,
}

/// GET `…/invite/{token}`.
pub async fn page(
    State(identity): State<Identity>,
    issuer: Issuer,
    Path(Link { token }): Path<Link>,
    headers: HeaderMap,
) -> Answer {
    let member = identity.invited(&issuer, &token).await?;
    let (path, ask) = (format!("invite/{token}"), pages::Choose::invitation(&member));
    pages::choose(&issuer, &path, &form_token(&headers)?, &ask, &Shown::default(), StatusCode::OK)
}

/// POST `…/invite/{token}`.
pub async fn accept(
    State(identity): State<Identity>,
    issuer: Issuer,
    Path(Link { token }): Path<Link>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    let tenant = &issuer.tenant;
    demand_own_form(&identity, tenant, &headers, &form)?;
    let member = identity.invited(&issuer, &token).await?;
    let phc = match identity.chosen(&form).await? {
        Ok(phc) => phc,
        Err(refused) => {
            let (ask, status) = (pages::Choose::invitation(&member), status_of(&refused.problem));
            let path = format!("invite/{token}");
            return pages::choose(&issuer, &path, &form_token(&headers)?, &ask, &refused.shown(), status);
        }
    };
    let demanded = identity.demands_factor(tenant, &member).await?;
    let mut write = identity.store().write().await?;
    let store = identity.of(tenant);
    // Looked at again and used up in one statement: of two that come at once, one wins.
    let accepted = store.accept_invitation(&mut write, &opaque::hash(&token), &phc).await?;
    if accepted.is_none() {
        return Err(Code::LinkExpired.into());
    }
    let counter = Counter::Password { stage: &member.stage, email: &member.email };
    store.reset_tries(&mut write, counter).await?;
    store.audit(&mut write, &member.id.to_string(), "invitation.accepted", "").await?;
    let to = format!("{}/", identity.domains().platform_url(&tenant.name));
    if demanded {
        // The sign-in there sets up the second factor.
        write.commit().await.map_err(StoreError::from)?;
        return Ok(redirect(&to));
    }
    let (_, cookies) = identity.sign_in(&issuer, &mut write, &headers, &member, Acr::Password).await?;
    write.commit().await.map_err(StoreError::from)?;
    let onward = if member.stage.is_empty() {
        redirect(&to)
    } else {
        pages::message(tenant, "Welcome", "Your account is ready. Open the app that you want to use.")?
    };
    Ok(with_sign_in(onward, &cookies))
}

impl Identity {
    /// The hash of the password that a form chooses, or why it will not do.
    pub(super) async fn chosen(&self, form: &Form) -> Answer<Result<String, Refused>> {
        let chosen = form.get("password").unwrap_or_default();
        let again = form.get("password_again").unwrap_or_default();
        let problem = match password::demand_strong(chosen) {
            Err(problem) => Some(problem),
            Ok(()) if self.is_breached(chosen).await? => Some(Code::PasswordWeak.because(BREACHED)),
            Ok(()) if again != chosen => Some(Code::InputInvalid.because("The two passwords differ.")),
            Ok(()) => None,
        };
        if let Some(problem) = problem {
            return Ok(Err(Refused { problem, grade: Grade::of(chosen) }));
        }
        let slot = self.hasher().enter().await?;
        Ok(Ok(self.hasher().hash(slot, Secret::new(chosen)).await?))
    }

    /// Whether the operator's list of breached passwords has this one.
    async fn is_breached(&self, password: &str) -> Answer<bool> {
        let Some(list) = self.breached().cloned() else { return Ok(false) };
        let password = Secret::new(password);
        let look = tokio::task::spawn_blocking(move || list.contains(password.expose()));
        Ok(look.await.map_err(|_| Fault::Hash)??)
    }

    async fn invited(&self, issuer: &Issuer, token: &str) -> Answer<MemberRow> {
        let (expired, store) = (|| Fault::from(Code::LinkExpired), self.of(&issuer.tenant));
        let (id, _) = store.invitation(&opaque::hash(token)).await?.ok_or_else(expired)?;
        let member = store.member(id).await?.filter(|member| member.stage == issuer.stage_text());
        // Whoever was deactivated since then stays so.
        member.filter(|member| member.state == "invited").ok_or_else(expired)
    }
}
