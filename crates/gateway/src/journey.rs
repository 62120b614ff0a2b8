//! The way of one request through the gateway. Read [`Gateway::journey`] downwards.

use crate::{
    credential::{self, Credential},
    hygiene::{self, FromEdge},
    platform_lb::PlatformBalancer,
    refusal::Refusal,
    runtime_lb,
    session::{self, Platform, Sessions},
    site::{self, AppTarget, Target},
    view::View,
};
use bastide_balancer::Rotation;
use bastide_identity::{Claims, Decision, Expect, SigningKey, TokenCache, claims, decide, mint_assertion};
use bastide_proxy::{Body, Pool, RefusedHead, Request, Response, Service, upgrade};
use bastide_types::{
    AccessRule, Code, CustomerName, RequestId, ZoneName,
    assertion::{Assertion, ISSUER, PLATFORM_AUDIENCE},
    header,
    snapshot::{Customer, Issuer},
};
use http::{HeaderValue, Method, StatusCode};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::watch, time::Instant};

/// The stops of a request here, in order, as `docs/life-of-a-request.md` lists them.
pub const STOPS: &[&str] = &[
    "gateway.site",
    "gateway.credential",
    "gateway.identity",
    "gateway.access",
    "gateway.balancer",
    "gateway.answer",
];

/// All that a gateway needs to serve.
pub(crate) struct Gateway {
    pub(crate) zone: ZoneName,
    pub(crate) view: watch::Receiver<Option<Arc<View>>>,
    pub(crate) pool: Pool,
    pub(crate) platform: PlatformBalancer,
    pub(crate) turns: Rotation,
    pub(crate) tokens: TokenCache,
    pub(crate) sessions: Sessions,
    pub(crate) assertion_key: SigningKey,
    pub(crate) deadline: Duration,
    pub(crate) platform_deadline: Duration,
}

/// What the stops know of one request.
struct Context {
    view: Arc<View>,
    from: FromEdge,
    host: String,
    origin: String,
    now_s: u64,
}

impl Gateway {
    /// The way of one request.
    async fn journey(&self, cx: &Context, request: Request) -> Result<Response, Refusal> {
        let path = request.uri().path().to_owned();
        match site::find(&cx.view.snapshot, &cx.host, &path)? {
            Target::AddSlash => add_slash(&request),
            Target::Own { customer_name } => self.own(cx, &customer_name, request).await,
            Target::Platform { customer_name, customer } => {
                self.to_platform(cx, &customer_name, customer, request).await
            }
            Target::App(app) => self.to_app(cx, &app, request).await,
        }
    }

    /// To a platform service.
    async fn to_platform(
        &self,
        cx: &Context,
        name: &CustomerName,
        customer: &Customer,
        mut request: Request,
    ) -> Result<Response, Refusal> {
        let domains = &cx.view.snapshot.domains;
        let open = is_open(request.uri().path());
        let audience = domains.platform_audience(name);
        let org = customer.id.to_string();
        let expect = Expect {
            audience: &audience,
            org: &org,
            stage: claims::PLATFORM_STAGE,
            life_max_s: claims::CLIENT_LIFE_S,
        };
        let who =
            if open { None } else { self.who(cx, name, &customer.issuer, &expect, None, &request).await? };
        tracing::debug!(name: "gateway.access", open, signed_in = who.is_some());
        if !open && who.is_none() {
            return self.sign_in_or_refuse(cx, name, None, &request);
        }
        let assertion =
            who.map(|who| self.assertion(cx, &who, name, customer, PLATFORM_AUDIENCE, None)).transpose()?;
        if !open {
            hygiene::hide_credentials(request.headers_mut());
        }
        hygiene::tell(
            request.headers_mut(),
            &cx.from,
            assertion.as_ref().map(|(a, token)| (a, token.as_str())),
        );
        bastide_proxy::headers::strip_hop_by_hop(request.headers_mut());
        tracing::debug!(name: "gateway.balancer", to = "platform");
        let deadline = Instant::now() + self.left(cx, self.platform_deadline);
        let mut response = self.platform.send(&self.pool, request, deadline).await?;
        bastide_proxy::headers::strip_hop_by_hop(response.headers_mut());
        response.headers_mut().remove(header::CACHEABLE);
        Ok(response)
    }

    /// To a replica of an app.
    async fn to_app(
        &self,
        cx: &Context,
        app: &AppTarget<'_>,
        mut request: Request,
    ) -> Result<Response, Refusal> {
        let domains = &cx.view.snapshot.domains;
        let audience = domains.app_url(&app.customer_name, &app.stage_name, &app.app_name);
        let org = app.customer.id.to_string();
        let expect = Expect {
            audience: &audience,
            org: &org,
            stage: app.stage_name.as_str(),
            life_max_s: claims::CLIENT_LIFE_S,
        };
        let brought = credential::find(request.headers())? != Credential::None;
        let public = *app.rule() == AccessRule::Public;
        let who = match self
            .who(cx, &app.customer_name, app.issuer(), &expect, Some(&audience), &request)
            .await
        {
            // A public part is for everybody, also for those whose session has ended. A bad token is still
            // said to be bad: programs want to know.
            Err(_) if public && matches!(credential::find(request.headers())?, Credential::Session(_)) => {
                None
            }
            other => other?,
        };
        let decision = decide(app.rule(), who.as_deref());
        tracing::debug!(name: "gateway.access", ?decision);
        match decision {
            Decision::Pass => {}
            Decision::SignIn => {
                return self.sign_in_or_refuse(cx, &app.customer_name, Some(&audience), &request);
            }
            Decision::Forbid => return Err(Refusal::new(Code::Forbidden)),
        }
        if request.extensions().get::<upgrade::Wanted>().is_some() {
            return Err(Refusal::from(Code::BadRequest.because("upgrades are not served yet")));
        }
        let assertion = who.as_ref().map(|who| {
            self.assertion(
                cx,
                who,
                &app.customer_name,
                app.customer,
                &audience,
                Some(app.stage_name.as_str()),
            )
        });
        let assertion = assertion.transpose()?;
        self.prepare_for_app(cx, app, &mut request, assertion.as_ref())?;
        tracing::debug!(name: "gateway.balancer", zone = %self.zone);
        let deadline = Instant::now() + self.left(cx, self.deadline);
        let (endpoint, mut response) =
            runtime_lb::send(&self.pool, &cx.view, &self.turns, &app.key(), &self.zone, request, deadline)
                .await?;
        hygiene::clean_answer(response.headers_mut());
        let headers = response.headers_mut();
        hygiene::set(headers, header::REPLICA, &endpoint.replica.to_string());
        hygiene::set(headers, header::ZONE, self.zone.as_str());
        // Fit for everybody: the rule is public, nobody showed a credential, and this revision serves.
        if public && !brought && who.is_none() && endpoint.revision == app.app.revision {
            hygiene::set(headers, header::CACHEABLE, &app.app.revision.to_string());
        }
        Ok(response)
    }

    fn prepare_for_app(
        &self,
        cx: &Context,
        app: &AppTarget<'_>,
        request: &mut Request,
        who: Option<&(Assertion, String)>,
    ) -> Result<(), Refusal> {
        let prefix = format!("/{}", app.app_name);
        let below = match request.uri().query() {
            Some(query) => format!("{}?{query}", app.path),
            None => app.path.clone(),
        };
        *request.uri_mut() = below.parse().map_err(|_| Refusal::new(Code::BadRequest))?;
        let headers = request.headers_mut();
        bastide_proxy::headers::strip_hop_by_hop(headers);
        hygiene::hide_credentials(headers);
        hygiene::tell(headers, &cx.from, who.map(|(assertion, token)| (assertion, token.as_str())));
        hygiene::set(headers, header::PREFIX, &prefix);
        Ok(())
    }

    /// Who asks: from a token or a session; nobody without either.
    async fn who(
        &self,
        cx: &Context,
        customer: &CustomerName,
        issuer: &Issuer,
        expect: &Expect<'_>,
        resource: Option<&str>,
        request: &Request,
    ) -> Result<Option<Arc<Claims>>, Refusal>
    where
        Self: Sync,
    {
        let method = request.method().clone();
        let same_site = session::is_same_site(request.headers(), &cx.origin);
        let credential = credential::find(request.headers())?;
        self.identify(cx, customer, issuer, expect, resource, credential, method, same_site).await
    }

    #[allow(clippy::too_many_arguments)] // one call; a request may not be held across a wait
    async fn identify(
        &self,
        cx: &Context,
        customer: &CustomerName,
        issuer: &Issuer,
        expect: &Expect<'_>,
        resource: Option<&str>,
        credential: Credential,
        method: Method,
        same_site: bool,
    ) -> Result<Option<Arc<Claims>>, Refusal> {
        let token = match credential {
            Credential::None => return Ok(None),
            Credential::Bearer(token) => token,
            Credential::Session(secret) => {
                let domains = &cx.view.snapshot.domains;
                let platform = Platform { pool: &self.pool, balancer: &self.platform, domains };
                let token = self.sessions.token(&platform, customer, &secret, resource, cx.now_s).await?;
                let Some(token) = token else { return Ok(None) };
                if !method.is_safe() && !same_site {
                    return Err(Refusal::new(Code::CrossSite));
                }
                token
            }
        };
        match self.tokens.verify(&token, issuer, expect, cx.now_s) {
            Ok(claims) => {
                tracing::debug!(name: "gateway.identity", subject = claims.sub);
                Ok(Some(claims))
            }
            Err(fault) => {
                tracing::debug!(name: "gateway.identity", %fault);
                let refusal = Refusal::from(Code::TokenRefused.because(fault.to_string()));
                Err(refusal.with("www-authenticate", "Bearer error=\"invalid_token\""))
            }
        }
    }

    fn sign_in_or_refuse(
        &self,
        cx: &Context,
        customer: &CustomerName,
        resource: Option<&str>,
        request: &Request,
    ) -> Result<Response, Refusal> {
        if session::is_navigation(request.method(), request.headers()) {
            let back = request.uri().path_and_query().map_or("/", |path| path.as_str());
            return self.sessions.sign_in(
                &cx.view.snapshot.domains,
                customer,
                &cx.origin,
                resource,
                back,
                cx.now_s,
            );
        }
        Err(Refusal::new(Code::NotSignedIn).with("www-authenticate", "Bearer"))
    }

    /// The gateway's own pages.
    async fn own(
        &self,
        cx: &Context,
        customer: &CustomerName,
        request: Request,
    ) -> Result<Response, Refusal> {
        let (head, _) = request.into_parts();
        let domains = &cx.view.snapshot.domains;
        let platform = Platform { pool: &self.pool, balancer: &self.platform, domains };
        match (head.method, head.uri.path()) {
            (Method::GET, "/.bastide/callback") => {
                let query = head.uri.query().unwrap_or_default();
                self.sessions.callback(&platform, customer, &cx.origin, query, &head.headers, cx.now_s).await
            }
            (Method::POST, "/.bastide/logout") => {
                if !session::is_same_site(&head.headers, &cx.origin) {
                    return Err(Refusal::new(Code::CrossSite));
                }
                let Credential::Session(secret) = credential::find(&head.headers)? else {
                    return self.sessions.sign_out(&platform, customer, None).await;
                };
                self.sessions.sign_out(&platform, customer, Some(&secret)).await
            }
            _ => Err(Refusal::new(Code::SiteUnknown)),
        }
    }

    fn assertion(
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

    /// What is left of the request's time, at most our own limit.
    fn left(&self, cx: &Context, own: Duration) -> Duration {
        cx.from.deadline_ms.map_or(own, |left| own.min(Duration::from_millis(left)))
    }
}

impl Service for Gateway {
    async fn call(&self, mut request: Request) -> Response {
        let from = hygiene::take_from_edge(request.headers_mut());
        let id = from.id;
        let accept = request.headers().get("accept").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let outcome = match self.context(from, &request) {
            Ok(cx) => {
                tracing::debug!(name: "gateway.site", host = cx.host, path = request.uri().path());
                self.journey(&cx, request).await
            }
            Err(refusal) => Err(refusal),
        };
        let mut response = outcome.unwrap_or_else(|refusal| refusal.response(id, accept.as_deref()));
        tracing::debug!(name: "gateway.answer", status = response.status().as_u16());
        hygiene::set(response.headers_mut(), header::REQUEST_ID, &id.to_string());
        response
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        let detail = head.reason.to_string();
        Refusal::from(Code::BadRequest.because(detail)).response(RequestId::generate(), None)
    }
}

impl Gateway {
    fn context(&self, from: FromEdge, request: &Request) -> Result<Context, Refusal> {
        let view = self.view.borrow().clone().ok_or_else(|| Refusal::new(Code::Overloaded))?;
        let authority =
            request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = authority.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let origin = view.snapshot.domains.origin(&host);
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Context { view, from, host, origin, now_s })
    }
}

/// Parts of the Platform that need no signed-in user: the Identity Service checks for itself, and the
/// description of the API and the Portal's style are for everybody.
fn is_open(path: &str) -> bool {
    path == "/api/openapi.json" || path.starts_with("/identity/") || path.starts_with("/portal/assets/")
}

fn add_slash(request: &Request) -> Result<Response, Refusal> {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", request.uri().path()));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response
        .headers_mut()
        .insert(http::header::LOCATION, location.map_err(|_| Refusal::new(Code::BadRequest))?);
    Ok(response)
}
