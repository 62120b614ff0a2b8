//! What the gateway itself asks the Platform about browser sessions, over the same balanced way.

use crate::{platform_lb::PlatformBalancer, refusal::Refusal};
use bastide_proxy::{Body, Pool, Request};
use bastide_types::{Code, CustomerName, Domains};
use http::{HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Longest wait for the Platform's word about a session.
pub(crate) const PLATFORM_WAIT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How the Platform is asked.
pub(crate) struct Platform<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) balancer: &'a PlatformBalancer,
    pub(crate) domains: &'a Domains,
}

/// A code that the browser brought back.
#[derive(Serialize)]
pub(crate) struct Open<'a> {
    pub(crate) customer: &'a CustomerName,
    pub(crate) code: &'a str,
    pub(crate) code_verifier: &'a str,
    pub(crate) redirect_uri: &'a str,
}

/// The session that it opened, or its new secret.
#[derive(Debug, Deserialize)]
pub(crate) struct Opened {
    pub(crate) session: String,
    pub(crate) max_age_s: u64,
}

/// A session, and the app that a token is wanted for.
#[derive(Serialize)]
pub(crate) struct Ask<'a> {
    pub(crate) customer: &'a CustomerName,
    /// SHA-256 of the session's secret, base64url.
    pub(crate) hash: &'a str,
    pub(crate) resource: Option<&'a str>,
    /// Seconds since 1970 at which it was last used here; 0 when it was not.
    pub(crate) used_s: u64,
    /// Whether a browser waits, which can be given another secret.
    pub(crate) renew: bool,
}

/// A token of a session.
#[derive(Deserialize)]
pub(crate) struct Given {
    pub(crate) access_token: String,
    pub(crate) expires_at: u64,
    /// Seconds since 1970 at which the session ends.
    pub(crate) until_s: u64,
    /// Seconds without use after which it ends.
    pub(crate) idle_s: u64,
    /// The secret that takes the place of the one that was asked about.
    #[serde(default)]
    pub(crate) renewed: Option<Opened>,
}

impl Platform<'_> {
    /// A session for a code; `None` when the code is not good.
    pub(crate) async fn open(&self, open: &Open<'_>) -> Result<Option<Opened>, Refusal> {
        self.ask(open.customer, "/internal/session/open", open).await
    }

    /// A token for a session; `None` when the session is dead or has no way to that app.
    pub(crate) async fn token(&self, ask: &Ask<'_>) -> Result<Option<Given>, Refusal> {
        self.ask(ask.customer, "/internal/session/token", ask).await
    }

    /// Ends a session.
    pub(crate) async fn close(&self, ask: &Ask<'_>) -> Result<(), Refusal> {
        let _gone: Option<serde_json::Value> = self.ask(ask.customer, "/internal/session/close", ask).await?;
        Ok(())
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        customer: &CustomerName,
        path: &'static str,
        query: &Q,
    ) -> Result<Option<A>, Refusal> {
        let internal = || Refusal::new(Code::Internal);
        let body = serde_json::to_vec(query).map_err(|_| internal())?;
        let mut request = Request::new(Body::full(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(path);
        let host = HeaderValue::from_str(&self.domains.platform_host(customer)).map_err(|_| internal())?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let until = Instant::now() + PLATFORM_WAIT;
        let response = self.balancer.send(self.pool, request, until).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND || status == StatusCode::BAD_REQUEST {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(away());
        }
        let body = timeout_at(until, response.into_body().collect_up_to(ANSWER_BYTES_MAX)).await;
        let body = body.map_err(|_| away())?.map_err(|_| away())?;
        serde_json::from_slice(&body).map(Some).map_err(|_| away())
    }
}

/// The Platform gave no usable answer.
pub(crate) fn away() -> Refusal {
    Refusal::new(Code::PlatformUnavailable).with("retry-after", "1")
}
