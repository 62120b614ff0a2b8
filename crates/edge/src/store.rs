//! The cache station: answers from the store, and puts there what is fit for everybody.

use crate::context::Context;
use bastide_cache::{
    Cache, CacheControl, Entry, Key, Site, Status, may_store, policy::may_look_up, store::Found,
};
use bastide_proxy::{Body, Request, Response};
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
/// larger one passes through.
pub(crate) async fn admit(
    cx: &mut Context,
    cache: &Cache,
    site: Site,
    asked: Asked,
    response: Response,
) -> Response {
    if !may_store(site, &asked.method, &asked.headers, response.status(), response.headers()) {
        return response;
    }
    let (head, mut body) = response.into_parts();
    // A body that is longer than the store takes is not held back at all when that is known.
    let known = http_body::Body::size_hint(&body).lower();
    if known > cache.entry_bytes_max() as u64 {
        return Response::from_parts(head, body);
    }
    let whole = match body.prefix(cache.entry_bytes_max()).await {
        Ok(prefix) if prefix.complete => prefix.bytes,
        // Too long, or broken: the client gets what there is, nothing is kept.
        _ => return Response::from_parts(head, body),
    };
    let mut headers = head.headers.clone();
    for name in bastide_types_fields() {
        headers.remove(name);
    }
    let entry = Entry::new(&asked.headers, head.status, headers, whole, asked.begun, SystemTime::now());
    let stored = entry.is_some_and(|entry| cache.store(asked.key, entry, asked.generation));
    cx.cache = Some(if asked.stale { Status::Stale { stored } } else { Status::Miss { stored } });
    Response::from_parts(head, body)
}

/// Fields that belong to one exchange and are not stored.
const fn bastide_types_fields() -> [&'static str; 4] {
    use bastide_types::header::{CACHEABLE, REPLICA, REQUEST_ID, ZONE};
    [CACHEABLE, REPLICA, REQUEST_ID, ZONE]
}
