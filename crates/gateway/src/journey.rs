//! The way of one request through the gateway. Read [`Gateway::journey`] downwards.

use crate::{
    context::{Context, Gateway},
    credential::{self, Credential},
    cut::cut,
    hygiene,
    identify::Who,
    path::CanonicalPath,
    platform_client::Platform,
    reach::Reach,
    refusal::Refusal,
    session::{self, SignIn},
    site::{self, AppTarget, Target},
};
use bastide_identity::{Claims, Decision, Expect, claims, decide};
use bastide_proxy::{Body, Request, Response, upgrade};
use bastide_types::{
    API, AccessRule, Acr, Code, CustomerName, StepUp, assertion::PLATFORM_AUDIENCE, header,
    snapshot::Customer,
};
use http::{HeaderValue, Method, StatusCode};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The stops of a request here, in order, as `docs/life-of-a-request.md` lists them and as tracing names them.
pub const STOPS: &[&str] = &[
    "gateway.site",
    "gateway.credential",
    "gateway.identity",
    "gateway.access",
    "gateway.balancer",
    "gateway.replica",
    "gateway.answer",
];

/// An answer that takes no longer than this is not cut.
const SHORT: Duration = Duration::from_secs(1);

impl Gateway {
    /// The way of one request. Whoever sends it is an edge: nobody else gets through the handshake.
    pub(crate) async fn journey(&self, cx: &Context, mut request: Request) -> Result<Response, Refusal> {
        let path = one_spelling(&mut request)?; // 400 what can be read in two ways
        let target = site::find(&cx.view.snapshot, &cx.host, &path)?; // 404 no such site or app
        cx.receipt.at(&target);
        tracing::debug!(name: "gateway.site", host = cx.host);
        match target {
            Target::AddSlash => add_slash(&request), // 308
            Target::Own { customer_name, issuer } => self.own(cx, &customer_name, &issuer, request).await,
            Target::Platform { customer_name, customer } => {
                self.to_platform(cx, &path, &customer_name, customer, request).await
            }
            Target::App(app) => self.to_app(cx, &app, request).await,
        }
    }

    /// To a platform service.
    async fn to_platform(
        &self,
        cx: &Context,
        path: &CanonicalPath,
        name: &CustomerName,
        customer: &Customer,
        mut request: Request,
    ) -> Result<Response, Refusal> {
        let open = Open::of(path);
        let audience = cx.view.snapshot.domains.platform_audience(name);
        let org = customer.id.to_string();
        let expect = Expect {
            audience: &audience,
            org: &org,
            stage: claims::PLATFORM_STAGE,
            life_max_s: claims::CLIENT_LIFE_S,
        };
        if open == Open::No {
            self.liveness.demand_word(cx.now_s).await?; // 503
        }
        let who = match open {
            Open::No => self.who(cx, name, &customer.issuer, &expect, None, &request).await?, // 401, 403
            Open::Identity | Open::Everybody => None,
        };
        let rule = if open == Open::No { AccessRule::Authenticated } else { AccessRule::Public };
        let decision = decide(&rule, who.as_deref());
        tracing::debug!(name: "gateway.access", ?decision);
        cx.receipt.decided(decision);
        match decision {
            Decision::Pass => {}
            Decision::SignIn => return self.sign_in_or_refuse(cx, &customer.issuer, None, &request), // 302, 401
            Decision::Forbid => return Err(Refusal::new(Code::Forbidden)),
        }
        refuse_upgrade(&request, false)?; // 501
        let assertion = who
            .as_ref()
            .map(|who| self.assertion(cx, who, name, customer, PLATFORM_AUDIENCE, None))
            .transpose()?;
        let headers = request.headers_mut();
        bastide_proxy::headers::strip_hop_by_hop(headers);
        match open {
            // Clients of the Identity Service show it their secrets, and its pages have their own cookies.
            Open::Identity => hygiene::hide_session(headers),
            Open::No | Open::Everybody => hygiene::hide_credentials(headers),
        }
        hygiene::tell(headers, &cx.from, assertion.as_ref().map(|(a, token)| (a, token.as_str())));
        tracing::debug!(name: "gateway.balancer", to = "platform");
        let deadline = Instant::now() + left(cx, self.platform_deadline);
        let mut response = self.platform.send(&self.pool, request, deadline).await?; // 503, 504
        tracing::debug!(name: "gateway.replica", status = response.status().as_u16());
        let headers = response.headers_mut();
        bastide_proxy::headers::strip_hop_by_hop(headers);
        for ours in [header::CACHEABLE, header::REFUSAL, header::REPLICA, header::ZONE, header::ASSERTION] {
            headers.remove(ours);
        }
        Ok(self.while_it_counts(cx.now_s, who, response))
    }

    /// To a replica of an app.
    async fn to_app(
        &self,
        cx: &Context,
        app: &AppTarget<'_>,
        mut request: Request,
    ) -> Result<Response, Refusal> {
        let audience = cx.view.snapshot.domains.app_url(&app.customer_name, &app.stage_name, &app.app_name);
        let org = app.customer.id.to_string();
        let stage = app.stage_name.as_str();
        let expect = Expect { audience: &audience, org: &org, stage, life_max_s: claims::CLIENT_LIFE_S };
        let routes = app.routes();
        let public = routes.iter().all(|route| route.access == AccessRule::Public);
        let demanded: Vec<StepUp> = routes.iter().filter_map(|route| route.step_up()).collect();
        if !demanded.is_empty() {
            self.liveness.demand_word(cx.now_s).await?; // 503
        }
        let brought = credential::any(request.headers());
        let by_session = matches!(credential::find(request.headers()), Ok(Credential::Session(_)));
        let asked = self.who(cx, &app.customer_name, app.issuer(), &expect, Some(&audience), &request).await;
        let who = match asked {
            // A public part is for everybody, also for those whose session cannot be used now. A bad token
            // is still said to be bad: programs want to know.
            Err(_) if public && by_session => None,
            other => other?, // 401, 403
        };
        let decision = routes
            .map(|route| decide(&route.access, who.as_deref()))
            .into_iter()
            .find(|d| *d != Decision::Pass);
        let decision = decision.unwrap_or(Decision::Pass);
        tracing::debug!(name: "gateway.access", ?decision);
        cx.receipt.decided(decision);
        match decision {
            Decision::Pass => {}
            Decision::SignIn => {
                return self.sign_in_or_refuse(cx, app.issuer(), Some(&audience), &request); // 302, 401
            }
            Decision::Forbid => return Err(Refusal::new(Code::Forbidden)),
        }
        if let Some(step_up) = lacking(&demanded, who.as_deref(), cx.now_s) {
            return self.step_up(cx, app.issuer(), &audience, step_up, &request); // 302, 401
        }
        refuse_upgrade(&request, true)?; // 501
        let assertion = who
            .as_ref()
            .map(|who| self.assertion(cx, who, &app.customer_name, app.customer, &audience, Some(stage)))
            .transpose()?;
        below_the_app(app, &mut request)?;
        let headers = request.headers_mut();
        bastide_proxy::headers::strip_hop_by_hop(headers);
        hygiene::hide_credentials(headers);
        hygiene::tell(headers, &cx.from, assertion.as_ref().map(|(a, token)| (a, token.as_str())));
        if !app.is_root {
            hygiene::set(headers, header::PREFIX, &format!("/{}", app.app_name));
        }
        tracing::debug!(name: "gateway.balancer", zone = %self.zone);
        let deadline = Instant::now() + left(cx, self.deadline);
        let (endpoint, mut response) =
            self.runtime.send(&self.pool, &cx.view, app, request, deadline).await?; // 502, 503, 504
        tracing::debug!(name: "gateway.replica", replica = %endpoint.replica, status = response.status().as_u16());
        // The zone of the replica: not ours when ours had none.
        let zone = app.app.replicas.get(&endpoint.replica).unwrap_or(&self.zone);
        cx.receipt.answered_by(&endpoint.replica, zone);
        let status = response.status();
        let headers = response.headers_mut();
        let (domains, app_name, path) = (&cx.view.snapshot.domains, &app.app_name, &app.path.spelled);
        hygiene::clean_answer(headers, &Reach { domains, app: app_name, path, is_root: app.is_root });
        hygiene::set(headers, header::REPLICA, &endpoint.replica.to_string());
        hygiene::set(headers, header::ZONE, zone.as_str());
        // Fit for everybody: the rule is public, nobody showed a credential, and this revision serves.
        let plain = status != StatusCode::SWITCHING_PROTOCOLS;
        if plain && public && !brought && who.is_none() && endpoint.revision == app.app.revision {
            hygiene::set(headers, header::CACHEABLE, &app.app.revision.to_string());
        }
        Ok(self.while_it_counts(cx.now_s, who, response))
    }

    /// A long answer to somebody breaks off when their token is revoked or their session has lasted as long as it may.
    /// A short one that is on its way is not turned into an error.
    fn while_it_counts(&self, now_s: u64, who: Option<Who>, response: Response) -> Response {
        let Some(who) = who else { return response };
        let (liveness, is_long) = (self.liveness.clone(), Instant::now() + SHORT);
        let over =
            who.until_s.map(|until_s| Instant::now() + Duration::from_secs(until_s.saturating_sub(now_s)));
        let end = async move {
            tokio::select! {
                () = liveness.until_revoked(who.claims) => {}
                () = sleep_until(over.unwrap_or(is_long)), if over.is_some() => {}
            }
            sleep_until(is_long).await;
        };
        cut(response, end)
    }

    /// The gateway's own pages.
    async fn own(
        &self,
        cx: &Context,
        customer: &CustomerName,
        issuer: &str,
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
            // Nothing happens but a sign-in, so that any page may lead here.
            (Method::GET, "/.bastide/step-up") => {
                let query = head.uri.query().unwrap_or_default();
                let value = |name: &str| {
                    url::form_urlencoded::parse(query.as_bytes())
                        .find(|(key, _)| key == name)
                        .map(|(_, v)| v.into_owned())
                };
                let acr = value("acr").and_then(|acr| acr.parse().ok()).unwrap_or(Acr::Mfa);
                let max_age_s = value("max_age").and_then(|text| text.parse().ok());
                let back = value("to").unwrap_or_else(|| "/".to_owned());
                let step_up = Some(StepUp { acr, max_age_s });
                let way = SignIn { issuer, origin: &cx.origin, resource: None, back: &back, step_up };
                self.sessions.sign_in(&way, cx.now_s)
            }
            (Method::POST, "/.bastide/logout") => {
                if !session::is_same_site(&head.headers, &cx.origin) {
                    return Err(Refusal::new(Code::CrossSite));
                }
                let secret = match credential::find(&head.headers)? {
                    Credential::Session(secret) => Some(secret),
                    Credential::None | Credential::Bearer(_) => None,
                };
                let query = head.uri.query().unwrap_or_default();
                let to = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "to");
                let back = to.map_or_else(|| "/".to_owned(), |(_, to)| to.into_owned());
                self.sessions.sign_out(&platform, customer, secret.as_deref(), &back).await
            }
            _ => Err(Refusal::new(Code::SiteUnknown)),
        }
    }
}

/// The first demand that a sign-in does not meet.
fn lacking(demanded: &[StepUp], who: Option<&Claims>, now_s: u64) -> Option<StepUp> {
    let is_met = |demand: &&StepUp| who.is_some_and(|who| demand.is_met(who.acr, who.auth_time, now_s));
    demanded.iter().find(|demand| !is_met(demand)).copied()
}

/// Gives the request the one spelling of its path, by which rules are looked up and which is passed on.
fn one_spelling(request: &mut Request) -> Result<CanonicalPath, Refusal> {
    let ambiguous = || Refusal::from(Code::BadRequest.because("ambiguous-path"));
    let path = CanonicalPath::of(request.uri().path()).ok_or_else(ambiguous)?;
    if path.spelled != request.uri().path() {
        *request.uri_mut() = with_query(&path.spelled, request).parse().map_err(|_| ambiguous())?;
    }
    Ok(path)
}

/// The app sees its own paths, without its name.
fn below_the_app(app: &AppTarget<'_>, request: &mut Request) -> Result<(), Refusal> {
    let below = with_query(&app.path.spelled, request);
    *request.uri_mut() = below.parse().map_err(|_| Refusal::new(Code::BadRequest))?;
    Ok(())
}

fn with_query(path: &str, request: &Request) -> String {
    match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// What is left of the request's time, at most our own limit.
fn left(cx: &Context, own: Duration) -> Duration {
    cx.from.deadline_ms.map_or(own, |left| own.min(Duration::from_millis(left)))
}

/// Only WebSockets pass, and only to apps: no other protocol is known to be harmless behind our backs.
fn refuse_upgrade(request: &Request, websockets: bool) -> Result<(), Refusal> {
    match request.extensions().get::<upgrade::Wanted>() {
        None => Ok(()),
        Some(wanted) if websockets && wanted.0.as_bytes().eq_ignore_ascii_case(b"websocket") => Ok(()),
        Some(_) => Err(Refusal::new(Code::UpgradeUnsupported)),
    }
}

/// Whether a part of the Platform needs no signed-in user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// It does.
    No,
    /// The Identity Service checks for itself.
    Identity,
    /// The description of the API and the Portal's style are for everybody.
    Everybody,
}

impl Open {
    fn of(path: &CanonicalPath) -> Self {
        // The second holds the issuers' descriptions, which RFC 8414 puts above their paths.
        if path.is_surely_below("/identity/")
            || path.is_surely_below("/.well-known/oauth-authorization-server/")
        {
            Self::Identity
        } else if is_description(&path.spelled) || path.is_surely_below("/portal/assets/") {
            Self::Everybody
        } else {
            Self::No
        }
    }
}

/// Whether this is the description of the API.
fn is_description(path: &str) -> bool {
    path.strip_prefix(API) == Some("/openapi.json")
}

fn add_slash(request: &Request) -> Result<Response, Refusal> {
    let location = HeaderValue::from_str(&with_query(&format!("{}/", request.uri().path()), request));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(http::header::LOCATION, location.map_err(|_| Refusal::new(Code::BadRequest))?);
    Ok(response)
}
