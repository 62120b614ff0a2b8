//! Canaries: they answer with words that nobody can guess and with the source that they see, and they note
//! what was said to them.

use super::{namespace::Namespaces, packet};
use crate::order::Call;
use bastide_isolation::checks::Medium;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::linux::net::SocketAddrExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket, UnixListener},
    time::timeout,
};

/// Longest wait for what a caller says, and for its end.
const PATIENCE: Duration = Duration::from_secs(30);
const SAID_BYTES_MAX: usize = 1024;
const BUFFER_BYTES: usize = 1024 * 1024;
const PACKET_BYTES_MAX: usize = 2048;
const BACKLOG: i32 = 4096;
/// Calls noted between two collections; a stream of them beyond that tells nothing new.
const CALLS_MAX: usize = 200_000;

/// What canaries heard.
#[derive(Clone, Default)]
pub struct Ears(Arc<Mutex<Vec<Call>>>);

impl Ears {
    fn note(&self, canary: u32, said: &[u8], source: IpAddr) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() < CALLS_MAX {
            calls.push(Call { canary, nonce: packet::nonce(said), source });
        }
    }

    /// Everything since the last time.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How a canary answers.
pub fn answer(words: &str, source: IpAddr) -> String {
    format!("bastide-canary {words} {source}\n")
}

/// The source in an answer with the right words.
pub fn source_in(said: &[u8], words: &str) -> Option<IpAddr> {
    let text = String::from_utf8_lossy(said);
    let (_, rest) = text.split_once(&format!("bastide-canary {words} "))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Makes a canary listen; gives its port. It lives as long as the prober.
pub fn open(
    namespaces: &mut Namespaces,
    namespace: Option<&Path>,
    id: u32,
    at: SocketAddr,
    by: Medium,
    words: &str,
    ears: &Ears,
) -> io::Result<u16> {
    let (words, ears) = (words.to_owned(), ears.clone());
    match by {
        Medium::Tcp => {
            let socket = namespaces.inside(namespace, || {
                let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                if at.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                socket.bind(&at.into())?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })?;
            let listener = TcpListener::from_std(socket.into())?;
            let port = listener.local_addr()?.port();
            tokio::spawn(streams(listener, id, words, ears));
            Ok(port)
        }
        Medium::Udp => {
            let socket = namespaces.inside(namespace, || {
                let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
                if at.is_ipv6() {
                    socket.set_only_v6(true)?;
                }
                setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
                socket.bind(&at.into())?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })?;
            let socket = UdpSocket::from_std(socket.into())?;
            let port = socket.local_addr()?.port();
            tokio::spawn(datagrams(socket, id, words, ears));
            Ok(port)
        }
        Medium::Raw(protocol) => {
            let socket = namespaces.inside(namespace, || raw(protocol))?;
            tokio::spawn(packets(UdpSocket::from_std(socket)?, id, ears));
            Ok(0)
        }
        Medium::Abstract => {
            let socket = namespaces.inside(namespace, || {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(words.as_bytes())?;
                let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
                listener.set_nonblocking(true)?;
                Ok(listener)
            })?;
            tokio::spawn(locals(UnixListener::from_std(socket)?, id, words, ears));
            Ok(0)
        }
    }
}

/// A socket that hears every packet of a protocol. It is received from as from any datagram socket.
pub fn raw(protocol: u8) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    // A burst of calls must not be lost.
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

async fn streams(listener: TcpListener, id: u32, words: String, ears: Ears) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (words, ears) = (words.clone(), ears.clone());
        tokio::spawn(timeout(PATIENCE, conversation(stream, from.ip(), id, words, ears)));
    }
}

/// Somebody who connects and says nothing is noted too.
async fn conversation(mut stream: TcpStream, from: IpAddr, id: u32, words: String, ears: Ears) {
    let said = heard(&mut stream).await;
    ears.note(id, &said, from);
    let line = answer(&words, from);
    let text = if said.starts_with(b"GET ") {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{line}", line.len())
    } else {
        line
    };
    if stream.write_all(text.as_bytes()).await.is_ok() {
        // Open until the caller goes, so that many at a time are many at a time.
        let mut rest = [0; 256];
        while matches!(stream.read(&mut rest).await, Ok(1..)) {}
    }
}

/// What a caller says, to the end of its first line, or of its head when it speaks HTTP.
async fn heard(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let mut buffer = [0; SAID_BYTES_MAX];
    while said.len() < SAID_BYTES_MAX {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => said.extend_from_slice(&buffer[..length]),
        }
        let is_http = said.starts_with(b"GET ");
        if said.ends_with(b"\r\n\r\n") || (!is_http && said.ends_with(b"\n")) {
            break;
        }
    }
    said
}

async fn datagrams(socket: UdpSocket, id: u32, words: String, ears: Ears) {
    let mut buffer = [0; SAID_BYTES_MAX];
    loop {
        // An error is an ICMP message about an earlier answer.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        ears.note(id, &buffer[..length], from.ip());
        let _ = socket.send_to(answer(&words, from.ip()).as_bytes(), from).await;
    }
}

async fn packets(socket: UdpSocket, id: u32, ears: Ears) {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    while let Ok(length) = socket.recv(&mut packet).await {
        // It hears everything of its protocol; only what is meant for canaries counts.
        let heard = packet::opened(&packet[..length]);
        if let Some((source, content)) = heard.filter(|(_, content)| packet::nonce(content).is_some()) {
            ears.note(id, content, source.into());
        }
    }
}

async fn locals(listener: UnixListener, id: u32, words: String, ears: Ears) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (words, ears) = (words.clone(), ears.clone());
        tokio::spawn(timeout(PATIENCE, async move {
            let mut said = [0; SAID_BYTES_MAX];
            let length = stream.read(&mut said).await.unwrap_or(0);
            let nowhere = Ipv4Addr::UNSPECIFIED.into();
            ears.note(id, &said[..length], nowhere);
            let _ = stream.write_all(answer(&words, nowhere).as_bytes()).await;
        }));
    }
}
