//! TLS clients for `bench/front`, on this machine only: full handshakes one after the other, or many connections
//! that stay open with nothing to do.
//!
//!   tls_clients handshakes CERT PORT COUNT
//!   tls_clients idle CERT PORT COUNT PID
//!
//! `handshakes` prints how many were done. `idle` prints the memory of process PID in KiB before and with the
//! connections, and how many of them still answered at the end. Every server gets the same offer: TLS 1.3,
//! X25519, AES-256-GCM, no resumption.

use rustls::{
    CipherSuite, ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs::{default_provider, kx_group},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use std::{env, error::Error, fs, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Until a server has put away what it only needed for the handshakes.
const SETTLE: Duration = Duration::from_secs(1);
/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A server on this machine, and how it is spoken to.
struct Server {
    connector: TlsConnector,
    port: u16,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["handshakes", certificate, port, count] => {
            let server = Server::new(certificate, port.parse()?)?;
            println!("{}", server.handshakes(count.parse()?).await?);
        }
        ["idle", certificate, port, count, pid] => {
            let server = Server::new(certificate, port.parse()?)?;
            let (before, with, held) = server.idle(count.parse()?, pid.parse()?).await?;
            println!("{before} {with} {held}");
        }
        _ => return Err("handshakes CERT PORT COUNT, or idle CERT PORT COUNT PID".into()),
    }
    Ok(())
}

impl Server {
    fn new(certificate: &str, port: u16) -> Outcome<Self> {
        let mut provider = default_provider();
        provider.kx_groups = vec![kx_group::X25519];
        provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_256_GCM_SHA384);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate)?)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), port })
    }

    async fn connect(&self) -> Outcome<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        tcp.set_nodelay(true)?;
        Ok(self.connector.connect(ServerName::try_from("localhost")?, tcp).await?)
    }

    /// The server has finished a handshake for certain once it answers the end of the connection.
    async fn handshakes(&self, count: u32) -> Outcome<u32> {
        for _ in 0..count {
            let mut stream = self.connect().await?;
            stream.shutdown().await?;
            // It need not say good-bye; what counts is that it has closed.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        Ok(count)
    }

    async fn idle(&self, count: usize, pid: u32) -> Outcome<(u64, u64, usize)> {
        let before = resident_kib(pid)?;
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream = self.connect().await?;
            ask(&mut stream).await?;
            streams.push(stream);
        }
        sleep(SETTLE).await;
        let with = resident_kib(pid)?;
        let mut held = 0;
        for stream in &mut streams {
            held += usize::from(ask(stream).await.is_ok());
        }
        Ok((before, with, held))
    }
}

/// One request, and the head of its answer.
async fn ask(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    stream.write_all(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX || stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    if head.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Memory of a process that is in RAM, shared pages included.
fn resident_kib(pid: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
