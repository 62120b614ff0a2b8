//! The Identity Service: issuers, members, sign-in, tokens and sessions of each customer.
//!
//! The customer comes from the Host alone; `operator` is a customer like the others. Signatures, hashes
//! and seals are the engine's (`bastide_identity`) and the store's; this module keeps the protocol: what
//! may follow what, once, and for whom. It has no external providers, no second factors and no
//! self-registration.

mod authorize;
mod discovery;
mod fault;
mod form;
mod internal;
mod invite;
mod issue;
mod login;
pub mod members;
mod pages;
mod password;
mod tenant;
mod token;

pub use fault::Fault;
pub use members::description;

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

/// Routes of the API that belong to identity: members and roles of apps.
pub fn api_routes(app: App) -> Router {
    members::router(app)
}

/// The service; clones share everything.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    store: Store,
    domains: Domains,
    hasher: password::Hasher,
}

impl Identity {
    /// Makes the service.
    pub fn new(store: Store, domains: Domains) -> Self {
        Self(Arc::new(Inner { store, domains, hasher: password::Hasher::new() }))
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
        Router::new()
            .route("/identity/.well-known/openid-configuration", get(discovery::members))
            .route("/identity/jwks", get(discovery::member_keys))
            .route("/identity/s/{stage}/.well-known/openid-configuration", get(discovery::stage))
            .route("/identity/s/{stage}/jwks", get(discovery::stage_keys))
            .route("/identity/authorize", get(authorize::authorize))
            .route("/identity/login", post(login::login))
            .route("/identity/token", post(token::token))
            .route("/identity/invite/{token}", get(invite::page).post(invite::accept))
            .route("/identity/logout", get(login::logout_page).post(login::logout))
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
