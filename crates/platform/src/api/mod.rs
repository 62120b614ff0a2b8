//! The public API of the Platform's services.

mod apps;
mod cache;
mod customers;
mod domains;
mod network;
mod runtime;
mod scale;
mod services;
mod site;
mod waf;
mod whoami;

use crate::App;
use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    routing::{delete, get, post, put},
};
use utoipa::OpenApi;

/// Most bytes of a JSON body.
const JSON_BYTES_MAX: usize = 256 * 1024;

/// Routes of orgs, build and deploy, and the description of all.
pub fn router(app: App) -> Router {
    let small = Router::new()
        .route("/api/whoami", get(whoami::whoami))
        .route("/api/apps", get(apps::list))
        .route("/api/apps/{app}", get(apps::show))
        .route("/api/apps/{app}/deployments", post(apps::promote))
        .route("/api/apps/{app}/egress", get(network::explain))
        .route("/api/apps/{app}/services", get(services::list))
        .route("/api/apps/{app}/services/postgres/rotate", post(services::rotate))
        .route("/api/cache/purges", post(cache::purge))
        .route("/api/cache/figures", get(cache::figures))
        .route("/api/cache/why", post(cache::why))
        .route("/api/apps/{app}/scale", put(scale::replace))
        .route("/api/stages/{stage}/network", get(network::show).put(network::replace))
        .route("/api/stages/{stage}/site", get(site::show).delete(site::reset))
        .route(
            "/api/stages/{stage}/site/pages/{page}",
            get(site::page).put(site::put_page).delete(site::remove_page),
        )
        .route("/api/stages/{stage}/site/maintenance", put(site::maintenance))
        .route("/api/stages/{stage}/site/redirects", put(site::redirects))
        .route("/api/stages/{stage}/site/fields", put(site::fields))
        .route("/api/waf/policy", get(waf::show).put(waf::replace))
        .route("/api/operations/{id}", get(apps::operation))
        .route("/api/domains", get(domains::list).post(domains::add))
        // Rules against attacks dislike addresses that end like the name of a program, as `.com` does.
        .route("/api/domains/{domain}/claim", delete(domains::remove))
        .route("/api/domains/{domain}/verify", post(domains::verify))
        .route("/api/domains/{domain}/certificate", put(domains::certificate))
        .route("/api/stages/{stage}/default-domain", put(domains::set_default))
        .route("/api/locks", get(domains::locks))
        .route("/api/locks/{label}/lock", delete(domains::unlock))
        .route("/api/runtime", get(runtime::show))
        .route("/api/customers", get(customers::list).post(customers::create))
        .route("/api/customers/{customer}/quota", get(scale::quota_of).put(scale::set_quota))
        .route("/api/openapi.json", get(|| async { Json(description()) }))
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX));
    // The upload has its own limit, kept while it streams to disk.
    let upload = Router::new()
        .route("/api/apps/{app}/publish", post(apps::publish))
        .layer(DefaultBodyLimit::disable());
    small.merge(upload).with_state(app)
}

/// The OpenAPI description of the whole API.
pub fn description() -> utoipa::openapi::OpenApi {
    let mut all = Description::openapi();
    all.merge(crate::identity::description());
    all
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bastide Platform",
        description = "Publish apps, deploy them, look after members and customers."
    ),
    paths(
        whoami::whoami,
        apps::list,
        apps::show,
        apps::publish,
        apps::promote,
        apps::operation,
        cache::purge,
        domains::list,
        domains::add,
        domains::remove,
        domains::verify,
        domains::certificate,
        domains::set_default,
        domains::locks,
        domains::unlock,
        cache::figures,
        cache::why,
        network::show,
        network::replace,
        network::explain,
        runtime::show,
        services::list,
        services::rotate,
        site::show,
        site::reset,
        site::page,
        site::put_page,
        site::remove_page,
        site::maintenance,
        site::redirects,
        site::fields,
        scale::replace,
        scale::quota_of,
        scale::set_quota,
        waf::show,
        waf::replace,
        customers::list,
        customers::create
    )
)]
struct Description;
