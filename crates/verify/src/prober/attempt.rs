//! Attempts: each is made inside one namespace, waits for its limit at most, and says what it saw.

use super::{
    canary::{raw, source_in},
    namespace::Namespaces,
    packet::{self, MARK, Packet},
};
use crate::order::{Attempt, Manner};
use bastide_isolation::checks::{Content, Crafted, Seen};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::linux::net::SocketAddrExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket, UnixStream},
    task::JoinSet,
    time::{Instant, timeout},
};

/// The only link of a replica.
const LINK: &str = "eth0";
const ANSWER_BYTES_MAX: usize = 4096;
/// Datagrams get lost on a loaded machine; each is sent this often.
const DATAGRAMS: u32 = 3;
/// Before each sending of a packet made by hand: a loaded machine loses one now and then. Where an answer is expected,
/// the last pause repeats until it comes.
const CRAFTED_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200)];
/// Bytes of a service's answer that are shown.
const SHOWN: usize = 40;
/// Protocol number of sockets that send whole packets (raw(7), IPPROTO_RAW).
const WHOLE_PACKETS: i32 = 255;

/// Where an attempt is made, and what it says.
#[derive(Clone)]
pub struct Caller {
    pub namespaces: Arc<Mutex<Namespaces>>,
    pub namespace: Option<PathBuf>,
    pub nonce: String,
    pub limit: Duration,
}

impl Caller {
    /// Makes the attempt.
    pub async fn make(&self, attempt: Attempt) -> Seen {
        let seen = match attempt {
            Attempt::Tcp { to, from, words } => self.tcp(to, from, &words).await,
            Attempt::Udp { to, from, ttl, broadcast, words } => {
                self.udp(to, from, ttl, broadcast, &words).await
            }
            Attempt::Crafted { to, packet } => self.crafted(to, packet).await,
            Attempt::Proxy { proxy, by, host, port, words } => {
                self.proxy(proxy, by, &host, port, &words).await
            }
            Attempt::Lookup { server, name, v6 } => self.lookup(server, &name, v6).await,
            Attempt::Abstract { words } => self.local(&words).await,
            Attempt::Ask { to, say } => self.ask(to, &say).await,
            Attempt::Flood { to, count, udp, words } => self.flood(to, count, udp, &words).await,
        };
        seen.unwrap_or_else(failure)
    }

    fn inside<T>(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.inside(self.namespace.as_deref(), make)
    }

    async fn connect(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
        let socket = self.inside(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            if let Some(from) = from {
                socket.bind(&SocketAddr::new(from, 0).into())?;
            }
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let connecting = TcpSocket::from_std_stream(socket.into()).connect(to);
        timeout(self.limit, connecting).await?
    }

    async fn tcp(&self, to: SocketAddr, from: Option<IpAddr>, words: &str) -> io::Result<Seen> {
        let mut stream = self.connect(to, from).await?;
        self.converse(&mut stream, words).await
    }

    /// Says the nonce over a connection and waits for the words.
    async fn converse(&self, stream: &mut TcpStream, words: &str) -> io::Result<Seen> {
        stream.write_all(format!("{MARK}{}\n", self.nonce).as_bytes()).await?;
        let said = self.hear(stream, |said| said.ends_with(b"\n")).await?;
        Ok(understood(&said, words))
    }

    /// Everything that is said until it is `enough`, the end or the limit.
    async fn hear(&self, stream: &mut TcpStream, enough: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
        let mut said = Vec::new();
        let all = async {
            let mut buffer = [0; 1024];
            while said.len() < ANSWER_BYTES_MAX && !enough(&said) {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    length => said.extend_from_slice(&buffer[..length]),
                }
            }
            Ok(())
        };
        match timeout(self.limit, all).await {
            Ok(Err(error)) if said.is_empty() => Err(error),
            _ => Ok(said),
        }
    }

    async fn udp(
        &self,
        to: SocketAddr,
        from: Option<IpAddr>,
        ttl: Option<u8>,
        broadcast: bool,
        words: &str,
    ) -> io::Result<Seen> {
        let socket = self.inside(|| {
            let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
            if broadcast {
                socket.set_broadcast(true)?;
                socket.bind_device(Some(LINK.as_bytes()))?;
            }
            if let Some(ttl) = ttl {
                socket.set_ttl_v4(ttl.into())?;
                // What routers say about it is an error of the socket then.
                setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            }
            if let Some(from) = from {
                socket.bind(&SocketAddr::new(from, 0).into())?;
            }
            if !broadcast {
                socket.connect(&to.into())?;
            }
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let socket = UdpSocket::from_std(socket.into())?;
        let said = format!("{MARK}{}", self.nonce);
        let mut buffer = [0; 1024];
        for _ in 0..DATAGRAMS {
            if broadcast {
                socket.send_to(said.as_bytes(), to).await?;
            } else {
                socket.send(said.as_bytes()).await?;
            }
            if let Ok(length) = timeout(self.limit / DATAGRAMS, socket.recv(&mut buffer)).await {
                return Ok(understood(&buffer[..length?], words));
            }
        }
        Ok(Seen::Silence)
    }

    async fn crafted(&self, to: SocketAddr, crafted: Crafted) -> io::Result<Seen> {
        let SocketAddr::V4(to) = to else {
            return Err(io::Error::new(ErrorKind::Unsupported, "packets are made for IPv4 only"));
        };
        let source = match crafted.source {
            Some(source) => source,
            None => self.own_address(to.into())?,
        };
        let answers = match crafted.content {
            Content::MidStream => Some(UdpSocket::from_std(self.inside(|| raw(6))?)?),
            _ => None,
        };
        // Which port it comes from matters to nobody, only that answers to it can be told apart.
        let port = 20_000 + (u16::from_str_radix(&self.nonce[..4], 16).unwrap_or(0) % 40_000);
        let words = format!("{MARK}{}", self.nonce);
        let content = crafted.content;
        let packet = Packet {
            from: (source, port),
            to: (*to.ip(), to.port()),
            content,
            ttl: crafted.ttl,
            words: words.as_bytes(),
        };
        let socket = self.inside(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(WHOLE_PACKETS)))?;
            if crafted.routed_by_source {
                socket.bind(&SocketAddr::new(source.into(), 0).into())?;
            }
            Ok(socket)
        })?;
        let (bytes, there) = (packet.bytes(), SocketAddr::new((*to.ip()).into(), 0).into());
        let send = async |pauses: &[Duration]| {
            for pause in pauses {
                tokio::time::sleep(*pause).await;
                socket.send_to(&bytes, &there)?;
            }
            Ok::<_, io::Error>(())
        };
        // Where no answer comes its arrival is all that counts.
        let Some(answers) = answers else { return send(&CRAFTED_PAUSES).await.map(|()| Seen::Silence) };
        let reset = async {
            let mut packet = vec![0; ANSWER_BYTES_MAX];
            while let Ok(length) = answers.recv(&mut packet).await {
                let from_there = packet::opened(&packet[..length]).filter(|(source, _)| source == to.ip());
                if from_there.is_some_and(|(_, segment)| packet::is_reset(segment, to.port(), port)) {
                    return;
                }
            }
        };
        let ask = async {
            send(&CRAFTED_PAUSES).await?;
            loop {
                send(&CRAFTED_PAUSES[CRAFTED_PAUSES.len() - 1..]).await?;
            }
        };
        let heard = timeout(self.limit, async {
            tokio::select! {
                () = reset => Ok::<_, io::Error>(()),
                failed = ask => failed,
            }
        });
        let heard: Option<()> = heard.await.ok().transpose()?;
        Ok(if heard.is_some() { Seen::Reset } else { Seen::Silence })
    }

    /// The source that the kernel would choose.
    fn own_address(&self, to: SocketAddr) -> io::Result<Ipv4Addr> {
        let address = self.inside(|| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.connect(&SocketAddr::new(to.ip(), 9).into())?;
            socket.local_addr()
        })?;
        address.as_socket_ipv4().map(|own| *own.ip()).ok_or_else(|| ErrorKind::AddrNotAvailable.into())
    }

    async fn proxy(
        &self,
        proxy: SocketAddr,
        by: Manner,
        host: &str,
        port: u16,
        words: &str,
    ) -> io::Result<Seen> {
        // A proxy that is not there proves nothing about what it would do.
        let mut stream = match self.connect(proxy, None).await {
            Ok(stream) => stream,
            Err(error) => return Ok(Seen::Failed(format!("no proxy: {error}"))),
        };
        match by {
            Manner::Connect => {
                let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                let head = self.hear(&mut stream, |said| said.ends_with(b"\r\n\r\n")).await?;
                match status(&head) {
                    Some(200) => self.converse(&mut stream, words).await,
                    Some(status) => Ok(Seen::Refused(format!("HTTP {status}"))),
                    None => Ok(Seen::Silence),
                }
            }
            Manner::Forward => {
                let path = format!("{MARK}{}", self.nonce);
                let request = format!(
                    "GET http://{host}:{port}/{path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await?;
                let said = self.hear(&mut stream, |said| source_in(said, words).is_some()).await?;
                Ok(match (source_in(&said, words), status(&said)) {
                    (Some(source), _) => Seen::Answer(source),
                    (None, Some(200)) => Seen::Bytes(shown(&said)),
                    (None, Some(status)) => Seen::Refused(format!("HTTP {status}")),
                    (None, None) => Seen::Silence,
                })
            }
            Manner::Socks => {
                stream.write_all(&[5, 1, 0]).await?;
                let mut method = [0; 2];
                timeout(self.limit, stream.read_exact(&mut method)).await??;
                stream.write_all(&socks_request(host, port)).await?;
                let mut reply = [0; 10];
                match timeout(self.limit, stream.read_exact(&mut reply)).await? {
                    Ok(_) if reply[1] == 0 => self.converse(&mut stream, words).await,
                    Ok(_) => Ok(Seen::Refused(format!("SOCKS {}", reply[1]))),
                    // It hung up on what it could not read.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        Ok(Seen::Refused("SOCKS, hung up".into()))
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    async fn lookup(&self, server: SocketAddr, name: &str, v6: bool) -> io::Result<Seen> {
        let wrong = |error: hickory_proto::ProtoError| io::Error::new(ErrorKind::InvalidInput, error);
        let kind = if v6 { RecordType::AAAA } else { RecordType::A };
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(name).map_err(wrong)?, kind));
        let query = query.to_vec().map_err(wrong)?;
        let socket = self.inside(|| {
            let socket = Socket::new(Domain::for_address(server), Type::DGRAM, None)?;
            socket.connect(&server.into())?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let socket = UdpSocket::from_std(socket.into())?;
        let mut buffer = [0; ANSWER_BYTES_MAX];
        for _ in 0..DATAGRAMS {
            socket.send(&query).await?;
            let Ok(length) = timeout(self.limit, socket.recv(&mut buffer)).await else { continue };
            let length = match length {
                Ok(length) => length,
                Err(error) => return Ok(Seen::Failed(format!("no name service: {error}"))),
            };
            return Ok(match Message::from_vec(&buffer[..length]) {
                Ok(answer) => names(&answer),
                Err(error) => Seen::Failed(format!("a name service that cannot be read: {error}")),
            });
        }
        // A name service that is not there proves nothing about what it would say.
        Ok(Seen::Failed("no name service answered".into()))
    }

    async fn local(&self, words: &str) -> io::Result<Seen> {
        let stream = self.inside(|| {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(words.as_bytes())?;
            let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        })?;
        let mut stream = UnixStream::from_std(stream)?;
        stream.write_all(format!("{MARK}{}\n", self.nonce).as_bytes()).await?;
        let mut said = vec![0; 1024];
        let length = timeout(self.limit, stream.read(&mut said)).await??;
        Ok(understood(&said[..length], words))
    }

    async fn ask(&self, to: SocketAddr, say: &[u8]) -> io::Result<Seen> {
        let mut stream = self.connect(to, None).await?;
        stream.write_all(say).await?;
        let said = match self.hear(&mut stream, |said| !said.is_empty()).await {
            Ok(said) => said,
            // It took the connection and did not like what it heard.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(if said.is_empty() { Seen::Connected } else { Seen::Bytes(shown(&said)) })
    }

    async fn flood(&self, to: SocketAddr, count: u32, udp: bool, words: &str) -> io::Result<Seen> {
        let mut all = JoinSet::new();
        // All are held until the last has been decided.
        let held = Arc::new(tokio::sync::Barrier::new(count as usize));
        let until = Instant::now() + self.limit * 2;
        for _ in 0..count {
            let (caller, words, held) = (self.clone(), words.to_owned(), held.clone());
            all.spawn(async move {
                if udp {
                    let seen = caller.udp(to, None, None, false, &words).await;
                    return seen.unwrap_or_else(failure);
                }
                let (seen, stream) = match caller.connect(to, None).await {
                    Ok(mut stream) => {
                        let seen = caller.converse(&mut stream, &words).await;
                        (seen.unwrap_or_else(failure), Some(stream))
                    }
                    Err(error) => (failure(error), None),
                };
                let _ = tokio::time::timeout_at(until, held.wait()).await;
                drop(stream);
                seen
            });
        }
        let (mut through, mut reset, mut silent) = (0, 0, 0);
        while let Some(seen) = all.join_next().await {
            match seen.map_err(io::Error::other)? {
                Seen::Answer(_) => through += 1,
                Seen::Reset => reset += 1,
                Seen::Failed(why) => return Ok(Seen::Failed(why)),
                _ => silent += 1,
            }
        }
        Ok(Seen::Many { through, reset, silent })
    }
}

/// What an answer says to somebody who waits for certain words.
fn understood(said: &[u8], words: &str) -> Seen {
    match source_in(said, words) {
        Some(source) => Seen::Answer(source),
        None if said.is_empty() => Seen::Connected,
        None => Seen::Bytes(shown(said)),
    }
}

/// What an error says about a path. What is wrong with the prober itself says nothing about it.
fn failure(error: io::Error) -> Seen {
    match error.kind() {
        ErrorKind::TimedOut => Seen::Silence,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Seen::Reset,
        ErrorKind::UnexpectedEof => Seen::Connected,
        _ => match error.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(errno) if is_no_way(errno) => Seen::NoWay(format!("{errno:?}")),
            _ => Seen::Failed(error.to_string()),
        },
    }
}

fn is_no_way(errno: nix::errno::Errno) -> bool {
    use nix::errno::Errno;
    matches!(
        errno,
        Errno::ENETUNREACH
            | Errno::EHOSTUNREACH
            | Errno::ENETDOWN
            | Errno::EHOSTDOWN
            | Errno::EADDRNOTAVAIL
            | Errno::EAFNOSUPPORT
            | Errno::EINVAL
            | Errno::EACCES
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
    )
}

fn status(head: &[u8]) -> Option<u16> {
    let line = String::from_utf8_lossy(head.get(..head.len().min(64))?).into_owned();
    line.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()
}

fn shown(said: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(said).chars().take(SHOWN).collect();
    text.trim_end().to_owned()
}

/// RFC 1928 §4. A host that is an address goes as one, everything else as a name.
fn socks_request(host: &str, port: u16) -> Vec<u8> {
    let mut request = vec![5, 1, 0];
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(v4) = host.parse::<Ipv4Addr>() {
        request.push(1);
        request.extend(v4.octets());
    } else if let Some(Ok(v6)) = v6.map(str::parse::<Ipv6Addr>) {
        request.push(4);
        request.extend(v6.octets());
    } else {
        let name = &host.as_bytes()[..host.len().min(255)];
        request.push(3);
        request.push(name.len() as u8);
        request.extend(name);
    }
    request.extend(port.to_be_bytes());
    request
}

fn names(answer: &Message) -> Seen {
    let addresses: Vec<IpAddr> = answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(v4) => Some(IpAddr::V4(v4.0)),
            RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
            _ => None,
        })
        .collect();
    match answer.metadata.response_code {
        ResponseCode::NoError => Seen::Names(addresses),
        code if addresses.is_empty() => Seen::Refused(code.to_string()),
        _ => Seen::Names(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_only_with_the_right_words() {
        let here = IpAddr::from([11, 0, 0, 1]);
        let said = super::super::canary::answer("secret", here);
        assert_eq!(understood(said.as_bytes(), "secret"), Seen::Answer(here));
        assert!(matches!(understood(said.as_bytes(), "other"), Seen::Bytes(_)));
        assert_eq!(understood(b"", "secret"), Seen::Connected);
    }

    #[test]
    fn addresses_and_names_are_asked_for_as_such() {
        assert_eq!(socks_request("1.2.3.4", 80), [5, 1, 0, 1, 1, 2, 3, 4, 0, 80]);
        assert_eq!(socks_request("a.b", 1), [5, 1, 0, 3, 3, b'a', b'.', b'b', 0, 1]);
        assert_eq!(socks_request("[::1]", 1)[3], 4);
        assert_eq!(socks_request("127.1", 1)[3], 3);
    }

    #[test]
    fn errors_of_the_path_are_told_from_errors_of_the_prober() {
        let of = |errno: nix::errno::Errno| failure(io::Error::from_raw_os_error(errno as i32));
        assert_eq!(of(nix::errno::Errno::ECONNREFUSED), Seen::Reset);
        assert_eq!(of(nix::errno::Errno::ETIMEDOUT), Seen::Silence);
        assert!(matches!(of(nix::errno::Errno::EHOSTUNREACH), Seen::NoWay(_)));
        assert!(matches!(of(nix::errno::Errno::EMFILE), Seen::Failed(_)));
    }
}
