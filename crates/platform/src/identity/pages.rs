//! The few pages of the Identity Service: plain HTML forms, no script.

use super::{
    authorize::Request,
    device::Shown,
    fault::Answer,
    issuer::Issuer,
    login::{status_of, with_form_cookie},
    logout::Wish,
    tenant::Tenant,
};
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
    action: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    username: &'a str,
    problem: Option<&'a Problem>,
}

#[derive(Template)]
#[template(path = "identity/continue.html")]
struct ContinuePage<'a> {
    customer: &'a str,
    action: &'a str,
    other: &'a str,
    client: &'a str,
    member: &'a MemberRow,
    fields: Vec<(&'a str, &'a str)>,
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
#[template(path = "identity/device.html")]
struct DevicePage<'a> {
    customer: &'a str,
    action: &'a str,
    form_token: &'a str,
    shown: &'a Shown<'a>,
}

#[derive(Template)]
#[template(path = "identity/message.html")]
struct MessagePage<'a> {
    customer: &'a str,
    title: &'a str,
    message: &'a str,
    /// The form that confirms it, if it is a question: where it goes and its hidden fields.
    form: Option<(&'a str, Vec<(&'a str, &'a str)>)>,
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
    issuer: &Issuer,
    request: &Request,
    form_token: &Secret,
    username: &str,
    problem: Option<&Problem>,
    status: StatusCode,
) -> Answer {
    let action = issuer.path("login");
    let customer = issuer.tenant.name.as_str();
    let fields = fields(request, form_token);
    let page = LoginPage { customer, action: &action, fields, username, problem };
    let response = html(status, page.render()?, &form_target(&request.redirect_uri));
    Ok(with_form_cookie(response, form_token))
}

/// The page that asks a signed-in member whether to go on to a client.
pub fn go_on(issuer: &Issuer, request: &Request, form_token: &Secret, member: &MemberRow) -> Answer {
    let (action, other) = (issuer.path("continue"), issuer.path("authorize"));
    let page = ContinuePage {
        customer: issuer.tenant.name.as_str(),
        action: &action,
        other: &other,
        client: &request.client_name,
        member,
        fields: fields(request, form_token),
    };
    let response = html(StatusCode::OK, page.render()?, &form_target(&request.redirect_uri));
    Ok(with_form_cookie(response, form_token))
}

/// The request as hidden fields, without what has been fulfilled when they come back.
fn fields<'a>(request: &'a Request, form_token: &'a Secret) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("form_token", form_token.expose()),
        ("response_type", "code"),
        ("client_id", request.client_id.as_str()),
        ("redirect_uri", request.redirect_uri.as_str()),
        ("code_challenge", request.challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    let optional = [
        ("state", request.state.as_deref()),
        ("resource", request.resource.as_deref()),
        ("nonce", request.nonce.as_deref()),
        ("scope", Some(request.scope.as_str()).filter(|scope| !scope.is_empty())),
    ];
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    fields
}

/// Chromium holds the redirect after a form against `form-action` too: to the client's origin, and from a
/// gateway's callback on to a page of the same host. An app's own scheme stands for itself.
fn form_target(redirect_uri: &str) -> String {
    match Url::parse(redirect_uri) {
        Ok(url) if url.has_host() => url.origin().ascii_serialization(),
        Ok(url) => format!("{}:", url.scheme()),
        Err(_) => String::new(),
    }
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

/// The page that asks whether to sign out, and remembers what a client wanted.
pub fn logout(issuer: &Issuer, form_token: &Secret, wish: &Wish) -> Answer {
    let action = issuer.path("logout");
    let mut fields = vec![("form_token", form_token.expose())];
    fields.extend(wish.fields.iter().map(|(name, value)| (*name, value.as_str())));
    let page = MessagePage {
        customer: issuer.tenant.name.as_str(),
        title: "Sign out",
        message: "Sign out of all browser sessions of this sign-in?",
        form: Some((&action, fields)),
    };
    let target = wish.back.as_deref().map(form_target).unwrap_or_default();
    Ok(with_form_cookie(html(StatusCode::OK, page.render()?, &target), form_token))
}

/// The page that takes the code of a device, or asks about its program.
pub fn device(issuer: &Issuer, form_token: &Secret, shown: &Shown<'_>) -> Answer {
    let (action, customer) = (issuer.path("device"), issuer.tenant.name.as_str());
    let page = DevicePage { customer, action: &action, form_token: form_token.expose(), shown };
    let status = shown.problem.map_or(StatusCode::OK, status_of);
    Ok(with_form_cookie(html(status, page.render()?, ""), form_token))
}

/// The same with what went wrong, and the seconds after which to try again.
pub fn refused_device(issuer: &Issuer, form_token: &Secret, shown: &Shown<'_>, retry: Option<i64>) -> Answer {
    let mut page = device(issuer, form_token, shown)?;
    if let Some(seconds) = retry {
        page.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(page)
}

/// A page that only says something.
pub fn message(tenant: &Tenant, title: &str, message: &str) -> Answer {
    let page = MessagePage { customer: tenant.name.as_str(), title, message, form: None };
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
