//! A request to the origin: its conditions, what its answer means, and how that comes into the store.

use super::{
    Behind, Plot, Store, chosen, clock,
    fill::{Fill, Pumped},
    flights::{Landing, Lead},
    made, refusal, stand_in, variants,
};
use crate::{context::Context, headers::varies_on_ours, refusal::Refusal, waf::Inspection};
use bastide_cache::{
    Action, Ask, Because, Decision, Draft, Exchange, Key, NotStored, Status, Stored,
    admit::admit,
    decide::{Failure, prepare},
    store::{Slot, Ticket},
    update::{NotModified, agrees, freshen, must_go, not_modified},
};
use bastide_proxy::{Body, Request, Response};
use bastide_types::header as ours;
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// How long an address whose answers are not for others is remembered as such.
const UNSHARED_S: u64 = 10;
/// How long a failed refresh in the background is not tried again.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// A request to the origin, with all that is known of it.
pub(super) struct Trip<B> {
    pub(super) store: Arc<Store>,
    pub(super) behind: B,
    pub(super) plot: Arc<Plot>,
    pub(super) key: Key,
    pub(super) ticket: Ticket,
    pub(super) cx: Context,
    /// The request as the client sent it.
    pub(super) head: Arc<Parts>,
    pub(super) decision: Decision,
    pub(super) slot: Option<Arc<Slot>>,
}

/// What came of it.
struct Landed {
    answer: Result<Response, Refusal>,
    /// For those who wait.
    landing: Landing,
    filling: Option<Filling>,
}

/// A response whose body is still to be stored.
struct Filling {
    fill: Arc<Fill>,
    body: Body,
    draft: Draft,
    base: Option<Arc<Stored>>,
    length: Option<u64>,
}

impl Landed {
    fn alone(answer: Result<Response, Refusal>) -> Self {
        Self { answer, landing: Landing::Alone, filling: None }
    }
}

impl<B: Behind> Trip<B> {
    /// Makes the trip for a request. One that others may wait for goes on even when its client hangs up.
    pub(super) async fn go(
        mut self,
        cx: &mut Context,
        inspection: Inspection,
        lead: Option<Lead>,
    ) -> Result<Response, Refusal> {
        let tasks = self.behind.tasks().clone();
        let Some(lead) = lead else {
            let landed = self.fetch(inspection).await;
            (cx.verdict, cx.cache) = (self.cx.verdict, self.cx.cache);
            if let Some(filling) = landed.filling {
                tasks.spawn(async move { self.store(filling).await });
            }
            return landed.answer;
        };
        let (asker, answer) = oneshot::channel();
        tasks.spawn(async move {
            let landed = self.fetch(inspection).await;
            lead.land(landed.landing);
            // The client may have hung up; its answer then ends here.
            let _ = asker.send((landed.answer, self.cx.verdict, self.cx.cache));
            if let Some(filling) = landed.filling {
                self.store(filling).await;
            }
            drop(lead);
        });
        let (answer, verdict, status) = answer
            .await
            .unwrap_or_else(|_| (Err(Refusal::new(bastide_types::Code::Internal)), cx.verdict, None));
        (cx.verdict, cx.cache) = (verdict, status);
        answer
    }

    /// Makes the trip for nobody: a stale response was served and is fetched anew.
    pub(super) async fn refresh(mut self, lead: Lead) {
        let mut request = self.request(false);
        let Ok(inspection) = self.behind.inspect(&mut self.cx, &mut request).await else { return };
        let landed = self.fetch(inspection).await;
        let has_failed = matches!(landed.landing, Landing::Failed(..)) || landed.answer.is_err();
        lead.land(landed.landing);
        drop(landed.answer);
        if let Some(filling) = landed.filling {
            self.store(filling).await;
        }
        if has_failed {
            tokio::time::sleep(REFRESH_PAUSE).await;
        }
        drop(lead);
    }

    /// The request as it goes to the origin, with our conditions or without.
    fn request(&self, with_conditions: bool) -> Request {
        let mut request = Request::from_parts(Parts::clone(&self.head), Body::empty());
        if with_conditions {
            let ask = Ask::new(&self.head.method, &self.head.headers, &self.plot.site);
            prepare(self.decision, &ask, variants(self.slot.as_ref()), request.headers_mut());
        }
        request
    }

    async fn fetch(&mut self, mut inspection: Inspection) -> Landed {
        for with_conditions in [true, false] {
            let mut request = self.request(with_conditions);
            if !with_conditions {
                // The first inspection saw another answer.
                inspection = match self.behind.inspect(&mut self.cx, &mut request).await {
                    Ok(inspection) => inspection,
                    Err(refusal) => return Landed::alone(Err(refusal)),
                };
            }
            let (requested, if_range) = (clock::now(), request.headers().contains_key(header::IF_RANGE));
            let fetched = self.behind.fetch(&mut self.cx, request, std::mem::take(&mut inspection)).await;
            let exchange = Exchange { requested, received: clock::now(), if_range };
            let response = match fetched {
                Ok(response) => response,
                Err(refusal) => return self.failed(refusal),
            };
            if let Some(landed) = self.landed(response, exchange, with_conditions).await {
                return landed;
            }
        }
        Landed::alone(Err(Refusal::new(bastide_types::Code::OriginUnreachable)))
    }

    fn failed(&mut self, why: Refusal) -> Landed {
        let Some(code) = why.upstream() else { return Landed::alone(Err(why)) };
        let landing = Landing::Failed(Failure::Disconnected, code);
        let (head, plot) = (self.head.clone(), self.plot.clone());
        let ask = Ask::new(&head.method, &head.headers, &plot.site);
        let chosen = chosen(self.decision, self.slot.as_ref());
        let stale = stand_in(&mut self.cx, chosen, &ask, self.decision, Failure::Disconnected, &plot.site);
        let answer = stale.ok_or_else(|| refusal(code, chosen));
        Landed { answer, landing, filling: None }
    }

    /// What an answer means; nothing when the request must be made again without conditions.
    async fn landed(
        &mut self,
        response: Response,
        exchange: Exchange,
        with_conditions: bool,
    ) -> Option<Landed> {
        let (head, plot) = (self.head.clone(), self.plot.clone());
        let ask = Ask::new(&head.method, &head.headers, &plot.site);
        let status = response.status();
        if status.is_server_error() {
            let failure = Failure::Status(status.as_u16());
            let chosen = chosen(self.decision, self.slot.as_ref());
            if let Some(stale) = stand_in(&mut self.cx, chosen, &ask, self.decision, failure, &plot.site) {
                let landing = Landing::Failed(failure, bastide_types::Code::OriginUnreachable);
                return Some(Landed { answer: Ok(stale), landing, filling: None });
            }
        }
        let asked_about = with_conditions
            && (matches!(self.decision.action, Action::Validate(_))
                || self.decision.because == Because::NoVariant);
        if status == StatusCode::NOT_MODIFIED && asked_about {
            return self.not_modified(&ask, response, exchange);
        }
        if with_conditions && let Action::Complete(at) = self.decision.action {
            match status.as_u16() {
                206 => return self.complete(&ask, at, response, exchange).await,
                304 | 412 | 416 => return None,
                _ => {}
            }
        }
        if ask.method == Method::HEAD && status == StatusCode::OK {
            return Some(Landed::alone(Ok(self.head_says(&ask, response, exchange))));
        }
        Some(self.admit(&ask, response, exchange))
    }

    /// RFC 9111 §4.3.3, §4.3.4.
    fn not_modified(&mut self, ask: &Ask<'_>, response: Response, exchange: Exchange) -> Option<Landed> {
        let stored = variants(self.slot.as_ref());
        let fit = self.is_fit(&response).is_ok();
        let fields = of_the_response(response.headers(), &self.plot);
        let status = Status { forward_status: Some(304), ..Status::forward(self.decision.forward()) };
        match not_modified(ask, stored, self.decision.chosen, &fields) {
            NotModified::AskAgain => None,
            NotModified::PassOn => {
                // The origin's is another version than ours.
                if let Some(old) = chosen(self.decision, self.slot.as_ref()) {
                    self.store.cache.update(&self.key, old, Some(old.in_doubt()));
                }
                self.cx.cache = Some(Status { forward_status: None, ..status });
                Some(Landed::alone(Ok(response)))
            }
            NotModified::Reuse(at) => {
                self.cx.cache = Some(status);
                let old = stored[at].clone();
                let answer = made(self.cx.id, &old, None, ask, exchange.received, true);
                let landing = if fit { Landing::Holds(old) } else { Landing::Alone };
                Some(Landed { answer: Ok(with_route(answer, response.headers())), landing, filling: None })
            }
            NotModified::Update(found) => {
                let mut answer = None;
                for at in found {
                    let old = &stored[at];
                    let updated = freshen(&self.plot.site, ask, old, &fields, exchange);
                    let now = match updated.stored {
                        Ok(new) if fit => self.keep(old, new),
                        Err(why) if fit && !must_go(why) => None,
                        Ok(_) | Err(_) => {
                            self.store.cache.update(&self.key, old, None);
                            None
                        }
                    };
                    answer.get_or_insert_with(|| {
                        let stored = now.as_ref().unwrap_or(old);
                        let made =
                            made(self.cx.id, stored, Some(&updated.fields), ask, exchange.received, true);
                        (made, now.clone())
                    });
                }
                let (answer, now) = answer?;
                self.cx.cache = Some(Status { stored: now.is_some(), ..status });
                let landing = now.map_or(Landing::Alone, Landing::Holds);
                Some(Landed { answer: Ok(with_route(answer, response.headers())), landing, filling: None })
            }
        }
    }

    /// Puts an updated response in the place of the old one; one that another request's variant was named for
    /// comes beside it.
    fn keep(&self, old: &Arc<Stored>, new: Stored) -> Option<Arc<Stored>> {
        if self.decision.chosen.is_none() {
            return self.store.cache.store(&self.plot.space, &self.key, new, self.ticket).ok();
        }
        let spare = new.clone();
        // Where somebody else was faster, it is still good for this answer.
        Some(self.store.cache.update(&self.key, old, Some(new)).unwrap_or_else(|| Arc::new(spare)))
    }

    /// The missing part of a stored response (§3.4): it is awaited, joined, and the whole is the answer.
    async fn complete(
        &mut self,
        ask: &Ask<'_>,
        at: usize,
        response: Response,
        exchange: Exchange,
    ) -> Option<Landed> {
        self.is_fit(&response).ok()?;
        let base = variants(self.slot.as_ref()).get(at)?.clone();
        let fields = of_the_response(response.headers(), &self.plot);
        let draft = admit(&self.plot.site, ask, response.status(), &fields, exchange).ok()?;
        if !draft.joins(&base) {
            return None;
        }
        let route = response.headers().clone();
        let limit = self.store.cache.limits().entry_bytes_max;
        let body = response.into_body().collect_up_to(limit).await.ok()?;
        let whole = draft.finish(body, Some(&base)).ok().filter(|stored| stored.content.is_whole())?;
        let kept = self.store.cache.store(&self.plot.space, &self.key, whole.clone(), self.ticket);
        let status = Status { forward_status: Some(206), ..Status::forward(self.decision.forward()) };
        self.cx.cache = Some(Status { stored: kept.is_ok(), ..status });
        let whole = kept.unwrap_or_else(|_| Arc::new(whole));
        let answer = made(self.cx.id, &whole, None, ask, exchange.received, true);
        Some(Landed { answer: Ok(with_route(answer, &route)), landing: Landing::Holds(whole), filling: None })
    }

    /// A HEAD that was answered 200 updates what is stored and agrees with it, and makes doubtful what does not
    /// (§4.3.5).
    fn head_says(&mut self, ask: &Ask<'_>, response: Response, exchange: Exchange) -> Response {
        let fit = self.is_fit(&response).is_ok();
        let fields = of_the_response(response.headers(), &self.plot);
        let mut answer = None;
        for (at, old) in variants(self.slot.as_ref()).iter().enumerate() {
            if !old.variant.matches(ask.headers) {
                continue;
            }
            if !agrees(old, response.headers()) || !fit {
                self.store.cache.update(&self.key, old, Some(old.in_doubt()));
                continue;
            }
            let updated = freshen(&self.plot.site, ask, old, &fields, exchange);
            match updated.stored {
                Ok(new) => drop(self.store.cache.update(&self.key, old, Some(new))),
                Err(why) if must_go(why) => drop(self.store.cache.update(&self.key, old, None)),
                Err(_) => {}
            }
            if self.decision.chosen == Some(at) {
                answer = Some(made(self.cx.id, old, Some(&updated.fields), ask, exchange.received, true));
            }
        }
        match answer {
            Some(answer) => with_route(answer, response.headers()),
            None => response,
        }
    }

    /// A response that is stored as it comes, or is for the asker alone.
    fn admit(&mut self, ask: &Ask<'_>, response: Response, exchange: Exchange) -> Landed {
        let fields = of_the_response(response.headers(), &self.plot);
        let length = http_body::Body::size_hint(response.body()).exact();
        let limit = self.store.cache.limits().entry_bytes_max as u64;
        let draft = self
            .is_fit(&response)
            .and_then(|()| admit(&self.plot.site, ask, response.status(), &fields, exchange))
            .and_then(|draft| if length > Some(limit) { Err(NotStored::TooLarge) } else { Ok(draft) });
        match draft {
            Ok(draft) => {
                let fill = Fill::new(
                    response.status(),
                    fields,
                    draft.stored().clone(),
                    length,
                    self.store.budget.clone(),
                );
                let (head, body) = response.into_parts();
                let reader = fill.body().unwrap_or_default();
                if let Some(status) = &mut self.cx.cache {
                    status.stored = true;
                }
                let base = chosen(self.decision, self.slot.as_ref()).cloned();
                Landed {
                    answer: Ok(Response::from_parts(head, reader)),
                    landing: Landing::Fill(fill.clone()),
                    filling: Some(Filling { fill, body, draft, base, length }),
                }
            }
            Err(why) => {
                self.note_ground(why);
                if why != NotStored::Method && response.status() != StatusCode::NOT_MODIFIED {
                    self.store.cache.mark_unshared(&self.key, exchange.received, UNSHARED_S);
                }
                if let (Action::Validate(_), false, Some(old)) = (
                    self.decision.action,
                    response.status().is_server_error(),
                    chosen(self.decision, self.slot.as_ref()),
                ) {
                    // The origin has something else by now.
                    self.store.cache.update(&self.key, old, Some(old.in_doubt()));
                }
                Landed::alone(Ok(response))
            }
        }
    }

    /// Takes a body in and stores what came of it.
    async fn store(self, filling: Filling) {
        let Filling { fill, body, draft, base, length } = filling;
        let stored = match fill.pump(body).await {
            Pumped::Whole(body) => draft.finish(body, base.as_deref()),
            Pumped::Broken(body) => draft.cut_off(body, length, base.as_deref()),
            Pumped::TooLarge => Err(NotStored::TooLarge),
        };
        let kept = stored
            .and_then(|stored| self.store.cache.store(&self.plot.space, &self.key, stored, self.ticket));
        if let Err(why) = kept {
            self.note_ground(why);
            if why == NotStored::TooLarge {
                self.store.cache.mark_unshared(&self.key, clock::now(), UNSHARED_S);
            }
        }
    }

    /// Remembers why an answer is not stored, for whoever asks.
    fn note_ground(&self, why: NotStored) {
        tracing::debug!(name: "edge.cache.not-stored", request = %self.cx.id, why = why.text(), section = why.section());
        self.store.cache.note_ground(&self.key, why, clock::now());
    }

    /// Whether an answer may be shared as far as the edge is concerned.
    fn is_fit(&self, response: &Response) -> Result<(), NotStored> {
        if varies_on_ours(response.headers()) {
            return Err(NotStored::VariesOnOurs);
        }
        if self.plot.is_fit(response.headers()) { Ok(()) } else { Err(NotStored::NotFit) }
    }
}

/// The fields of a response that are not about this one exchange, or for us alone.
fn of_the_response(headers: &HeaderMap, plot: &Plot) -> HeaderMap {
    let mut fields = headers.clone();
    if plot.mark.is_some() {
        // Customers' sites say it themselves, in every answer.
        fields.remove(header::STRICT_TRANSPORT_SECURITY);
    }
    for name in [ours::CACHEABLE, ours::REPLICA, ours::REQUEST_ID, ours::ZONE] {
        fields.remove(name);
    }
    fields.remove(header::SERVER);
    fields.remove(header::ALT_SVC);
    bastide_cache::head::without_connection(&fields)
}

/// The same answer, saying who was asked.
fn with_route(mut answer: Response, asked: &HeaderMap) -> Response {
    for name in [ours::REPLICA, ours::ZONE] {
        if let Some(value) = asked.get(name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}
