//! The few pages of the Identity Service: plain HTML forms. One has a script, the page that asks for a passkey.

use super::{
    account::{self, Line},
    authorize::Request,
    device::Shown,
    factor::{self, Offer},
    fault::Answer,
    guess::Grade,
    invite,
    issuer::Issuer,
    login::{status_of, with_form_cookie},
    logo::logo_path,
    logout::Wish,
    own_passkeys::{self, Proof},
    passkey::{self, Question},
    second::{Onward, Owed},
    tenant::Tenant,
};
use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bastide_store::{Logo, MemberRow};
use bastide_types::{Acr, Problem, Secret, picture::Picture};
use factor::Shown as FactorShown;
use qrcodegen::{QrCode, QrCodeEcc};
use std::fmt::Write;
use url::Url;

/// Blank modules around a QR code (ISO/IEC 18004 §9.1).
const QR_MARGIN: i32 = 4;

/// A QR code as a path of an SVG.
struct Qr {
    /// Modules on each side, with the margin.
    side: i32,
    path: String,
}

impl Qr {
    /// `None` for an address too long for one: then the secret is typed.
    fn of(offer: &Offer) -> Option<Self> {
        let code = QrCode::encode_text(offer.uri.expose(), QrCodeEcc::Medium).ok()?;
        let places = (0..code.size()).flat_map(|y| (0..code.size()).map(move |x| (x, y)));
        let dark = places.filter(|(x, y)| code.get_module(*x, *y));
        let path = dark.fold(String::new(), |mut path, (x, y)| {
            let _ = write!(path, "M{},{}h1v1h-1z", x + QR_MARGIN, y + QR_MARGIN);
            path
        });
        Some(Self { side: code.size() + 2 * QR_MARGIN, path })
    }
}

const STYLE: &str = include_str!("../../templates/identity/style.css");

/// What every page begins with.
struct Head<'a> {
    title: &'a str,
    logo: Option<Image>,
}

/// A logo, as a page shows it.
struct Image {
    path: String,
    width: u32,
    height: u32,
}

impl<'a> Head<'a> {
    fn of(tenant: &'a Tenant) -> Self {
        let image = |logo: &Logo| {
            let Picture { width, height, .. } = logo.picture;
            Image { path: logo_path(&logo.digest), width, height }
        };
        Self { title: tenant.title(), logo: tenant.look.logo.as_ref().map(image) }
    }
}

#[derive(Template)]
#[template(path = "identity/login.html")]
struct LoginPage<'a> {
    head: Head<'a>,
    action: &'a str,
    /// Where a passkey is asked for; so on other pages.
    passkey: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    username: &'a str,
    problem: Option<&'a Problem>,
    ways: &'a Ways,
}

/// What a sign-in page offers besides.
#[derive(Default)]
pub struct Ways {
    /// Where a new password is asked for.
    pub forgot: Option<String>,
    /// Where an account is made.
    pub register: Option<String>,
    /// Providers of identity: name and where to.
    pub providers: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "identity/continue.html")]
struct ContinuePage<'a> {
    head: Head<'a>,
    action: &'a str,
    other: &'a str,
    client: &'a str,
    member: &'a MemberRow,
    fields: Vec<(&'a str, &'a str)>,
}

#[derive(Template)]
#[template(path = "identity/choose.html")]
struct ChoosePage<'a> {
    head: Head<'a>,
    action: &'a str,
    form_token: &'a str,
    ask: &'a Choose<'a>,
    problem: Option<&'a Problem>,
    grade: Option<Grade>,
}

/// What a page says that lets somebody choose a password.
pub struct Choose<'a> {
    title: String,
    email: &'a str,
    /// Whether it asks for a name, too.
    names: bool,
    button: &'static str,
}

impl<'a> Choose<'a> {
    /// For somebody invited.
    pub fn invitation(member: &'a MemberRow) -> Self {
        let title = format!("Welcome, {}", member.name);
        Self { title, email: &member.email, names: false, button: "Begin" }
    }

    /// For somebody who has forgotten the former one.
    pub fn reset(email: &'a str) -> Self {
        Self { title: "A new password".to_owned(), email, names: false, button: "Change it" }
    }

    /// For somebody who makes an account.
    pub fn registration(email: &'a str) -> Self {
        Self { title: "Your account".to_owned(), email, names: true, button: "Make it" }
    }
}

#[derive(Template)]
#[template(path = "identity/address.html")]
struct AddressPage<'a> {
    head: Head<'a>,
    action: &'a str,
    form_token: &'a str,
    ask: &'a Ask,
    problem: Option<&'a Problem>,
}

/// What a page says that asks for an address.
pub struct Ask {
    endpoint: &'static str,
    title: &'static str,
    intro: &'static str,
    button: &'static str,
}

impl Ask {
    /// For another password.
    pub fn reset() -> Self {
        let intro = "Type the address of your account: a letter brings the link to choose a new password.";
        Self { endpoint: "forgot", title: "A new password", intro, button: "Send the letter" }
    }

    /// For an account.
    pub fn registration() -> Self {
        let intro = "Type your address: a letter brings the link to go on with.";
        Self { endpoint: "register", title: "A new account", intro, button: "Send the letter" }
    }
}

#[derive(Template)]
#[template(path = "identity/break_glass.html")]
struct BreakGlassPage<'a> {
    head: Head<'a>,
    token: &'a str,
    form_token: &'a str,
    member: &'a MemberRow,
}

#[derive(Template)]
#[template(path = "identity/device.html")]
struct DevicePage<'a> {
    head: Head<'a>,
    action: &'a str,
    passkey: &'a str,
    form_token: &'a str,
    shown: &'a Shown<'a>,
}

#[derive(Template)]
#[template(path = "identity/sessions.html")]
struct SessionsPage<'a> {
    head: Head<'a>,
    action: &'a str,
    passkey: &'a str,
    form_token: &'a str,
    member: Option<&'a str>,
    sessions: &'a [Line],
    problem: Option<&'a Problem>,
}

#[derive(Template)]
#[template(path = "identity/second.html")]
struct SecondPage<'a> {
    head: Head<'a>,
    action: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    offer: Option<&'a Offer>,
    qr: Option<Qr>,
    /// Whether a code of an app, or a recovery code, will do.
    app: bool,
    /// Where a passkey is asked for, if one will do.
    passkey: Option<&'a str>,
    problem: Option<&'a Problem>,
}

#[derive(Template)]
#[template(path = "identity/passkey.html")]
struct PasskeyPage<'a> {
    head: Head<'a>,
    script: &'static str,
    action: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    question: &'a Question<'a>,
}

#[derive(Template)]
#[template(path = "identity/passkeys.html")]
struct PasskeysPage<'a> {
    head: Head<'a>,
    action: &'a str,
    passkey: &'a str,
    form_token: &'a str,
    shown: Option<&'a own_passkeys::Shown>,
    problem: Option<&'a Problem>,
}

#[derive(Template)]
#[template(path = "identity/no_passkey.html")]
struct NoPasskeyPage<'a> {
    head: Head<'a>,
    path: &'a str,
}

#[derive(Template)]
#[template(path = "identity/recovery.html")]
struct RecoveryPage<'a> {
    head: Head<'a>,
    codes: &'a [Secret],
    /// A page to go on to, or else a form.
    path: Option<String>,
    action: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

#[derive(Template)]
#[template(path = "identity/factor.html")]
struct FactorPage<'a> {
    head: Head<'a>,
    action: &'a str,
    passkey: &'a str,
    form_token: &'a str,
    shown: &'a factor::Shown<'a>,
    qr: Option<Qr>,
    problem: Option<&'a Problem>,
}

#[derive(Template)]
#[template(path = "identity/message.html")]
struct MessagePage<'a> {
    head: Head<'a>,
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

/// What a sign-in page shows.
pub struct Login<'a> {
    pub username: &'a str,
    pub problem: Option<&'a Problem>,
    pub ways: &'a Ways,
}

/// The sign-in page. It carries the whole request, which is checked again when it comes back.
pub fn login(
    issuer: &Issuer,
    request: &Request,
    form_token: &Secret,
    shown: &Login<'_>,
    status: StatusCode,
) -> Answer {
    let action = issuer.path("login");
    let head = Head::of(&issuer.tenant);
    let fields = fields(request, form_token);
    let Login { username, problem, ways } = *shown;
    let passkey = &issuer.path(passkey::PATH);
    let page = LoginPage { head, action: &action, passkey, fields, username, problem, ways };
    let response = html(&issuer.tenant, status, page.render()?, &form_target(&request.redirect_uri));
    Ok(with_form_cookie(response, form_token))
}

/// The page that asks a signed-in member whether to go on to a client.
pub fn go_on(issuer: &Issuer, request: &Request, form_token: &Secret, member: &MemberRow) -> Answer {
    let (action, other) = (issuer.path("continue"), issuer.path("authorize"));
    let page = ContinuePage {
        head: Head::of(&issuer.tenant),
        action: &action,
        other: &other,
        client: &request.client_name,
        member,
        fields: fields(request, form_token),
    };
    let response = html(&issuer.tenant, StatusCode::OK, page.render()?, &form_target(&request.redirect_uri));
    Ok(with_form_cookie(response, form_token))
}

/// The request as hidden fields, without what has been fulfilled when they come back.
pub fn fields<'a>(request: &'a Request, form_token: &'a Secret) -> Vec<(&'a str, &'a str)> {
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
    if request.acr > Acr::Password {
        fields.push(("acr_values", request.acr.as_str()));
    }
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    fields
}

/// The same as a query.
pub fn query(request: &Request) -> String {
    let nothing = Secret::new("");
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(fields(request, &nothing).iter().filter(|(name, _)| *name != "form_token")).finish()
}

/// Chromium holds the redirect after a form against `form-action` too: to the client's origin, and from a
/// gateway's callback on to a page of the same host. An app's own scheme stands for itself.
pub fn form_target(redirect_uri: &str) -> String {
    match Url::parse(redirect_uri) {
        Ok(url) if url.has_host() => url.origin().ascii_serialization(),
        Ok(url) => format!("{}:", url.scheme()),
        Err(_) => String::new(),
    }
}

/// The page on which somebody chooses a password.
pub fn choose(
    issuer: &Issuer,
    endpoint: &str,
    form_token: &Secret,
    ask: &Choose<'_>,
    shown: &invite::Shown<'_>,
    status: StatusCode,
) -> Answer {
    let page = ChoosePage {
        head: Head::of(&issuer.tenant),
        action: &issuer.path(endpoint),
        form_token: form_token.expose(),
        ask,
        problem: shown.problem,
        grade: shown.grade,
    };
    Ok(with_form_cookie(html(&issuer.tenant, status, page.render()?, ""), form_token))
}

/// The page that asks for an address.
pub fn address(issuer: &Issuer, form_token: &Secret, ask: &Ask, problem: Option<&Problem>) -> Answer {
    let page = AddressPage {
        head: Head::of(&issuer.tenant),
        action: &issuer.path(ask.endpoint),
        form_token: form_token.expose(),
        ask,
        problem,
    };
    let status = problem.map_or(StatusCode::OK, status_of);
    Ok(with_form_cookie(html(&issuer.tenant, status, page.render()?, ""), form_token))
}

/// Says after how many seconds to try again.
pub fn retry_after(mut page: Response, seconds: Option<i64>) -> Response {
    if let Some(seconds) = seconds {
        page.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    page
}

/// The page of a sign-in that the operator made.
pub fn break_glass(tenant: &Tenant, token: &str, member: &MemberRow, form_token: &Secret) -> Answer {
    let head = Head::of(tenant);
    let page = BreakGlassPage { head, token, form_token: form_token.expose(), member };
    Ok(with_form_cookie(html(tenant, StatusCode::OK, page.render()?, ""), form_token))
}

/// The page that asks whether to sign out, and remembers what a client wanted.
pub fn logout(issuer: &Issuer, form_token: &Secret, wish: &Wish) -> Answer {
    let action = issuer.path("logout");
    let mut fields = vec![("form_token", form_token.expose())];
    fields.extend(wish.fields.iter().map(|(name, value)| (*name, value.as_str())));
    let page = MessagePage {
        head: Head::of(&issuer.tenant),
        title: "Sign out",
        message: "Sign out of all browser sessions of this sign-in?",
        form: Some((&action, fields)),
    };
    let target = wish.back.as_deref().map(form_target).unwrap_or_default();
    Ok(with_form_cookie(html(&issuer.tenant, StatusCode::OK, page.render()?, &target), form_token))
}

/// The page that takes the code of a device, or asks about its program.
pub fn device(issuer: &Issuer, form_token: &Secret, shown: &Shown<'_>) -> Answer {
    let (action, head) = (issuer.path("device"), Head::of(&issuer.tenant));
    let passkey = &issuer.path(passkey::PATH);
    let page = DevicePage { head, action: &action, passkey, form_token: form_token.expose(), shown };
    let status = shown.problem.map_or(StatusCode::OK, status_of);
    Ok(with_form_cookie(html(&issuer.tenant, status, page.render()?, ""), form_token))
}

/// The same with what went wrong, and the seconds after which to try again.
pub fn refused_device(issuer: &Issuer, form_token: &Secret, shown: &Shown<'_>, retry: Option<i64>) -> Answer {
    Ok(retry_after(device(issuer, form_token, shown)?, retry))
}

/// The page of somebody's sessions, or the form to sign in to it.
pub fn sessions(
    issuer: &Issuer,
    form_token: &Secret,
    member: Option<&MemberRow>,
    sessions: &[Line],
    problem: Option<&Problem>,
) -> Answer {
    let page = SessionsPage {
        head: Head::of(&issuer.tenant),
        action: &issuer.path(account::PATH),
        passkey: &issuer.path(passkey::PATH),
        form_token: form_token.expose(),
        member: member.map(|member| member.email.as_str()),
        sessions,
        problem,
    };
    let status = problem.map_or(StatusCode::OK, status_of);
    Ok(with_form_cookie(html(&issuer.tenant, status, page.render()?, ""), form_token))
}

/// The page of the second step: it asks for what is owed, or offers to set an app up.
pub fn second(
    issuer: &Issuer,
    form_token: &Secret,
    onward: &Onward,
    owed: Owed,
    offer: Option<&Offer>,
    problem: Option<&Problem>,
    status: StatusCode,
) -> Answer {
    let (action, head) = (issuer.path("second"), Head::of(&issuer.tenant));
    let (fields, qr) = (onward.fields(form_token), offer.and_then(Qr::of));
    let (app, passkey) = match owed {
        Owed::Factor { app, passkey } => (app, passkey.then(|| issuer.path(passkey::PATH))),
        _ => (false, None),
    };
    let passkey = passkey.as_deref();
    let page = SecondPage { head, action: &action, fields, offer, qr, app, passkey, problem };
    Ok(with_form_cookie(html(&issuer.tenant, status, page.render()?, &onward.target()), form_token))
}

/// The page that asks for a passkey, or for a new one. It alone has a script, which is served from one address of ours
/// and is the only one that may run there.
pub fn passkey(
    issuer: &Issuer,
    endpoint: &str,
    origin: &str,
    form_token: &Secret,
    fields: Vec<(&str, &str)>,
    question: &Question<'_>,
    target: &str,
) -> Answer {
    let page = PasskeyPage {
        head: Head::of(&issuer.tenant),
        script: passkey::SCRIPT_PATH,
        action: &issuer.path(endpoint),
        fields,
        question,
    };
    let status = question.problem.map_or(StatusCode::OK, status_of);
    let script = format!("{origin}{}", passkey::SCRIPT_PATH);
    Ok(with_form_cookie(html_with(&issuer.tenant, status, page.render()?, target, Some(&script)), form_token))
}

/// The page of somebody's own passkeys, or the form to sign in to it.
pub fn passkeys(
    issuer: &Issuer,
    form_token: &Secret,
    shown: Option<&own_passkeys::Shown>,
    problem: Option<&Problem>,
) -> Answer {
    let page = PasskeysPage {
        head: Head::of(&issuer.tenant),
        action: &issuer.path(own_passkeys::PATH),
        passkey: &issuer.path(passkey::PATH),
        form_token: form_token.expose(),
        shown,
        problem,
    };
    let status = problem.map_or(StatusCode::OK, status_of);
    Ok(with_form_cookie(html(&issuer.tenant, status, page.render()?, ""), form_token))
}

/// The page for those of whom a passkey is demanded, and who have none.
pub fn no_passkey(issuer: &Issuer) -> Answer {
    let page = NoPasskeyPage { head: Head::of(&issuer.tenant), path: &issuer.path(own_passkeys::PATH) };
    Ok(html(&issuer.tenant, StatusCode::OK, page.render()?, ""))
}

/// The page that shows recovery codes, once.
pub fn recovery(issuer: &Issuer, form_token: &Secret, codes: &[Secret], onward: &Onward) -> Answer {
    let action = issuer.path("continue");
    let page = RecoveryPage {
        head: Head::of(&issuer.tenant),
        codes,
        path: onward.path(issuer),
        action: &action,
        fields: onward.fields(form_token),
    };
    Ok(with_form_cookie(html(&issuer.tenant, StatusCode::OK, page.render()?, &onward.target()), form_token))
}

/// The page of somebody's own second factor.
pub fn factor(
    issuer: &Issuer,
    form_token: &Secret,
    shown: &factor::Shown<'_>,
    problem: Option<&Problem>,
) -> Answer {
    let qr = match shown {
        factor::Shown::Offered(offer) => Qr::of(offer),
        _ => None,
    };
    let page = FactorPage {
        head: Head::of(&issuer.tenant),
        action: &issuer.path(factor::PATH),
        passkey: &issuer.path(passkey::PATH),
        form_token: form_token.expose(),
        shown,
        qr,
        problem,
    };
    let status = problem.map_or(StatusCode::OK, status_of);
    Ok(with_form_cookie(html(&issuer.tenant, status, page.render()?, ""), form_token))
}

/// A page that only says something.
pub fn message(tenant: &Tenant, title: &str, message: &str) -> Answer {
    let page = MessagePage { head: Head::of(tenant), title, message, form: None };
    Ok(html(tenant, StatusCode::OK, page.render()?, ""))
}

fn html(tenant: &Tenant, status: StatusCode, body: String, form_target: &str) -> Response {
    html_with(tenant, status, body, form_target, None)
}

/// A page on which the script at this address may run.
fn html_with(
    tenant: &Tenant,
    status: StatusCode,
    body: String,
    form_target: &str,
    script: Option<&str>,
) -> Response {
    let images = if tenant.look.logo.is_some() { " img-src 'self';" } else { "" };
    let script = script.map(|script| format!(" script-src {script};")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'self';{script}{images} form-action 'self' {form_target}; base-uri 'none'; frame-ancestors 'none'"
    );
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}
