//! What the edge says to those behind it and to the client.

use crate::context::Context;
use bastide_proxy::{Response, headers as hygiene};
use bastide_types::{Code, Domains, RequestId, header};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

use crate::refusal::Refusal;

/// Our name in `CDN-Loop` (RFC 8586): the same for all edges of one installation, another for every other,
/// since one Bastide may well stand before another.
pub(crate) struct LoopId(HeaderValue);

impl LoopId {
    /// Of an installation: the host below which its Platform is served.
    pub(crate) fn of(domains: &Domains) -> Self {
        Self::named(&format!("{}:{}", domains.platform, domains.https_port))
    }
    /// Of an edge that stands alone: a pseudonym for as long as it runs.
    pub(crate) fn alone() -> Self {
        Self::named(&format!("bastide-{:08x}", RequestId::generate().0.as_u64_pair().1 as u32))
    }

    fn named(name: &str) -> Self {
        Self(HeaderValue::from_str(name).expect("names of hosts are values of fields"))
    }
}

static REQUEST_ID: HeaderName = HeaderName::from_static(header::REQUEST_ID);
static CACHEABLE: HeaderName = HeaderName::from_static(header::CACHEABLE);
static REFUSAL: HeaderName = HeaderName::from_static(header::REFUSAL);
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Removes what belongs to the client's connection and what only we may say. This comes before the cache,
/// so that a variant is chosen by what the origin will see, and by nothing that a client nominates away.
pub(crate) fn clean(headers: &mut HeaderMap) {
    hygiene::strip_hop_by_hop(headers);
    hygiene::strip_spoofable(headers);
    // It was met when the client was told to go on.
    headers.remove(http::header::EXPECT);
}

/// Whether an answer varies on what we say ourselves: about the client, or about this one request.
pub(crate) fn varies_on_ours(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(http::header::VARY).iter().filter_map(|line| line.to_str().ok());
    let names =
        lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse::<HeaderName>().ok());
    let mut named: HeaderMap = names.map(|name| (name, HeaderValue::from_static(""))).collect();
    let count = named.len();
    hygiene::strip_spoofable(&mut named);
    named.len() < count
}

/// Says what everybody behind us may know; [`clean`] went before.
pub(crate) fn prepare(cx: &Context, own: &LoopId, headers: &mut HeaderMap) -> Result<(), Refusal> {
    if hygiene::loops(headers, own.0.as_bytes()) {
        return Err(Refusal::new(Code::LoopDetected));
    }
    let mut block = hygiene::Block::default();
    hygiene::set_forwarded(headers, &mut block, cx.client, cx.scheme(), &cx.authority);
    let mut text = uuid::Uuid::encode_buffer();
    let id = block.value(&[cx.id.0.hyphenated().encode_lower(&mut text)]);
    let trace = &*cx.id.0.simple().encode_lower(&mut text);
    // A trace that begins here (W3C Trace Context): its id, and that of its first part, from the request's own.
    let trace = block.value(&["00-", trace, "-", &trace[16..], "-01"]);
    for (name, value) in [(&REQUEST_ID, id), (&TRACEPARENT, trace)] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    headers.append(http::header::VIA, HeaderValue::from_static(via(cx.raw.version)));
    headers.append(&hygiene::CDN_LOOP, own.0.clone());
    Ok(())
}

/// Says what only our own gateways should know.
pub(crate) fn prepare_for_gateway(cx: &Context, headers: &mut HeaderMap, deadline: Duration) {
    set(headers, header::CLIENT_IP, &cx.client.to_string());
    set(headers, header::DEADLINE_MS, &deadline.as_millis().to_string());
}

/// The protocol as it was received, and who we are (RFC 9110 §7.6.3).
fn via(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "2 bastide",
        http::Version::HTTP_10 => "1.0 bastide",
        _ => "1.1 bastide",
    }
}

/// Removes what only those behind us should see, and adds what every answer carries.
pub(crate) fn finish(cx: &Context, response: &mut Response, hsts: Option<&'static str>) {
    let headers = response.headers_mut();
    headers.remove(&CACHEABLE);
    headers.remove(&REFUSAL);
    headers.remove(http::header::SERVER);
    // It would lead all apps of the host elsewhere, and it is about a connection that is not ours.
    headers.remove(http::header::ALT_SVC);
    let id = cx.id.0.hyphenated();
    if let Ok(mut id) = HeaderValue::from_str(id.encode_lower(&mut uuid::Uuid::encode_buffer())) {
        // It never comes again: in HPACK's table it would only take the place of what does.
        id.set_sensitive(true);
        headers.insert(&REQUEST_ID, id);
    }
    if let Some(hsts) = hsts {
        headers.insert(http::header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(hsts));
    }
    if let Some(status) = cx.cache
        && let Ok(value) = HeaderValue::try_from(status.value())
    {
        headers.append("cache-status", value);
    }
}

pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
