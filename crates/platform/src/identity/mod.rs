//! The Identity Service: issuers, members, sign-in, tokens and sessions of each customer.
//!
//! The customer comes from the Host alone; `operator` is a customer like the others. Signatures, hashes
//! and seals are the engine's (`bastide_identity`) and the store's; this module keeps the protocol: what
//! may follow what, once, and for whom. It has no external providers, no second factors and no
//! self-registration.

mod authorize;
mod client_api;
mod clients;
mod cors;
mod device;
mod discovery;
mod fault;
mod form;
mod id_token;
mod inspect;
mod internal;
mod invite;
mod issue;
mod issuer;
mod login;
mod logout;
pub mod members;
mod pages;
mod password;
mod tenant;
mod token;

pub use fault::Fault;

use crate::App;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{any, get, post},
};
use bastide_store::Store;
use bastide_types::Domains;
use std::sync::Arc;

/// Longest form or JSON body, in bytes.
const BODY_BYTES_MAX: usize = 32 * 1024;
/// Life of a sign-in and of every session that comes of it, in seconds.
pub const SESSION_LIFE_S: i64 = 12 * 3600;
/// Life of an authorization code, in seconds.
const CODE_LIFE_S: i64 = 60;
/// OAuth client of the command line.
const CLI: &str = "bastide-cli";
/// OAuth client of the gateways; its codes are redeemed over `/internal` only.
const GATEWAY: &str = "bastide-gateway";

/// All routes of the service: what everybody may ask, and what only gateways may.
pub fn router(app: App) -> Router {
    let identity = Identity::new(app.store.clone(), app.config.domains.clone());
    identity.routes().merge(identity.internal_routes())
}

/// Routes of the API that belong to identity: members, roles of apps, clients.
pub fn api_routes(app: App) -> Router {
    members::router(app.clone()).merge(client_api::router(app))
}

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    let mut all = members::description();
    all.merge(client_api::description());
    all
}

/// The service; clones share everything.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    store: Store,
    domains: Domains,
    hasher: password::Hasher,
    /// Held while a key for ID tokens is made: many who ask at once cost one.
    id_key: tokio::sync::Mutex<()>,
}

impl Identity {
    /// Makes the service.
    pub fn new(store: Store, domains: Domains) -> Self {
        let (hasher, id_key) = (password::Hasher::new(), tokio::sync::Mutex::new(()));
        Self(Arc::new(Inner { store, domains, hasher, id_key }))
    }

    fn store(&self) -> &Store {
        &self.0.store
    }

    fn domains(&self) -> &Domains {
        &self.0.domains
    }

    fn hasher(&self) -> &password::Hasher {
        &self.0.hasher
    }

    /// Everything under `/identity`, for anybody who comes through a gateway.
    pub fn routes(&self) -> Router {
        let mut router = Router::new();
        for base in ["/identity", "/identity/s/{stage}"] {
            router = router.merge(issuer_routes(base));
        }
        router
            .route("/identity/invite/{token}", get(invite::page).post(invite::accept))
            .route("/identity/style.css", get(pages::style))
            .route("/identity/{*rest}", any(fault::unknown))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(middleware::from_fn(fault::dress))
            .with_state(self.clone())
    }

    /// What only gateways may call. The listener has checked the role of the peer.
    pub fn internal_routes(&self) -> Router {
        Router::new()
            .route("/internal/session/open", post(internal::open))
            .route("/internal/session/token", post(internal::token))
            .route("/internal/session/close", post(internal::close))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(middleware::from_fn(fault::dress))
            .with_state(self.clone())
    }
}

/// The endpoints of an issuer, below its path; its RFC 8414 document lies above all paths (§3.1).
fn issuer_routes(base: &str) -> Router<Identity> {
    let at = |endpoint: &str| format!("{base}/{endpoint}");
    let for_scripts = Router::new()
        .route(&at(".well-known/openid-configuration"), get(discovery::document))
        .route(&format!("/.well-known/oauth-authorization-server{base}"), get(discovery::document))
        .route(&at("jwks"), get(discovery::keys))
        .route(&at("token"), post(token::token))
        .route(&at("device_authorization"), post(device::begin))
        .route(&at("userinfo"), get(inspect::userinfo).post(inspect::userinfo_form))
        .route(&at("revoke"), post(inspect::revoke))
        .route_layer(middleware::from_fn(cors::for_scripts));
    Router::new()
        .route(&at("authorize"), get(authorize::authorize).post(authorize::authorize_form))
        .route(&at("login"), post(login::login))
        .route(&at("continue"), post(authorize::go_on))
        .route(&at("device"), get(device::page).post(device::submit))
        .route(&at("introspect"), post(inspect::introspect))
        .route(&at("logout"), get(logout::page).post(logout::submit))
        .merge(for_scripts)
}
