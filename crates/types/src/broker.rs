//! What may be asked of a node's socket broker: the part of the runtime role that makes sockets inside
//! namespaces for roles that hold no capability.
//!
//! One order a connection. Who may order what is decided by the socket file that is asked, never by what is
//! said: behind one file stand only replicas, behind the other only the zones' ways out.

use crate::ReplicaId;
use serde::{Deserialize, Serialize};

/// An order. Its socket comes as a descriptor beside a [`SocketReceipt`] without a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SocketOrder {
    /// A TCP connection to a replica of this node. To which port is decided by the runtime role.
    Replica {
        /// Which.
        replica: ReplicaId,
    },
    /// A TCP socket, not connected, made where the gateway of a replica's zone is the only way out. Which zone that
    /// is, is decided by the runtime role.
    Outside {
        /// Who calls.
        replica: ReplicaId,
        /// For an IPv6 destination.
        v6: bool,
    },
}

/// The answer to a [`SocketOrder`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketReceipt {
    /// Why there is no socket; `None` when there is one.
    pub refusal: Option<SocketRefusal>,
}

/// Why there is no socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum SocketRefusal {
    /// No such replica on this node.
    #[error("this node does not have it")]
    Unknown,
    /// This is not ordered here.
    #[error("this may not be ordered here")]
    NotHere,
    /// Nothing listens on the replica's port.
    #[error("nothing listens there")]
    NotListening,
    /// It took too long.
    #[error("there was no socket in time")]
    TimedOut,
    /// Too many orders at once.
    #[error("the broker has too many orders at once")]
    Busy,
    /// Something else, which the runtime role has in its log.
    #[error("the broker failed")]
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_reads_back_as_written_and_nothing_else_is_one() {
        let replica = SocketOrder::Replica { replica: ReplicaId::generate() };
        let outside = SocketOrder::Outside { replica: ReplicaId::generate(), v6: true };
        for order in [replica, outside] {
            let text = serde_json::to_string(&order).unwrap();
            assert_eq!(serde_json::from_str::<SocketOrder>(&text).unwrap(), order);
        }
        for text in [
            "{}",
            r#"{"replica":{}}"#,
            r#"{"replica":{"replica":"x"}}"#,
            r#"{"outside":{"replica":"../a","v6":true}}"#,
        ] {
            assert!(serde_json::from_str::<SocketOrder>(text).is_err(), "{text}");
        }
    }
}
