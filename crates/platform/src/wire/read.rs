//! Answers of operations that only show something: the wanted part, a tag, nothing at all when the client has it, compressed.

use super::{ANSWER_BYTES_MAX, condition::Tag, paging};
use crate::ApiError;
use axum::{
    body::Body,
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use bastide_types::{API, Code};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use std::{collections::BTreeMap, io::Write};

/// Shorter answers gain nothing: with its head one fits into a packet either way.
const GZIP_BYTES_MIN: usize = 860;
const FIELDS_BYTES_MAX: usize = 1024;
const DEPTH_MAX: usize = 8;

/// Answers an operation that only shows something. `path` is the router's.
pub(crate) async fn read(path: &str, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let asked = Asked::take(path, &mut request)?;
    let response = next.run(request).await;
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if response.status() != StatusCode::OK || !is_json {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let mut body = body.map_err(|_| ApiError::new(Code::Internal))?.to_bytes();
    if asked.looks_into_it() {
        let mut value = serde_json::from_slice(&body).map_err(|error| ApiError::internal(&error))?;
        if let Some(link) = asked.page(&mut value)? {
            head.headers.insert(header::LINK, link);
        }
        if let Some(fields) = &asked.fields {
            fields.keep(&mut value);
        }
        body = value.to_string().into();
    }
    let tag = Tag::of(&body);
    let packed = if asked.gzip { gzip(&body)? } else { None };
    let is_packed = packed.is_some();
    head.headers.insert(header::ETAG, tag.field(is_packed));
    head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    head.headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    head.headers.remove(header::CONTENT_LENGTH);
    if asked.has.as_deref().is_some_and(|known| tag.is_weakly_in(known)) {
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(header::CONTENT_TYPE);
        return Ok((head, Body::empty()).into_response());
    }
    if is_packed {
        head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok((head, Body::from(packed.unwrap_or(body))).into_response())
}

/// What the client wants to have of the answer.
struct Asked {
    order: Option<&'static [&'static str]>,
    page: paging::Page,
    from_store: bool,
    /// Address of the list, without a cursor.
    list: String,
    fields: Option<Fields>,
    has: Option<String>,
    gzip: bool,
}

impl Asked {
    /// Takes it out of the request: handlers know nothing of it.
    fn take(path: &str, request: &mut Request) -> Result<Self, ApiError> {
        let (order, from_store) = (paging::order(path), paging::is_from_store(path));
        let (mut limit, mut cursor, mut fields) = (None, None, None);
        let mut rest = url::form_urlencoded::Serializer::new(String::new());
        let mut list = url::form_urlencoded::Serializer::new(String::new());
        let query = request.uri().query().unwrap_or_default().to_owned();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "cursor" if order.is_some() => {
                    cursor = Some(value.into_owned());
                    continue;
                }
                "limit" if order.is_some() => {
                    limit = Some(value.to_string());
                    if from_store {
                        rest.append_pair("limit", &value);
                    }
                }
                "fields" => fields = Some(Fields::read(&value)?),
                _ => drop(rest.append_pair(&name, &value)),
            }
            list.append_pair(&name, &value);
        }
        let page = paging::Page::new(limit.as_deref(), cursor.as_deref())?;
        if let Some(after) = page.after().filter(|_| from_store) {
            rest.append_pair("after", after);
        }
        let (rest, below) = (rest.finish(), request.uri().path().to_owned());
        let list = list.finish();
        let list = if list.is_empty() { format!("{API}{below}?") } else { format!("{API}{below}?{list}&") };
        let target = if rest.is_empty() { below } else { format!("{below}?{rest}") };
        *request.uri_mut() = target.parse::<Uri>().map_err(|_| ApiError::new(Code::ApiUnknown))?;
        let headers = request.headers();
        let has = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Self { order, page, from_store, list, fields, has, gzip: wants_gzip(headers) })
    }

    fn looks_into_it(&self) -> bool {
        self.order.is_some() || self.fields.is_some()
    }

    /// Leaves the page that is asked for; says where the next one is.
    fn page(&self, value: &mut Value) -> Result<Option<HeaderValue>, ApiError> {
        let (Some(order), Value::Array(list)) = (self.order, &mut *value) else { return Ok(None) };
        let next = if self.from_store {
            self.page.next(list, order)
        } else {
            let (page, next) = self.page.of(std::mem::take(list), order);
            *list = page;
            next
        };
        let Some(next) = next else { return Ok(None) };
        let link = format!("<{}cursor={next}>; rel=\"next\"", self.list);
        HeaderValue::from_str(&link).map(Some).map_err(|_| ApiError::new(Code::ApiUnknown))
    }
}

/// Whether the client takes gzip, and no page of another site asked: what its length tells is told to nobody else.
fn wants_gzip(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return false;
    }
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|member| {
        let (coding, weight) = member.split_once(';').unwrap_or((member, ""));
        let refused = weight.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0);
        coding.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

fn gzip(body: &Bytes) -> Result<Option<Bytes>, ApiError> {
    if body.len() < GZIP_BYTES_MIN {
        return Ok(None);
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::default());
    encoder.write_all(body)?;
    Ok(Some(encoder.finish()?.into()))
}

/// Members of an answer that are wanted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields(BTreeMap<String, Fields>);

impl Fields {
    fn read(text: &str) -> Result<Self, ApiError> {
        let bad = || {
            ApiError::because(
                Code::InputInvalid,
                "fields: names with commas between, such as `name,stages.stage`",
            )
        };
        if text.len() > FIELDS_BYTES_MAX {
            return Err(bad());
        }
        let mut all = Self::default();
        for path in text.split(',') {
            let names: Vec<_> = path.trim().split('.').collect();
            let is_name = |name: &&str| {
                !name.is_empty()
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            };
            if names.len() > DEPTH_MAX || !names.iter().all(|name| is_name(name)) {
                return Err(bad());
            }
            let mut here = &mut all;
            for name in names {
                here = here.0.entry(name.to_owned()).or_default();
            }
        }
        Ok(all)
    }

    /// Takes everything else away. What has no members of its own is wanted whole.
    fn keep(&self, value: &mut Value) {
        match value {
            Value::Array(list) => list.iter_mut().for_each(|one| self.keep(one)),
            Value::Object(members) if !self.0.is_empty() => {
                members.retain(|name, _| self.0.contains_key(name));
                for (name, inner) in members {
                    if let Some(wanted) = self.0.get(name) {
                        wanted.keep(inner);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_wanted_is_left() {
        let check = |wanted: &str, expected: Value| {
            let mut value =
                json!([{ "name": "a", "id": 1, "stages": [{ "stage": "test", "url": "u", "scale": null }] }]);
            Fields::read(wanted).unwrap().keep(&mut value);
            assert_eq!(value, expected, "{wanted}");
        };
        check("name", json!([{ "name": "a" }]));
        check("name, stages.stage", json!([{ "name": "a", "stages": [{ "stage": "test" }] }]));
        check("stages", json!([{ "stages": [{ "stage": "test", "url": "u", "scale": null }] }]));
        check("stages.scale.min,nothing", json!([{ "stages": [{ "scale": null }] }]));
        for bad in ["", ",", "a..b", "a.", "a b", "a.b.c.d.e.f.g.h.i", &"a".repeat(1025)] {
            assert!(Fields::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        let check = |fields: &[(&'static str, &'static str)], expected: bool| {
            let headers = fields
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            assert_eq!(wants_gzip(&headers.collect()), expected, "{fields:?}");
        };
        check(&[], false);
        check(&[("accept-encoding", "br, gzip")], true);
        check(&[("accept-encoding", "gzip;q=0, br")], false);
        check(&[("accept-encoding", "gzip"), ("sec-fetch-site", "same-origin")], true);
        check(&[("accept-encoding", "gzip"), ("sec-fetch-site", "cross-site")], false);
        check(&[("accept-encoding", "gzip"), ("sec-fetch-site", "same-site")], false);
    }
}
