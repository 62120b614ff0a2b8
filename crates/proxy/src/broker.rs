//! Asking a node's socket broker: a socket inside a namespace, for a process that may enter none.

use crate::handover;
use bastide_types::{
    ReplicaId,
    broker::{SocketOrder, SocketReceipt, SocketRefusal},
};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::net::TcpStream;

/// The broker behind one socket file.
#[derive(Debug, Clone)]
pub struct Broker {
    socket: Arc<Path>,
}

impl Broker {
    /// The broker that listens at this socket file; nothing is opened before the first order.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into().into() }
    }

    /// A connection to a replica. It is for the caller to say how long it waits; dropping the future is fine.
    ///
    /// # Errors
    /// As connecting would: `ConnectionRefused` when nothing listens there, `TimedOut`, `NotFound` when the
    /// node does not have the replica, `ResourceBusy`, and whatever keeps the broker from answering.
    pub async fn replica(&self, replica: ReplicaId) -> io::Result<TcpStream> {
        let socket = std::net::TcpStream::from(self.order(&SocketOrder::Replica { replica }).await?);
        socket.set_nonblocking(true)?;
        TcpStream::from_std(socket)
    }

    /// The socket of an order.
    ///
    /// # Errors
    /// As [`Broker::replica`].
    pub async fn order(&self, order: &SocketOrder) -> io::Result<OwnedFd> {
        let stream = handover::connect(&self.socket).await?;
        handover::send(&stream, &serde_json::to_vec(order)?, &[]).await?;
        let (text, mut descriptors) = handover::receive(&stream).await?;
        let receipt: SocketReceipt = serde_json::from_slice(&text)?;
        match receipt.refusal {
            Some(refusal) => Err(io::Error::new(kind(refusal), refusal)),
            None => descriptors.pop().ok_or_else(|| io::Error::other("the broker sent no socket")),
        }
    }
}

const fn kind(refusal: SocketRefusal) -> io::ErrorKind {
    match refusal {
        SocketRefusal::Unknown => io::ErrorKind::NotFound,
        SocketRefusal::NotHere => io::ErrorKind::PermissionDenied,
        SocketRefusal::NotListening => io::ErrorKind::ConnectionRefused,
        SocketRefusal::TimedOut => io::ErrorKind::TimedOut,
        SocketRefusal::Busy => io::ErrorKind::ResourceBusy,
        SocketRefusal::Failed => io::ErrorKind::Other,
    }
}
