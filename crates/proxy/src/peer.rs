//! Who is at the other end of a connection.

use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;

/// The other end of a connection; in the extensions of every request as `Arc<Peer>`.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// Our address.
    pub local: SocketAddr,
    /// What the TLS handshake said, if there was one.
    pub tls: Option<TlsInfo>,
}

/// What a TLS handshake said.
#[derive(Debug, Clone, Default)]
pub struct TlsInfo {
    /// Name that the client asked for.
    pub sni: Option<String>,
    /// Protocol agreed on.
    pub alpn: Option<Vec<u8>>,
    /// Certificates that the client showed, its own first.
    pub peer_certificates: Vec<CertificateDer<'static>>,
}
