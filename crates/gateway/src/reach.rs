//! How far an app's answer may reach: its cookies stay below the base domains, its workers below its own path.
//!
//! Browsers differ in what they make of odd values; whatever is not plain is left out.

use bastide_types::{AppName, Domains};
use http::HeaderValue;
use url::Url;

/// Whose answer it is.
pub(crate) struct Reach<'a> {
    /// The base domains.
    pub(crate) domains: &'a Domains,
    /// The app.
    pub(crate) app: &'a AppName,
    /// Path of the request below the app.
    pub(crate) path: &'a str,
    /// Whether the app has a host to itself.
    pub(crate) is_root: bool,
}

impl Reach<'_> {
    /// Whether a cookie would be sent to hosts of others: its `Domain` is a base domain or above one, or no host name.
    ///
    /// Of several such attributes the last counts (RFC 6265 §5.3), but not everywhere: each of them is looked at.
    pub(crate) fn is_wide(&self, cookie: &HeaderValue) -> bool {
        let attributes = cookie.as_bytes().split(|byte| *byte == b';').skip(1);
        attributes.filter_map(domain).any(|domain| !is_plain(&domain) || self.is_at_or_above_a_base(&domain))
    }

    fn is_at_or_above_a_base(&self, domain: &[u8]) -> bool {
        let bases = [&self.domains.platform, &self.domains.runtime];
        bases.iter().any(|base| {
            let above = base.as_bytes().strip_suffix(domain);
            !domain.is_empty() && above.is_some_and(|rest| rest.is_empty() || rest.ends_with(b"."))
        })
    }

    /// Whether a `Service-Worker-Allowed` stays below the app's own path, read as browsers do: against the address of
    /// the script (Service Workers §3.1).
    pub(crate) fn holds_worker(&self, allowed: &HeaderValue) -> bool {
        if self.is_root {
            return true;
        }
        let own = format!("/{}/", self.app);
        let script = Url::parse(&format!("https://app.invalid/{}{}", self.app, self.path));
        let (Ok(script), Ok(text)) = (script, allowed.to_str()) else { return false };
        script.join(text).is_ok_and(|to| to.origin() == script.origin() && to.path().starts_with(&own))
    }
}

/// The value of a `Domain` attribute, lower case, without the dots around it (RFC 6265 §5.2.3).
fn domain(attribute: &[u8]) -> Option<Vec<u8>> {
    let at = attribute.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (attribute[..at].trim_ascii(), attribute[at + 1..].trim_ascii());
    if !name.eq_ignore_ascii_case(b"domain") {
        return None;
    }
    let value = value.strip_prefix(b".").unwrap_or(value);
    Some(value.strip_suffix(b".").unwrap_or(value).to_ascii_lowercase())
}

/// Without quotes, escapes and letters that some browsers would turn into others.
fn is_plain(domain: &[u8]) -> bool {
    domain.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reach<R>(is_root: bool, ask: impl FnOnce(&Reach<'_>) -> R) -> R {
        let domains = Domains {
            platform: "platform.example.com".into(),
            runtime: "apps.example.net".into(),
            https_port: 443,
        };
        let app = AppName::new("shop").unwrap();
        ask(&Reach { domains: &domains, app: &app, path: "/js/worker.js", is_root })
    }

    #[test]
    fn no_cookie_reaches_a_base_domain() {
        let check = |cookie: &[u8], wide: bool| {
            let value = HeaderValue::from_bytes(cookie).unwrap();
            let found = reach(false, |reach| reach.is_wide(&value));
            assert_eq!(found, wide, "{}", String::from_utf8_lossy(cookie));
            // A host of one's own makes no difference.
            assert_eq!(reach(true, |reach| reach.is_wide(&value)), wide);
        };
        for wide in [
            "a=1; Domain=apps.example.net",
            "a=1; domain=.apps.example.net",
            "a=1;DOMAIN=APPS.Example.NET",
            "a=1 ; Path=/ ;\tDomain = .apps.example.net ; Secure",
            "a=1; Domain=apps.example.net.",
            "a=1; Domain=example.net",
            "a=1; Domain=net",
            "a=1; Domain=platform.example.com",
            "a=1; Domain=com",
            "a=1; Domain=acme.apps.example.net; Domain=apps.example.net",
            "a=1; Domain=apps.example.net; Domain=acme.apps.example.net",
            "a=1; Domain=apps.example.net; Domain=",
            "a=1; Domain=\"apps.example.net\"",
            "a=1; Domain=%61pps.example.net",
            "a=1; Domain=apps.example.net:443",
        ] {
            check(wide.as_bytes(), true);
        }
        check("a=1; Domain=ａpps.example.net".as_bytes(), true);
        for narrow in [
            "a=1",
            "a=1; Path=/; Secure",
            "a=1; Domain=",
            "a=1; Domain",
            "Domain=apps.example.net",
            "a=Domain=apps.example.net",
            "a=1; Domain=acme.apps.example.net",
            "a=1; Domain=pps.example.net",
            "a=1; Domain=shop.example.org",
            "a=1; X-Domain=apps.example.net",
        ] {
            check(narrow.as_bytes(), false);
        }
    }

    #[test]
    fn no_worker_reaches_beyond_its_app() {
        let check = |value: &str, below: bool| {
            let header = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            assert_eq!(reach(false, |reach| reach.holds_worker(&header)), below, "{value}");
            assert!(reach(true, |reach| reach.holds_worker(&header)), "a host to itself: {value}");
        };
        for value in ["/shop/", "/shop/a", "/shop/a/../b", "./", "", "../", "https://app.invalid/shop/"] {
            check(value, true);
        }
        for value in [
            "/",
            "/shop",
            "/shopping/",
            "/Shop/",
            "../../",
            "/shop/..",
            "/shop/../",
            "/shop/%2e%2e/",
            "/shop/.%2E/other/",
            "/shop\\..\\",
            "\\",
            "/%73hop/",
            "//other.example/shop/",
            "https://other.example/shop/",
            "https://other.example/",
            "https:/",
            "data:/shop/",
            "/\t",
            "/ö/",
        ] {
            check(value, false);
        }
    }

    proptest! {
        #[test]
        fn whatever_a_field_holds_is_read(bytes in prop::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff], 0..80)) {
            let value = HeaderValue::from_bytes(&bytes).unwrap();
            reach(false, |reach| (reach.is_wide(&value), reach.holds_worker(&value)));
        }

        #[test]
        fn below_a_base_any_spelling_of_it_is_wide(before in "[.]?", upper in any::<bool>(), name in "[a-z]{1,9}") {
            let base = if upper { "APPS.EXAMPLE.NET" } else { "apps.example.net" };
            let cookie = format!("{name}=1; Secure; dOmAiN={before}{base}; HttpOnly");
            prop_assert!(reach(false, |reach| reach.is_wide(&HeaderValue::from_str(&cookie).unwrap())));
        }
    }
}
