//! Sockets made inside a namespace and used from anywhere: a socket stays in the namespace it was made in.
//!
//! One thread of its own goes into namespaces and comes back; a runtime's thread never does.

use crate::namespace::{self, Traveller};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};

/// Requests that wait; making a socket takes microseconds.
const QUEUE: usize = 1024;
const BACKLOG: i32 = 1024;

type Job = Box<dyn FnOnce(&Traveller) + Send>;

/// Makes sockets inside namespaces. Clones share one thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Sockets {
    jobs: mpsc::Sender<Job>,
}

impl Sockets {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new().name("sockets".into()).spawn(move || {
            let traveller = match Traveller::new() {
                Ok(traveller) => traveller,
                Err(error) => return tracing::error!(%error, "sockets cannot be made"),
            };
            while let Some(job) = queue.blocking_recv() {
                job(&traveller);
            }
        })?;
        Ok(Self { jobs })
    }

    /// A TCP listener, non-blocking.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when there is no such namespace.
    pub async fn listen(&self, namespace: &str, at: SocketAddr) -> io::Result<OwnedFd> {
        self.inside(namespace, move || {
            let socket =
                Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.bind(&at.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket)
        })
        .await
    }

    /// A bound UDP socket, non-blocking.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when there is no such namespace.
    pub async fn udp(&self, namespace: &str, at: SocketAddr) -> io::Result<OwnedFd> {
        self.inside(namespace, move || {
            let socket =
                Socket::new(Domain::for_address(at), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
            socket.bind(&at.into())?;
            Ok(socket)
        })
        .await
    }

    /// A TCP socket that is not connected yet, non-blocking.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when there is no such namespace.
    pub async fn tcp(&self, namespace: &str, v6: bool) -> io::Result<OwnedFd> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        self.inside(namespace, move || Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP)))
            .await
    }

    /// A TCP connection made inside the namespace, from this address to that one.
    ///
    /// # Errors
    /// The kernel's; `TimedOut` after `limit`; `NotFound` when there is no such namespace.
    pub async fn connect(
        &self,
        namespace: &str,
        from: Ipv4Addr,
        to: SocketAddr,
        limit: Duration,
    ) -> io::Result<OwnedFd> {
        let connected = async {
            let begun = self
                .inside(namespace, move || {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
                    // The port is chosen when the destination is known, so many can share one.
                    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
                    socket.bind(&SocketAddr::from((from, 0)).into())?;
                    match socket.connect(&to.into()) {
                        Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => {
                            Err(error)
                        }
                        _ => Ok(socket),
                    }
                })
                .await?;
            let stream = TcpStream::from_std(begun.into())?;
            stream.writable().await?;
            match stream.take_error()? {
                Some(error) => Err(error),
                None => Ok(stream.into_std()?.into()),
            }
        };
        tokio::time::timeout(limit, connected).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    async fn inside(
        &self,
        namespace: &str,
        make: impl FnOnce() -> io::Result<Socket> + Send + 'static,
    ) -> io::Result<OwnedFd> {
        self.within(namespace, || make().map(OwnedFd::from)).await
    }

    /// Runs a short piece of work inside a namespace.
    pub(crate) async fn within<T: Send + 'static>(
        &self,
        namespace: &str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, wait) = oneshot::channel();
        let namespace = namespace.to_owned();
        let job = move |traveller: &Traveller| {
            let made = namespace::open(&namespace)
                .map_err(io::Error::other)
                .and_then(|found| found.ok_or_else(|| io::ErrorKind::NotFound.into()))
                .and_then(|file| {
                    let _inside = traveller.enter(&file)?;
                    work()
                });
            let _ = answer.send(made);
        };
        let gone = |()| io::Error::other("the thread that makes sockets is gone");
        self.jobs.send(Box::new(job)).await.map_err(|_| gone(()))?;
        wait.await.map_err(|_| gone(()))?
    }
}
