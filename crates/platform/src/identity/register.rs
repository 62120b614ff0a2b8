//! Self-registration: whoever has an address makes an account at a stage, where its administrators allow it.
//!
//! The form says the same for every address; the letter says the rest to whoever reads mail there.

use super::{
    Fault, Identity,
    fault::Answer,
    form::Form,
    invite::{Link, Shown},
    issuer::Issuer,
    letters::{self, LINK_LIFE_S},
    login::{demand_own_form, form_token, status_of, with_sign_in},
    members::display_name,
    pages,
    reset::ON_ITS_WAY,
};
use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use bastide_identity::opaque::{self, Opaque};
use bastide_store::{Counter, LinkRow, MemberRow, StoreError, now_s};
use bastide_types::{Acr, Code, StageName};

/// GET `…/register`: the form that asks for an address.
pub async fn page(State(identity): State<Identity>, issuer: Issuer, headers: HeaderMap) -> Answer {
    identity.demand_open(&issuer).await?;
    pages::address(&issuer, &form_token(&headers)?, &pages::Ask::registration(), None)
}

/// POST `…/register`: sends a letter, whatever the address has already.
pub async fn submit(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let stage = identity.demand_open(&issuer).await?;
    let email = match identity.letter_for(&issuer, &headers, &form).await {
        Ok(email) => email,
        Err(Fault::Refused(problem, retry)) => {
            let ask = pages::Ask::registration();
            let page = pages::address(&issuer, &form_token(&headers)?, &ask, Some(&problem))?;
            return Ok(pages::retry_after(page, retry));
        }
        Err(other) => return Err(other),
    };
    let (store, name) = (identity.of(&issuer.tenant), &issuer.tenant.name);
    let known = store.user_with_email(stage.as_str(), &email).await?.filter(|user| user.state != "invited");
    let mut write = identity.store().write().await?;
    store.audit(&mut write, "anonymous", "registration.asked", stage.as_str()).await?;
    let letter = match &known {
        None => {
            let token = Opaque::generate()?;
            let until = now_s() + LINK_LIFE_S;
            let link =
                LinkRow { member: None, stage: stage.to_string(), email: email.clone(), mailed: true, until };
            store.add_link(&mut write, &token.hash, &link).await?;
            let link = format!("{}/register/{}", issuer.url, token.secret.expose());
            Some(letters::registration(&email, name, &stage, &link))
        }
        Some(user) if user.state == "active" => Some(letters::known(&email, name, &stage)),
        // Whoever was suspended hears nothing.
        Some(_) => None,
    };
    if let Some(letter) = letter {
        store.post(&mut write, &letter, now_s() + LINK_LIFE_S).await?;
    }
    write.commit().await.map_err(StoreError::from)?;
    pages::message(&issuer.tenant, "A new account", ON_ITS_WAY)
}

/// GET `…/register/{token}`.
pub async fn choose(
    State(identity): State<Identity>,
    issuer: Issuer,
    Path(Link { token }): Path<Link>,
    headers: HeaderMap,
) -> Answer {
    let link = identity.registers(&issuer, &token).await?;
    let (path, ask) = (format!("register/{token}"), pages::Choose::registration(&link.email));
    pages::choose(&issuer, &path, &form_token(&headers)?, &ask, &Shown::default(), StatusCode::OK)
}

/// POST `…/register/{token}`: name and password; the account is made and signed in.
pub async fn accept(
    State(identity): State<Identity>,
    issuer: Issuer,
    Path(Link { token }): Path<Link>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let link = identity.registers(&issuer, &token).await?;
    let phc = match identity.chosen(&form).await? {
        Ok(phc) => phc,
        Err(refused) => {
            let (ask, status) = (pages::Choose::registration(&link.email), status_of(&refused.problem));
            let path = format!("register/{token}");
            return pages::choose(&issuer, &path, &form_token(&headers)?, &ask, &refused.shown(), status);
        }
    };
    let name = display_name(form.get("name").map(str::to_owned), &link.email);
    let user = MemberRow {
        password: Some(phc),
        state: "active".into(),
        verified: true,
        ..MemberRow::invited(&link.stage, &link.email, &name, Vec::new())
    };
    let store = identity.of(&issuer.tenant);
    let mut write = identity.store().write().await?;
    if store.take_link(&mut write, &opaque::hash(&token)).await?.is_none() {
        return Err(Code::LinkExpired.into());
    }
    // Of two links for one address, the first makes the account.
    let id = store.register(&mut write, &user).await?.ok_or(Code::LinkExpired)?;
    let user = MemberRow { id, ..user };
    store.reset_tries(&mut write, Counter::Letter { stage: &user.stage, email: &user.email }).await?;
    store.audit(&mut write, &id.to_string(), "user.registered", &user.stage).await?;
    let (_, cookies) = identity.sign_in(&issuer, &mut write, &headers, &user, Acr::Password).await?;
    write.commit().await.map_err(StoreError::from)?;
    let done = "Your account is ready. Open the app that you want to use.";
    Ok(with_sign_in(pages::message(&issuer.tenant, "Welcome", done)?, &cookies))
}

impl Identity {
    /// The stage, if everybody may make an account there.
    async fn demand_open(&self, issuer: &Issuer) -> Answer<StageName> {
        match &issuer.stage {
            Some(stage) if self.is_open(issuer).await? => Ok(stage.clone()),
            _ => Err(Code::ApiUnknown.into()),
        }
    }

    /// Whether everybody may make an account at this issuer.
    pub(super) async fn is_open(&self, issuer: &Issuer) -> Answer<bool> {
        match &issuer.stage {
            Some(stage) if self.has_mail() => Ok(self.of(&issuer.tenant).is_open(stage).await?),
            _ => Ok(false),
        }
    }

    async fn registers(&self, issuer: &Issuer, token: &str) -> Answer<LinkRow> {
        self.demand_open(issuer).await?;
        let link = self.of(&issuer.tenant).link(&opaque::hash(token)).await?;
        let link = link.filter(|link| link.member.is_none() && link.stage == issuer.stage_text());
        link.ok_or_else(|| Code::LinkExpired.into())
    }
}
