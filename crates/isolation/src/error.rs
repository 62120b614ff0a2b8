//! Why there is no plan.

use bastide_types::{ReplicaId, ZoneName};

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More stages than addresses: 8191 on one node.
    #[error("no address block is left for another stage")]
    StagesFull,
    /// More replicas of a stage than addresses: 254 on one node.
    #[error("no address is left for another replica of this stage")]
    ReplicasFull,
    /// Two ids came to the same kernel name; neither may be told apart from the other by the firewall.
    #[error("two things would have the kernel name {0}")]
    NameTaken(String),
    /// A replica stands in a zone that has no gateway here.
    #[error("replica {replica} is in zone {zone}, which this node does not have")]
    UnknownZone {
        /// The replica.
        replica: ReplicaId,
        /// Its zone.
        zone: ZoneName,
    },
    /// More zones than one node can tell apart.
    #[error("a node has at most 64 zones")]
    ZonesFull,
    /// An address was given twice, or outside of its stage's block.
    #[error("the address {0} is not usable there")]
    Address(std::net::Ipv4Addr),
}
