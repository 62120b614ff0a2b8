//! Accepting connections: permits, TLS, the protocol agreed on, and a drain that ends.

use crate::{Limits, Peer, Service, TlsInfo, h1, h2};
use futures_util::future::BoxFuture;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Does the TLS handshake of one connection.
pub type Accept =
    Arc<dyn Fn(TcpStream) -> BoxFuture<'static, io::Result<TlsStream<TcpStream>>> + Send + Sync>;

/// A socket and how it is served.
pub struct Listener {
    /// The socket.
    pub tcp: std::net::TcpListener,
    /// TLS; clear without it.
    pub tls: Option<Accept>,
    /// Limits.
    pub limits: Limits,
}

/// TLS by one configuration, whatever name the client asks for.
pub fn accept_tls(config: Arc<rustls::ServerConfig>) -> Accept {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    Arc::new(move |stream| {
        let acceptor = acceptor.clone();
        Box::pin(async move { acceptor.accept(stream).await })
    })
}

/// Serves until `stop`, then drains: idle connections close, requests in flight get `limits.drain`.
pub async fn serve<S: Service>(
    listener: Listener,
    service: Arc<S>,
    stop: CancellationToken,
) -> io::Result<()> {
    listener.tcp.set_nonblocking(true)?;
    let tcp = TcpListener::from_std(listener.tcp)?;
    let limits = Arc::new(listener.limits);
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = permits.clone().acquire_owned() => permit.expect("permits are never closed"),
        };
        let (stream, addr) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = tcp.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
        };
        let (tls, service, limits) = (listener.tls.clone(), service.clone(), limits.clone());
        let (stop, cut) = (stop.clone(), cut.clone());
        connections.spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = connection(stream, addr, tls, service, limits, stop) => {}
                () = cut.cancelled() => {}
            }
        });
    }
    drop(tcp);
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
    Ok(())
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

async fn connection<S: Service>(
    stream: TcpStream,
    addr: std::net::SocketAddr,
    tls: Option<Accept>,
    service: Arc<S>,
    limits: Arc<Limits>,
    stop: CancellationToken,
) {
    let Ok(local) = stream.local_addr() else { return };
    // Without it small answers would wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        let peer = Arc::new(Peer { addr, local, tls: None });
        return h1::serve(stream, peer, service, limits, stop).await;
    };
    let stream = match tokio::time::timeout(limits.handshake_timeout, tls(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%addr, %error, "no handshake"),
        Err(_) => return tracing::debug!(%addr, "the handshake took too long"),
    };
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
        h2::serve(stream, peer, service, limits, stop).await;
    } else {
        h1::serve(stream, peer, service, limits, stop).await;
    }
}
