//! A cache in small: one address, an origin that says what it is told to, a clock that is turned by hand.

use bastide_cache::{
    Action, Ask, Because, Decision, Exchange, Moment, NotStored, Reply, Site, Stored,
    admit::admit,
    decide::{Failure, decide, prepare, stands_in},
    reply::{Making, reply},
    update::{NotModified, agrees, freshen, must_go, not_modified},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::sync::Arc;

/// Fields as text.
pub type Fields<'f> = &'f [(&'f str, &'f str)];

/// 24 November 2026.
pub const START_S: u64 = 1_795_564_800;

pub fn map(fields: Fields<'_>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    map
}

pub fn at(seconds: u64) -> Moment {
    Moment { wall_ms: START_S * 1000, steady_ms: 777 }.after(seconds * 1000)
}

/// A date so many seconds after the start.
pub fn day(offset: i64) -> String {
    bastide_cache::date::value(at(0).wall_s() + offset).to_str().unwrap().to_owned()
}

/// What the origin answers.
#[derive(Clone)]
pub struct Says {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: &'static str,
}

pub fn says(status: u16, fields: Fields<'_>, body: &'static str) -> Says {
    Says { status, fields: map(fields), body }
}

/// What came of a request.
pub struct Came {
    pub decision: Decision,
    /// What was sent to the origin, if anything was.
    pub sent: Option<HeaderMap>,
    pub reply: Option<Reply>,
    pub stored: Option<Result<(), NotStored>>,
}

impl Came {
    pub fn because(&self) -> Because {
        self.decision.because
    }
    pub fn is_hit(&self) -> bool {
        matches!(self.decision.action, Action::Hit(_) | Action::HitAndRefresh(_))
    }
    pub fn status(&self) -> u16 {
        self.reply.as_ref().unwrap().status.as_u16()
    }
    pub fn text(&self) -> String {
        let body: Vec<u8> = self.reply.as_ref().unwrap().body.concat();
        String::from_utf8(body).unwrap()
    }
    pub fn sent(&self, name: &str) -> Option<&str> {
        self.sent.as_ref().unwrap().get(name).map(|value| value.to_str().unwrap())
    }
}

/// The cache.
pub struct Lab {
    pub site: Site,
    pub stored: Vec<Arc<Stored>>,
    pub now: Moment,
    /// Seconds that the origin takes to answer.
    pub delay_s: u64,
}

impl Lab {
    pub fn new() -> Self {
        Self { site: Site::alone(), stored: Vec::new(), now: at(0), delay_s: 0 }
    }

    pub fn wait(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now.after(seconds * 1000);
        self
    }

    pub fn get(&mut self, asked: Fields<'_>, origin: &Says) -> Came {
        self.ask(&Method::GET, asked, Some(origin))
    }

    /// A GET while the origin cannot be reached.
    pub fn alone(&mut self, asked: Fields<'_>) -> Came {
        self.ask(&Method::GET, asked, None)
    }

    /// Stores what the origin says, and nothing else.
    pub fn fill(fields: Fields<'_>, body: &'static str) -> Self {
        let mut lab = Self::new();
        let came = lab.get(&[], &says(200, fields, body));
        assert_eq!(came.stored, Some(Ok(())), "{fields:?}");
        lab
    }

    /// Whether a request is answered without the origin.
    pub fn hits(&self, asked: Fields<'_>) -> bool {
        let headers = map(asked);
        let ask = Ask::new(&Method::GET, &headers, &self.site);
        matches!(decide(&ask, &self.stored, self.now).action, Action::Hit(_) | Action::HitAndRefresh(_))
    }

    pub fn reply(&self, at: usize, head: Option<&HeaderMap>, ask: &Ask<'_>, validated: bool) -> Reply {
        let making = Making { now: self.now, validated, boundary: &|| "BOUNDARY".to_owned() };
        reply(&self.stored[at], head, ask, making)
    }

    pub fn ask(&mut self, method: &Method, asked: Fields<'_>, origin: Option<&Says>) -> Came {
        let headers = map(asked);
        let ask = Ask::new(method, &headers, &self.site);
        let decision = decide(&ask, &self.stored, self.now);
        let mut came = Came { decision, sent: None, reply: None, stored: None };
        match decision.action {
            Action::Hit(at) | Action::HitAndRefresh(at) => {
                came.reply = Some(self.reply(at, None, &ask, false));
                return came;
            }
            Action::Refuse => return came,
            Action::Validate(_) | Action::Complete(_) | Action::Forward => {}
        }
        let mut sent = headers.clone();
        prepare(decision, &ask, &self.stored, &mut sent);
        let requested = self.now;
        self.now = self.now.after(self.delay_s * 1000);
        let exchange = Exchange { requested, received: self.now, if_range: sent.contains_key("if-range") };
        came.sent = Some(sent);
        let failure = match origin {
            None => Some(Failure::Disconnected),
            Some(says) if says.status >= 500 => Some(Failure::Status(says.status)),
            Some(_) => None,
        };
        if let (Some(failure), Some(at)) = (failure, decision.chosen)
            && let Some(because) = stands_in(&ask, &self.stored[at], failure, &self.site, self.now)
        {
            came.decision.because = because;
            came.reply = Some(self.reply(at, None, &ask, false));
            return came;
        }
        let Some(origin) = origin else { return came };
        let asked_conditions =
            matches!(decision.action, Action::Validate(_)) || decision.because == Because::NoVariant;
        if origin.status == 304 && asked_conditions {
            self.freshen(&ask, decision.chosen, origin, exchange, &mut came);
            return came;
        }
        if *method == Method::HEAD && origin.status == 200 {
            for at in 0..self.stored.len() {
                if !self.stored[at].variant.matches(&headers) {
                    continue;
                }
                self.stored[at] = if agrees(&self.stored[at], &origin.fields) {
                    let updated = freshen(&self.site, &ask, &self.stored[at], &origin.fields, exchange);
                    Arc::new(updated.stored.unwrap())
                } else {
                    Arc::new(self.stored[at].in_doubt())
                };
            }
        }
        let status = StatusCode::from_u16(origin.status).unwrap();
        let base = decision.chosen.map(|at| self.stored[at].clone());
        let stored = admit(&self.site, &ask, status, &origin.fields, exchange)
            .and_then(|draft| draft.finish(Bytes::from_static(origin.body.as_bytes()), base.as_deref()));
        came.stored = Some(stored.map(|stored| self.put(stored)));
        came
    }

    fn put(&mut self, stored: Stored) {
        self.stored.retain(|other| other.variant != stored.variant);
        self.stored.push(Arc::new(stored));
    }

    fn freshen(
        &mut self,
        ask: &Ask<'_>,
        chosen: Option<usize>,
        origin: &Says,
        exchange: Exchange,
        came: &mut Came,
    ) {
        match not_modified(ask, &self.stored, chosen, &origin.fields) {
            NotModified::Update(found) => {
                for (order, at) in found.into_iter().enumerate() {
                    let updated = freshen(&self.site, ask, &self.stored[at], &origin.fields, exchange);
                    came.stored = Some(updated.stored.as_ref().map(|_| ()).map_err(|why| *why));
                    let old = self.stored[at].clone();
                    match updated.stored {
                        Ok(stored) if stored.variant == old.variant => self.stored[at] = Arc::new(stored),
                        Ok(stored) => self.stored.push(Arc::new(stored)),
                        Err(why) if must_go(why) => self.stored[at] = Arc::new(old.in_doubt()),
                        Err(_) => {}
                    }
                    if order == 0 {
                        let making = Making { now: self.now, validated: true, boundary: &|| String::new() };
                        came.reply = Some(reply(&old, Some(&updated.fields), ask, making));
                    }
                }
            }
            NotModified::Reuse(at) => came.reply = Some(self.reply(at, None, ask, true)),
            NotModified::PassOn | NotModified::AskAgain => {}
        }
    }
}
