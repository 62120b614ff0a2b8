//! The cache station: answers from the store, fills it, and lets requests for one thing go once.
//!
//! The engine decides ([`bastide_cache`]); here are the clock, the requests to the origin and those who wait.

mod clock;
mod coded;
mod fill;
mod flights;
pub(crate) mod told;
mod trip;

use crate::{context::Context, refusal::Refusal, waf::Inspection};
use bastide_cache::{
    Action, Ask, Because, Cache, Decision, Key, Limits, Moment, Purge, Reply, Scope, Site, Space, Status,
    Stored,
    admit::{CACHE_GROUP_INVALIDATION, groups},
    ask::Kind,
    condition,
    decide::{Failure, decide, stands_in},
    invalidate,
    reply::{Making, reply},
    store::{Slot, expected},
};
use bastide_proxy::{Body, Prepared, Request, Response, upgrade};
use bastide_types::{Code, RequestId, header as names};
use flights::{Course, Flights, Joined, Landing};
use http::{HeaderMap, Method, header};
use std::{future::Future, sync::Arc, time::Duration};
use tokio_util::task::TaskTracker;
use trip::Trip;

/// How long requests wait for one that went before they go themselves.
const WAIT: Duration = Duration::from_secs(10);
/// How often a request may wait for others before it goes alone.
const ROUNDS_MAX: usize = 3;

/// The store of an edge, and what is on its way into it. Shared by all workers.
pub(crate) struct Store {
    pub(crate) cache: Cache,
    flights: Arc<Flights>,
    budget: fill::Budget,
    /// What encodes stored answers, where that is wanted.
    coder: Option<coded::Coder>,
}

/// What the cache knows of one app, or of the origin of an edge that stands alone.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) space: Arc<Space>,
    pub(crate) scope: Scope,
    pub(crate) site: Site,
    /// What the gateway marks answers with that are fit for everybody; all are without.
    pub(crate) mark: Option<String>,
    /// Path of the app, without a slash at its end: what one of its answers makes invalid lies below.
    pub(crate) path: String,
    /// The one spelling of a path, as the keys have it.
    pub(crate) canonical: fn(&str) -> Option<String>,
}

impl Plot {
    /// What an edge that stands alone knows of its origin.
    pub(crate) fn alone(cache: &Cache) -> Arc<Self> {
        Arc::new(Self {
            space: cache.space("", &[]),
            scope: Scope::new(&[]),
            site: Site::alone(),
            mark: None,
            path: String::new(),
            canonical: |path| Some(path.to_owned()),
        })
    }

    /// Counts what became of a request.
    pub(crate) fn count(&self, cx: &Context) {
        if let Some(status) = cx.cache {
            self.space.tally().count(status);
        }
    }

    fn is_fit(&self, headers: &HeaderMap) -> bool {
        let mark = || headers.get(names::CACHEABLE).and_then(|mark| mark.to_str().ok());
        self.mark.is_none() || mark() == self.mark.as_deref()
    }

    fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&*self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What stands behind the cache: the rest of a request's way.
pub(crate) trait Behind: Clone + Send + Sync + 'static {
    /// Inspects a request that the edge makes by itself.
    fn inspect(
        &self,
        cx: &mut Context,
        request: &mut Request,
    ) -> impl Future<Output = Result<Inspection, Refusal>> + Send;
    /// Sends a request on and inspects its answer.
    fn fetch(
        &self,
        cx: &mut Context,
        request: Request,
        inspection: Inspection,
    ) -> impl Future<Output = Result<Response, Refusal>> + Send;
    /// Owner of what goes on after a request has its answer.
    fn tasks(&self) -> &TaskTracker;
}

/// What a request that waited gets.
enum Together {
    Answer(Result<Response, Refusal>),
    Again,
    Alone,
}

impl Store {
    pub(crate) fn new(limits: Limits, compress: bool) -> Arc<Self> {
        let budget = fill::Budget::new(limits.bytes_max / 4, limits.entry_bytes_max);
        let coder = compress.then(coded::Coder::new);
        Arc::new(Self { cache: Cache::new(limits), flights: Flights::new(), budget, coder })
    }

    /// Passes a request on that is neither answered from the store nor stored, but may make things invalid.
    pub(crate) async fn pass<B: Behind>(
        &self,
        behind: &B,
        cx: &mut Context,
        plot: &Plot,
        request: Request,
        inspection: Inspection,
    ) -> Result<Response, Refusal> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = behind.fetch(cx, request, inspection).await?;
        if invalidate::invalidates(&method, response.status()) {
            let target = uri.path_and_query().map_or("/", |target| target.as_str());
            self.invalidate(cx, plot, target, response.headers());
        }
        Ok(response)
    }

    /// RFC 9111 §4.4, before the client sees the answer; confined to the app.
    fn invalidate(&self, cx: &Context, plot: &Plot, target: &str, headers: &HeaderMap) {
        let key = |target: &str| Key::new(&plot.scope, cx.scheme(), &cx.authority, target);
        self.cache.invalidate(&key(target));
        if let Ok(own) = format!("{}://{}{target}", cx.scheme(), cx.authority).parse() {
            for other in invalidate::others(&own, headers) {
                let (path, query) = other.split_once('?').map_or((&*other, None), |(p, q)| (p, Some(q)));
                let Some(path) = (plot.canonical)(path) else { continue };
                if plot.holds(&path) {
                    let target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
                    self.cache.invalidate(&key(&target));
                }
            }
        }
        for group in groups(headers, &CACHE_GROUP_INVALIDATION) {
            self.cache.purge(&plot.space, Purge::Group(group));
        }
    }

    /// Answers a request from the store, or from behind.
    pub(crate) async fn answer<B: Behind>(
        self: &Arc<Self>,
        behind: &B,
        cx: &mut Context,
        plot: &Arc<Plot>,
        request: Request,
        inspection: Inspection,
    ) -> Result<Response, Refusal> {
        let ask = Ask::new(request.method(), request.headers(), &plot.site);
        if ask.kind() != Kind::Lookup {
            cx.cache = Some(forwarded(Because::Method));
            note(cx);
            return self.pass(behind, cx, plot, request, inspection).await;
        }
        // A body is in no key, but an origin may read it; an upgrade asks for a tunnel and not for a page.
        let has_body = !http_body::Body::is_end_stream(request.body());
        if has_body || request.extensions().get::<upgrade::Wanted>().is_some() {
            cx.cache = Some(forwarded(Because::Unusual));
            note(cx);
            return behind.fetch(cx, request, inspection).await;
        }
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let key = Key::new(&plot.scope, cx.scheme(), &cx.authority, target);
        let now = clock::begun(cx);
        let mut slot = self.cache.look_up(&key);
        let mut decision;
        let mut lead = None;
        let mut rounds = 0;
        loop {
            decision = decide(&ask, variants(slot.as_ref()), now);
            cx.cache = Some(forwarded(decision.because));
            match decision.action {
                Action::Hit(at) | Action::HitAndRefresh(at) => {
                    let Some(found) = &slot else { break };
                    self.cache.touch(found, at, now);
                    let stored = &found.variants[at];
                    let because = Some(decision.because);
                    cx.cache = Some(Status { because, ..Status::hit(stored.ttl_s(now)) });
                    if matches!(decision.action, Action::HitAndRefresh(_)) {
                        self.refresh(behind, cx, plot, &key, &request, (found, at));
                    }
                    note(cx);
                    let response = self.hit(cx, plot, &key, stored, &ask, now).await;
                    inspection.conclude(Some(response.status().as_u16()));
                    return Ok(response);
                }
                Action::Refuse => {
                    inspection.conclude(Some(Code::NothingStored.status()));
                    return Err(Refusal::new(Code::NothingStored));
                }
                Action::Validate(_) | Action::Complete(_) | Action::Forward => {}
            }
            if rounds == ROUNDS_MAX || !may_share(&ask) || self.cache.is_unshared(&key, now) {
                break;
            }
            rounds += 1;
            match self.flights.join(course(&key, &ask, slot.as_deref()), &self.cache, &plot.space) {
                Joined::Leads(own) => {
                    // What went before may have landed between the look-up and here.
                    let again = self.cache.peek(&key);
                    if is_same(again.as_ref(), slot.as_ref()) {
                        lead = Some(own);
                        break;
                    }
                    slot = again;
                }
                Joined::Waits(mut landed) => {
                    let landing = match tokio::time::timeout(WAIT, landed.wait_for(Option::is_some)).await {
                        Ok(Ok(landing)) => landing.clone(),
                        // Whoever went gave up: somebody else may go.
                        Ok(Err(_)) => None,
                        Err(_) => break,
                    };
                    match together(cx, landing, &ask, decision, slot.as_ref(), &plot.site) {
                        Together::Answer(response) => {
                            note(cx);
                            inspection
                                .conclude(response.as_ref().ok().map(|response| response.status().as_u16()));
                            return response;
                        }
                        Together::Again => slot = self.cache.peek(&key),
                        Together::Alone => break,
                    }
                }
            }
        }
        note(cx);
        let (head, _) = request.into_parts();
        // Apart from the way of a hit, which is moved with every request and stays small so.
        Box::pin(self.trip(behind, cx, plot, key, head, decision, slot).go(cx, inspection, lead)).await
    }

    #[allow(clippy::too_many_arguments)] // all that a request to the origin needs, once
    fn trip<B: Behind>(
        self: &Arc<Self>,
        behind: &B,
        cx: &Context,
        plot: &Arc<Plot>,
        key: Key,
        head: http::request::Parts,
        decision: Decision,
        slot: Option<Arc<Slot>>,
    ) -> Trip<B> {
        Trip {
            store: self.clone(),
            behind: behind.clone(),
            plot: plot.clone(),
            ticket: self.cache.begin(&key),
            key,
            cx: cx.clone(),
            head: Arc::new(head),
            decision,
            slot,
        }
    }

    /// Fetches a stale response anew that was just served, unless somebody does already.
    fn refresh<B: Behind>(
        self: &Arc<Self>,
        behind: &B,
        cx: &Context,
        plot: &Arc<Plot>,
        key: &Key,
        request: &Request,
        (slot, at): (&Arc<Slot>, usize),
    ) {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.method = Method::GET;
        head.uri = request.uri().clone();
        head.headers = request.headers().clone();
        head.extensions = request.extensions().clone();
        // Nobody listens to what comes before the answer.
        head.extensions.remove::<bastide_proxy::Interim>();
        // §4.3.1: the fields that the response was chosen by stay; what this client wanted beyond does not.
        for own in [
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_RANGE,
            header::RANGE,
            header::CACHE_CONTROL,
            header::PRAGMA,
        ] {
            head.headers.remove(own);
        }
        let ask = Ask::new(&head.method, &head.headers, &plot.site);
        let course = course(key, &ask, Some(slot));
        let Joined::Leads(lead) = self.flights.join(course, &self.cache, &plot.space) else { return };
        let is_valid = slot.variants[at].validators.is_any();
        let action = if is_valid { Action::Validate(at) } else { Action::Forward };
        let decision = Decision { action, because: Because::Stale, chosen: Some(at) };
        let cx = Context { id: RequestId::generate(), ..cx.clone() };
        let trip = self.trip(behind, &cx, plot, key.clone(), head, decision, Some(slot.clone()));
        behind.tasks().spawn(trip.refresh(lead));
    }
}

/// Uses what a request brought that went before.
fn together(
    cx: &mut Context,
    landing: Option<Landing>,
    ask: &Ask<'_>,
    decision: Decision,
    slot: Option<&Arc<Slot>>,
    site: &Site,
) -> Together {
    let now = clock::now();
    let status = Status { collapsed: true, ..forwarded(decision.because) };
    match landing {
        Some(Landing::Fill(fill)) => {
            let draft = &fill.draft;
            if !draft.variant.matches(ask.headers) {
                return Together::Again;
            }
            let is_known = fill.status == http::StatusCode::OK
                && condition::has_own(ask.headers)
                && condition::is_known(ask.headers, &draft.validators, now);
            let response = if is_known {
                made(cx.id, draft, None, ask, now, false)
            } else {
                let Some(body) = fill.body() else { return Together::Alone };
                let mut response = Response::new(body);
                *response.status_mut() = fill.status;
                response.headers_mut().clone_from(&fill.fields);
                response.headers_mut().insert(header::AGE, draft.age_s(now).into());
                response
            };
            cx.cache = Some(Status { ttl_s: Some(draft.ttl_s(now)), ..status });
            Together::Answer(Ok(response))
        }
        Some(Landing::Holds(stored)) => {
            if !stored.variant.matches(ask.headers) {
                return Together::Again;
            }
            cx.cache = Some(Status { forward_status: Some(304), ..status });
            Together::Answer(Ok(made(cx.id, &stored, None, ask, now, false)))
        }
        Some(Landing::Failed(failure, code)) => {
            let chosen = chosen(decision, slot);
            match stand_in(cx, chosen, ask, decision, failure, site) {
                Some(response) => Together::Answer(Ok(response)),
                None if failure == Failure::Disconnected => Together::Answer(Err(refusal(code, chosen))),
                None => Together::Alone,
            }
        }
        Some(Landing::Alone) => Together::Alone,
        None => Together::Again,
    }
}

/// A stale response that may stand in for an origin that failed.
fn stand_in(
    cx: &mut Context,
    chosen: Option<&Arc<Stored>>,
    ask: &Ask<'_>,
    decision: Decision,
    failure: Failure,
    site: &Site,
) -> Option<Response> {
    let (now, stored) = (clock::now(), chosen?);
    let because = stands_in(ask, stored, failure, site, now)?;
    let forward_status = match failure {
        Failure::Status(status) => Some(status),
        Failure::Disconnected => None,
    };
    cx.cache = Some(Status {
        forward_status,
        ttl_s: Some(stored.ttl_s(now)),
        because: Some(because),
        ..Status::forward(decision.forward())
    });
    Some(made(cx.id, stored, None, ask, now, false))
}

/// Why a request fails that the origin did not answer: what is stored and may not be used is worth a word of
/// its own (RFC 9111 §5.2.2.2).
fn refusal(code: Code, chosen: Option<&Arc<Stored>>) -> Refusal {
    Refusal::new(if chosen.is_some_and(|stored| stored.forbids_stale()) {
        Code::StaleForbidden
    } else {
        code
    })
}

/// The answer that a stored response makes.
fn made(
    id: RequestId,
    stored: &Stored,
    head: Option<&HeaderMap>,
    ask: &Ask<'_>,
    now: Moment,
    validated: bool,
) -> Response {
    let boundary = || format!("bastide-{id}");
    let made = reply(stored, head, ask, Making { now, validated, boundary: &boundary });
    let Reply { status, mut fields, head_as_stored, body, length } = made;
    if let Some(length) = length {
        fields.insert(header::CONTENT_LENGTH, length.into());
    }
    let mut response = Response::new(Body::pieces(body));
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    if head_as_stored {
        let (wire, fields) = (stored.head.wire().clone(), stored.head.fields().clone());
        response.extensions_mut().insert(Prepared { wire, fields });
    }
    response
}

fn note(cx: &Context) {
    tracing::debug!(name: "edge.cache", request = %cx.id, status = ?cx.cache);
}

fn forwarded(because: Because) -> Status {
    Status { because: Some(because), ..Status::forward(because.forward()) }
}

fn variants(slot: Option<&Arc<Slot>>) -> &[Arc<Stored>] {
    slot.map_or(&[], |slot| &slot.variants)
}

fn chosen(decision: Decision, slot: Option<&Arc<Slot>>) -> Option<&Arc<Stored>> {
    decision.chosen.and_then(|at| variants(slot).get(at))
}

/// Whether others may have the same answer (§4, and not the answers to credentials).
fn may_share(ask: &Ask<'_>) -> bool {
    *ask.method == Method::GET
        && !ask.is_authorized()
        && !ask.is_origins()
        && !ask.no_store
        && !ask.headers.contains_key(header::IF_RANGE)
}

fn course(key: &Key, ask: &Ask<'_>, slot: Option<&Slot>) -> Course {
    Course {
        key: key.clone(),
        variant: expected(slot, ask.headers),
        range: ask.headers.get(header::RANGE).cloned(),
        is_conditional: condition::has_own(ask.headers),
    }
}

fn is_same(one: Option<&Arc<Slot>>, other: Option<&Arc<Slot>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}
