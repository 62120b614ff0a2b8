//! What may pass between the world and an app, in both directions.

use crate::{credential::OUR_COOKIES, reach::Reach};
use bastide_types::{RequestId, assertion::Assertion, header};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Removes every credential of ours from a request: an app could use it elsewhere.
pub(crate) fn hide_credentials(headers: &mut HeaderMap) {
    headers.remove(http::header::AUTHORIZATION);
    keep_cookies(headers, |name| !name.starts_with(OUR_COOKIES));
}

/// Cookies that only gateways read.
const GATEWAY_COOKIES: [&str; 2] = [crate::credential::SESSION_COOKIE, crate::credential::LOGIN_COOKIE];

/// What the edge said about the request; everything else of ours is removed.
pub(crate) struct FromEdge {
    pub(crate) id: RequestId,
    pub(crate) forwarded: Vec<(HeaderName, HeaderValue)>,
    pub(crate) deadline_ms: Option<u64>,
}

/// Fields of the edge that go on to whoever answers.
const PASSED_ON: &[&str] =
    &["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "traceparent", "tracestate"];

/// Takes what the edge said out of the request and removes everything else that only we may say.
pub(crate) fn take_from_edge(headers: &mut HeaderMap) -> FromEdge {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let id = text(header::REQUEST_ID).and_then(|id| id.parse().ok()).unwrap_or_else(RequestId::generate);
    let deadline_ms = text(header::DEADLINE_MS).and_then(|left| left.parse().ok());
    let forwarded = PASSED_ON
        .iter()
        .filter_map(|name| Some((HeaderName::from_static(name), headers.get(*name)?.clone())))
        .collect();
    bastide_proxy::headers::strip_spoofable(headers);
    FromEdge { id, forwarded, deadline_ms }
}

/// Says to whoever answers who asks and how the request came.
pub(crate) fn tell(headers: &mut HeaderMap, from: &FromEdge, who: Option<(&Assertion, &str)>) {
    for (name, value) in &from.forwarded {
        headers.insert(name.clone(), value.clone());
    }
    set(headers, header::REQUEST_ID, &from.id.to_string());
    if let Some((assertion, token)) = who {
        set(headers, header::ASSERTION, token);
        set(headers, header::USER, &assertion.sub);
        set(headers, header::USER_NAME, &plain(&assertion.name));
        set(headers, header::ROLES, &assertion.roles.join(","));
    }
}

/// Removes from an app's answer what only we may say, and what would reach beyond the app.
pub(crate) fn clean_answer(headers: &mut HeaderMap, reach: &Reach<'_>) {
    bastide_proxy::headers::strip_hop_by_hop(headers);
    let foreign: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().replace('_', "-").starts_with("x-bastide-"))
        .cloned()
        .collect();
    for name in foreign {
        headers.remove(name);
    }
    headers.remove(header::REQUEST_ID);
    let cookies: Vec<HeaderValue> = headers
        .get_all(http::header::SET_COOKIE)
        .iter()
        .filter(|value| !sets_our_cookie(value) && !reach.is_wide(value))
        .cloned()
        .collect();
    if headers.remove(http::header::SET_COOKIE).is_some() {
        for cookie in cookies {
            headers.append(http::header::SET_COOKIE, cookie);
        }
    }
    let mut workers = headers.get_all(WORKER_ALLOWED).iter();
    // Of several, browsers may take any.
    let holds = workers.next().is_none_or(|one| reach.holds_worker(one)) && workers.next().is_none();
    if !holds {
        headers.remove(WORKER_ALLOWED);
    }
}

/// How far a worker of a script may reach (Service Workers §3.1).
const WORKER_ALLOWED: &str = "service-worker-allowed";

/// Whether this would set a cookie of ours. A cookie without a name is sent back as its bare value, so
/// `=__Host-bst=x` counts too; some browsers ignore the case.
fn sets_our_cookie(value: &HeaderValue) -> bool {
    let name = value.as_bytes().trim_ascii_start();
    let name = name.strip_prefix(b"=").unwrap_or(name).trim_ascii_start();
    name.get(..OUR_COOKIES.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(OUR_COOKIES.as_bytes()))
}

/// Removes the session from what the Identity Service sees: its own cookies stay.
pub(crate) fn hide_session(headers: &mut HeaderMap) {
    keep_cookies(headers, |name| !GATEWAY_COOKIES.contains(&name));
}

fn keep_cookies(headers: &mut HeaderMap, keep: impl Fn(&str) -> bool) {
    let kept: Vec<String> = crate::credential::cookies(headers)
        .filter(|(name, _)| keep(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    headers.remove(http::header::COOKIE);
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::from_str(&kept.join("; "))
    {
        headers.insert(http::header::COOKIE, value);
    }
}

/// Sets a field; text that no field can hold is left out.
pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A name as a field can hold it: everything but visible ASCII is percent-encoded.
fn plain(name: &str) -> String {
    use std::fmt::Write;
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_graphic() && byte != b'%' || byte == b' ' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_types::{AppName, Domains};

    #[test]
    fn our_cookies_stay_behind_and_the_apps_pass() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1; __Host-bst=secret; __Host-bst-login=x"));
        headers.append("cookie", HeaderValue::from_static("b=2"));
        headers.append("authorization", HeaderValue::from_static("Bearer t"));
        hide_credentials(&mut headers);
        assert_eq!(headers["cookie"], "a=1; b=2");
        assert!(!headers.contains_key("authorization"));
    }

    #[test]
    fn the_identity_service_sees_its_own_cookies_only() {
        let mut headers = HeaderMap::new();
        let sent = "__Host-bst=s; __Host-bst-sso=p; __Host-bst-login=l; a=1";
        headers.append("cookie", HeaderValue::from_static(sent));
        hide_session(&mut headers);
        assert_eq!(headers["cookie"], "__Host-bst-sso=p; a=1");
    }

    #[test]
    fn an_app_speaks_only_for_itself() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-bastide-cacheable", "sha256:x"),
            ("x_bastide_zone", "z"),
            ("set-cookie", "__Host-bst=evil; Path=/"),
            ("set-cookie", " __host-BST-sso=evil"),
            ("set-cookie", "=__Host-bst=evil"),
            ("set-cookie", "wide=1; Domain=.Apps.localhost"),
            ("set-cookie", "mine=1"),
            ("service-worker-allowed", "/"),
            ("x-other", "1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let (domains, app) = (Domains::default(), AppName::new("shop").unwrap());
        let mut reach = Reach { domains: &domains, app: &app, path: "/", is_root: false };
        clean_answer(&mut headers, &reach);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["set-cookie"], "mine=1");
        let allowed = |reach: &Reach<'_>, values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(WORKER_ALLOWED, HeaderValue::from_static(value));
            }
            clean_answer(&mut headers, reach);
            headers.len()
        };
        assert_eq!((allowed(&reach, &["/shop/"]), allowed(&reach, &["/shop/", "/shop/"])), (1, 0));
        reach.is_root = true;
        assert_eq!(allowed(&reach, &["/"]), 1);
    }

    #[test]
    fn names_become_plain() {
        assert_eq!(plain("Jörg %"), "J%C3%B6rg %25");
    }
}
