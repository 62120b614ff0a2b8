//! Names of the fields that Bastide itself sets between its hops and towards apps.
//!
//! The edge removes every `x-bastide-*` field of a client, in every spelling, before it sets its own.

/// Request id, from the edge inwards and back to the client.
pub const REQUEST_ID: &str = "x-request-id";
/// Edge → gateway: address of the client.
pub const CLIENT_IP: &str = "x-bastide-client-ip";
/// Edge → gateway: milliseconds that are left for this request.
pub const DEADLINE_MS: &str = "x-bastide-deadline-ms";
/// Gateway → edge: the response may be stored for everybody; the value is the revision it belongs
/// to. The edge removes it before the client sees it.
pub const CACHEABLE: &str = "x-bastide-cacheable";
/// Gateway → edge: it is the gateway that refuses, not the app; the value is the code. The edge removes it before the
/// client sees it.
pub const REFUSAL: &str = "x-bastide-refusal";
/// Gateway → edge and client: which replica answered.
pub const REPLICA: &str = "x-bastide-replica";
/// Gateway → edge and client: which zone answered.
pub const ZONE: &str = "x-bastide-zone";
/// Gateway → app or platform service: who asks, signed ([`crate::assertion`]).
pub const ASSERTION: &str = "x-bastide-assertion";
/// Gateway → app: subject who asks, for apps that do not read the assertion.
pub const USER: &str = "x-bastide-user";
/// Gateway → app: e-mail or client name of who asks.
pub const USER_NAME: &str = "x-bastide-user-name";
/// Gateway → app: app roles of who asks, separated by commas.
pub const ROLES: &str = "x-bastide-roles";
/// Gateway → app: path under which the app is served, such as `/shop`.
pub const PREFIX: &str = "x-forwarded-prefix";
