//! The Identity Service: issuers, members, sign-in, tokens and sessions of each customer.
//!
//! The customer comes from the Host alone; `operator` is a customer like the others. Signatures, hashes
//! and seals are the engine's (`bastide_identity`) and the store's; this module keeps the protocol: what
//! may follow what, once, and for whom. Providers of identity outside are its `broker`'s business.

mod account;
mod authorize;
pub(crate) mod breached;
mod break_glass;
mod broker;
mod client_api;
mod client_keys_api;
mod clients;
mod cors;
mod device;
mod discovery;
mod factor;
mod fault;
mod form;
mod groups_api;
mod guess;
mod id_token;
mod idp;
mod idps_api;
mod inspect;
mod internal;
mod invite;
mod issue;
mod issuer;
mod keys_api;
pub(crate) mod letters;
mod login;
mod logo;
mod logout;
pub mod members;
mod own_passkeys;
mod pages;
mod passkey;
mod password;
mod provider;
mod register;
mod reset;
mod roles_api;
mod second;
mod sessions_api;
mod sign_in_api;
mod source;
mod tenant;
mod token;
mod users_api;
mod workers;

pub use breached::{Breached, BreachedFault};
pub use break_glass::{BreakGlass, BreakGlassFault, LIFE_S as BREAK_GLASS_LIFE_S, break_glass};
pub use fault::Fault;
pub(crate) use logo::logo_path;
pub use provider::Providers;

use crate::{App, outbound::Outbound};
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
    let means = Means {
        breached: app.breached.clone(),
        has_mail: app.mailer.is_some(),
        outbound: app.outbound.clone(),
        providers: app.providers.clone(),
    };
    let identity = Identity::new(app.store.clone(), app.config.domains.clone(), means);
    identity.routes().merge(identity.internal_routes())
}

/// Routes of the API that belong to identity: members, roles, keys, sessions, clients.
pub fn api_routes(app: App) -> Router {
    members::router(app.clone())
        .merge(roles_api::router(app.clone()))
        .merge(keys_api::router(app.clone()))
        .merge(sessions_api::router(app.clone()))
        .merge(sign_in_api::router(app.clone()))
        .merge(users_api::router(app.clone()))
        .merge(groups_api::router(app.clone()))
        .merge(idps_api::router(app.clone()))
        .merge(client_keys_api::router(app.clone()))
        .merge(client_api::router(app))
}

/// The OpenAPI description of these routes.
pub fn description() -> utoipa::openapi::OpenApi {
    let mut all = members::description();
    all.merge(roles_api::description());
    all.merge(keys_api::description());
    all.merge(client_api::description());
    all.merge(client_keys_api::description());
    all.merge(sessions_api::description());
    all.merge(sign_in_api::description());
    all.merge(users_api::description());
    all.merge(groups_api::description());
    all.merge(idps_api::description());
    all
}

/// What one source may do in a minute.
struct Limits {
    /// Failed sign-ins.
    sign_ins: source::Limit,
    /// Refused clients, codes and refresh tokens.
    clients: source::Limit,
    /// Device codes asked for.
    devices: source::Limit,
    /// Letters asked for.
    letters: source::Limit,
    /// Passkeys that were refused.
    passkeys: source::Limit,
    /// Questions to authenticators.
    questions: source::Limit,
}

/// What the service has besides the store.
pub struct Means {
    /// Passwords that nobody may choose.
    pub breached: Option<Arc<Breached>>,
    /// Whether letters are sent, by which people prove addresses.
    pub has_mail: bool,
    /// The way to addresses that customers name.
    pub outbound: Arc<Outbound>,
    /// Providers of identity that were asked lately.
    pub providers: Arc<Providers>,
}

/// The service; clones share everything.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    store: Store,
    domains: Domains,
    hasher: password::Hasher,
    limits: Limits,
    means: Means,
    /// Held while a key for ID tokens is made: many who ask at once cost one.
    id_key: tokio::sync::Mutex<()>,
}

impl Identity {
    /// Makes the service.
    pub fn new(store: Store, domains: Domains, means: Means) -> Self {
        let (hasher, id_key) = (password::Hasher::new(), tokio::sync::Mutex::new(()));
        let limits = Limits {
            sign_ins: source::Limit::per_minute(10),
            clients: source::Limit::per_minute(60),
            devices: source::Limit::per_minute(30),
            letters: source::Limit::per_minute(10),
            passkeys: source::Limit::per_minute(10),
            questions: source::Limit::per_minute(60),
        };
        Self(Arc::new(Inner { store, domains, hasher, limits, means, id_key }))
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

    fn breached(&self) -> Option<&Arc<Breached>> {
        self.0.means.breached.as_ref()
    }

    fn has_mail(&self) -> bool {
        self.0.means.has_mail
    }

    fn outbound(&self) -> &Outbound {
        &self.0.means.outbound
    }

    fn providers(&self) -> &Providers {
        &self.0.means.providers
    }

    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Everything under `/identity`, for anybody who comes through a gateway.
    pub fn routes(&self) -> Router {
        let mut router = Router::new();
        for base in ["/identity", "/identity/s/{stage}"] {
            router = router.merge(issuer_routes(base));
        }
        router
            .route("/identity/break-glass/{token}", get(break_glass::page).post(break_glass::submit))
            .route("/identity/style.css", get(pages::style))
            .route(passkey::SCRIPT_PATH, get(passkey::script))
            .route("/identity/logo/{digest}", get(logo::logo))
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
        .route(&at("second"), post(second::submit))
        .route(&at("continue"), post(authorize::go_on))
        .route(&at("device"), get(device::page).post(device::submit))
        .route(&at("introspect"), post(inspect::introspect))
        .route(&at("logout"), get(logout::page).post(logout::submit))
        .route(&at("invite/{token}"), get(invite::page).post(invite::accept))
        .route(&at("broker/{idp}/begin"), get(broker::begin))
        .route(&at("broker/{idp}/callback"), get(broker::callback))
        .route(&at("broker/{idp}/jwks"), get(broker::keys))
        .route(&at("broker/{idp}/backchannel_logout"), post(broker::signed_out))
        .route(&at("forgot"), get(reset::page).post(reset::submit))
        .route(&at("reset/{token}"), get(reset::choose).post(reset::accept))
        .route(&at("register"), get(register::page).post(register::submit))
        .route(&at("register/{token}"), get(register::choose).post(register::accept))
        .route(&at(account::PATH), get(account::page).post(account::submit))
        .route(&at(factor::PATH), get(factor::page).post(factor::submit))
        .route(&at(own_passkeys::PATH), get(own_passkeys::page).post(own_passkeys::submit))
        .route(&at(passkey::PATH), post(passkey::submit))
        .merge(for_scripts)
}
