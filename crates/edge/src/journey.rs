//! The way of one request through the edge. Read [`Edge::journey`] downwards.

use crate::{
    access_log, ahead,
    bans::{self, By},
    cache::{Behind, Store},
    compress::{self, Wish},
    context::Context,
    gateways::Gateways,
    headers,
    lines::Lines,
    refusal::Refusal,
    site::{self, Found, Target},
    view::View,
    waf::{Inspection, Waf},
};
use bastide_cache::{Because, Status};
use bastide_proxy::{HeadFault, Pool, RawHead, RefusedHead, Request, Response, Service, forwarded};
use bastide_tls::CertificateStore;
use bastide_types::{Code, Problem, RequestId, header};
use http::{HeaderMap, HeaderValue, Method};
use ipnet::IpNet;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::watch, time::timeout};
use tokio_util::task::TaskTracker;

/// The stops of a request here, in order, as `docs/life-of-a-request.md` lists them.
pub const STOPS: &[&str] = &[
    "edge.ban",
    "edge.site",
    "edge.waf",
    "edge.front",
    "edge.cache",
    "edge.gateway",
    "edge.waf-answer",
    "edge.answer",
];

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) view: watch::Receiver<Option<Arc<View>>>,
    pub(crate) certificates: Arc<CertificateStore>,
    pub(crate) waf: Waf,
    pub(crate) store: Arc<Store>,
    pub(crate) gateways: Gateways,
    pub(crate) loop_id: headers::LoopId,
    pub(crate) access_log: Option<Lines>,
    pub(crate) deadline: Duration,
    pub(crate) body_limits: (u64, u64),
    /// Proxies that say who the client is.
    pub(crate) believed: Vec<IpNet>,
    pub(crate) banned: Arc<bans::Counts>,
}

/// One worker of an edge.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) tasks: TaskTracker,
}

impl Edge {
    /// The way of one request: this is the order of the stops.
    async fn journey(
        &self,
        cx: &mut Context,
        view: &Arc<View>,
        mut request: Request,
    ) -> Result<(Response, Option<&'static str>), Refusal> {
        self.admit(cx, view)?;
        let found = self.site(cx, view, &mut request)?;
        let mut request = limited(request, found.body_bytes_max)?;
        // What the rules want to see of a body must come within the request's time.
        let left = self.limit(&found).saturating_sub(cx.begun.elapsed());
        let seen = timeout(left, self.see(cx, &found, &mut request)).await;
        let inspection = seen.map_err(|_| Refusal::new(Code::RequestTimeout))??;
        tracing::debug!(name: "edge.waf", request = %cx.id, verdict = cx.verdict);
        headers::clean(request.headers_mut());
        let (hsts, wish, is_head) = (found.hsts, Wish::of(&request), request.method() == Method::HEAD);
        let wants_html = Problem::wants_html(text(request.headers().get(http::header::ACCEPT)));
        let response = match front(cx, &found) {
            Ok(None) => self.cached(cx, view, found, request, inspection).await?,
            Ok(Some(sent)) => {
                inspection.conclude(Some(sent.status().as_u16()));
                sent
            }
            Err(refusal) => {
                inspection.conclude(Some(refusal.status()));
                return Err(refusal);
            }
        };
        let response = if wants_html { dressed(cx, response) } else { response };
        Ok((pass(cx, wish, is_head, response), hsts))
    }

    /// What is read of a body before it is passed on: as much as the rules want to see, and all of a short one.
    async fn see(
        &self,
        cx: &mut Context,
        found: &Found,
        request: &mut Request,
    ) -> Result<Inspection, Refusal> {
        let inspection = self.shared.waf.inspect(cx, &found.waf, request).await?;
        match ahead::take_short(request).await {
            Ok(()) => Ok(inspection),
            Err(refusal) => {
                inspection.conclude(Some(refusal.status()));
                Err(refusal)
            }
        }
    }

    /// From the store, or from behind. A look-up is only made where the rule is public *now*, and nothing is
    /// stored of a request with credentials; but whatever changes something makes what is stored invalid.
    async fn cached(
        &self,
        cx: &mut Context,
        view: &Arc<View>,
        found: Found,
        request: Request,
        inspection: Inspection,
    ) -> Result<Response, Refusal> {
        let store = &self.shared.store;
        let (plot, is_public) = match &found.target {
            Target::App { plot, is_public, .. } => (plot.clone(), *is_public),
            Target::Platform | Target::Stage | Target::Nowhere => (None, false),
        };
        let behind = Beyond { edge: self.clone(), view: view.clone(), found: Arc::new(found) };
        let answer = match &plot {
            Some(plot) if is_public && !has_credential(request.headers()) => {
                store.answer(&behind, cx, plot, request, inspection).await
            }
            plot => {
                cx.cache = Some(Status {
                    because: Some(Because::NotCached),
                    ..Status::forward(Because::NotCached.forward())
                });
                tracing::debug!(name: "edge.cache", request = %cx.id, status = ?cx.cache);
                match plot {
                    Some(plot) => store.pass(&behind, cx, plot, request, inspection).await,
                    None => behind.fetch(cx, request, inspection).await,
                }
            }
        };
        if let Some(plot) = &plot {
            plot.count(cx);
        }
        answer
    }

    /// Refuses banned sources, those of a kept connection too, before anything is done for them.
    fn admit(&self, cx: &mut Context, view: &View) -> Result<(), Refusal> {
        let by = if view.bans.everywhere(cx.client, cx.at) {
            Some(By::Operator)
        } else if view.bans.are_all_the_operators() {
            None
        } else {
            site::is_banned(cx, view).then_some(By::Customer)
        };
        tracing::debug!(name: "edge.ban", request = %cx.id, ?by);
        let Some(by) = by else { return Ok(()) };
        self.shared.banned.count(by);
        cx.verdict = "ban";
        Err(Refusal::new(Code::Banned))
    }

    fn site(&self, cx: &mut Context, view: &View, request: &mut Request) -> Result<Found, Refusal> {
        let sni = cx.peer.tls.as_ref().and_then(|tls| tls.sni.as_deref()).unwrap_or_default();
        if !self.shared.certificates.covers(sni, &cx.host) {
            return Err(Refusal::new(Code::Misdirected));
        }
        if let Err(refusal) = site::settle_path(request) {
            return Err(self.ambiguous(cx, view, refusal));
        }
        site::keep_challenges(request)?;
        let seen = request.uri().clone();
        site::settle_root(&view.snapshot, &cx.host, request)?;
        let found = site::find(cx, view, request, &seen, self.shared.body_limits)?;
        tracing::debug!(name: "edge.site", request = %cx.id, host = cx.host, site = ?cx.site);
        Ok(found)
    }

    /// A path that has no one meaning is refused, but the rules and the audit see it first.
    fn ambiguous(&self, cx: &mut Context, view: &View, refusal: Refusal) -> Refusal {
        let policy = site::policy_of(view, &cx.host);
        let (raw, bytes) = (RawHead::clone(&cx.raw), cx.raw.bytes.clone().unwrap_or_default());
        let reason = HeadFault::Target;
        let head = RefusedHead { peer: cx.peer.clone(), raw, bytes, status: reason.status(), reason };
        if self.shared.waf.inspect_refused(cx.id, policy, &head, Code::WafBlocked.status()) {
            cx.verdict = "block";
            return Refusal::new(Code::WafBlocked);
        }
        refusal
    }

    /// How long a request may take until its answer begins.
    fn limit(&self, found: &Found) -> Duration {
        match found.target {
            Target::Platform => self.shared.deadline * 5,
            Target::App { .. } | Target::Stage | Target::Nowhere => self.shared.deadline,
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
        headers::prepare(cx, &self.shared.loop_id, request.headers_mut())?;
        headers::prepare_for_gateway(cx, request.headers_mut(), left);
        let deadline = tokio::time::Instant::now() + left;
        self.shared.gateways.send(&self.pool, cx, view, &found.target, request, deadline).await
    }
}

/// The rest of a request's way, behind the cache: a gateway, and the look at its answer.
#[derive(Clone)]
struct Beyond {
    edge: Edge,
    view: Arc<View>,
    found: Arc<Found>,
}

impl Behind for Beyond {
    async fn inspect(&self, cx: &mut Context, request: &mut Request) -> Result<Inspection, Refusal> {
        self.edge.shared.waf.inspect(cx, &self.found.waf, request).await
    }

    async fn fetch(
        &self,
        cx: &mut Context,
        request: Request,
        inspection: Inspection,
    ) -> Result<Response, Refusal> {
        let response = match self.edge.send(cx, &self.view, &self.found, request).await {
            Ok(response) => response,
            Err(refusal) => {
                inspection.conclude(Some(refusal.status()));
                return Err(refusal);
            }
        };
        let mut response = self.edge.shared.waf.inspect_answer(cx, inspection, response).await?;
        tracing::debug!(name: "edge.waf-answer", request = %cx.id, verdict = cx.verdict);
        if let Some(front) = &cx.front {
            let status = response.status();
            front.fields.add_to_answer(status, cx.is_custom, response.headers_mut());
        }
        Ok(response)
    }

    fn tasks(&self) -> &TaskTracker {
        &self.edge.tasks
    }
}

/// What the customer wants to happen here before anything behind is asked: closed, sent elsewhere, or nothing there.
fn front(cx: &Context, found: &Found) -> Result<Option<Response>, Refusal> {
    tracing::debug!(name: "edge.front", request = %cx.id, closed = found.closed, sent = found.sent.is_some());
    if let Some(seconds) = found.closed {
        return Err(Refusal::new(Code::Maintenance).retry_after(seconds));
    }
    if let (Some(front), Some(sent)) = (&cx.front, &found.sent)
        && let Some(response) = front.sent(sent, cx.is_custom)
    {
        return Ok(Some(response));
    }
    match found.target {
        Target::Nowhere => Err(Refusal::new(Code::SiteUnknown)),
        Target::Platform | Target::Stage | Target::App { .. } => Ok(None),
    }
}

/// An answer in which the gateway refuses, in the customer's words; what an app says stays as it is.
fn dressed(cx: &Context, response: Response) -> Response {
    let code = text(response.headers().get(header::REFUSAL)).and_then(Code::from_text);
    match (&cx.front, code) {
        (Some(front), Some(code)) => front.dress(&code.problem().of_request(cx.id), cx.is_custom, response),
        _ => response,
    }
}

/// Compresses what the cache has not looked at; of those who shared an answer, each would pay for the same work.
pub(crate) fn pass(cx: &Context, wish: Wish, is_head: bool, response: Response) -> Response {
    match cx.cache {
        Some(status) if status.is_hit() => response,
        Some(status) if status.collapsed => compress::pass(Wish::default(), is_head, response),
        _ => compress::pass(wish, is_head, response),
    }
}

/// Whether a request shows who is asking: to a gateway, or to an app by its own means.
pub(crate) fn has_credential(headers: &HeaderMap) -> bool {
    const SESSION: &[u8] = b"__Host-bst";
    let mut cookies = headers.get_all(http::header::COOKIE).iter();
    headers.contains_key(http::header::AUTHORIZATION)
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
        front: None,
        is_custom: false,
        verdict: "none",
        cache: None,
    })
}

impl Service for Edge {
    async fn call(&self, request: Request) -> Response {
        let Some(mut cx) = context(&request, &self.shared.believed) else {
            return Refusal::new(Code::Internal).response(RequestId::generate(), None);
        };
        let accept = request.headers().get(http::header::ACCEPT).cloned();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let view = self.shared.view.borrow().clone();
        let outcome = match view {
            Some(view) => self.journey(&mut cx, &view, request).await,
            None => Err(Refusal::new(Code::Overloaded)),
        };
        let (mut response, hsts) = match outcome {
            Ok(answer) => answer,
            Err(refusal) => {
                cx.cache = None;
                let problem = refusal.problem().clone().of_request(cx.id);
                let response = refusal.response(cx.id, text(accept.as_ref()));
                let response = match &cx.front {
                    Some(front) if Problem::wants_html(text(accept.as_ref())) => {
                        front.dress(&problem, cx.is_custom, response)
                    }
                    _ => response,
                };
                (response, None)
            }
        };
        headers::finish(&cx, &mut response, hsts);
        tracing::debug!(name: "edge.answer", request = %cx.id, status = response.status().as_u16());
        if let Some(lines) = &self.shared.access_log {
            access_log::add(lines, &cx, method.as_str(), uri.path(), &response);
        }
        response
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        let id = RequestId::generate();
        let view = self.shared.view.borrow().clone();
        let waf = &self.shared.waf;
        let policy = view.as_ref().map_or(&waf.default, |view| view.waf.platform());
        waf.inspect_refused(id, policy, &head, head.status.as_u16());
        refused(id, &head)
    }
}

/// A field's value, if it is text.
pub(crate) fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
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
