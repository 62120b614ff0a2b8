//! Who calls: from the gateway's signed assertion and the host, never from a plain field.

use crate::{ApiError, App};
use axum::extract::FromRequestParts;
use bastide_identity::verify_assertion;
use bastide_store::{CustomerRow, CustomerStore};
use bastide_types::{
    Code, CustomerName, Site,
    assertion::{Assertion, PLATFORM_AUDIENCE},
    header,
};
use http::{HeaderMap, request::Parts};

/// Somebody signed in at the customer whose host was asked.
pub struct Caller {
    /// The customer.
    pub customer: CustomerRow,
    /// What the gateway says.
    pub who: Assertion,
}

/// The customer whose host was asked, whoever asks.
pub struct AtCustomer(pub CustomerRow);

impl Caller {
    /// Whether the caller has this organization role.
    pub fn has(&self, role: &str) -> bool {
        self.who.roles.iter().any(|own| own == role)
    }

    /// Refuses callers without one of these organization roles.
    pub fn need(&self, roles: &[&str]) -> Result<(), ApiError> {
        if roles.iter().any(|role| self.has(role)) { Ok(()) } else { Err(ApiError::new(Code::Forbidden)) }
    }

    /// The caller's part of the store.
    pub fn store<'s>(&self, app: &'s App) -> CustomerStore<'s> {
        app.store.customer(self.customer.id)
    }
}

impl FromRequestParts<App> for AtCustomer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let name = customer_name(&parts.headers, app).ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
        let customer = app.store.customer_named(&name).await?;
        customer.map(Self).ok_or_else(|| ApiError::new(Code::ApiUnknown))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let refuse = || ApiError::new(Code::NotSignedIn);
        let token =
            parts.headers.get(header::ASSERTION).and_then(|value| value.to_str().ok()).ok_or_else(refuse)?;
        let now = u64::try_from(bastide_store::now_s()).unwrap_or_default();
        let who =
            verify_assertion(token, &app.assertion_keys, PLATFORM_AUDIENCE, now).map_err(|_| refuse())?;
        let AtCustomer(customer) = AtCustomer::from_request_parts(parts, app).await?;
        if who.org != customer.id {
            return Err(refuse());
        }
        Ok(Self { customer, who })
    }
}

fn customer_name(headers: &HeaderMap, app: &App) -> Option<CustomerName> {
    let host = headers.get(http::header::HOST)?.to_str().ok()?;
    let host = host.split(':').next()?.to_ascii_lowercase();
    match app.config.domains.site(&host)? {
        Site::Platform(customer) => Some(customer),
        Site::Runtime(..) => None,
    }
}
