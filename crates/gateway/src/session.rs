//! Browser sessions: the browser holds an opaque secret, the tokens stay here.
//!
//! The sign-in is an authorization code with PKCE at the issuer of the host: of a stage, or of the customer's members. What
//! must be remembered until the browser comes back (issuer, state, verifier, page) lies sealed in a short-lived cookie,
//! so that any gateway may finish what another began.

use crate::{
    credential::{LOGIN_COOKIE, SESSION_COOKIE, cookies},
    platform_client::{Ask, Open, Opened, Platform},
    refusal::Refusal,
    session_tokens::{SessionTokens, hash_of},
};
use bastide_identity::{
    opaque::{self, Opaque},
    pkce,
    seal::SealKey,
};
use bastide_proxy::{Body, Response};
use bastide_types::{Code, CustomerName, StepUp};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use url::Url;

/// OAuth client id of the gateways.
pub(crate) const CLIENT_ID: &str = "bastide-gateway";
/// How long a sign-in may take, in seconds.
const LOGIN_LIFE_S: u64 = 600;

/// What lies sealed in the login cookie.
#[derive(Serialize, Deserialize)]
struct Login {
    /// Whom the browser was sent to.
    issuer: String,
    state: String,
    verifier: String,
    back: String,
    until: u64,
}

/// A sign-in to begin.
pub(crate) struct SignIn<'a> {
    /// Where: the issuer of the host.
    pub(crate) issuer: &'a str,
    /// Of the host that the browser comes back to.
    pub(crate) origin: &'a str,
    /// Address of the app; `None`: the Platform.
    pub(crate) resource: Option<&'a str>,
    /// Path that the browser comes back to.
    pub(crate) back: &'a str,
    /// What is demanded of it.
    pub(crate) step_up: Option<StepUp>,
}

/// Beginning and ending of sessions, and their tokens.
pub(crate) struct Sessions {
    seal: SealKey,
    pub(crate) tokens: SessionTokens,
}

impl Sessions {
    pub(crate) fn new(seal: SealKey) -> Self {
        Self { seal, tokens: SessionTokens::default() }
    }

    /// Sends a browser to sign in.
    pub(crate) fn sign_in(&self, way: &SignIn<'_>, now_s: u64) -> Result<Response, Refusal> {
        let SignIn { issuer, origin, resource, back, step_up } = *way;
        let broken = |_| Refusal::new(Code::Internal);
        let (state, verifier) = (Opaque::generate().map_err(broken)?, Opaque::generate().map_err(broken)?);
        let (state, verifier) = (state.secret.expose().to_owned(), verifier.secret.expose().to_owned());
        let mut url = Url::parse(&format!("{issuer}/authorize")).map_err(|_| Refusal::new(Code::Internal))?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", CLIENT_ID)
            .append_pair("redirect_uri", &redirect_uri(origin))
            .append_pair("state", &state)
            .append_pair("code_challenge", &pkce::challenge(&verifier))
            .append_pair("code_challenge_method", "S256");
        if let Some(resource) = resource {
            url.query_pairs_mut().append_pair("resource", resource);
        }
        if let Some(step_up) = step_up {
            url.query_pairs_mut().append_pair("acr_values", step_up.acr.as_str());
            if let Some(max_s) = step_up.max_age_s {
                url.query_pairs_mut().append_pair("max_age", &max_s.to_string());
            }
        }
        let (issuer, back) = (issuer.to_owned(), same_origin_path(back));
        let login = Login { issuer, state, verifier, back, until: now_s + LOGIN_LIFE_S };
        let login = serde_json::to_vec(&login).map_err(|_| Refusal::new(Code::Internal))?;
        let sealed = self.seal.seal(origin, &login).map_err(broken)?;
        let mut response = redirect(url.as_str())?;
        set_cookie(&mut response, LOGIN_COOKIE, &sealed, LOGIN_LIFE_S);
        Ok(response)
    }

    /// The browser comes back with a code: a session begins.
    pub(crate) async fn callback(
        &self,
        platform: &Platform<'_>,
        customer: &CustomerName,
        origin: &str,
        query: &str,
        headers: &HeaderMap,
        now_s: u64,
    ) -> Result<Response, Refusal> {
        let invalid = |why: &str| Refusal::from(Code::OAuthInvalid.because(why));
        let sealed =
            cookies(headers).find(|(name, _)| *name == LOGIN_COOKIE).map(|(_, value)| value.to_owned());
        let login = sealed
            .and_then(|sealed| self.seal.open(origin, &sealed))
            .and_then(|bytes| serde_json::from_slice::<Login>(&bytes).ok())
            .filter(|login| now_s < login.until)
            .ok_or_else(|| {
                invalid("The sign-in was not begun here, or took too long. Please begin again.")
            })?;
        let value = |key: &str| {
            url::form_urlencoded::parse(query.as_bytes()).find(|(k, _)| k == key).map(|(_, v)| v.into_owned())
        };
        if value("state").as_deref() != Some(&login.state) {
            return Err(invalid("The answer does not belong to this sign-in."));
        }
        // Without it an answer of another issuer could be mixed in (RFC 9207).
        if value("iss").as_ref() != Some(&login.issuer) {
            return Err(invalid("The answer comes from another issuer."));
        }
        if let Some(error) = value("error") {
            let word = error.len() <= 40 && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            return Err(invalid(if word { &error } else { "The sign-in was refused." }));
        }
        let code = value("code").ok_or_else(|| invalid("The answer holds no code."))?;
        let redirect_uri = redirect_uri(origin);
        let open =
            Open { customer, code: &code, code_verifier: &login.verifier, redirect_uri: &redirect_uri };
        let opened = platform.open(&open).await?;
        let opened = opened.ok_or_else(|| invalid("The code is no longer valid. Please sign in again."))?;
        if !opaque::has_form(&opened.session) {
            return Err(Refusal::new(Code::Internal));
        }
        let mut response = redirect(&login.back)?;
        set_cookie(&mut response, SESSION_COOKIE, &opened.session, opened.max_age_s);
        set_cookie(&mut response, LOGIN_COOKIE, "", 0);
        Ok(response)
    }

    /// Ends the session of this browser, which then goes to `back` on this host. Here its tokens are gone at
    /// once; the other gateways are told before the Platform answers.
    pub(crate) async fn sign_out(
        &self,
        platform: &Platform<'_>,
        customer: &CustomerName,
        session: Option<&str>,
        back: &str,
    ) -> Result<Response, Refusal> {
        if let Some(session) = session.filter(|session| opaque::has_form(session)) {
            let hash = &hash_of(session);
            self.tokens.forget(customer, hash);
            platform.close(&Ask { customer, hash, resource: None, used_s: 0, renew: false }).await?;
            // Once more: a token may have been on its way.
            self.tokens.forget(customer, hash);
        }
        let mut response = redirect(&same_origin_path(back))?;
        set_cookie(&mut response, SESSION_COOKIE, "", 0);
        Ok(response)
    }
}

/// Gives the browser another secret for its session.
pub(crate) fn renew(response: &mut Response, renewed: &Opened) {
    // What the answer says already counts: it may have ended the session.
    let is_said = response.headers().get_all(header::SET_COOKIE).iter().any(|cookie| {
        cookie.as_bytes().starts_with(SESSION_COOKIE.as_bytes())
            && cookie.as_bytes().get(SESSION_COOKIE.len()) == Some(&b'=')
    });
    if !is_said {
        set_cookie(response, SESSION_COOKIE, &renewed.session, renewed.max_age_s);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Whether a request that changes something and is carried by a cookie comes from the same site.
pub(crate) fn is_same_site(headers: &HeaderMap, origin: &str) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some("same-origin" | "none"), _) => true,
        (Some(_), _) => false,
        (None, Some(sent)) => sent == origin,
        (None, None) => false,
    }
}

/// Whether a refusal to somebody who is not signed in should become a sign-in page.
pub(crate) fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    *method == Method::GET
        && bastide_types::Problem::wants_html(text("accept"))
        && text("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
        && !headers.contains_key(header::AUTHORIZATION)
}

fn redirect_uri(origin: &str) -> String {
    format!("{origin}/.bastide/callback")
}

/// Only a path of the same host: never `//host`, a backslash or control characters.
fn same_origin_path(path: &str) -> String {
    let good = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= 2048
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if good { path.to_owned() } else { "/".to_owned() }
}

fn redirect(to: &str) -> Result<Response, Refusal> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let location = HeaderValue::from_str(to).map_err(|_| Refusal::new(Code::Internal))?;
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn set_cookie(response: &mut Response, name: &str, value: &str, max_age_s: u64) {
    let cookie = format!("{name}={value}; Path=/; Max-Age={max_age_s}; Secure; HttpOnly; SameSite=Lax");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_stays_on_the_same_host() {
        for (asked, given) in [
            ("/shop/x?y=1", "/shop/x?y=1"),
            ("//evil", "/"),
            ("https://evil", "/"),
            ("/\\evil", "/"),
            ("/a b", "/"),
        ] {
            assert_eq!(same_origin_path(asked), given);
        }
    }

    #[test]
    fn cookie_requests_must_come_from_the_same_site() {
        let check = |fields: &[(&'static str, &'static str)], expected| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_same_site(&headers, "https://a"), expected, "{fields:?}");
        };
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("sec-fetch-site", "cross-site"), ("origin", "https://a")], false);
        check(&[("sec-fetch-site", "same-site")], false);
        check(&[("origin", "https://a")], true);
        check(&[("origin", "https://b")], false);
        check(&[("origin", "null")], false);
        check(&[], false);
    }
}
