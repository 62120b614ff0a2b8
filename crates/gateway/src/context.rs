//! What a gateway is made of, what its stops know of one request, and where requests come in.

use crate::{
    hygiene::{self, FromEdge},
    liveness::Liveness,
    platform_client::Opened,
    platform_lb::PlatformBalancer,
    receipt::Receipt,
    refusal::Refusal,
    runtime_lb::RuntimeBalancer,
    session::{self, Sessions},
    view::View,
};
use bastide_identity::{SigningKey, TokenCache};
use bastide_proxy::{Pool, RefusedHead, Request, Response, Service};
use bastide_types::{Code, RequestId, ZoneName, header};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// All that a gateway needs to serve.
pub(crate) struct Gateway {
    pub(crate) zone: ZoneName,
    pub(crate) view: watch::Receiver<Option<Arc<View>>>,
    pub(crate) pool: Pool,
    pub(crate) platform: PlatformBalancer,
    pub(crate) runtime: RuntimeBalancer,
    pub(crate) tokens: TokenCache,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) sessions: Sessions,
    pub(crate) assertion_key: SigningKey,
    pub(crate) deadline: Duration,
    pub(crate) platform_deadline: Duration,
}

/// What the stops know of one request.
pub(crate) struct Context {
    /// One consistent view for the whole way.
    pub(crate) view: Arc<View>,
    pub(crate) from: FromEdge,
    pub(crate) host: String,
    pub(crate) origin: String,
    pub(crate) now_s: u64,
    pub(crate) receipt: Receipt,
    renewed: Mutex<Option<Opened>>,
}

impl Context {
    /// The browser gets another secret with the answer, whatever that is.
    pub(crate) fn renew(&self, renewed: Opened) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(renewed);
    }
}

impl Service for Gateway {
    async fn call(&self, mut request: Request) -> Response {
        let begun = Instant::now();
        let from = hygiene::take_from_edge(request.headers_mut());
        let id = from.id;
        let accept = request.headers().get("accept").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut response = match self.context(from, &request) {
            Ok(cx) => {
                let outcome = self.journey(&cx, request).await;
                let mut response = outcome.unwrap_or_else(|refusal| refusal.response(id, accept.as_deref()));
                if let Some(renewed) = cx.renewed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    session::renew(&mut response, &renewed);
                }
                cx.receipt.log(id, response.status().as_u16(), begun.elapsed());
                response
            }
            Err(refusal) => refusal.response(id, accept.as_deref()),
        };
        tracing::debug!(name: "gateway.answer", status = response.status().as_u16());
        hygiene::set(response.headers_mut(), header::REQUEST_ID, &id.to_string());
        response
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        let detail = head.reason.to_string();
        Refusal::from(Code::BadRequest.because(detail)).response(RequestId::generate(), None)
    }
}

impl Gateway {
    fn context(&self, from: FromEdge, request: &Request) -> Result<Context, Refusal> {
        let none = || Refusal::new(Code::Overloaded).with("retry-after", "1");
        let view = self.view.borrow().clone().ok_or_else(none)?;
        let authority =
            request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let host = authority.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let origin = view.snapshot.domains.origin(&host);
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Context {
            view,
            from,
            host,
            origin,
            now_s,
            receipt: Receipt::default(),
            renewed: Mutex::default(),
        })
    }
}
