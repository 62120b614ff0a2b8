//! Who asks: from a token or a browser session; and what is said onwards about them.

use crate::{
    context::{Context, Gateway},
    credential::{self, Credential},
    platform_client::Platform,
    refusal::Refusal,
    session, site,
};
use bastide_identity::{Claims, Expect, TokenFault, mint_assertion};
use bastide_proxy::{Request, Response, upgrade};
use bastide_types::{
    Code, CustomerName,
    assertion::{Assertion, ISSUER},
    snapshot::{Customer, Issuer},
};
use std::{future::Future, sync::Arc};

impl Gateway {
    /// Who asks, by the issuer that the route names; nobody when the request brought nothing.
    pub(crate) fn who<'a>(
        &'a self,
        cx: &'a Context,
        customer: &'a CustomerName,
        issuer: &'a Issuer,
        expect: &'a Expect<'a>,
        resource: Option<&'a str>,
        request: &Request,
    ) -> impl Future<Output = Result<Option<Arc<Claims>>, Refusal>> + Send + use<'a> {
        let found = credential::find(request.headers());
        // A WebSocket counts: pages of other sites may open one, with the cookie, and read what it says.
        let upgrade = request.extensions().get::<upgrade::Wanted>().is_some();
        let changes = upgrade || !request.method().is_safe();
        let same_site = session::is_same_site(request.headers(), &cx.origin);
        async move {
            let credential = found?;
            tracing::debug!(name: "gateway.credential", ?credential);
            let who = match credential {
                Credential::None => None,
                Credential::Bearer(token) => Some(self.by_token(cx, &token, issuer, expect)?),
                Credential::Session(_) if changes && !same_site => return Err(Refusal::new(Code::CrossSite)),
                Credential::Session(secret) => {
                    self.by_session(cx, customer, &secret, issuer, expect, resource).await?
                }
            };
            let subject = who.as_ref().map(|who| who.sub.as_str());
            tracing::debug!(name: "gateway.identity", subject);
            cx.receipt.asked_by(subject);
            Ok(who)
        }
    }

    fn by_token(
        &self,
        cx: &Context,
        token: &str,
        issuer: &Issuer,
        expect: &Expect<'_>,
    ) -> Result<Arc<Claims>, Refusal> {
        self.tokens.verify(token, issuer, expect, cx.now_s).map_err(|fault| refused(cx, fault))
    }

    async fn by_session(
        &self,
        cx: &Context,
        customer: &CustomerName,
        secret: &str,
        issuer: &Issuer,
        expect: &Expect<'_>,
        resource: Option<&str>,
    ) -> Result<Option<Arc<Claims>>, Refusal> {
        let domains = &cx.view.snapshot.domains;
        let platform = Platform { pool: &self.pool, balancer: &self.platform, domains };
        let mut first = true;
        loop {
            let tokens = &self.sessions.tokens;
            let Some(token) = tokens.get(&platform, customer, secret, resource, cx.now_s).await? else {
                return Ok(None);
            };
            match self.tokens.verify(&token, issuer, expect, cx.now_s) {
                Ok(claims) => return Ok(Some(claims)),
                // Keys or epoch may have changed since this one was remembered: the Platform has a newer.
                Err(_) if first => {
                    first = false;
                    tokens.forget(customer, secret);
                }
                Err(fault) => return Err(refused(cx, fault)),
            }
        }
    }

    /// Nobody asks, and somebody must: browsers are sent to sign in, programs are told.
    pub(crate) fn sign_in_or_refuse(
        &self,
        cx: &Context,
        customer: &CustomerName,
        resource: Option<&str>,
        request: &Request,
    ) -> Result<Response, Refusal> {
        if !session::is_navigation(request.method(), request.headers()) {
            return Err(Refusal::new(Code::NotSignedIn).with("www-authenticate", "Bearer"));
        }
        let back = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let back = site::as_seen(&cx.view.snapshot, &cx.host, back);
        self.sessions.sign_in(&cx.view.snapshot.domains, customer, &cx.origin, resource, back, cx.now_s)
    }

    /// Our word about who asks, for one audience and one minute.
    pub(crate) fn assertion(
        &self,
        cx: &Context,
        who: &Claims,
        name: &CustomerName,
        customer: &Customer,
        audience: &str,
        stage: Option<&str>,
    ) -> Result<(Assertion, String), Refusal> {
        let assertion = Assertion {
            iss: ISSUER.into(),
            aud: audience.into(),
            sub: who.sub.clone(),
            name: who.name.clone(),
            org: customer.id,
            org_name: name.to_string(),
            stage: stage.map(Into::into),
            roles: who.roles.clone(),
            sid: who.sid.clone(),
            request: cx.from.id,
            iat: cx.now_s,
            exp: cx.now_s + bastide_identity::assertion::ASSERTION_LIFE_S,
        };
        let token =
            mint_assertion(&self.assertion_key, &assertion).map_err(|_| Refusal::new(Code::Internal))?;
        Ok((assertion, token))
    }
}

fn refused(cx: &Context, fault: TokenFault) -> Refusal {
    tracing::debug!(name: "gateway.identity", %fault);
    cx.receipt.token_refused();
    let refusal = Refusal::from(Code::TokenRefused.because(fault.to_string()));
    refusal.with("www-authenticate", "Bearer error=\"invalid_token\"")
}
