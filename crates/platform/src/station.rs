//! Starting a platform replica: listener, bus services, reconciler.

use crate::{
    ApiError, App, Config, Error, Platform, api, bus_services::BusServices, deploy, domains, error, identity,
    services,
};
use axum::Router;
use bastide_proxy::{
    Body, BodyError, Limits, Listener, RefusedHead, Request, Response, Service, accept_tls, serve,
};
use bastide_types::{Code, Role};
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Runs a platform replica until `stop`, then drains. `portal` makes the pages from the API's router.
pub async fn run(
    config: Config,
    portal: impl FnOnce(Router) -> Router,
    ready: Box<dyn FnOnce() + Send>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let tls = config.node.server_config(&[Role::Gateway], &[b"h2", b"http/1.1"])?;
    let tcp = bastide_proxy::reuse_port_listener(config.listen).map_err(Error::Listen)?;
    let app = Platform::open(config).await?;
    let router = router(app.clone(), portal);
    let listener = Listener::new(tcp, Some(accept_tls(tls)), Limits::inner());
    // A replica is whole or it ends: when one part ends, so do the others, and the supervisor starts anew.
    let stop = stop.child_token();
    let ends = |stop: &CancellationToken| stop.clone().drop_guard();
    let answers = async {
        let _end = ends(&stop);
        app.bus.serve(Arc::new(BusServices(app.clone())), stop.clone()).await
    };
    let reconciler = async {
        let _end = ends(&stop);
        deploy::reconciler::run(app.clone(), stop.clone()).await;
    };
    let databases = async {
        let _end = ends(&stop);
        services::run(app.clone(), stop.clone()).await;
    };
    let names = async {
        let _end = ends(&stop);
        domains::run(app.clone(), stop.clone()).await;
    };
    let served = async {
        let _end = ends(&stop);
        serve(listener, Arc::new(Services(router)), stop.clone()).await
    };
    ready();
    let (served, answers, (), (), ()) = tokio::join!(served, answers, reconciler, databases, names);
    app.bus.close().await;
    answers?;
    served.map_err(Error::Listen)
}

/// All routes of a replica.
pub fn router(app: App, portal: impl FnOnce(Router) -> Router) -> Router {
    let unknown = || async { ApiError::new(Code::ApiUnknown) };
    let api = api::router(app.clone())
        .merge(identity::api_routes(app.clone()))
        .route("/api", axum::routing::any(unknown))
        .route("/api/{*rest}", axum::routing::any(unknown))
        .method_not_allowed_fallback(|| async { ApiError::new(Code::MethodNotAllowed) })
        .layer(axum::middleware::from_fn(error::dress));
    let pages = portal(api.clone());
    let nothing = Router::new().fallback(unknown).layer(axum::middleware::from_fn(error::dress));
    api.merge(identity::router(app)).merge(pages).fallback_service(nothing)
}

/// The router as the hop calls it.
struct Services(Router);

impl Service for Services {
    async fn call(&self, request: Request) -> Response {
        let request = request.map(axum::body::Body::new);
        let response = match self.0.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        response.map(|body| Body::stream(body.map_err(|error| BodyError::Io(std::io::Error::other(error)))))
    }

    async fn refuse(&self, head: RefusedHead) -> Response {
        let problem = Code::BadRequest.because(head.reason.to_string());
        let mut response = Response::new(Body::from(problem.json()));
        *response.status_mut() = head.status;
        response
    }
}
