//! A client that speaks HTTP/2 in single frames and keeps no rule that a test wants broken.

use bastide_proxy::accept_tls;
use bytes::{Buf, BytesMut};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A server's TLS, and who trusts it.
pub(crate) struct Tls {
    pub(crate) accept: bastide_proxy::Accept,
    pub(crate) client: Arc<rustls::ClientConfig>,
}

pub(crate) fn tls() -> Tls {
    // Another test may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    Tls { accept: accept_tls(Arc::new(server)), client: Arc::new(client) }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that enter no table and use no Huffman code.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let mut length = text.len();
            if length < 127 {
                block.push(u8::try_from(length).unwrap());
            } else {
                block.push(127);
                length -= 127;
                while length >= 128 {
                    block.push(u8::try_from(length % 128).unwrap() | 128);
                    length /= 128;
                }
                block.push(u8::try_from(length).unwrap());
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A head that nobody minds, with further fields.
pub(crate) fn head<'f>(
    method: &'f str,
    path: &'f str,
    more: &[(&'f str, &'f str)],
) -> Vec<(&'f str, &'f str)> {
    [&[(":method", method), (":scheme", "https"), (":authority", "a"), (":path", path)], more].concat()
}

/// A frame as it came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Status of the one that HEADERS begin, as far as the static table tells; 0 otherwise.
    pub(crate) fn status(&self) -> u16 {
        match &self.payload[..] {
            [0x88, ..] => 200,
            [0x8c, ..] => 400,
            [0x8d, ..] => 404,
            // Literals with the indexed name `:status`, Huffman-coded.
            [0x48, 0x82, 0x08, 0x19, ..] => 103,
            [0x48, 0x83, 0x68, 0x0f, 0x7f, ..] => 408,
            _ => 0,
        }
    }
}

pub(crate) struct Client {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
}

impl Client {
    /// Connects and sends the preface.
    pub(crate) async fn connect(addr: SocketAddr, tls: &Tls) -> Self {
        let tcp = TcpStream::connect(addr).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(tls.client.clone());
        let mut stream = connector.connect(ServerName::try_from("a").unwrap(), tcp).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        stream.flush().await.unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    /// False when the server has closed.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// The next frame, SETTINGS and window updates aside; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if self.buffer.len() >= 9 {
                let length = usize::try_from(self.buffer.get_uint(3)).unwrap();
                let kind = self.buffer.get_u8();
                self.buffer.advance(1); // flags
                let stream = self.buffer.get_u32();
                while self.buffer.len() < length {
                    if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                        return None;
                    }
                }
                let payload = self.buffer.split_to(length).to_vec();
                if !matches!(kind, SETTINGS | WINDOW_UPDATE) {
                    return Some(Frame { kind, stream, payload });
                }
            } else if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Whether the server has closed by now; what it sent meanwhile is thrown away.
    pub(crate) async fn is_closed(&mut self) -> bool {
        loop {
            match tokio::time::timeout(std::time::Duration::ZERO, self.next()).await {
                Err(_) => return false,
                Ok(None) => return true,
                Ok(Some(frame)) if frame.kind == GOAWAY => return true,
                Ok(Some(_)) => {}
            }
        }
    }

    /// Status of the answer in a stream, or 0 when it is reset or the connection ends instead.
    pub(crate) async fn status(&mut self, stream: u32) -> u16 {
        while let Some(frame) = self.next().await {
            match frame.kind {
                HEADERS if frame.stream == stream => return frame.status(),
                RST_STREAM if frame.stream == stream => return 0,
                GOAWAY => return 0,
                _ => {}
            }
        }
        0
    }
}
