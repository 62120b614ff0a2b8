//! Handshakes over an in-memory pipe: what each side sees is checked, not what our code says it did.
#![allow(clippy::unwrap_used)] // all of this is test

mod roles;
mod sites;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use std::io;
use std::sync::Arc;
use time::OffsetDateTime;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

type Pipe = tokio::io::DuplexStream;

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Both ends of one handshake, and one byte each way, so that alerts which follow it are seen too.
async fn shake(
    client: Arc<ClientConfig>,
    name: &str,
    server: Arc<ServerConfig>,
) -> (io::Result<client::TlsStream<Pipe>>, io::Result<server::TlsStream<Pipe>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let dial = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"?").await?;
        stream.read_exact(&mut [0]).await?;
        Ok(stream)
    };
    let answer = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_exact(&mut [0]).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream)
    };
    tokio::join!(dial, answer)
}

/// The rustls error inside an I/O error.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
