//! The few pages of the Identity Service: plain HTML forms, no script.

use super::{authorize::Request, fault::Answer, login::with_form_cookie, tenant::Tenant};
use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bastide_store::MemberRow;
use bastide_types::{Problem, Secret};
use url::Url;

const STYLE: &str = include_str!("../../templates/identity/style.css");

#[derive(Template)]
#[template(path = "identity/login.html")]
struct LoginPage<'a> {
    customer: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    email: &'a str,
    problem: Option<&'a Problem>,
}

#[derive(Template)]
#[template(path = "identity/invite.html")]
struct InvitePage<'a> {
    customer: &'a str,
    token: &'a str,
    form_token: &'a str,
    member: &'a MemberRow,
    problem: Option<&'a Problem>,
}

#[derive(Template)]
#[template(path = "identity/message.html")]
struct MessagePage<'a> {
    customer: &'a str,
    message: &'a str,
    form_token: Option<&'a str>,
}

/// GET `/identity/style.css`.
pub async fn style() -> Response {
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
    ];
    (fields, STYLE).into_response()
}

/// The sign-in page. It carries the whole request, which is checked again when it comes back.
pub fn login(
    tenant: &Tenant,
    request: &Request,
    form_token: &Secret,
    email: &str,
    problem: Option<&Problem>,
    status: StatusCode,
) -> Answer {
    let mut fields = vec![
        ("form_token", form_token.expose()),
        ("response_type", "code"),
        ("client_id", request.client_id.as_str()),
        ("redirect_uri", request.redirect_uri.as_str()),
        ("code_challenge", request.challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    fields.extend(request.state.as_deref().map(|state| ("state", state)));
    fields.extend(request.resource.as_deref().map(|resource| ("resource", resource)));
    let page = LoginPage { customer: tenant.name.as_str(), fields, email, problem };
    // Chromium holds the redirect after the form against `form-action` too: to the client's origin, and
    // from a gateway's callback on to a page of the same host.
    let target = Url::parse(&request.redirect_uri).map(|url| url.origin().ascii_serialization());
    let response = html(status, page.render()?, &target.unwrap_or_default());
    Ok(with_form_cookie(response, form_token))
}

/// The page on which an invited member chooses a password.
pub fn invite(
    tenant: &Tenant,
    token: &str,
    member: &MemberRow,
    form_token: &Secret,
    problem: Option<&Problem>,
    status: StatusCode,
) -> Answer {
    let page = InvitePage {
        customer: tenant.name.as_str(),
        token,
        form_token: form_token.expose(),
        member,
        problem,
    };
    Ok(with_form_cookie(html(status, page.render()?, ""), form_token))
}

/// The page that asks whether to sign out.
pub fn logout(tenant: &Tenant, form_token: &Secret) -> Answer {
    let message = "Sign out of all browser sessions of this sign-in?";
    let page = MessagePage { customer: tenant.name.as_str(), message, form_token: Some(form_token.expose()) };
    Ok(with_form_cookie(html(StatusCode::OK, page.render()?, ""), form_token))
}

/// A page that only says something.
pub fn message(tenant: &Tenant, message: &str) -> Answer {
    let page = MessagePage { customer: tenant.name.as_str(), message, form_token: None };
    Ok(html(StatusCode::OK, page.render()?, ""))
}

fn html(status: StatusCode, body: String, form_target: &str) -> Response {
    let policy = format!(
        "default-src 'none'; style-src 'self'; form-action 'self' {form_target}; base-uri 'none'; frame-ancestors 'none'"
    );
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}
