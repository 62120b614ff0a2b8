//! Connections to the outside, each from a socket made in the gateway namespace of the caller's zone.

use bastide_proxy::Broker;
use bastide_types::{broker::SocketOrder, egress::EgressCaller};
use std::{io, net::SocketAddr, path::PathBuf};
use tokio::net::{TcpSocket, TcpStream};

/// Something that connects to the outside for a replica.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `to`, seen there with the public address of the caller's zone.
    fn dial(&self, who: &EgressCaller, to: SocketAddr) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

/// Gets its sockets from the runtime role's broker.
#[derive(Debug, Clone)]
pub struct NamespaceDialer {
    broker: Broker,
}

impl NamespaceDialer {
    /// A dialer that asks the broker at this Unix socket.
    pub fn new(broker: PathBuf) -> Self {
        Self { broker: Broker::at(broker) }
    }
}

impl Dial for NamespaceDialer {
    async fn dial(&self, who: &EgressCaller, to: SocketAddr) -> io::Result<TcpStream> {
        let order = SocketOrder::Outside { replica: who.replica, v6: to.is_ipv6() };
        let socket = self.broker.order(&order).await?;
        let socket = std::net::TcpStream::from(socket);
        socket.set_nonblocking(true)?;
        TcpSocket::from_std_stream(socket).connect(to).await
    }
}
