//! What a 304 or a HEAD says about stored responses (RFC 9111 §4.3.4, §4.3.5).

use crate::{
    admit::{Exchange, admit},
    ask::Ask,
    condition::{self, is_strong},
    date,
    head::merge,
    site::Site,
    stored::Stored,
    why::NotStored,
};
use http::{HeaderMap, Method, header};
use std::sync::Arc;

/// What a 304 means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotModified {
    /// These stored responses still hold and are updated; the first is the answer.
    Update(Vec<usize>),
    /// This one still holds, but the 304 does not say clearly enough that it means it to update it.
    Reuse(usize),
    /// It answers the client's own condition.
    PassOn,
    /// It means nothing that we have: ask again, without conditions.
    AskAgain,
}

/// Finds what a 304 means. `chosen` is the stored response whose validators were sent, if one could have been
/// chosen for the request; otherwise the tags of all variants were.
pub fn not_modified(
    ask: &Ask<'_>,
    stored: &[Arc<Stored>],
    chosen: Option<usize>,
    headers: &HeaderMap,
) -> NotModified {
    let selectable = |at: &usize| match chosen {
        Some(_) => stored[*at].variant.matches(ask.headers),
        None => is_acceptable(ask.headers, &stored[*at]),
    };
    let all = (0..stored.len()).filter(selectable);
    let newest_first = |mut found: Vec<usize>| {
        found.sort_by_key(|at| std::cmp::Reverse(stored[*at].came()));
        found
    };
    let tag = headers.get(header::ETAG).map(http::HeaderValue::as_bytes);
    let own_tag = |at: usize| stored[at].validators.etag.as_ref().map(http::HeaderValue::as_bytes);
    let found = match (tag, headers.get(header::LAST_MODIFIED)) {
        (Some(tag), _) if is_strong(tag) => {
            let found = newest_first(all.filter(|at| own_tag(*at) == Some(tag)).collect());
            // Without a variant that fits, the tag names the one that does; its others do not change.
            if chosen.is_none() { found.into_iter().take(1).collect() } else { found }
        }
        // Only a strong tag names one of several variants.
        _ if chosen.is_none() => Vec::new(),
        (Some(tag), _) => {
            let same = |at: &usize| own_tag(*at).is_some_and(|own| condition::is_same(own, tag));
            newest_first(all.filter(same).collect()).into_iter().take(1).collect()
        }
        (None, Some(modified)) => {
            let same = |at: &usize| stored[*at].validators.last_modified_text.as_ref() == Some(modified);
            newest_first(all.filter(same).collect()).into_iter().take(1).collect()
        }
        (None, None) => {
            let all: Vec<_> = all.collect();
            all.into_iter().filter(|at| stored.len() == 1 && !stored[*at].validators.is_any()).collect()
        }
    };
    if !found.is_empty() {
        return NotModified::Update(found);
    }
    if condition::has_own(ask.headers) {
        return NotModified::PassOn;
    }
    match chosen {
        // Only our own conditions were sent: whatever it leaves out, it answers them.
        Some(at) if tag.is_none() && !headers.contains_key(header::LAST_MODIFIED) => NotModified::Reuse(at),
        _ => NotModified::AskAgain,
    }
}

/// A stored response after an update.
#[derive(Debug)]
pub struct Updated {
    /// All fields that now hold, those included that are not stored: the answer to whoever asked.
    pub fields: HeaderMap,
    /// What is stored from now on.
    pub stored: Result<Stored, NotStored>,
}

/// Brings the fields of a 304, or of the answer to a HEAD, into a stored response, and judges it anew: its
/// lifetime, age, variant, and whether it may be stored at all.
pub fn freshen(
    site: &Site,
    ask: &Ask<'_>,
    stored: &Stored,
    headers: &HeaderMap,
    exchange: Exchange,
) -> Updated {
    let mut fields = merge(&stored.head.to_map(), headers);
    if date::read(headers, &header::DATE, exchange.received.wall_s()).is_none() {
        fields.insert(header::DATE, date::value(exchange.received.wall_s()));
    }
    let get = Ask { method: &Method::GET, ..ask.clone() };
    let draft = admit(site, &get, stored.status, &fields, exchange);
    let stored = draft.map(|draft| Stored {
        content: stored.content.clone(),
        content_id: stored.content_id,
        ..draft.into_stored()
    });
    Updated { fields, stored }
}

/// Whether a client takes the coding of a stored response: a guard against origins that give the variants of
/// an address one tag.
pub fn is_acceptable(asked: &HeaderMap, stored: &Stored) -> bool {
    let Some(coding) = stored.head.get(&header::CONTENT_ENCODING) else { return true };
    let wanted = asked.get_all(header::ACCEPT_ENCODING).iter();
    wanted.flat_map(|line| crate::control::members(line.as_bytes())).any(|member| {
        let mut parts = member.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|part| {
            part.strip_prefix(b"q=").and_then(crate::vary::thousandths).is_some_and(|quality| quality == 0)
        });
        !refused && name.eq_ignore_ascii_case(coding.as_bytes())
    })
}

/// Whether an update that may not be stored says that what is stored must go.
pub fn must_go(why: NotStored) -> bool {
    matches!(why, NotStored::NoStore | NotStored::Private | NotStored::VariesOnAll | NotStored::NotUnderstood)
}

/// Whether the answer to a HEAD agrees with a stored response in all that it says: the tag, the time of the
/// last change, the length.
pub fn agrees(stored: &Stored, headers: &HeaderMap) -> bool {
    let same = |name, own: Option<&http::HeaderValue>| {
        headers.get(name).is_none_or(|said: &http::HeaderValue| own == Some(said))
    };
    let length = headers.get(header::CONTENT_LENGTH);
    same(&header::ETAG, stored.head.get(&header::ETAG))
        && same(&header::LAST_MODIFIED, stored.head.get(&header::LAST_MODIFIED))
        && length.is_none_or(|said| said.as_bytes() == stored.content.length().to_string().as_bytes())
}
