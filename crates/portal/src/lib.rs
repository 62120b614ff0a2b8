//! The Portal: server-rendered pages over the public API.
//!
//! Every page asks the API in process, with the same signed assertion that the gateway attached to the
//! page's own request: whoever may not ask the API sees nothing here either. No script, no state, no
//! database.

mod ask;
mod page;
mod routes;
mod view;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};

/// Longest form, in bytes.
const FORM_BYTES_MAX: usize = 16 * 1024;

/// The pages, over this API.
pub fn router(api: Router) -> Router {
    Router::new()
        .route("/", get(routes::home))
        .route("/portal", get(routes::home))
        .route("/portal/", get(routes::home))
        .route("/portal/apps/{app}", get(routes::app))
        .route("/portal/apps/{app}/promote", post(routes::promote))
        .route("/portal/operations/{id}", get(routes::operation))
        .route("/portal/members", get(routes::members).post(routes::invite))
        .route("/portal/customers", post(routes::create_customer))
        .route("/portal/assets/portal.css", get(page::style))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn(page::close))
        .with_state(ask::Api(api))
}
