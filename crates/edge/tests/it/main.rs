//! The edge before a small origin and before gateways, and its document.

mod alone;
mod cache;
mod client;
mod origin;
mod proxying;
mod stops;
mod waf;
mod whole;
