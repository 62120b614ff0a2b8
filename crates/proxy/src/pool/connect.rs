//! Making a connection, with TLS where it is wanted.

use super::{Place, PoolLimits, Upstream};
use crate::h1::exchange::Link;
use std::{io, pin::Pin};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;

/// Anything that carries bytes.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection, clear or not.
pub(crate) enum Connected {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected {
    /// As one thing, for what takes it apart itself.
    pub(crate) fn whole(self) -> Pin<Box<dyn Wire>> {
        match self {
            Self::Clear(tcp) => Box::pin(tcp),
            Self::Tls(tls) => Pin::from(tls),
        }
    }

    /// For one HTTP/1 request after the other.
    pub(crate) fn link(self) -> Link {
        match self {
            Self::Clear(tcp) => {
                let (read, write) = tcp.into_split();
                Link::new(Box::new(read), Box::new(write))
            }
            Self::Tls(tls) => {
                let (read, write) = tokio::io::split(*tls);
                Link::new(Box::new(read), Box::new(write))
            }
        }
    }
}

/// Connects within the connect timeout and the deadline.
pub(crate) async fn connect(to: &Upstream, limits: &PoolLimits, deadline: Instant) -> io::Result<Connected> {
    let until = deadline.min(Instant::now() + limits.connect_timeout);
    match timeout_at(until, dial(to)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time")),
    }
}

async fn dial(to: &Upstream) -> io::Result<Connected> {
    let tcp = match &to.place {
        Place::Address(addr) => TcpStream::connect(addr).await?,
        Place::Replica(replica, broker) => broker.replica(*replica).await?,
    };
    tcp.set_nodelay(true)?;
    let Some(tls) = &to.tls else { return Ok(Connected::Clear(tcp)) };
    let connector = tokio_rustls::TlsConnector::from(tls.config.clone());
    let stream = connector.connect(tls.server_name.clone(), tcp).await?;
    Ok(Connected::Tls(Box::new(stream)))
}
