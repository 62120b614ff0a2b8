//! Plans that keep apps apart: which namespaces, links, addresses, routes and firewall rules there are.
//!
//! Plain values in, plain values out. [`plan`] turns a [`Topology`] into a [`Plan`]; [`walk`] follows a packet
//! through a plan, which is how tests show that no plan has a path between customers. Nothing here touches a
//! kernel: the runtime's `linux` driver applies plans.

pub mod address;
pub mod blocked;
mod canary;
pub mod checks;
mod direct;
mod error;
mod gateway;
mod json;
pub mod name;
mod plan;
mod router;
pub mod rules;
mod uplink;
pub mod walk;

pub use address::Ledger;
pub use direct::{Direct, Service};
pub use error::PlanError;
pub use gateway::PROBE_PORT;
pub use json::{REPORT_GROUP, normalise, read_counters, set_update, transaction, undo};
pub use name::Installation;
pub use plan::{
    Canary, CanaryPorts, Caps, Failover, LOCAL, Link, MAIN, Namespace, Outside, Packets, Plan, Policy,
    ReplicaNet, Route, StageNet, Topology, Uplink, ZoneNet, plan, stand_ins,
};
pub use router::TABLE;
pub use uplink::NO_ROUTER;
