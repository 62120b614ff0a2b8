//! The cache station: answers from the store, and puts there what is fit for everybody.

use crate::{context::Context, headers::varies_on_ours};
use bastide_cache::{
    Cache, CacheControl, Entry, Key, Site, Status, freshness, may_store, policy::may_look_up, store::Found,
};
use bastide_proxy::{Body, BodyError, Request, Response, upgrade};
use http::{HeaderMap, Method};
use std::time::SystemTime;

/// What is remembered of a request until its answer comes.
pub(crate) struct Asked {
    key: Key,
    method: Method,
    headers: HeaderMap,
    generation: u64,
    begun: SystemTime,
    stale: bool,
}

/// What a look-up came to.
pub(crate) enum Outcome {
    /// The answer.
    Hit(Response),
    /// Nothing; an answer may be stored under this.
    Miss(Asked),
    /// Nothing, and nothing will be stored.
    Pass,
}

/// Looks a request up.
pub(crate) fn look_up(cx: &mut Context, cache: &Cache, scopes: &[&str], request: &Request) -> Outcome {
    let control = CacheControl::read(request.headers());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        cx.cache = Some(Status::Method);
        return Outcome::Pass;
    }
    // A body is in no key, but an origin may read it; an upgrade asks for a tunnel and not for a page.
    let body = !http_body::Body::is_end_stream(request.body());
    if body || request.extensions().get::<upgrade::Wanted>().is_some() {
        cx.cache = Some(Status::Request);
        return Outcome::Pass;
    }
    let key = Key::new(cx.scheme(), &cx.authority, request.uri(), scopes);
    let mut stale = false;
    if may_look_up(request.method(), request.headers(), &control) {
        match cache.look_up(&key, request.headers(), &control, cx.at) {
            Found::Fresh(entry) => {
                let answer = entry.answer(request.method(), request.headers(), cx.at);
                cx.cache = Some(Status::Hit { ttl_s: answer.ttl_s });
                let mut response = Response::new(Body::full(answer.body));
                *response.status_mut() = answer.status;
                *response.headers_mut() = answer.headers;
                return Outcome::Hit(response);
            }
            Found::Stale => stale = true,
            Found::Nothing => {}
        }
        cx.cache = Some(if stale { Status::Stale { stored: false } } else { Status::Miss { stored: false } });
    } else {
        cx.cache = Some(Status::Request);
    }
    let headers = request.headers().clone();
    let (generation, begun) = (cache.generation(), cx.at);
    Outcome::Miss(Asked { key, method: request.method().clone(), headers, generation, begun, stale })
}

/// Stores an answer when it is fit for everybody. It is read whole first, within the store's limit; a
/// larger one passes through, and one that would not be stored is not held back.
///
/// # Errors
/// When the answer breaks off while it is read: what came of it must not look like a whole one.
pub(crate) async fn admit(
    cx: &mut Context,
    cache: &Cache,
    site: Site,
    asked: Asked,
    response: Response,
) -> Result<Response, BodyError> {
    let known = http_body::Body::size_hint(response.body()).lower();
    let wanted = may_store(site, &asked.method, &asked.headers, response.status(), response.headers())
        && !varies_on_ours(response.headers())
        && is_fresh(&asked, &response)
        && known <= cache.entry_bytes_max() as u64;
    if !wanted {
        return Ok(response);
    }
    let (head, mut body) = response.into_parts();
    let prefix = body.prefix(cache.entry_bytes_max()).await?;
    if !prefix.complete {
        return Ok(Response::from_parts(head, body));
    }
    let whole = prefix.bytes;
    let mut headers = head.headers.clone();
    for name in of_one_exchange() {
        headers.remove(name);
    }
    let entry = Entry::new(&asked.headers, head.status, headers, whole, asked.begun, SystemTime::now());
    let stored = entry.is_some_and(|entry| cache.store(asked.key, entry, asked.generation));
    cx.cache = Some(if asked.stale { Status::Stale { stored } } else { Status::Miss { stored } });
    Ok(Response::from_parts(head, body))
}

/// Whether it is fresh when its head arrives.
fn is_fresh(asked: &Asked, response: &Response) -> bool {
    let (headers, now) = (response.headers(), SystemTime::now());
    let lifetime = freshness::lifetime(response.status(), headers, &CacheControl::read(headers), now);
    lifetime > freshness::initial_age(headers, asked.begun, now)
}

/// Fields that belong to one exchange and are not stored.
const fn of_one_exchange() -> [&'static str; 4] {
    use bastide_types::header::{CACHEABLE, REPLICA, REQUEST_ID, ZONE};
    [CACHEABLE, REPLICA, REQUEST_ID, ZONE]
}
