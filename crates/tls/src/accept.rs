//! Accepting a connection from the world: the name is looked at before anything is answered.
//!
//! rustls alone answers `access_denied` when a resolver has no certificate; RFC 6066 §3 has
//! `unrecognized_name` for that, and clients show it as what it is. So the client's first message is
//! read here, and an unknown name gets that alert and nothing else.

use crate::{CertificateStore, store::ACME_TLS};
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Alert record: content type 21, TLS 1.2 framing as all versions use it here, level fatal (2),
/// description `unrecognized_name` (112).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Why a connection was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client named no host, or one that is not served. It got the alert.
    #[error("no certificate for this name")]
    UnknownName {
        /// The name, for the log only.
        sni: Option<String>,
    },
    /// An authority asked whether we hold a name, and was answered. Nothing else goes over such a connection.
    #[error("an authority checked a name")]
    Challenge,
    /// The handshake was not finished in time.
    #[error("the handshake took too long")]
    TimedOut,
    /// The handshake failed.
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
}

/// Does the whole handshake within `limit`.
pub async fn accept<IO>(
    io: IO,
    store: &CertificateStore,
    config: &Arc<ServerConfig>,
    limit: Duration,
) -> Result<TlsStream<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    tokio::time::timeout(limit, handshake(io, store, config)).await.map_err(|_| AcceptError::TimedOut)?
}

async fn handshake<IO>(
    io: IO,
    store: &CertificateStore,
    config: &Arc<ServerConfig>,
) -> Result<TlsStream<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let mut start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io)
        .await
        .map_err(AcceptError::Handshake)?;
    let sni = start.client_hello().server_name().map(str::to_owned);
    let asks_acme =
        start.client_hello().alpn().is_some_and(|mut protocols| protocols.any(|name| name == ACME_TLS));
    if asks_acme && let Some(challenge) = sni.as_deref().and_then(|sni| store.challenge_of(sni)) {
        let mut stream = start.into_stream(challenge).await.map_err(AcceptError::Handshake)?;
        // It may be gone already; it has seen what it wanted.
        let _ = stream.shutdown().await;
        return Err(AcceptError::Challenge);
    }
    if sni.as_deref().and_then(|sni| store.site_of(sni)).is_none() {
        // The client may be gone already; it is refused either way.
        let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
        let _ = start.io.shutdown().await;
        return Err(AcceptError::UnknownName { sni });
    }
    start.into_stream(config.clone()).await.map_err(AcceptError::Handshake)
}
