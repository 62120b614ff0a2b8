//! Browser sessions: the browser holds an opaque secret, the tokens stay here.
//!
//! The sign-in is an authorization code with PKCE at the customer's Identity Service. What must be
//! remembered until the browser comes back (state, verifier, page) lies sealed in a short-lived cookie,
//! so that any gateway may finish what another began.

use crate::{
    credential::{SESSION_COOKIE, cookies},
    platform_lb::PlatformBalancer,
    refusal::Refusal,
};
use bastide_identity::{opaque, pkce, seal::SealKey};
use bastide_proxy::{Body, Pool, Request, Response};
use bastide_types::{Code, CustomerName, Domains};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use url::Url;

/// OAuth client id of the gateways.
pub(crate) const CLIENT_ID: &str = "bastide-gateway";
const LOGIN_COOKIE: &str = "__Host-bst-login";
const LOGIN_LIFE_S: u64 = 600;
/// Longest wait for the Platform's word about a session.
const PLATFORM_WAIT: Duration = Duration::from_secs(5);
/// A token is asked for anew this many seconds before it ends.
const RENEW_BEFORE_S: u64 = 15;
/// How long a dead session is remembered as dead.
const DEAD_FOR_S: u64 = 2;
const SESSIONS_MAX: usize = 100_000;
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What lies sealed in the login cookie.
#[derive(Serialize, Deserialize)]
struct Login {
    state: String,
    verifier: String,
    back: String,
    until: u64,
}

#[derive(Serialize)]
struct Open<'a> {
    customer: &'a CustomerName,
    code: &'a str,
    code_verifier: &'a str,
    redirect_uri: &'a str,
}

#[derive(Deserialize)]
struct Opened {
    session: String,
    max_age_s: u64,
}

#[derive(Serialize)]
struct Ask<'a> {
    customer: &'a CustomerName,
    session: &'a str,
    resource: Option<&'a str>,
}

#[derive(Deserialize)]
struct Given {
    access_token: String,
    expires_at: u64,
}

#[derive(Clone)]
struct Known {
    token: Option<String>,
    until: u64,
}

/// The sessions that this gateway has seen.
pub(crate) struct Sessions {
    seal: SealKey,
    known: Mutex<HashMap<[u8; 32], Known>>,
}

/// How the Platform is asked.
pub(crate) struct Platform<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) balancer: &'a PlatformBalancer,
    pub(crate) domains: &'a Domains,
}

impl Platform<'_> {
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        customer: &CustomerName,
        path: &str,
        query: &Q,
    ) -> Result<Option<A>, Refusal> {
        let body = serde_json::to_vec(query).map_err(|_| Refusal::new(Code::Internal))?;
        let mut request = Request::new(Body::full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(|_| Refusal::new(Code::Internal))?;
        let host = HeaderValue::from_str(&self.domains.platform_host(customer))
            .map_err(|_| Refusal::new(Code::Internal))?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.balancer.send(self.pool, request, Instant::now() + PLATFORM_WAIT).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND || status == StatusCode::BAD_REQUEST {
            return Ok(None);
        }
        let away = || Refusal::new(Code::PlatformUnavailable);
        if !status.is_success() {
            return Err(away());
        }
        let body = response.into_body().collect_up_to(ANSWER_BYTES_MAX).await.map_err(|_| away())?;
        serde_json::from_slice(&body).map(Some).map_err(|_| away())
    }
}

impl Sessions {
    pub(crate) fn new(seal: SealKey) -> Self {
        Self { seal, known: Mutex::default() }
    }

    /// An access token for a session, from memory or from the Platform; `None` when the session is dead.
    pub(crate) async fn token(
        &self,
        platform: &Platform<'_>,
        customer: &CustomerName,
        session: &str,
        resource: Option<&str>,
        now_s: u64,
    ) -> Result<Option<String>, Refusal> {
        let key = opaque::hash(&format!("{customer}\n{session}\n{}", resource.unwrap_or_default()));
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known.filter(|known| now_s < known.until) {
            return Ok(known.token);
        }
        let given: Option<Given> =
            platform.ask(customer, "/internal/session/token", &Ask { customer, session, resource }).await?;
        let known = match given {
            Some(given) => Known {
                token: Some(given.access_token),
                until: given.expires_at.saturating_sub(RENEW_BEFORE_S),
            },
            None => Known { token: None, until: now_s + DEAD_FOR_S },
        };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SESSIONS_MAX {
            all.retain(|_, known| now_s < known.until);
            if all.len() >= SESSIONS_MAX {
                all.clear();
            }
        }
        all.insert(key, known.clone());
        Ok(known.token)
    }

    /// Sends a browser to sign in; it comes back to `back` on this host.
    pub(crate) fn sign_in(
        &self,
        domains: &Domains,
        customer: &CustomerName,
        origin: &str,
        resource: Option<&str>,
        back: &str,
        now_s: u64,
    ) -> Result<Response, Refusal> {
        let broken = |_| Refusal::new(Code::Internal);
        let (state, verifier) =
            (opaque::Opaque::generate().map_err(broken)?, opaque::Opaque::generate().map_err(broken)?);
        let (state, verifier) = (state.secret.expose().to_owned(), verifier.secret.expose().to_owned());
        let mut url = Url::parse(&format!("{}/authorize", domains.member_issuer(customer)))
            .map_err(|_| Refusal::new(Code::Internal))?;
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
        let login = Login { state, verifier, back: same_origin_path(back), until: now_s + LOGIN_LIFE_S };
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
        if value("iss").is_some_and(|iss| iss != platform.domains.member_issuer(customer)) {
            return Err(invalid("The answer comes from another issuer."));
        }
        if let Some(error) = value("error") {
            return Err(invalid(&error));
        }
        let code = value("code").ok_or_else(|| invalid("The answer holds no code."))?;
        let redirect_uri = redirect_uri(origin);
        let open =
            Open { customer, code: &code, code_verifier: &login.verifier, redirect_uri: &redirect_uri };
        let opened: Option<Opened> = platform.ask(customer, "/internal/session/open", &open).await?;
        let opened = opened.ok_or_else(|| invalid("The code is no longer valid. Please sign in again."))?;
        let mut response = redirect(&login.back)?;
        set_cookie(&mut response, SESSION_COOKIE, &opened.session, opened.max_age_s);
        set_cookie(&mut response, LOGIN_COOKIE, "", 0);
        Ok(response)
    }

    /// Ends the session of this browser.
    pub(crate) async fn sign_out(
        &self,
        platform: &Platform<'_>,
        customer: &CustomerName,
        session: Option<&str>,
    ) -> Result<Response, Refusal> {
        if let Some(session) = session {
            let ask = Ask { customer, session, resource: None };
            let _closed: Option<serde_json::Value> =
                platform.ask(customer, "/internal/session/close", &ask).await?;
            // Which apps it was used for is not known here; whatever is remembered is asked for again.
            self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        let mut response = redirect("/")?;
        set_cookie(&mut response, SESSION_COOKIE, "", 0);
        Ok(response)
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
