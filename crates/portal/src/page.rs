//! Writing pages: headers that close them, and problems as pages.

use crate::view::Who;
use askama::Template;
use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use bastide_types::{Code, Problem};
use http::{HeaderMap, HeaderValue, StatusCode, header};

const STYLE: &str = include_str!("../assets/portal.css");
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    who: Option<&'a Who>,
    problem: &'a Problem,
}

/// A page with a status.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(body) => {
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            (status, [(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A problem as page.
pub fn problem(who: Option<&Who>, problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    page(status, &ProblemPage { who, problem })
}

/// The one stylesheet.
pub async fn style() -> Response {
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
    ];
    (fields, STYLE).into_response()
}

/// Refuses forms of other sites, and closes every answer to caches, frames and foreign content.
pub async fn close(request: Request, next: Next) -> Response {
    let is_own = is_own(request.headers());
    let mut response = if request.method().is_safe() || is_own {
        next.run(request).await
    } else {
        problem(None, &Code::CrossSite.problem())
    };
    let headers = response.headers_mut();
    for (name, value) in [
        ("cache-control", "no-store"),
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Whether a form comes from a page of this host.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), _, _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin), Some(host)) => origin.strip_prefix("https://") == Some(host),
        // The gateway demands one of the two with a session cookie; programs use the API.
        (None, _, _) => false,
    }
}
