//! Break-glass: when no administrator of a customer can sign in, the operator of the machine makes one sign-in.
//!
//! Whoever may read the database and its key may do anything already; this way leaves its traces: in the audit trails of
//! the customer and of the operator organization, when it is made and when it is used.

use super::{
    Fault, Identity,
    authorize::redirect,
    fault::Answer,
    form::Form,
    login::{demand_own_form, form_token, with_sign_in},
    pages,
    tenant::Tenant,
};
use axum::{
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
};
use bastide_identity::{
    KeyError,
    opaque::{self, Opaque},
};
use bastide_store::{Look, MemberRow, Store, StoreError, Write, now_s};
use bastide_types::{Acr, Code, CustomerName, Domains, Secret};

/// How long the link counts, in seconds.
pub const LIFE_S: i64 = 15 * 60;
/// Who may be signed in by it.
const ROLES: [&str; 2] = ["administrator", "operator"];

/// Why no sign-in was made.
#[derive(Debug, thiserror::Error)]
pub enum BreakGlassFault {
    /// There is no such customer.
    #[error("there is no customer of this name")]
    Customer,
    /// Nobody fits.
    #[error("no active administrator {0}")]
    Member(String),
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Randomness.
    #[error("a secret could not be made")]
    Key(#[from] KeyError),
}

/// A sign-in that was made.
pub struct BreakGlass {
    /// The link: it counts once and for [`LIFE_S`].
    pub link: Secret,
    /// Whom it signs in.
    pub email: String,
}

/// Makes a one-time sign-in for an active administrator of a customer: for this one, or for the first there is. `by`
/// says who asked, for the audit trails.
///
/// # Errors
/// [`BreakGlassFault`].
pub async fn break_glass(
    store: &Store,
    domains: &Domains,
    customer: &CustomerName,
    email: Option<&str>,
    by: &str,
) -> Result<BreakGlass, BreakGlassFault> {
    let row = store.customer_named(customer).await?.ok_or(BreakGlassFault::Customer)?;
    let own = store.customer(row.id);
    let wanted = email.map(|email| email.trim().to_lowercase());
    let member = own
        .members()
        .await?
        .into_iter()
        .find(|member| fits(member) && wanted.as_ref().is_none_or(|wanted| *wanted == member.email));
    let member = member.ok_or_else(|| {
        BreakGlassFault::Member(
            wanted.map_or("is a member".into(), |email| format!("has the address {email}")),
        )
    })?;
    let token = Opaque::generate()?;
    let mut write = store.write().await?;
    own.add_break_glass(&mut write, &token.hash, member.id, now_s() + LIFE_S).await?;
    note(
        store,
        &mut write,
        &Tenant { id: row.id, name: row.name, look: Look::default() },
        by,
        "break-glass.made",
        &member,
    )
    .await?;
    write.commit().await.map_err(StoreError::from)?;
    let issuer = domains.member_issuer(customer);
    let link = Secret::new(format!("{issuer}/break-glass/{}", token.secret.expose()));
    Ok(BreakGlass { link, email: member.email })
}

/// GET `/identity/break-glass/{token}`: a question, so that whatever looks at links uses nothing up.
pub async fn page(
    State(identity): State<Identity>,
    tenant: Tenant,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let member = identity.in_need(&tenant, &token).await?;
    pages::break_glass(&tenant, &token, &member, &form_token(&headers)?)
}

/// POST: signs in, once, without password and code.
pub async fn submit(
    State(identity): State<Identity>,
    tenant: Tenant,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    demand_own_form(&identity, &tenant, &headers, &Form::read(&body)?)?;
    let member = identity.in_need(&tenant, &token).await?;
    let mut write = identity.store().write().await?;
    // Of two that come at once, one wins.
    if !identity.of(&tenant).take_break_glass(&mut write, &opaque::hash(&token)).await? {
        return Err(expired());
    }
    let who = member.id.to_string();
    note(identity.store(), &mut write, &tenant, &who, "break-glass.used", &member).await?;
    let (_, cookies) = identity
        .sign_in(&identity.issuer_of(&tenant, None), &mut write, &headers, &member, Acr::Password)
        .await?;
    write.commit().await.map_err(StoreError::from)?;
    tracing::error!(customer = %tenant.name, member = who, "somebody signed in by break-glass");
    let to = format!("{}/", identity.domains().platform_url(&tenant.name));
    Ok(with_sign_in(redirect(&to), &cookies))
}

impl Identity {
    async fn in_need(&self, tenant: &Tenant, token: &str) -> Answer<MemberRow> {
        let id = self.of(tenant).break_glass(&opaque::hash(token)).await?.ok_or_else(expired)?;
        let member = self.of(tenant).member(id).await?;
        // Whoever was suspended or lost the role since then stays so.
        member.filter(fits).ok_or_else(expired)
    }
}

fn fits(member: &MemberRow) -> bool {
    member.state == "active" && member.roles.iter().any(|role| ROLES.contains(&role.as_str()))
}

fn expired() -> Fault {
    Code::LinkExpired.because("It works once and for 15 minutes; the operator makes a new one.").into()
}

/// In the customer's trail, and in the operator organization's.
async fn note(
    store: &Store,
    write: &mut Write,
    tenant: &Tenant,
    who: &str,
    what: &str,
    member: &MemberRow,
) -> Result<(), StoreError> {
    store.customer(tenant.id).audit(write, who, what, &member.email).await?;
    if !tenant.name.is_operator()
        && let Some(office) = store.customer_named(&CustomerName::operator()).await?
    {
        let detail = format!("{}: {}", tenant.name, member.email);
        store.customer(office.id).audit(write, who, what, &detail).await?;
    }
    Ok(())
}
