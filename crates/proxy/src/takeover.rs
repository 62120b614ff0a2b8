//! A process takes over the listening sockets of another one: no connection is refused, and none is lost that
//! waits in a backlog.
//!
//! Who serves offers its sockets at a socket file ([`offer`]). Who wants to serve instead fetches them ([`fetch`]),
//! gets ready, and says so ([`Takeover::done`]); only then the other one leaves. Until then it serves as if nobody
//! had asked: one that never gets ready costs nothing. Both sides must run as one user.

use crate::{
    handover::{self, DESCRIPTORS_MAX},
    worker::reuse_port_listener,
};
use rustix::fd::{AsFd, BorrowedFd};
use socket2::SockRef;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longest silence of the other side while sockets are handed over. Getting ready may take any time.
const SILENCE: Duration = Duration::from_mins(1);
/// Most sockets that are handed over: one per core, and a few.
const SOCKETS_MAX: usize = 4096;

/// What is said, in this order; sockets travel with `MORE` and `LAST`.
const TAKE: &[u8] = b"take sockets";
const MORE: &[u8] = b"more";
const NEXT: &[u8] = b"next";
const LAST: &[u8] = b"last";
const READY: &[u8] = b"ready";
const LEAVING: &[u8] = b"leaving";

/// Listening sockets, of this process or taken over.
#[derive(Debug, Default)]
pub struct Sockets(Vec<TcpListener>);

impl Sockets {
    /// All sockets that listen at `addr`, at least `count`; made anew when there is none. There may be more: each
    /// holds connections that nobody else will accept.
    ///
    /// # Errors
    /// When the address is taken, or there are no more descriptors.
    pub fn listen(&mut self, addr: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
        let is_here = |socket: &mut TcpListener| socket.local_addr().is_ok_and(|own| own == addr);
        let mut here: Vec<_> = self.0.extract_if(.., is_here).collect();
        if here.is_empty() {
            here.push(reuse_port_listener(addr)?);
            // The first one may have chosen the port.
            let addr = here[0].local_addr()?;
            for _ in 1..count {
                here.push(reuse_port_listener(addr)?);
            }
        }
        // A new socket would get its share of connections before we serve, and lose them if we never do: where there
        // are more workers than sockets, some accept from one.
        for at in 0..count.saturating_sub(here.len()) {
            here.push(here[at].try_clone()?);
        }
        Ok(here)
    }
}

/// Sockets that were fetched, from a process that still serves.
#[derive(Debug)]
pub struct Takeover {
    stream: UnixStream,
    /// Its sockets.
    pub sockets: Sockets,
}

/// Fetches the sockets of the process that offers them at this socket file; none when nobody does.
///
/// # Errors
/// When another user's process listens there, or the process says anything unexpected, or nothing.
pub async fn fetch(door: &Path) -> io::Result<Option<Takeover>> {
    let stream = match handover::connect(door).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if !handover::same_user(&stream) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user listens there"));
    }
    handover::send(&stream, TAKE, &[]).await?;
    let mut sockets = Vec::new();
    loop {
        let (text, descriptors) = timeout(SILENCE, handover::receive(&stream)).await??;
        sockets.extend(descriptors.into_iter().map(TcpListener::from));
        if sockets.len() > SOCKETS_MAX {
            return Err(unexpected("too many sockets"));
        }
        match &text[..] {
            MORE => handover::send(&stream, NEXT, &[]).await?,
            LAST => break,
            _ => return Err(unexpected("not what was agreed")),
        }
    }
    if !sockets.iter().all(listens) {
        return Err(unexpected("not a listening socket"));
    }
    Ok(Some(Takeover { stream, sockets: Sockets(sockets) }))
}

fn listens(socket: &TcpListener) -> bool {
    SockRef::from(socket).is_listener().is_ok_and(|listens| listens) && socket.local_addr().is_ok()
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Takeover {
    /// Says that this process serves. When this returns, the other one accepts nothing any more.
    ///
    /// # Errors
    /// When it is gone: its sockets are ours all the same.
    pub async fn done(self) -> io::Result<()> {
        handover::send(&self.stream, READY, &[]).await?;
        let (text, _) = timeout(SILENCE, handover::receive(&self.stream)).await??;
        if text == LEAVING { Ok(()) } else { Err(unexpected("not what was agreed")) }
    }
}

/// Offers `sockets` to whoever comes to `door`, one after the other, until one of them serves: then cancels `leave`
/// and returns. Also returns at `stop`.
pub async fn offer(
    door: UnixListener,
    sockets: Vec<TcpListener>,
    leave: &CancellationToken,
    stop: &CancellationToken,
) {
    let next = async {
        loop {
            match door.accept().await {
                Ok((stream, _)) if !handover::same_user(&stream) => {
                    tracing::warn!("another user asked for the sockets");
                }
                Ok((stream, _)) => match hand_over(&stream, &sockets).await {
                    Ok(()) => return stream,
                    Err(error) => {
                        tracing::warn!(%error, "a process that wanted to take over did not get ready; serving on");
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot hear who wants to take over");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    };
    let next = tokio::select! {
        next = next => next,
        () = stop.cancelled() => return,
    };
    tracing::info!("another process serves; what goes on here is brought to its end");
    leave.cancel();
    // Nobody finds us any more, and the sockets are the other one's.
    drop((door, sockets));
    if let Err(error) = handover::send(&next, LEAVING, &[]).await {
        tracing::warn!(%error, "the other process does not hear that it is alone");
    }
}

/// Hands copies over and waits until the other side is ready.
async fn hand_over(stream: &UnixStream, sockets: &[TcpListener]) -> io::Result<()> {
    hear(timeout(SILENCE, handover::receive(stream)).await?, TAKE)?;
    let mut rest = sockets;
    while rest.len() > DESCRIPTORS_MAX {
        let (part, after) = rest.split_at(DESCRIPTORS_MAX);
        handover::send(stream, MORE, &descriptors(part)).await?;
        hear(timeout(SILENCE, handover::receive(stream)).await?, NEXT)?;
        rest = after;
    }
    handover::send(stream, LAST, &descriptors(rest)).await?;
    hear(handover::receive(stream).await, READY)
}

fn descriptors(sockets: &[TcpListener]) -> Vec<BorrowedFd<'_>> {
    sockets.iter().map(AsFd::as_fd).collect()
}

fn hear<T>(received: io::Result<(Vec<u8>, T)>, expected: &[u8]) -> io::Result<()> {
    if received?.0 == expected { Ok(()) } else { Err(unexpected("not what was agreed")) }
}
