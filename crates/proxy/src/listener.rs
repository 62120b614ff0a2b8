//! Accepting connections: permits, TLS, the protocol agreed on, and a drain that ends.

use crate::{
    Limits, Peer, Service, TlsInfo,
    crowd::Crowd,
    h1, h2,
    proxy_protocol::{self, Said},
};
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Bytes of an answer that are encrypted ahead of a client that reads slowly.
const TLS_BYTES_MAX: usize = 32 * 1024;
/// A connection over which nothing comes for so long is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// Does the TLS handshake of one connection.
pub type Accept =
    Arc<dyn Fn(TcpStream) -> BoxFuture<'static, io::Result<TlsStream<TcpStream>>> + Send + Sync>;

/// Whether connections of a source are closed before anything is read of them.
pub type Shut = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// A socket and how it is served.
pub struct Listener {
    /// The socket.
    pub tcp: std::net::TcpListener,
    /// TLS; clear without it.
    pub tls: Option<Accept>,
    /// Limits.
    pub limits: Limits,
    /// Peers whose connections begin with a PROXY header ([`proxy_protocol`]).
    pub proxies: Vec<IpNet>,
    /// Who is not served at all; with a PROXY header the one whom it names. Asked once for each connection.
    pub shut: Option<Shut>,
    /// Cancelled when another process has taken the socket over ([`crate::takeover`]): it accepts from then on, and
    /// what goes on here gets `limits.takeover_drain`.
    pub leave: CancellationToken,
}

impl Listener {
    /// A listener to which everybody speaks for themselves.
    pub fn new(tcp: std::net::TcpListener, tls: Option<Accept>, limits: Limits) -> Self {
        Self { tcp, tls, limits, proxies: Vec::new(), shut: None, leave: CancellationToken::new() }
    }
}

/// What all connections of a listener share.
struct Shared<S> {
    tls: Option<Accept>,
    service: Arc<S>,
    limits: Arc<Limits>,
    proxies: Vec<IpNet>,
    shut: Option<Shut>,
    crowd: Arc<Crowd>,
    shaking: Arc<Crowd>,
    ending: Ending,
}

/// How connections learn that there is an end.
#[derive(Clone)]
pub(crate) struct Ending {
    /// Each answer is the last of its connection; a connection between two requests waits for one more, since a client
    /// may be sending it this moment. Cancelled by `stop`, too.
    pub(crate) leave: CancellationToken,
    /// Connections between two requests end.
    pub(crate) stop: CancellationToken,
}

/// TLS by one configuration, whatever name the client asks for.
pub fn accept_tls(config: Arc<rustls::ServerConfig>) -> Accept {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    Arc::new(move |stream| {
        let acceptor = acceptor.clone();
        Box::pin(async move { acceptor.accept(stream).await })
    })
}

/// Serves until `stop`, then drains: idle connections close, requests in flight get `limits.drain`. After
/// `listener.leave` nothing is accepted, and nothing is cut before `stop` or the end of `limits.takeover_drain`.
pub async fn serve<S: Service>(
    listener: Listener,
    service: Arc<S>,
    stop: CancellationToken,
) -> io::Result<()> {
    // Asked at each request: a token of its own has a lock of its own.
    let ending = Ending { leave: CancellationToken::new(), stop: stop.child_token() };
    let (left, stop) = (listener.leave, ending.stop.clone());
    listener.tcp.set_nonblocking(true)?;
    keep_alive(&listener.tcp);
    let tcp = TcpListener::from_std(listener.tcp)?;
    let limits = Arc::new(listener.limits);
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let shared = Arc::new(Shared {
        tls: listener.tls,
        service,
        limits: limits.clone(),
        proxies: listener.proxies,
        shut: listener.shut,
        crowd: Crowd::new(limits.connections_per_client_max),
        shaking: Crowd::new(limits.handshakes_per_client_max),
        ending: ending.clone(),
    });
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            () = left.cancelled() => break,
            permit = permits.clone().acquire_owned() => permit.expect("permits are never closed"),
        };
        let (stream, addr) = tokio::select! {
            () = stop.cancelled() => break,
            () = left.cancelled() => break,
            accepted = tcp.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
        };
        let (shared, cut) = (shared.clone(), cut.clone());
        connections.spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = shared.connection(stream, addr) => {}
                () = cut.cancelled() => {}
            }
        });
    }
    drop(tcp);
    ending.leave.cancel();
    connections.close();
    tokio::select! {
        () = connections.wait() => return Ok(()),
        () = stop.cancelled() => {}
        () = tokio::time::sleep(limits.takeover_drain) => stop.cancel(),
    }
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// Connections inherit it: one whose client is gone without a word ends, whatever it waits for.
fn keep_alive(tcp: &std::net::TcpListener) {
    let socket = SockRef::from(tcp);
    let probes = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 4).with_retries(4);
    if let Err(error) =
        socket.set_tcp_keepalive(&probes).and_then(|()| socket.set_tcp_user_timeout(Some(2 * KEEP_ALIVE)))
    {
        tracing::warn!(%error, "dead connections will not be noticed early");
    }
}

/// Without descriptors or memory, accepting at once again would only spin.
async fn pause_after(error: &io::Error) {
    let of_the_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    );
    if !of_the_connection {
        tracing::warn!(%error, "cannot accept a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl<S: Service> Shared<S> {
    async fn connection(&self, mut stream: TcpStream, addr: SocketAddr) {
        let Ok(local) = stream.local_addr() else { return };
        // Without it small answers would wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        let Some((addr, local)) = self.client(&mut stream, addr, local).await else { return };
        if self.shut.as_ref().is_some_and(|shut| shut(addr.ip())) {
            return tracing::debug!(%addr, "a banned source");
        }
        let Some(_present) = self.crowd.enter(addr.ip()) else {
            return tracing::debug!(%addr, "a client has too many connections");
        };
        let (service, limits, ending) = (self.service.clone(), self.limits.clone(), self.ending.clone());
        let Some(tls) = &self.tls else {
            let peer = Arc::new(Peer { addr, local, tls: None });
            return h1::serve(stream, peer, service, limits, ending).await;
        };
        let Some(shaking) = self.shaking.enter(addr.ip()) else {
            return tracing::debug!(%addr, "a client has too many handshakes");
        };
        let mut stream = match tokio::time::timeout(limits.handshake_timeout, tls(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%addr, %error, "no handshake"),
            Err(_) => return tracing::debug!(%addr, "the handshake took too long"),
        };
        drop(shaking);
        stream.get_mut().1.set_buffer_limit(Some(TLS_BYTES_MAX));
        let session = stream.get_ref().1;
        let info = TlsInfo {
            sni: session.server_name().map(str::to_owned),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            peer_certificates: session
                .peer_certificates()
                .map(|chain| chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
                .unwrap_or_default(),
        };
        let http2 = info.alpn.as_deref() == Some(b"h2");
        let peer = Arc::new(Peer { addr, local, tls: Some(info) });
        if http2 {
            h2::serve(stream, peer, service, limits, ending.leave).await;
        } else {
            h1::serve(stream, peer, service, limits, ending).await;
        }
    }

    /// Who is at the other end, and whom it dialled: as a proxy says that may say so.
    async fn client(
        &self,
        stream: &mut TcpStream,
        addr: SocketAddr,
        local: SocketAddr,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let ip = addr.ip().to_canonical();
        if !self.proxies.iter().any(|net| net.contains(&ip)) {
            return Some((addr, local));
        }
        match tokio::time::timeout(self.limits.head_timeout, proxy_protocol::read(stream)).await {
            Ok(Ok(Said::Local)) => Some((addr, local)),
            Ok(Ok(Said::Client { from, to })) => Some((from, to)),
            Ok(Err(error)) => {
                tracing::warn!(%addr, %error, "a proxy did not say who its client is");
                None
            }
            Err(_) => None,
        }
    }
}
