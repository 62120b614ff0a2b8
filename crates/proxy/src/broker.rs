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
use tokio::{
    net::{TcpStream, UnixStream},
    time::{Duration, Instant, sleep},
};

/// Longest wait for a broker that is not there: shorter than the wait for a connection.
const AWAY_LIMIT: Duration = Duration::from_millis(1500);
const AGAIN_EVERY: Duration = Duration::from_millis(20);

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
        let stream = self.connect().await?;
        handover::send(&stream, &serde_json::to_vec(order)?, &[]).await?;
        let (text, mut descriptors) = handover::receive(&stream).await?;
        let receipt: SocketReceipt = serde_json::from_slice(&text)?;
        match receipt.refusal {
            Some(refusal) => Err(io::Error::new(kind(refusal), refusal)),
            None => descriptors.pop().ok_or_else(|| io::Error::other("the broker sent no socket")),
        }
    }

    /// The runtime role may be starting again; its replicas run on meanwhile, so it is waited for a moment.
    async fn connect(&self) -> io::Result<UnixStream> {
        let until = Instant::now() + AWAY_LIMIT;
        loop {
            match handover::connect(&self.socket).await {
                Err(error) if is_away(&error) && Instant::now() < until => sleep(AGAIN_EVERY).await,
                other => return other,
            }
        }
    }
}

fn is_away(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broker_that_starts_again_is_waited_for_and_one_that_does_not_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.sock");
        let broker = Broker::at(&path);
        // A file of a dead life.
        drop(handover::listen(&path).unwrap());
        let again = async {
            sleep(AGAIN_EVERY * 3).await;
            let listener = handover::listen(&path).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            handover::receive(&stream).await.unwrap();
            let receipt =
                serde_json::to_vec(&SocketReceipt { refusal: Some(SocketRefusal::Unknown) }).unwrap();
            handover::send(&stream, &receipt, &[]).await.unwrap();
        };
        let (refused, ()) = tokio::join!(broker.replica(ReplicaId::generate()), again);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::NotFound, "it was asked, and did not know it");
        let gone = broker.replica(ReplicaId::generate()).await;
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
