//! Which customer a request is for: the Host says it, nothing else.

use super::{Fault, Identity, fault::text};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use bastide_store::{CustomerStore, Look};
use bastide_types::{Code, CustomerId, CustomerName, Secret, Site};

/// The customer whose host was asked.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Id.
    pub id: CustomerId,
    /// Name.
    pub name: CustomerName,
    /// How its pages look.
    pub look: Look,
}

impl Tenant {
    /// What its pages are headed with.
    pub fn title(&self) -> &str {
        self.look.title.as_deref().unwrap_or(self.name.as_str())
    }
}

impl FromRequestParts<Identity> for Tenant {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, identity: &Identity) -> Result<Self, Fault> {
        let mut hosts = parts.headers.get_all(header::HOST).iter();
        let host = match (parts.uri.authority(), hosts.next(), hosts.next()) {
            (Some(authority), _, _) => authority.as_str().to_owned(),
            (None, Some(host), None) => host.to_str().unwrap_or_default().to_owned(),
            _ => return Err(Code::SiteUnknown.into()),
        };
        let host = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_ascii_lowercase();
        match identity.domains().site(&host) {
            Some(Site::Platform(name)) => identity.tenant(&name).await,
            _ => Err(Code::SiteUnknown.into()),
        }
    }
}

impl Identity {
    /// The customer of this name.
    pub(crate) async fn tenant(&self, name: &CustomerName) -> Result<Tenant, Fault> {
        let (row, look) = self.store().customer_that_looks(name).await?.ok_or(Code::SiteUnknown)?;
        Ok(Tenant { id: row.id, name: row.name, look })
    }

    /// What belongs to that customer.
    pub(crate) fn of(&self, tenant: &Tenant) -> CustomerStore<'_> {
        self.store().customer(tenant.id)
    }
}

/// Value of a cookie, if it comes exactly once.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    found.next().filter(|_| found.next().is_none())
}

/// A cookie of ours: for this host only, never for scripts.
pub fn set_cookie(name: &str, value: &str, life_s: i64) -> String {
    format!("{name}={value}; Path=/; Max-Age={life_s}; Secure; HttpOnly; SameSite=Lax")
}

/// Refuses a form that a page of another site sent.
///
/// Programs send neither field and are let through: their forms carry a value that only the page and its
/// cookie know.
pub fn demand_same_origin(headers: &HeaderMap, origin: &str) -> Result<(), Fault> {
    let good = match (text(headers, "sec-fetch-site"), text(headers, "origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(sent)) => sent == origin,
        (None, None) => true,
    };
    if good { Ok(()) } else { Err(Code::CrossSite.into()) }
}

/// Whether the form carries the value of the cookie, compared without telling where they differ.
pub fn demand_pair(cookie: Option<&str>, field: Option<&str>) -> Result<(), Fault> {
    match (cookie, field) {
        (Some(cookie), Some(field)) if cookie.len() == 43 && Secret::new(cookie).matches(field) => Ok(()),
        _ => Err(Code::CrossSite
            .because("The sign-in page is too old or was not opened here. Open it again.")
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_cookie_counts_only_when_it_comes_once() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; b=2"));
        assert_eq!(cookie(&headers, "b"), Some("2"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=3"));
        assert_eq!(cookie(&headers, "b"), None);
    }

    #[test]
    fn a_form_of_another_site_is_refused() {
        let check = |fields: &[(&'static str, &'static str)], expected: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(demand_same_origin(&headers, "https://a").is_ok(), expected, "{fields:?}");
        };
        check(&[("sec-fetch-site", "same-origin")], true);
        check(&[("sec-fetch-site", "cross-site"), ("origin", "https://a")], false);
        check(&[("origin", "https://a")], true);
        check(&[("origin", "null")], false);
        check(&[], true);
    }
}
