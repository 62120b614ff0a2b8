//! Invitations: a link, once, for seven days; whoever has it chooses the password.

use super::{
    Fault, Identity,
    authorize::redirect,
    fault::Answer,
    form::Form,
    login::{demand_own_form, form_token, status_of, with_sign_in},
    pages, password,
    tenant::Tenant,
};
use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use bastide_identity::opaque;
use bastide_store::{MemberRow, StoreError};
use bastide_types::{Code, Secret};

/// GET `/identity/invite/{token}`.
pub async fn page(
    State(identity): State<Identity>,
    tenant: Tenant,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let member = identity.invited(&tenant, &token).await?;
    pages::invite(&tenant, &token, &member, &form_token(&headers)?, None, StatusCode::OK)
}

/// POST `/identity/invite/{token}`.
pub async fn accept(
    State(identity): State<Identity>,
    tenant: Tenant,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &tenant, &headers, &form)?;
    let member = identity.invited(&tenant, &token).await?;
    let chosen = form.get("password").unwrap_or_default();
    let again = form.get("password_again").unwrap_or_default();
    let problem = match password::demand_strong(chosen) {
        Err(problem) => Some(problem),
        Ok(()) if again != chosen => Some(Code::InputInvalid.because("The two passwords differ.")),
        Ok(()) => None,
    };
    if let Some(problem) = problem {
        let (form_token, status) = (form_token(&headers)?, status_of(&problem));
        return pages::invite(&tenant, &token, &member, &form_token, Some(&problem), status);
    }
    let slot = identity.hasher().enter().await?;
    let phc = identity.hasher().hash(slot, Secret::new(chosen)).await?;
    let mut write = identity.store().write().await?;
    let store = identity.of(&tenant);
    // Looked at again and used up in one statement: of two that come at once, one wins.
    let accepted = store.accept_invitation(&mut write, &opaque::hash(&token), &phc).await?;
    if accepted.is_none() {
        return Err(Code::LinkExpired.into());
    }
    store.reset_login(&mut write, &member.email).await?;
    store.audit(&mut write, &member.id.to_string(), "invitation.accepted", "").await?;
    let (_, secret) = identity.sign_in(&tenant, &mut write, &headers, &member).await?;
    write.commit().await.map_err(StoreError::from)?;
    let to = format!("{}/", identity.domains().platform_url(&tenant.name));
    Ok(with_sign_in(redirect(&to), &secret))
}

impl Identity {
    async fn invited(&self, tenant: &Tenant, token: &str) -> Answer<MemberRow> {
        let expired = || Fault::from(Code::LinkExpired);
        let id = self.of(tenant).invitation(&opaque::hash(token)).await?.ok_or_else(expired)?;
        // Whoever was deactivated since then stays so.
        let member = self.of(tenant).member(id).await?;
        member.filter(|member| member.state == "invited").ok_or_else(expired)
    }
}
