//! What an HTTP/1 connection runs on, taken apart into its two directions.

use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    net::{TcpStream, tcp},
};
use tokio_rustls::server::TlsStream;

/// A byte stream with two directions of which the outgoing one can be broken off.
pub trait Transport: Send + 'static {
    /// Incoming direction.
    type Read: AsyncRead + Send + Unpin + 'static;
    /// Outgoing direction.
    type Write: AsyncWrite + Send + Unpin + 'static;

    /// Takes it apart.
    fn halves(self) -> (Self::Read, Self::Write);

    /// Ends the connection so that the client cannot take what came for the whole.
    fn break_off(write: Self::Write);
}

impl Transport for TcpStream {
    type Read = tcp::OwnedReadHalf;
    type Write = tcp::OwnedWriteHalf;

    fn halves(self) -> (Self::Read, Self::Write) {
        self.into_split()
    }

    fn break_off(write: Self::Write) {
        // With no time to linger, closing sends a reset. It can only fail when the client has gone.
        let _ = socket2::SockRef::from(write.as_ref()).set_linger(Some(Duration::ZERO));
        write.forget();
    }
}

impl Transport for TlsStream<TcpStream> {
    type Read = ReadHalf<Self>;
    type Write = WriteHalf<Self>;

    fn halves(self) -> (Self::Read, Self::Write) {
        tokio::io::split(self)
    }

    fn break_off(write: Self::Write) {
        // Without close_notify every TLS client knows that something is missing.
        drop(write);
    }
}
