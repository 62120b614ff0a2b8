//! Connections to the outside, each from a socket made in the gateway namespace of the caller's zone.

use bastide_types::{ZoneName, egress::SocketOrder};
use std::{io, net::SocketAddr, os::fd::OwnedFd, path::PathBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// Something that connects to the outside through a zone.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `to`, seen there with the public address of `zone`.
    fn dial(&self, zone: &ZoneName, to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

/// Gets its sockets from the runtime role's broker.
#[derive(Debug, Clone)]
pub struct NamespaceDialer {
    broker: PathBuf,
}

impl NamespaceDialer {
    /// A dialer that asks the broker at this Unix socket.
    pub fn new(broker: PathBuf) -> Self {
        Self { broker }
    }

    async fn socket(&self, order: &SocketOrder) -> io::Result<OwnedFd> {
        let stream = UnixStream::connect(&self.broker).await?;
        bastide_proxy::handover::send(&stream, &serde_json::to_vec(order)?, &[]).await?;
        let (_, mut descriptors) = bastide_proxy::handover::receive(&stream).await?;
        descriptors.pop().ok_or_else(|| io::Error::other("the broker has no socket for this zone"))
    }
}

impl Dial for NamespaceDialer {
    async fn dial(&self, zone: &ZoneName, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(&SocketOrder { zone: zone.clone(), v6: to.is_ipv6() }).await?;
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        TcpSocket::from_std_stream(socket).connect(to).await
    }
}
