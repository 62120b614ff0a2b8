//! Starting a platform replica: listener, bus services, reconciler.

use crate::{
    ApiError, App, Config, Error, Platform, api, backchannel,
    bus_services::BusServices,
    deploy, domains, error, identity, keys, mail, origin,
    permissions::guard::{counted, guard},
    retention, services, sessions,
    wire::{self, Gate},
};
use axum::Router;
use bastide_proxy::{
    Body, BodyError, Limits, Listener, RefusedHead, Request, Response, Service, accept_tls, serve,
};
use bastide_types::{API, Code, Role};
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
    let feed = async {
        let _end = ends(&stop);
        sessions::run(app.clone(), stop.clone()).await;
    };
    let keys = async {
        let _end = ends(&stop);
        keys::run(app.clone(), stop.clone()).await;
    };
    let letters = async {
        let _end = ends(&stop);
        mail::run(app.clone(), stop.clone()).await;
    };
    let sign_outs = async {
        let _end = ends(&stop);
        backchannel::run(app.clone(), stop.clone()).await;
    };
    let pace = async {
        let _end = ends(&stop);
        wire::pace::run(app.clone(), stop.clone()).await;
    };
    let old = async {
        let _end = ends(&stop);
        retention::run(app.clone(), stop.clone()).await;
    };
    let served = async {
        let _end = ends(&stop);
        serve(listener, Arc::new(Services(router)), stop.clone()).await
    };
    ready();
    let (served, answers, (), (), (), (), (), (), (), (), ()) = tokio::join!(
        served, answers, reconciler, databases, names, feed, keys, letters, sign_outs, pace, old
    );
    app.bus.close().await;
    answers?;
    served.map_err(Error::Listen)
}

/// All routes of a replica.
pub fn router(app: App, portal: impl FnOnce(Router) -> Router) -> Router {
    let unknown = || async { ApiError::new(Code::ApiUnknown) };
    let handlers = api::router(app.clone()).merge(identity::api_routes(app.clone()));
    let gate = Gate::new(app.clone(), handlers.clone());
    let guarded = handlers.route_layer(axum::middleware::from_fn_with_state(gate, guard));
    let versioned = guarded.merge(api::open_router());
    let api = Router::new()
        .nest(API, versioned)
        .route("/api", axum::routing::any(unknown))
        .route("/api/{*rest}", axum::routing::any(unknown))
        .method_not_allowed_fallback(|| async { ApiError::new(Code::MethodNotAllowed) })
        .layer(axum::middleware::from_fn(error::dress));
    let pages = portal(api.clone());
    let api = api.layer(axum::middleware::from_fn(counted));
    let nothing = Router::new().fallback(unknown).layer(axum::middleware::from_fn(error::dress));
    let tell = axum::middleware::from_fn_with_state(app.clone(), sessions::tell_before_the_answer);
    let noted = axum::middleware::from_fn(origin::note);
    api.merge(identity::router(app)).merge(pages).layer(tell).layer(noted).fallback_service(nothing)
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
