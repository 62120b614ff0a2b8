//! Making a connection, with TLS where it is wanted.

use super::{Place, PoolLimits, Upstream};
use hyper_util::rt::TokioIo;
use std::{io, pin::Pin};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// Anything that carries bytes.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection, clear or not.
pub(crate) type Io = TokioIo<Pin<Box<dyn Wire>>>;

/// A clear connection that is there already.
pub(crate) fn clear(tcp: TcpStream) -> io::Result<Io> {
    tcp.set_nodelay(true)?;
    let wire: Pin<Box<dyn Wire>> = Box::pin(tcp);
    Ok(TokioIo::new(wire))
}

/// Connects within the connect timeout and the deadline.
pub(crate) async fn connect(to: &Upstream, limits: &PoolLimits, deadline: Instant) -> io::Result<Io> {
    let until = deadline.min(Instant::now() + limits.connect_timeout);
    match timeout_at(until, dial(to)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")),
    }
}

async fn dial(to: &Upstream) -> io::Result<Io> {
    let tcp = match &to.place {
        Place::Address(addr) => TcpStream::connect(addr).await?,
        Place::Replica(replica, broker) => broker.replica(*replica).await?,
    };
    tcp.set_nodelay(true)?;
    let wire: Pin<Box<dyn Wire>> = match &to.tls {
        None => Box::pin(tcp),
        Some(tls) => {
            let connector = tokio_rustls::TlsConnector::from(tls.config.clone());
            Box::pin(connector.connect(tls.server_name.clone(), tcp).await?)
        }
    };
    Ok(TokioIo::new(wire))
}
