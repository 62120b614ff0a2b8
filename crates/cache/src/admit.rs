//! What may be stored (RFC 9111 §3), and what becomes of a response that may.

use crate::{
    Moment,
    ask::Ask,
    condition::Validators,
    control::CacheControl,
    date,
    freshness::{Lifetime, initial_age_ms, is_heuristic},
    head::{Head, to_store},
    range::ContentRange,
    sf,
    site::Site,
    stored::{Content, Stored},
    targeted::governing,
    vary::Variant,
    why::NotStored,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use std::sync::atomic::{AtomicU64, Ordering};

/// Groups of a response (RFC 9875).
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
/// Groups that an unsafe request makes invalid (RFC 9875).
pub const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// Groups of one response that count, and the longest name.
const GROUPS_MAX: usize = 64;
const GROUP_BYTES_MAX: usize = 256;

/// What an exchange with the origin was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// When the request was sent.
    pub requested: Moment,
    /// When the head of the response had arrived.
    pub received: Moment,
    /// The request went out with `If-Range`: a 206 may lack fields of the whole (RFC 9110 §15.3.7).
    pub if_range: bool,
}

/// A response that may be stored, without its body.
#[derive(Debug, Clone)]
pub struct Draft {
    stored: Stored,
    part: Option<ContentRange>,
    is_bare: bool,
}

impl Draft {
    /// Which bytes of the whole the body holds; all without.
    pub fn part(&self) -> Option<ContentRange> {
        self.part
    }

    /// The response as it will be stored, its content still empty.
    pub(crate) fn into_stored(self) -> Stored {
        self.stored
    }

    /// The same, to look at.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The response with its body, which came to its end.
    ///
    /// A part joins the content of `base` where both are surely of one version (§3.4); where its body is
    /// shorter than it said, what came counts from where it begins.
    ///
    /// # Errors
    /// [`NotStored::PartUnclear`] when a part holds more than it said, or lacks fields and has no base.
    pub fn finish(self, body: Bytes, base: Option<&Stored>) -> Result<Stored, NotStored> {
        let Some(part) = self.part else {
            let content_id = next_content_id();
            return Ok(Stored { content: Content::Whole(body), content_id, ..self.stored });
        };
        if body.len() as u64 > part.length() {
            return Err(NotStored::PartUnclear);
        }
        self.joined(part.first, part.total, &body, base)
    }

    /// What came of a body that broke off (§3.3): `length` is what the whole, or the part, should have had.
    ///
    /// # Errors
    /// [`NotStored::Incomplete`] when nothing can ever be added, since there is no strong validator.
    pub fn cut_off(
        self,
        body: Bytes,
        length: Option<u64>,
        base: Option<&Stored>,
    ) -> Result<Stored, NotStored> {
        let (first, total) = match (self.part, length) {
            (Some(part), _) => (part.first, part.total),
            (None, Some(length)) => (0, length),
            (None, None) => return Err(NotStored::Incomplete),
        };
        let is_strong = self.stored.validators.same_bytes(&self.stored.validators);
        let fits = self.stored.status == StatusCode::OK && first + body.len() as u64 <= total;
        if !is_strong || !fits || body.is_empty() {
            return Err(NotStored::Incomplete);
        }
        self.joined(first, total, &body, base)
    }

    /// Whether a part of this response may join what is stored (§3.4).
    pub fn joins(&self, base: &Stored) -> bool {
        let total = self.part.map(|part| part.total);
        total.is_none_or(|total| base.content.length() == total)
            && base.validators.same_bytes(&self.stored.validators)
    }

    fn joined(
        self,
        first: u64,
        total: u64,
        body: &Bytes,
        base: Option<&Stored>,
    ) -> Result<Stored, NotStored> {
        let content_id = next_content_id();
        let base = base.filter(|base| self.joins(base) && base.content.length() == total);
        let Some(base) = base else {
            let content = Content::Pieces(total, Vec::new()).with(first, body);
            return if self.is_bare {
                Err(NotStored::PartUnclear)
            } else {
                Ok(Stored { content, content_id, ..self.stored })
            };
        };
        // §3.4: new fields replace stored ones, which stay where the new head says nothing.
        let fields = crate::head::merge(&base.head.to_map(), &self.stored.head.to_map());
        let content = base.content.with(first, body);
        Ok(Stored { head: Head::new(&fields), content, content_id, ..self.stored })
    }
}

/// Whether a response may be stored, and as what. `headers` are those of the response as it came.
///
/// A status without a body makes a draft too; interim responses never come here.
///
/// # Errors
/// Why it may not.
pub fn admit(
    site: &Site,
    ask: &Ask<'_>,
    status: StatusCode,
    headers: &HeaderMap,
    exchange: Exchange,
) -> Result<Draft, NotStored> {
    let governing = governing(headers, &site.targets);
    let control = &governing.control;
    if *ask.method != Method::GET {
        return Err(NotStored::Method);
    }
    if status.is_informational() || status == StatusCode::NOT_MODIFIED {
        return Err(NotStored::Status);
    }
    if control.must_understand && !is_understood(status) {
        return Err(NotStored::NotUnderstood);
    }
    if control.no_store && !control.must_understand {
        return Err(NotStored::NoStore);
    }
    if ask.no_store {
        return Err(NotStored::ClientNoStore);
    }
    if control.private.is_all() {
        return Err(NotStored::Private);
    }
    let explicitly = control.public || control.s_maxage.is_some();
    let shared = explicitly || control.must_revalidate;
    if ask.is_authorized() && !(site.share_authorized && shared) {
        return Err(NotStored::Credentials);
    }
    if headers.contains_key(header::SET_COOKIE) && !(site.share_cookies && (explicitly || governing.targeted))
    {
        let named = control.private.fields().iter().chain(control.no_cache.fields());
        if !named.into_iter().any(|name| *name == header::SET_COOKIE) {
            return Err(NotStored::Cookie);
        }
    }
    let variant = Variant::of(ask.headers, headers).ok_or(NotStored::VariesOnAll)?;
    let lifetime = Lifetime::of(status, headers, &governing, site.guess_lifetime, exchange.received);
    if !lifetime.is_explicit() && !control.public && !is_heuristic(status) {
        return Err(NotStored::NoLifetime);
    }
    let part = part(status, headers)?;
    let validators = Validators::of(headers, exchange.received);
    let stored = Stored {
        status: if part.is_some() { StatusCode::OK } else { status },
        head: Head::new(&kept(headers, control, part, exchange.received)),
        content: Content::Whole(Bytes::new()),
        content_id: 0,
        variant,
        lifetime,
        groups: groups(headers, &CACHE_GROUPS),
        shared,
        doubted: false,
        forbids_stale: Stored::forbids(control, site),
        initial_age_ms: initial_age_ms(headers, exchange.requested, exchange.received),
        received: exchange.received,
        validators,
        control: governing.control,
    };
    let late = stored.control.stale_while_revalidate.max(stored.control.stale_if_error).unwrap_or(0);
    let is_of_use = stored.validators.is_any()
        || (!stored.control.no_cache.is_all() && (stored.is_fresh(exchange.received) || late > 0))
        || (lifetime.seconds > 0 && !stored.control.no_cache.is_all());
    if !is_of_use {
        return Err(NotStored::UselessAtOnce);
    }
    Ok(Draft { stored, part, is_bare: part.is_some() && exchange.if_range })
}

fn next_content_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Which bytes a 206 holds. One of several parts is not taken apart.
fn part(status: StatusCode, headers: &HeaderMap) -> Result<Option<ContentRange>, NotStored> {
    if status != StatusCode::PARTIAL_CONTENT {
        return Ok(None);
    }
    ContentRange::read(headers).map(Some).ok_or(NotStored::PartUnclear)
}

/// The fields to keep, with a Date (RFC 9110 §6.6.1).
fn kept(
    headers: &HeaderMap,
    control: &CacheControl,
    part: Option<ContentRange>,
    received: Moment,
) -> HeaderMap {
    let mut kept = to_store(headers, &control.private, &control.no_cache);
    if part.is_some() {
        kept.remove(header::CONTENT_RANGE);
    }
    if date::read(&kept, &header::DATE, received.wall_s()).is_none() {
        kept.insert(header::DATE, date::value(received.wall_s()));
    }
    kept
}

/// The groups that a field names.
pub fn groups(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let members = sf::list(headers, name).unwrap_or_default().into_iter();
    members
        .filter_map(|member| match member {
            sf::Value::String(group) if group.len() <= GROUP_BYTES_MAX => Some(group),
            _ => None,
        })
        .take(GROUPS_MAX)
        .collect()
}

/// Final statuses whose meaning for a cache is known (RFC 9110 §15).
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}
