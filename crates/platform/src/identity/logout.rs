//! Signing out: by the page that asks, or for a client (OpenID Connect RP-Initiated Logout).

use super::{
    Fault, Identity,
    authorize::{redirect, with_query},
    fault::Answer,
    form::Form,
    issuer::Issuer,
    login::{demand_own_form, form_token, sign_in_secret, without_sign_in},
    pages,
};
use axum::{
    body::Bytes,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use bastide_identity::{IdClaims, opaque};
use bastide_store::{SessionRow, StoreError};
use bastide_types::Code;

/// A sign-in of this browser.
struct Here {
    /// The stage whose end user it is; empty for a member.
    stage: String,
    hash: [u8; 32],
    session: SessionRow,
}

/// What a client asks for.
pub struct Wish {
    hint: Option<IdClaims>,
    /// Where to go afterwards, checked against the client's registration.
    pub back: Option<String>,
    /// Fields that the page that asks sends back.
    pub fields: Vec<(&'static str, String)>,
}

/// GET `…/logout`: asks, because a link of another site must not sign anybody out. A client that shows the ID
/// token of this very sign-in need not be asked about.
pub async fn page(
    State(identity): State<Identity>,
    issuer: Issuer,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let form = Form::read(query.unwrap_or_default().as_bytes())?;
    identity.sign_out_wish(&issuer, &headers, &form).await
}

/// POST `…/logout`: the answer of that page, or a client's form.
pub async fn submit(
    State(identity): State<Identity>,
    issuer: Issuer,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let form = Form::read(&body)?;
    if form.get("form_token").is_none() {
        return identity.sign_out_wish(&issuer, &headers, &form).await;
    }
    demand_own_form(&identity, &issuer.tenant, &headers, &form)?;
    let wish = identity.wish(&issuer, &form).await?;
    let here = identity.here(&issuer, &headers).await?;
    identity.sign_out(&issuer, here.as_ref(), &wish).await
}

impl Identity {
    async fn sign_out_wish(&self, issuer: &Issuer, headers: &HeaderMap, form: &Form) -> Answer {
        let wish = self.wish(issuer, form).await?;
        let here = self.here(issuer, headers).await?;
        let same = match (&wish.hint, &here) {
            (Some(hint), Some(here)) => hint.sub == here.session.member.to_string(),
            // Nobody is signed in with this browser: nobody can be annoyed.
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !same {
            return pages::logout(issuer, &form_token(headers)?, &wish);
        }
        self.sign_out(issuer, here.as_ref(), &wish).await
    }

    /// The sign-in that counts here with this browser: the end user's before the member's.
    async fn here(&self, issuer: &Issuer, headers: &HeaderMap) -> Answer<Option<Here>> {
        for stage in issuer.pools() {
            let Some(secret) = sign_in_secret(headers, stage) else { continue };
            let hash = opaque::hash(secret);
            if let Some(session) = self.of(&issuer.tenant).session("provider", &hash).await? {
                return Ok(Some(Here { stage: stage.to_owned(), hash, session }));
            }
        }
        Ok(None)
    }

    async fn sign_out(&self, issuer: &Issuer, here: Option<&Here>, wish: &Wish) -> Answer {
        if let Some(here) = here {
            self.end(&issuer.tenant, &here.hash).await?;
        }
        self.end_hinted(issuer, wish).await?;
        let mut response: Response = match &wish.back {
            Some(back) => redirect(back),
            None => pages::message(&issuer.tenant, "Sign out", "You are signed out.")?,
        };
        without_sign_in(&mut response, here.map_or(issuer.stage_text(), |here| &here.stage));
        Ok(response)
    }

    /// Reads what a client asks for.
    ///
    /// # Errors
    /// When hint, client and redirect do not belong together: then nobody is signed out or sent anywhere.
    async fn wish(&self, issuer: &Issuer, form: &Form) -> Answer<Wish> {
        let invalid = |because: &str| Fault::from(Code::OAuthInvalid.because(because));
        let hint = match form.get("id_token_hint") {
            Some(text) => {
                let read = self.hinted(issuer, text).await?;
                Some(read.ok_or_else(|| invalid("`id_token_hint` is no ID token of this issuer."))?)
            }
            None => None,
        };
        let named = form.get("client_id");
        if hint.as_ref().is_some_and(|hint| named.is_some_and(|id| id != hint.aud)) {
            return Err(invalid("`client_id` is not the client of `id_token_hint`."));
        }
        let client = named.or(hint.as_ref().map(|hint| hint.aud.as_str()));
        let back = match form.get("post_logout_redirect_uri") {
            Some(uri) => Some(self.way_back(issuer, client, uri, form.get("state")).await?),
            None => None,
        };
        let names = ["id_token_hint", "client_id", "post_logout_redirect_uri", "state"];
        let fields = names.into_iter().filter_map(|name| Some((name, form.get(name)?.to_owned()))).collect();
        Ok(Wish { hint, back, fields })
    }

    async fn way_back(
        &self,
        issuer: &Issuer,
        client: Option<&str>,
        uri: &str,
        state: Option<&str>,
    ) -> Answer<String> {
        let found = match client {
            Some(id) => self.of(&issuer.tenant).client_with_id(id).await?,
            None => None,
        };
        if !found.is_some_and(|client| client.post_logout_redirect_uris.iter().any(|known| known == uri)) {
            let because = "`post_logout_redirect_uri` does not belong to this client.";
            return Err(Code::OAuthInvalid.because(because).into());
        }
        Ok(match state {
            Some(state) => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                with_query(uri, &query.append_pair("state", state).finish())
            }
            None => uri.to_owned(),
        })
    }

    /// Ends the session that the ID token was made for, with its sign-in.
    async fn end_hinted(&self, issuer: &Issuer, wish: &Wish) -> Answer<()> {
        let Some(hint) = &wish.hint else { return Ok(()) };
        let mut write = self.store().write().await?;
        let store = self.of(&issuer.tenant);
        if let Some(member) = store.end_sign_in_of(&mut write, &hint.sid).await? {
            store.audit(&mut write, &member.to_string(), "logout", &hint.aud).await?;
        }
        write.commit().await.map_err(StoreError::from)?;
        Ok(())
    }
}
