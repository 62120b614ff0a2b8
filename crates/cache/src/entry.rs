//! A stored response and what it answers.

use crate::{control::CacheControl, freshness};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use std::time::{Duration, SystemTime};

/// A stored response. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Status.
    pub status: StatusCode,
    /// Fields, without those of a connection and without Age.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    vary: Vec<(HeaderName, Option<Vec<u8>>)>,
    lifetime: Duration,
    initial_age: Duration,
    received: SystemTime,
}

/// An answer from the store.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status: the stored one, or 304.
    pub status: StatusCode,
    /// Fields.
    pub headers: HeaderMap,
    /// Body; empty for 304 and HEAD.
    pub body: Bytes,
    /// Seconds for which it stays fresh.
    pub ttl_s: u64,
}

impl Entry {
    /// Makes an entry of a complete response; `None` when it is not fresh at all.
    pub fn new(
        asked: &HeaderMap,
        status: StatusCode,
        mut headers: HeaderMap,
        body: Bytes,
        requested: SystemTime,
        received: SystemTime,
    ) -> Option<Self> {
        let control = CacheControl::read(&headers);
        let lifetime = freshness::lifetime(status, &headers, &control, received);
        let initial_age = freshness::initial_age(&headers, requested, received);
        if lifetime <= initial_age {
            return None;
        }
        let vary = nominated(&headers)?.into_iter().map(|name| (name.clone(), value(asked, &name))).collect();
        headers.remove(header::AGE);
        if !headers.contains_key(header::DATE) {
            headers.insert(header::DATE, HeaderValue::from_str(&httpdate::fmt_http_date(received)).ok()?);
        }
        Some(Self { status, headers, body, vary, lifetime, initial_age, received })
    }

    /// Whether this response is for requests like this one (§4.1).
    pub fn matches(&self, asked: &HeaderMap) -> bool {
        self.vary.iter().all(|(name, stored)| value(asked, name) == *stored)
    }

    fn age(&self, now: SystemTime) -> Duration {
        self.initial_age + now.duration_since(self.received).unwrap_or_default()
    }

    /// Whether it is fresh now, and long enough for what the request demands.
    pub fn is_fresh(&self, asked: &CacheControl, now: SystemTime) -> bool {
        let age = self.age(now);
        self.lifetime > age
            && asked.max_age.is_none_or(|most| age <= Duration::from_secs(most))
            && asked.min_fresh.is_none_or(|least| self.lifetime >= age + Duration::from_secs(least))
    }

    /// The answer to a GET or HEAD: 304 when the client has it already.
    pub fn answer(&self, method: &Method, asked: &HeaderMap, now: SystemTime) -> Answer {
        let age = self.age(now);
        let mut headers = self.headers.clone();
        headers.insert(header::AGE, age.as_secs().into());
        let ttl_s = self.lifetime.saturating_sub(age).as_secs();
        if self.is_known(asked) {
            for name in [
                header::CONTENT_LENGTH,
                header::CONTENT_TYPE,
                header::CONTENT_ENCODING,
                header::CONTENT_LANGUAGE,
            ] {
                headers.remove(name);
            }
            return Answer { status: StatusCode::NOT_MODIFIED, headers, body: Bytes::new(), ttl_s };
        }
        if self.status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_LENGTH, self.body.len().into());
        }
        let body = if *method == Method::HEAD { Bytes::new() } else { self.body.clone() };
        Answer { status: self.status, headers, body, ttl_s }
    }

    /// Whether the client's condition says that it has this response (RFC 9110 §13.1).
    fn is_known(&self, asked: &HeaderMap) -> bool {
        if self.status != StatusCode::OK {
            return false;
        }
        if asked.contains_key(header::IF_NONE_MATCH) {
            let own = self
                .headers
                .get(header::ETAG)
                .and_then(|tag| tag.to_str().ok())
                .map(|tag| tag.trim_start_matches("W/"));
            let lines = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
            let mut tags =
                lines.flat_map(|line| line.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
            return tags.any(|tag| tag == "*" || Some(tag) == own);
        }
        let time = |headers: &HeaderMap, name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?).ok())
        };
        match (time(asked, header::IF_MODIFIED_SINCE), time(&self.headers, header::LAST_MODIFIED)) {
            (Some(since), Some(modified)) => modified <= since,
            _ => false,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let fields: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        self.body.len() + fields + 256
    }

    pub(crate) fn same_variant(&self, other: &Self) -> bool {
        self.vary == other.vary
    }
}

/// Fields that the response nominates; `None` when it varies on everything.
fn nominated(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for line in headers.get_all(header::VARY) {
        for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "*" {
                return None;
            }
            names.push(HeaderName::from_bytes(name.as_bytes()).ok()?);
        }
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Some(names)
}

/// The request's value of a field: lines joined, white space trimmed; absent is not empty. Bytes, because
/// two values that are no text are still two values.
fn value(asked: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<_> = asked.get_all(name).iter().map(|line| line.as_bytes().trim_ascii()).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}
