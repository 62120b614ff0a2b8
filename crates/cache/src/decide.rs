//! What to do with a request, from what is stored under its key (RFC 9111 §4).

use crate::{
    Moment,
    ask::{Ask, Kind},
    condition,
    control::SECONDS_MAX,
    range::Resolved,
    site::Site,
    status::Forward,
    stored::Stored,
    update::is_acceptable,
    why::Because,
};
use http::{HeaderMap, HeaderValue, Method, header};
use std::sync::Arc;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Answer with this stored response.
    Hit(usize),
    /// Answer with this one, which is stale, and fetch it anew meanwhile.
    HitAndRefresh(usize),
    /// Ask the origin whether this one still holds.
    Validate(usize),
    /// Fetch what is missing of this one.
    Complete(usize),
    /// Send the request on.
    Forward,
    /// The client wants nothing but what is stored, and nothing is: 504.
    Refuse,
}

/// A decision and its ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// Why.
    pub because: Because,
    /// The stored response that was chosen for the request, whether it may be used or not.
    pub chosen: Option<usize>,
}

impl Decision {
    const fn new(action: Action, because: Because) -> Self {
        Self { action, because, chosen: None }
    }

    /// Why the request goes forward, as `Cache-Status` says it.
    pub fn forward(self) -> Forward {
        self.because.forward()
    }
}

/// Decides. `stored` is all that is stored under the request's key.
pub fn decide(ask: &Ask<'_>, stored: &[Arc<Stored>], now: Moment) -> Decision {
    if ask.kind() != Kind::Lookup {
        return Decision::new(Action::Forward, Because::Method);
    }
    let chosen = select(ask.headers, stored);
    let decision = match chosen {
        _ if ask.is_origins() => Decision::new(Action::Forward, Because::OriginsCondition),
        None if stored.is_empty() => Decision::new(Action::Forward, Because::NothingStored),
        None => Decision::new(Action::Forward, Because::NoVariant),
        Some(at) => judge(ask, at, &stored[at], now),
    };
    // §5.2.1.7: with `only-if-cached` nothing goes upstream, not even to refresh.
    let (action, because) = match decision.action {
        Action::HitAndRefresh(at) if ask.control.only_if_cached => (Action::Hit(at), decision.because),
        Action::Validate(_) | Action::Complete(_) | Action::Forward if ask.control.only_if_cached => {
            (Action::Refuse, Because::OnlyIfCached)
        }
        action => (action, decision.because),
    };
    Decision { action, because, chosen }
}

/// What to do with the stored response that was chosen.
fn judge(ask: &Ask<'_>, at: usize, found: &Stored, now: Moment) -> Decision {
    let forward = |because| Decision::new(Action::Forward, because);
    if ask.is_authorized() && !found.shared {
        return forward(Because::Credentials);
    }
    if !found.content.is_whole() && !holds(found, ask, now) {
        let completable = ask.method == Method::GET && ask.ranges.is_none() && can_complete(found);
        let action = if completable { Action::Complete(at) } else { Action::Forward };
        return Decision::new(action, Because::PartMissing);
    }
    let validate = |because| {
        let action = if found.validators.is_any() { Action::Validate(at) } else { Action::Forward };
        Decision::new(action, because)
    };
    if ask.is_reload() {
        return validate(Because::ClientReloads);
    }
    if found.control.no_cache.is_all() {
        return validate(Because::NoCache);
    }
    if found.doubted {
        return validate(Because::Doubted);
    }
    if found.is_fresh(now) {
        return match demand(ask, found, now) {
            Some(because) => validate(because),
            None => Decision::new(Action::Hit(at), Because::Fresh),
        };
    }
    if found.forbids_stale() {
        return validate(Because::Stale);
    }
    if let Some(most) = ask.control.max_stale
        && demand(ask, found, now).is_none()
        && (most > SECONDS_MAX || found.is_stale_within(most, now))
    {
        return Decision::new(Action::Hit(at), Because::ClientTakesStale);
    }
    let window = found.control.stale_while_revalidate.unwrap_or(0);
    let demanded = ask.control.max_age.is_some() || ask.control.min_fresh.is_some();
    if window > 0 && !demanded && found.is_stale_within(window, now) {
        return Decision::new(Action::HitAndRefresh(at), Because::WhileRevalidating);
    }
    validate(Because::Stale)
}

/// What the client asks for beyond freshness and does not get (§5.2.1.1, §5.2.1.3).
fn demand(ask: &Ask<'_>, found: &Stored, now: Moment) -> Option<Because> {
    let age_ms = found.age_ms(now);
    let least = ask.control.min_fresh.unwrap_or(0);
    if ask.control.max_age.is_some_and(|most| age_ms > most.saturating_mul(1000)) {
        return Some(Because::ClientWantsYounger);
    }
    let left = u64::try_from(found.left_ms(now)).unwrap_or(0);
    (least > 0 && left < least.saturating_mul(1000)).then_some(Because::ClientWantsFresher)
}

/// The stored response that is chosen for a request (§4.1): of those that match, one that varies before one
/// that does not, then the newest.
pub fn select(asked: &HeaderMap, stored: &[Arc<Stored>]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (at, candidate) in stored.iter().enumerate() {
        if !candidate.variant.matches(asked) {
            continue;
        }
        let better = best.is_none_or(|best| {
            let best = &stored[best];
            match (candidate.variant.is_empty(), best.variant.is_empty()) {
                (false, true) => true,
                (true, false) => false,
                _ => candidate.is_newer_than(best),
            }
        });
        if better {
            best = Some(at);
        }
    }
    best
}

/// Whether what is there of a partial response is all that the request asks for (§3.3).
fn holds(found: &Stored, ask: &Ask<'_>, now: Moment) -> bool {
    let Some(ranges) = &ask.ranges else { return false };
    if !condition::is_range_meant(ask.headers, &found.validators, now) {
        return false;
    }
    match ranges.resolve(found.content.length()) {
        Resolved::Parts(parts) => {
            parts.iter().all(|(first, last)| found.content.slice(*first, *last).is_some())
        }
        Resolved::Unsatisfiable => true,
        Resolved::Whole => false,
    }
}

/// Whether missing parts may be added: only under a strong validator (§3.4).
fn can_complete(found: &Stored) -> bool {
    found.validators.strong_etag().is_some()
        || (found.validators.etag.is_none() && found.validators.is_date_strong())
}

/// Puts the conditions of a decision into the request that goes to the origin (§4.3.1).
///
/// With a tag stored it is sent, beside the client's own ones; when no variant fits, the tags of all variants
/// are, so that the origin can name the one that does.
pub fn prepare(decision: Decision, ask: &Ask<'_>, stored: &[Arc<Stored>], request: &mut HeaderMap) {
    match decision.action {
        Action::Validate(at) => {
            let own = &stored[at].validators;
            if let Some(tag) = &own.etag {
                add_tags(request, &[tag]);
            }
            if let Some(modified) = &own.last_modified_text {
                request.insert(header::IF_MODIFIED_SINCE, modified.clone());
            } else {
                request.remove(header::IF_MODIFIED_SINCE);
            }
        }
        Action::Complete(at) => {
            let found = &stored[at];
            let Some((first, last)) = found.content.gap() else { return };
            let range = if last + 1 == found.content.length() {
                format!("bytes={first}-")
            } else {
                format!("bytes={first}-{last}")
            };
            let validator = found.validators.strong_etag().or(found.validators.last_modified_text.as_ref());
            if let (Ok(range), Some(validator)) = (HeaderValue::try_from(range), validator) {
                for condition in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE] {
                    request.remove(condition);
                }
                request.insert(header::RANGE, range);
                request.insert(header::IF_RANGE, validator.clone());
            }
        }
        Action::Forward if decision.because == Because::NoVariant && ask.ranges.is_none() => {
            let whole =
                stored.iter().filter(|other| other.content.is_whole() && is_acceptable(ask.headers, other));
            let tags: Vec<_> = whole.filter_map(|other| other.validators.strong_etag()).collect();
            add_tags(request, &tags);
        }
        Action::Hit(_) | Action::HitAndRefresh(_) | Action::Forward | Action::Refuse => {}
    }
}

/// Adds to `If-None-Match` what is not there yet; beside `*` nothing is needed.
fn add_tags(request: &mut HeaderMap, tags: &[&HeaderValue]) {
    let mut known: Vec<Vec<u8>> = condition::if_none_match(request).map(<[u8]>::to_vec).collect();
    if known.iter().any(|tag| tag == b"*") {
        return;
    }
    for tag in tags {
        if !known.iter().any(|own| own == tag.as_bytes()) {
            known.push(tag.as_bytes().to_vec());
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(&known.join(&b", "[..]))
        && !known.is_empty()
    {
        request.insert(header::IF_NONE_MATCH, value);
    }
}

/// How the origin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It could not be reached, broke off, or took too long.
    Disconnected,
    /// It answered with this status.
    Status(u16),
}

/// Whether a stale response may stand in for an origin that failed, and why (§4.2.4, RFC 5861 §4).
pub fn stands_in(
    ask: &Ask<'_>,
    found: &Stored,
    failure: Failure,
    site: &Site,
    now: Moment,
) -> Option<Because> {
    let is_error = matches!(failure, Failure::Disconnected | Failure::Status(500 | 502..=504));
    let unfit = found.forbids_stale() || found.doubted || ask.is_reload();
    if !is_error || unfit || (ask.is_authorized() && !found.shared) || demand(ask, found, now).is_some() {
        return None;
    }
    if !found.content.is_whole() && !holds(found, ask, now) {
        return None;
    }
    let window = found.control.stale_if_error.max(ask.control.stale_if_error).unwrap_or(0);
    if window > 0 && found.is_stale_within(window, now) {
        return Some(Because::IfError);
    }
    let disconnected = (failure == Failure::Disconnected).then_some(site.stale_when_disconnected_s).flatten();
    disconnected.filter(|window| found.is_stale_within(*window, now)).map(|_| Because::Disconnected)
}
