//! One edge after the other at the same sockets: the next one fetches them from the one that serves, and is asked for
//! them in its turn.

use crate::Error;
use bastide_proxy::{
    handover,
    takeover::{self, Sockets, Takeover},
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The sockets of this edge, where they come from, and where the next one finds them.
pub(crate) struct Succession {
    /// None: there is no next one.
    door: Option<PathBuf>,
    former: Option<Takeover>,
    sockets: Sockets,
    /// Copies for the next one.
    copies: Vec<TcpListener>,
}

impl Succession {
    /// Fetches the sockets of the edge that serves, if one does.
    ///
    /// # Errors
    /// [`Error::Takeover`] when it does not give them, or the socket file cannot lie where it should.
    pub(crate) async fn begin(door: Option<&Path>) -> Result<Self, Error> {
        let mut succession =
            Self { door: None, former: None, sockets: Sockets::default(), copies: Vec::new() };
        let Some(door) = door else { return Ok(succession) };
        let failed = |source| Error::Takeover { door: door.to_owned(), source };
        if !door.parent().is_some_and(|dir| dir.as_os_str().is_empty() || dir.is_dir()) {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        succession.door = Some(door.to_owned());
        if let Some(mut former) = takeover::fetch(door).await.map_err(failed)? {
            succession.sockets = std::mem::take(&mut former.sockets);
            succession.former = Some(former);
        }
        Ok(succession)
    }

    /// Whether another edge serves until this one is ready.
    pub(crate) fn takes_over(&self) -> bool {
        self.former.is_some()
    }

    /// At least `count` sockets that listen at `addr`.
    ///
    /// # Errors
    /// [`Error::Listen`] when the address is taken.
    pub(crate) fn listen(&mut self, addr: SocketAddr, count: usize) -> Result<Vec<TcpListener>, Error> {
        let sockets = self.sockets.listen(addr, count).map_err(Error::Listen)?;
        if self.door.is_some() {
            for socket in &sockets {
                self.copies.push(socket.try_clone().map_err(Error::Listen)?);
            }
        }
        Ok(sockets)
    }

    /// To be called when this edge serves: the former one leaves, `ready` is called, and then the next one may come;
    /// when it serves, `leave` is cancelled.
    pub(crate) async fn settle(
        self,
        ready: impl FnOnce(),
        leave: &CancellationToken,
        stop: &CancellationToken,
    ) {
        let Self { door, former, sockets, copies } = self;
        // Addresses that are not ours: nobody listens there any more.
        drop(sockets);
        if let Some(former) = former
            && let Err(error) = former.done().await
        {
            tracing::warn!(%error, "the former edge is gone; its sockets are ours");
        }
        let door = door.map(|door| handover::listen(&door));
        ready();
        match door {
            Some(Ok(door)) => takeover::offer(door, copies, leave, stop).await,
            Some(Err(error)) => tracing::error!(%error, "no other edge can take over from this one"),
            None => {}
        }
    }
}

/// Tells when all workers have begun.
#[derive(Default)]
pub(crate) struct Begun {
    workers: AtomicUsize,
    all: Notify,
}

impl Begun {
    /// One of `count` has begun.
    pub(crate) fn one_of(&self, count: usize) {
        if self.workers.fetch_add(1, Ordering::Relaxed) + 1 == count {
            self.all.notify_one();
        }
    }

    /// Waits for all; to be called once.
    pub(crate) async fn all(&self) {
        self.all.notified().await;
    }
}
