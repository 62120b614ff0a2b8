//! What a request brings along to show who asks.

use crate::refusal::Refusal;
use bastide_types::Code;
use http::{HeaderMap, header};

/// Name of the session cookie. The prefix binds it to this host, `Secure` and `Path=/`.
pub(crate) const SESSION_COOKIE: &str = "__Host-bst";
/// Name of the cookie that holds a sign-in under way.
pub(crate) const LOGIN_COOKIE: &str = "__Host-bst-login";
/// Cookies whose names begin so are ours: they never reach an app, and no app may set them.
pub(crate) const OUR_COOKIES: &str = "__Host-bst";

/// A credential.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// None.
    None,
    /// An access token.
    Bearer(String),
    /// The secret of a browser session.
    Session(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer(…)",
            Self::Session(_) => "Session(…)",
        })
    }
}

/// Whether anything came along that could show who asks, good or bad. Such an answer is for nobody else.
pub(crate) fn any(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        || cookies(headers).any(|(name, _)| name.starts_with(OUR_COOKIES))
}

/// Finds the one credential. A token wins over a cookie; two tokens are refused.
pub(crate) fn find(headers: &HeaderMap) -> Result<Credential, Refusal> {
    let mut tokens = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(token) = tokens.next() {
        let refuse = |detail: &str| {
            Refusal::from(Code::TokenRefused.because(detail))
                .with("www-authenticate", "Bearer error=\"invalid_token\"")
        };
        if tokens.next().is_some() {
            return Err(refuse("two Authorization fields"));
        }
        let text = token.to_str().map_err(|_| refuse("not a token"))?;
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains([',', ' ']) {
            return Err(refuse("Authorization holds no Bearer token"));
        }
        return Ok(Credential::Bearer(token.to_owned()));
    }
    let mut sessions = cookies(headers).filter(|(name, _)| *name == SESSION_COOKIE);
    match (sessions.next(), sessions.next()) {
        (Some((_, secret)), None) if !secret.is_empty() && secret.len() <= 256 => {
            Ok(Credential::Session(secret.to_owned()))
        }
        _ => Ok(Credential::None),
    }
}

/// All cookies of a request.
pub(crate) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn found(fields: &[(&'static str, &'static str)]) -> Result<Credential, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        find(&headers)
    }

    #[test]
    fn exactly_one_credential_counts() {
        assert_eq!(found(&[]).unwrap(), Credential::None);
        assert_eq!(found(&[("authorization", "Bearer abc")]).unwrap(), Credential::Bearer("abc".into()));
        assert_eq!(found(&[("cookie", "a=b; __Host-bst=s")]).unwrap(), Credential::Session("s".into()));
        let both = [("authorization", "bearer abc"), ("cookie", "__Host-bst=s")];
        assert_eq!(found(&both).unwrap(), Credential::Bearer("abc".into()));
        assert_eq!(found(&[("cookie", "__Host-bst=s; __Host-bst=t")]).unwrap(), Credential::None);
        for wrong in ["Basic abc", "Bearer", "Bearer a,b", "Bearer a b", "abc"] {
            assert!(found(&[("authorization", wrong)]).is_err(), "{wrong}");
        }
        assert!(found(&[("authorization", "Bearer a"), ("authorization", "Bearer a")]).is_err());
        assert!(found(&[("authorization", "Basic x"), ("cookie", "__Host-bst=s")]).is_err());
    }

    #[test]
    fn a_credential_never_shows_in_a_log() {
        assert_eq!(format!("{:?}", Credential::Bearer("abc".into())), "Bearer(…)");
    }
}
