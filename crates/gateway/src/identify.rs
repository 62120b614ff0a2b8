//! Who asks: from a token or a browser session; and what is said onwards about them.

use crate::{
    context::{Context, Gateway},
    credential::{self, Credential},
    platform_client::Platform,
    refusal::Refusal,
    session::{self, SignIn},
    session_tokens::{Wanted, hash_of},
    site,
};
use bastide_identity::{Claims, Expect, TokenFault, mint_assertion, opaque};
use bastide_proxy::{Request, Response, upgrade};
use bastide_types::{
    Code, CustomerName, StepUp,
    assertion::{Assertion, ISSUER},
    snapshot::{Customer, Issuer},
};
use std::{future::Future, ops::Deref, sync::Arc};

/// Who asks.
pub(crate) struct Who {
    pub(crate) claims: Arc<Claims>,
    /// Seconds since 1970 at which the browser's session ends at the latest; programs with a token have none.
    pub(crate) until_s: Option<u64>,
}

impl Deref for Who {
    type Target = Claims;

    fn deref(&self) -> &Claims {
        &self.claims
    }
}

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
    ) -> impl Future<Output = Result<Option<Who>, Refusal>> + Send + use<'a> {
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
                Credential::Bearer(token) => {
                    Some(Who { claims: self.by_token(cx, &token, issuer, expect).await?, until_s: None })
                }
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

    async fn by_token(
        &self,
        cx: &Context,
        token: &str,
        issuer: &Issuer,
        expect: &Expect<'_>,
    ) -> Result<Arc<Claims>, Refusal> {
        let claims = self.checked(token, issuer, expect, cx.now_s).map_err(|fault| refused(cx, fault))?;
        self.liveness.demand_first_word(&claims).await?;
        Ok(claims)
    }

    /// The claims of a token that is good and was not revoked.
    fn checked(
        &self,
        token: &str,
        issuer: &Issuer,
        expect: &Expect<'_>,
        now_s: u64,
    ) -> Result<Arc<Claims>, TokenFault> {
        let claims = self.tokens.verify(token, issuer, expect, now_s)?;
        self.liveness.check(&claims)?;
        Ok(claims)
    }

    async fn by_session(
        &self,
        cx: &Context,
        customer: &CustomerName,
        secret: &str,
        issuer: &Issuer,
        expect: &Expect<'_>,
        resource: Option<&str>,
    ) -> Result<Option<Who>, Refusal> {
        let domains = &cx.view.snapshot.domains;
        let platform = Platform { pool: &self.pool, balancer: &self.platform, domains };
        if !opaque::has_form(secret) {
            return Ok(None);
        }
        let hash = &hash_of(secret);
        let wanted = Wanted { customer, hash, resource, renew: true };
        let tokens = &self.sessions.tokens;
        let mut first = true;
        loop {
            let Some(token) = tokens.get(&platform, &self.liveness, wanted, cx.now_s).await? else {
                return Ok(None);
            };
            if let Some(renewed) = token.renewed {
                cx.renew(renewed);
            }
            match self.checked(&token.text, issuer, expect, token.as_of_s) {
                Ok(claims) => return Ok(Some(Who { claims, until_s: Some(token.until_s) })),
                // It was revoked, or keys have changed, since this one was remembered: the Platform may have a newer.
                Err(_) if first => {
                    first = false;
                    tokens.forget(customer, hash);
                }
                Err(fault) => return Err(refused(cx, fault)),
            }
        }
    }

    /// Nobody asks, and somebody must: browsers are sent to sign in, programs are told.
    pub(crate) fn sign_in_or_refuse(
        &self,
        cx: &Context,
        issuer: &Issuer,
        resource: Option<&str>,
        request: &Request,
    ) -> Result<Response, Refusal> {
        if !session::is_navigation(request.method(), request.headers()) {
            return Err(Refusal::new(Code::NotSignedIn).with("www-authenticate", "Bearer"));
        }
        let back = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let back = site::as_seen(&cx.view.snapshot, &cx.host, back);
        let way = SignIn { issuer: &issuer.url, origin: &cx.origin, resource, back, step_up: None };
        self.sessions.sign_in(&way, cx.now_s)
    }

    /// Somebody asks, but did not sign in well or lately enough: browsers are sent to do so, programs are told
    /// (RFC 9470). What comes of it is a new session with a secret of its own.
    pub(crate) fn step_up(
        &self,
        cx: &Context,
        issuer: &Issuer,
        resource: &str,
        step_up: StepUp,
        request: &Request,
    ) -> Result<Response, Refusal> {
        if !session::is_navigation(request.method(), request.headers()) {
            let refusal = Refusal::from(Code::StepUpNeeded.because(step_up.says()));
            return Err(refusal.saying("www-authenticate", &step_up.challenge()));
        }
        let back = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let back = site::as_seen(&cx.view.snapshot, &cx.host, back);
        let (resource, step_up) = (Some(resource), Some(step_up));
        let way = SignIn { issuer: &issuer.url, origin: &cx.origin, resource, back, step_up };
        self.sessions.sign_in(&way, cx.now_s)
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
            acr: who.acr,
            auth_time: who.auth_time,
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
