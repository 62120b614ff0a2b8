//! A request's head in HTTP/2: the same meaning, and the same refusals, as in HTTP/1.
//!
//! What would become two requests when it is written in HTTP/1 does not get this far: `h2` takes names in lower
//! case only, no control characters in values, no fields of a connection, and compares the length with the data.

use crate::{
    HeadFault, Limits, RawHead,
    h1::head::{Framing, check_method, expects_continue, is_host, said_framing},
    upgrade,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, Version, header, request::Parts};

/// What is known of a request beside its head.
pub(super) struct Head {
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
}

/// An extended CONNECT for a protocol that may be tunnelled looks like the upgrade of HTTP/1 (RFC 8441).
pub(super) fn as_upgrade(head: &mut Parts) -> bool {
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    head.extensions.clear();
    let wanted = protocol
        .and_then(|protocol| HeaderValue::from_str(protocol.as_str()).ok())
        .and_then(|protocol| upgrade::Wanted::from_field(&protocol));
    let Some(wanted) = wanted.filter(|_| head.method == Method::CONNECT) else { return false };
    head.method = Method::GET;
    head.extensions.insert(wanted);
    true
}

/// The head as it came.
pub(super) fn raw(head: &Parts) -> RawHead {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (bytes(name.as_str()), Bytes::copy_from_slice(value.as_bytes()))
    };
    let mut headers: Vec<_> = head.headers.iter().map(field).collect();
    if let Some(authority) = head.uri.authority()
        && !head.headers.contains_key(header::HOST)
    {
        headers.insert(0, (Bytes::from_static(b"host"), bytes(authority.as_str())));
    }
    RawHead {
        method: bytes(head.method.as_str()),
        target: bytes(head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)),
        version: Version::HTTP_2,
        headers,
        bytes: None,
    }
}

/// Checks a head and gives it the form it has in HTTP/1: the authority is the Host field, the target is path
/// and query, cookies stand in one field.
pub(super) fn settle(head: &mut Parts, limits: &Limits) -> Result<Head, HeadFault> {
    if head.headers.len() > limits.header_count_max {
        return Err(HeadFault::TooLarge);
    }
    check_method(&head.method)?;
    settle_host(head)?;
    settle_target(head, limits)?;
    let framing = said_framing(&head.headers, Version::HTTP_2)?;
    let expects_continue = expects_continue(&head.headers)?;
    join_cookies(head);
    Ok(Head { framing, expects_continue })
}

fn settle_host(head: &mut Parts) -> Result<(), HeadFault> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadFault::DuplicateHost);
    }
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = match (authority, host) {
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority) => {
            return Err(HeadFault::TargetHost);
        }
        (Some(authority), _) => HeaderValue::from_bytes(authority).map_err(|_| HeadFault::MalformedHost)?,
        (None, Some(host)) => host.clone(),
        (None, None) => return Err(HeadFault::MissingHost),
    };
    if !is_host(host.as_bytes()) {
        return Err(HeadFault::MalformedHost);
    }
    head.headers.insert(header::HOST, host);
    Ok(())
}

fn settle_target(head: &mut Parts, limits: &Limits) -> Result<(), HeadFault> {
    let target = head.uri.path_and_query().ok_or(HeadFault::Target)?;
    match target.as_str().as_bytes() {
        long if long.len() > limits.target_bytes_max => return Err(HeadFault::TargetTooLong),
        [b'/', ..] => {}
        b"*" if head.method == Method::OPTIONS => {}
        _ => return Err(HeadFault::Target),
    }
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target.clone());
    head.uri = Uri::from_parts(parts).map_err(|_| HeadFault::Target)?;
    Ok(())
}

/// Clients may send cookies in several fields; nobody behind us need know (RFC 9113 §8.2.3).
fn join_cookies(head: &mut Parts) {
    let lines: Vec<&[u8]> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() < 2 {
        return;
    }
    let joined = lines.join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        head.headers.insert(header::COOKIE, joined);
    }
}
