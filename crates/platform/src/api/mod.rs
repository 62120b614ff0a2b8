//! The public API of the Platform's services.

mod apps;
mod audit;
mod bans;
mod cache;
mod customers;
mod deployments;
mod description;
mod domains;
mod network;
mod organization;
mod runtime;
mod scale;
mod services;
mod settings;
mod site;
mod waf;
mod whoami;

pub(crate) use description::queries;
pub use description::{Service, description};

use crate::App;
use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    routing::{delete, get, post, put},
};
use utoipa::OpenApi;

/// Most bytes of a JSON body.
pub(crate) const JSON_BYTES_MAX: usize = 256 * 1024;

/// Routes of orgs, build and deploy.
pub fn router(app: App) -> Router {
    let small = Router::new()
        .route("/whoami", get(whoami::whoami))
        .route("/apps", get(apps::list))
        .route("/apps/{app}", get(apps::show))
        .route("/apps/{app}/content", get(apps::content))
        .route("/apps/{app}/deployments", post(apps::promote))
        .route("/apps/{app}/rollbacks", post(deployments::roll_back))
        .route("/apps/{app}/undeployments", post(deployments::undeploy))
        .route("/apps/{app}/revisions", get(deployments::revisions))
        .route("/apps/{app}/diff", get(deployments::diff))
        .route("/operations", get(deployments::operations))
        .route("/apps/{app}/egress", get(network::explain))
        .route("/apps/{app}/services", get(services::list))
        .route("/apps/{app}/services/postgres/rotate", post(services::rotate))
        .route("/apps/{app}/stages/{stage}/settings", get(settings::show).put(settings::replace))
        .route(
            "/apps/{app}/stages/{stage}/secrets",
            get(settings::show_secrets).put(settings::replace_secrets),
        )
        .route("/cache/purges", post(cache::purge))
        .route("/cache/figures", get(cache::figures))
        .route("/cache/why", post(cache::why))
        .route("/apps/{app}/scale", put(scale::replace))
        .route("/stages/{stage}/network", get(network::show).put(network::replace))
        .route("/stages/{stage}/site", get(site::show).delete(site::reset))
        .route(
            "/stages/{stage}/site/pages/{page}",
            get(site::page).put(site::put_page).delete(site::remove_page),
        )
        .route("/stages/{stage}/site/maintenance", put(site::maintenance))
        .route("/stages/{stage}/site/redirects", put(site::redirects))
        .route("/stages/{stage}/site/fields", put(site::fields))
        .route("/waf/policy", get(waf::show).put(waf::replace))
        .route("/operations/{id}", get(apps::operation))
        .route("/audit", get(audit::list))
        .route("/audit/export", get(audit::export))
        .route("/audit/verification", get(audit::verify))
        .route("/bans", get(bans::list).post(bans::add))
        .route("/bans/{ban}", delete(bans::lift))
        .route("/organization", get(organization::show).put(organization::replace))
        .route(
            "/organization/logo",
            get(organization::logo).put(organization::put_logo).delete(organization::remove_logo),
        )
        .route("/domains", get(domains::list).post(domains::add))
        // Rules against attacks dislike addresses that end like the name of a program, as `.com` does.
        .route("/domains/{domain}/claim", delete(domains::remove))
        .route("/domains/{domain}/verify", post(domains::verify))
        .route("/domains/{domain}/certificate", put(domains::certificate))
        .route("/stages/{stage}/default-domain", put(domains::set_default))
        .route("/locks", get(domains::locks))
        .route("/locks/{label}/lock", delete(domains::unlock))
        .route("/runtime", get(runtime::show))
        .route("/customers", get(customers::list).post(customers::create))
        .route("/customers/{customer}/quota", get(scale::quota_of).put(scale::set_quota))
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX));
    // The upload has its own limit, kept while it streams to disk.
    let upload =
        Router::new().route("/apps/{app}/publish", post(apps::publish)).layer(DefaultBodyLimit::disable());
    small.merge(upload).with_state(app)
}

/// What everybody may ask, also without having signed in: the description of the API.
pub fn open_router() -> Router {
    Router::new().route("/openapi.json", get(|| async { Json(description()) }))
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
        apps::content,
        apps::operation,
        deployments::roll_back,
        deployments::undeploy,
        deployments::revisions,
        deployments::diff,
        deployments::operations,
        audit::list,
        audit::export,
        audit::verify,
        bans::list,
        bans::add,
        bans::lift,
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
        organization::show,
        organization::replace,
        organization::logo,
        organization::put_logo,
        organization::remove_logo,
        runtime::show,
        services::list,
        services::rotate,
        settings::show,
        settings::show_secrets,
        settings::replace,
        settings::replace_secrets,
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
    ),
    components(schemas(bastide_types::tree::TreeFile))
)]
struct Description;
