//! The way of one request through the edge. Read [`Edge::journey`] downwards.

use crate::{
    access_log,
    context::Context,
    gateways::Gateways,
    headers,
    lines::Lines,
    refusal::Refusal,
    site::{self, Found, Target},
    store::{self, Outcome},
    view::View,
    waf::Waf,
};
use bastide_cache::{Cache, Site, Status};
use bastide_proxy::{HeadFault, Pool, RawHead, RefusedHead, Request, Response, Service, forwarded};
use bastide_tls::CertificateStore;
use bastide_types::{Code, RequestId, header, snapshot::WafPolicy};
use ipnet::IpNet;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::watch, time::timeout};

/// The stops of a request here, in order, as `docs/life-of-a-request.md` lists them.
pub const STOPS: &[&str] =
    &["edge.site", "edge.waf", "edge.cache", "edge.gateway", "edge.waf-answer", "edge.answer"];

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) view: watch::Receiver<Option<Arc<View>>>,
    pub(crate) certificates: Arc<CertificateStore>,
    pub(crate) waf: Waf,
    pub(crate) cache: Cache,
    pub(crate) gateways: Gateways,
    pub(crate) loop_id: headers::LoopId,
    pub(crate) access_log: Option<Lines>,
    pub(crate) deadline: Duration,
    pub(crate) body_limits: (u64, u64),
    /// Proxies that say who the client is.
    pub(crate) believed: Vec<IpNet>,
}

/// One worker of an edge.
pub(crate) struct Edge {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
}

impl Edge {
    /// The way of one request: this is the order of the stops.
    async fn journey(
        &self,
        cx: &mut Context,
        view: &View,
        mut request: Request,
    ) -> Result<(Response, Option<&'static str>), Refusal> {
        let shared = &*self.shared;
        let found = self.site(cx, view, &mut request)?;
        let mut request = limited(request, found.body_bytes_max)?;
        // What the rules want to see of a body must come within the request's time.
        let left = self.limit(&found).saturating_sub(cx.begun.elapsed());
        let inspection = timeout(left, shared.waf.inspect(cx, &found.waf, &mut request)).await;
        let inspection = inspection.map_err(|_| Refusal::new(Code::RequestTimeout))??;
        tracing::debug!(name: "edge.waf", request = %cx.id, verdict = cx.verdict);
        headers::clean(request.headers_mut());
        let asked = match self.look_up(cx, &found, &request) {
            Outcome::Hit(hit) => {
                shared.waf.conclude(cx, inspection);
                return Ok((hit, Some(found.hsts)));
            }
            Outcome::Miss(asked) => Some(asked),
            Outcome::Pass => None,
        };
        let response = self.send(cx, view, &found, request).await?;
        let response = shared.waf.inspect_answer(cx, inspection, response).await?;
        tracing::debug!(name: "edge.waf-answer", request = %cx.id, verdict = cx.verdict);
        let fit = is_fit(&found, &response);
        let response = match asked.filter(|_| fit) {
            Some(asked) => store::admit(cx, &shared.cache, Site::Customer, asked, response)
                .await
                .map_err(|_| Refusal::new(Code::GatewayUnreachable))?,
            None => response,
        };
        Ok((response, Some(found.hsts)))
    }

    fn site(&self, cx: &mut Context, view: &View, request: &mut Request) -> Result<Found, Refusal> {
        let sni = cx.peer.tls.as_ref().and_then(|tls| tls.sni.as_deref()).unwrap_or_default();
        if !self.shared.certificates.covers(sni, &cx.host) {
            return Err(Refusal::new(Code::Misdirected));
        }
        if let Err(refusal) = site::settle_path(request) {
            return Err(self.ambiguous(cx, view, refusal));
        }
        let found = site::find(cx, view, request, self.shared.body_limits)?;
        tracing::debug!(name: "edge.site", request = %cx.id, host = cx.host, site = ?cx.site);
        Ok(found)
    }

    /// A path that has no one meaning is refused, but the rules and the audit see it first.
    fn ambiguous(&self, cx: &mut Context, view: &View, refusal: Refusal) -> Refusal {
        let policy = site::policy_of(&view.snapshot, &cx.host);
        let (raw, bytes) = (RawHead::clone(&cx.raw), cx.raw.bytes.clone().unwrap_or_default());
        let reason = HeadFault::Target;
        let head = RefusedHead { peer: cx.peer.clone(), raw, bytes, status: reason.status(), reason };
        if self.shared.waf.inspect_refused(cx.id, policy, &head) {
            cx.verdict = "block";
            return Refusal::new(Code::WafBlocked);
        }
        refusal
    }

    /// A look-up is only made where the rule is public *now*; the key holds customer, stage and revision.
    fn look_up(&self, cx: &mut Context, found: &Found, request: &Request) -> Outcome {
        let outcome = match &found.target {
            Target::App { scopes: Some(scopes), .. } if !has_credential(request) => {
                let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
                store::look_up(cx, &self.shared.cache, &scopes, request)
            }
            Target::App { .. } | Target::Platform | Target::Stage => {
                cx.cache = Some(Status::Bypass);
                Outcome::Pass
            }
        };
        tracing::debug!(name: "edge.cache", request = %cx.id, status = ?cx.cache);
        outcome
    }

    /// How long a request may take until its answer begins.
    fn limit(&self, found: &Found) -> Duration {
        match found.target {
            Target::Platform => self.shared.deadline * 5,
            Target::App { .. } | Target::Stage => self.shared.deadline,
        }
    }

    async fn send(
        &self,
        cx: &Context,
        view: &View,
        found: &Found,
        mut request: Request,
    ) -> Result<Response, Refusal> {
        let left = self.limit(found).saturating_sub(cx.begun.elapsed());
        headers::prepare(cx, &self.shared.loop_id, &mut request, left)?;
        let deadline = tokio::time::Instant::now() + left;
        self.shared.gateways.send(&self.pool, cx, view, &found.target, request, deadline).await
    }
}

/// Whether the gateway marked the answer as fit for everybody, for the revision that serves now.
fn is_fit(found: &Found, response: &Response) -> bool {
    let mark = response.headers().get(header::CACHEABLE).and_then(|mark| mark.to_str().ok());
    match &found.target {
        Target::App { scopes: Some([.., revision]), .. } => mark == Some(revision),
        _ => false,
    }
}

fn has_credential(request: &Request) -> bool {
    const SESSION: &[u8] = b"__Host-bst";
    let mut cookies = request.headers().get_all(http::header::COOKIE).iter();
    request.headers().contains_key(http::header::AUTHORIZATION)
        || cookies.any(|line| line.as_bytes().windows(SESSION.len()).any(|part| part == SESSION))
}

/// Refuses a body that is known to be too large, and cuts off one that turns out to be.
pub(crate) fn limited(request: Request, most: u64) -> Result<Request, Refusal> {
    if http_body::Body::size_hint(request.body()).lower() > most {
        return Err(Refusal::new(Code::BodyTooLarge));
    }
    if http_body::Body::is_end_stream(request.body()) {
        return Ok(request);
    }
    Ok(request.map(|body| body.limited(most)))
}

/// What every request begins with.
pub(crate) fn context(request: &Request, believed: &[IpNet]) -> Option<Context> {
    let peer = request.extensions().get::<Arc<bastide_proxy::Peer>>()?.clone();
    let raw = request.extensions().get::<Arc<bastide_proxy::RawHead>>()?.clone();
    let authority = request
        .headers()
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let name =
        if authority.starts_with('[') { &authority } else { authority.split(':').next().unwrap_or_default() };
    let host = name.trim_end_matches('.').to_ascii_lowercase();
    Some(Context {
        id: RequestId::generate(),
        client: forwarded::client(request.headers(), peer.addr.ip(), believed),
        peer,
        raw,
        host,
        authority,
        begun: Instant::now(),
        at: SystemTime::now(),
        site: None,
        verdict: "none",
        cache: None,
    })
}

impl Service for Edge {
    async fn call(&self, request: Request) -> Response {
        let Some(mut cx) = context(&request, &self.shared.believed) else {
            return Refusal::new(Code::Internal).response(RequestId::generate(), None);
        };
        let accept = request
            .headers()
            .get(http::header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let view = self.shared.view.borrow().clone();
        let outcome = match view {
            Some(view) => self.journey(&mut cx, &view, request).await,
            None => Err(Refusal::new(Code::Overloaded)),
        };
        let (mut response, hsts) = match outcome {
            Ok(answer) => answer,
            Err(refusal) => {
                cx.cache = None;
                (refusal.response(cx.id, accept.as_deref()), None)
            }
        };
        headers::finish(&cx, &mut response, hsts);
        tracing::debug!(name: "edge.answer", request = %cx.id, status = response.status().as_u16());
        if let Some(lines) = &self.shared.access_log {
            access_log::add(lines, &cx, &method, &path, &response);
        }
        response
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        let id = RequestId::generate();
        let view = self.shared.view.borrow().clone();
        let policy = view.map_or_else(WafPolicy::default, |view| view.snapshot.platform_waf.clone());
        self.shared.waf.inspect_refused(id, &policy, &head);
        refused(id, &head)
    }
}

/// The answer to a head that is not valid.
pub(crate) fn refused(id: RequestId, head: &RefusedHead) -> Response {
    let code = match head.status.as_u16() {
        414 => Code::TargetTooLong,
        431 => Code::HeadTooLarge,
        408 => Code::RequestTimeout,
        _ => Code::BadRequest,
    };
    let mut response = Refusal::because(code, head.reason.to_string()).response(id, None);
    *response.status_mut() = head.status;
    response
}
