//! Conditional requests (RFC 9110 §13): tags of answers, and writes that happen only while a tag is still true.

use super::{ANSWER_BYTES_MAX, Gate};
use crate::{
    ApiError,
    caller::Caller,
    permissions::operation::{TABLE, is_about_stages},
};
use aws_lc_rs::digest::{SHA256, digest};
use axum::{body::Body, extract::Request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bastide_store::Condition;
use bastide_types::Code;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use tower::ServiceExt;

/// What can be read and written at one address, or at addresses below it. Lists and what changes by itself are not among
/// them.
const RESOURCES: &[&str] = &[
    "/apps/{app}/stages/{stage}/secrets",
    "/apps/{app}/stages/{stage}/settings",
    "/clients/{client}",
    "/customers/{customer}/quota",
    "/idps/{idp}",
    "/organization",
    "/organization/logo",
    "/sign-in/policy",
    "/stages/{stage}/registration",
    "/stages/{stage}/network",
    "/stages/{stage}/sessions",
    "/stages/{stage}/site",
    "/stages/{stage}/site/pages/{page}",
    "/stages/{stage}/users/{user}",
    "/waf/policy",
];

/// What an operation at this path of the router changes: the longest resource at it or above.
pub fn resource_of(path: &str) -> Option<&'static str> {
    let covers = |resource: &&str| {
        path.strip_prefix(*resource).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    RESOURCES.iter().copied().filter(covers).max_by_key(|resource| resource.len())
}

/// A tag of an answer's content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tag(String);

impl Tag {
    pub(crate) fn of(body: &[u8]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(&digest(&SHA256, body).as_ref()[..15]))
    }

    /// As a field; the same content in another coding is another representation (RFC 9110 §8.8.3.3).
    pub(crate) fn field(&self, is_packed: bool) -> HeaderValue {
        let text = format!("\"{}{}\"", self.0, if is_packed { "-gzip" } else { "" });
        HeaderValue::from_str(&text).expect("base64 is a tag")
    }

    /// Whether `If-None-Match` names it; weak tags will do (§13.1.2).
    pub(crate) fn is_weakly_in(&self, list: &str) -> bool {
        list.trim() == "*" || tags(list).any(|tag| self.is(tag.strip_prefix("W/").unwrap_or(tag)))
    }

    /// Whether `If-Match` names it; weak tags will not do (§13.1.1).
    fn is_strongly_in(&self, list: &str) -> bool {
        list.trim() == "*" || tags(list).any(|tag| self.is(tag))
    }

    fn is(&self, tag: &str) -> bool {
        let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        inner.is_some_and(|inner| inner.strip_suffix("-gzip").unwrap_or(inner) == self.0)
    }
}

/// Ours hold no comma.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// What a request says about what it changes.
enum Said {
    /// `If-Match`.
    Is(String),
    /// `If-None-Match: *`.
    IsNot,
}

/// The condition of a write, if it has one. It is looked at when the write has begun, so nothing changes in between.
///
/// # Errors
/// [`Code::InputInvalid`] where nothing has a tag, [`Code::Forbidden`] for whoever may not look.
pub(crate) fn condition(
    gate: &Gate,
    path: &str,
    caller: &Caller,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<Condition>, ApiError> {
    let field =
        |name: header::HeaderName| -> Result<Option<String>, ApiError> {
            let mut lines = Vec::new();
            for line in headers.get_all(&name) {
                let line = line.to_str();
                lines.push(line.map_err(|_| {
                    ApiError::because(Code::InputInvalid, format!("{name} is no list of tags"))
                })?);
            }
            Ok((!lines.is_empty()).then(|| lines.join(",")))
        };
    let said = match (field(header::IF_MATCH)?, field(header::IF_NONE_MATCH)?) {
        (None, None) => return Ok(None),
        (Some(list), None) => Said::Is(list),
        (None, Some(star)) if star.trim() == "*" => Said::IsNot,
        _ => {
            return Err(ApiError::because(
                Code::InputInvalid,
                "writes take If-Match, or If-None-Match: * alone",
            ));
        }
    };
    let none =
        || ApiError::because(Code::InputInvalid, "nothing at this address has a tag: leave If-Match away");
    let resource = resource_of(path).ok_or_else(none)?;
    let shows =
        TABLE.iter().find(|(method, at, _)| method == Method::GET && *at == resource).ok_or_else(none)?;
    let mut caller = caller.clone();
    caller.begin(shows.2, is_about_stages(&Method::GET, resource))?;
    let target = target(uri, resource).ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
    let handlers = gate.handlers.clone();
    Ok(Some(Box::new(move || {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = target.clone();
        request.extensions_mut().insert(caller.clone());
        let answer = handlers.clone().oneshot(request);
        let wanted = match &said {
            Said::Is(list) => Some(list.clone()),
            Said::IsNot => None,
        };
        Box::pin(async move { holds(answer.await, wanted.as_deref()).await })
    })))
}

async fn holds(
    answer: Result<axum::response::Response, std::convert::Infallible>,
    wanted: Option<&str>,
) -> bool {
    let answer = match answer {
        Ok(answer) => answer,
        Err(never) => match never {},
    };
    match (answer.status(), wanted) {
        (StatusCode::OK, Some(list)) => {
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            body.is_ok_and(|body| Tag::of(&body.to_bytes()).is_strongly_in(list))
        }
        (StatusCode::NOT_FOUND, None) => true,
        _ => false,
    }
}

/// The address of the resource: as many segments of the request's path as the resource has, and its query.
fn target(uri: &Uri, resource: &str) -> Option<Uri> {
    let count = resource.split('/').count();
    let path = uri.path().split('/').take(count).collect::<Vec<_>>().join("/");
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{path}{query}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_as_the_field_wants_it() {
        let tag = Tag::of(b"x");
        let plain = tag.field(false).to_str().unwrap().to_owned();
        let packed = tag.field(true).to_str().unwrap().to_owned();
        assert_ne!(plain, packed);
        let check = |list: &str, weakly: bool, strongly: bool| {
            assert_eq!((tag.is_weakly_in(list), tag.is_strongly_in(list)), (weakly, strongly), "{list}");
        };
        check(&plain, true, true);
        check(&packed, true, true);
        check(&format!("\"other\", {plain}"), true, true);
        check(&format!("W/{plain}"), true, false);
        check("*", true, true);
        check("\"other\"", false, false);
        check("", false, false);
        check(plain.trim_matches('"'), false, false);
    }

    #[test]
    fn each_write_has_the_nearest_resource() {
        let check = |path: &str, expected: Option<&str>| assert_eq!(resource_of(path), expected, "{path}");
        check("/stages/{stage}/site/fields", Some("/stages/{stage}/site"));
        check("/stages/{stage}/site/pages/{page}", Some("/stages/{stage}/site/pages/{page}"));
        check("/clients/{client}/secrets/{secret}", Some("/clients/{client}"));
        check("/clients", None);
        check("/stages/{stage}/siteother", None);
    }

    #[test]
    fn every_resource_can_be_shown() {
        for resource in RESOURCES {
            assert!(
                TABLE.iter().any(|(method, path, _)| method == Method::GET && path == resource),
                "{resource}"
            );
        }
    }

    #[test]
    fn the_resource_of_an_address_keeps_its_query() {
        let uri: Uri = "/stages/test/site/fields?x=1".parse().unwrap();
        assert_eq!(target(&uri, "/stages/{stage}/site").unwrap().to_string(), "/stages/test/site?x=1");
    }
}
