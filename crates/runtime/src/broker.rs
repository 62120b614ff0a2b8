//! The socket broker: makes sockets inside namespaces for roles that may not enter them.
//!
//! It is the only way to a replica besides its own relays. Gateways say which replica, never which port;
//! the egress role says who calls, never by which zone. Each has a socket file of its own, in a directory
//! that only this user may enter, and gets nothing of the other's kind.

use crate::{Error, agent::chain, driver::RuntimeDriver};
use bastide_proxy::handover;
use bastide_types::{
    ReplicaId,
    broker::{SocketOrder, SocketReceipt, SocketRefusal},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Orders at once through one door; more are told so.
const ORDERS_MAX: usize = 512;
/// Longest wait for an order, and for its receipt to be taken.
const TALK_LIMIT: Duration = Duration::from_secs(1);
/// Longest wait for a socket: shorter than what gateways and the egress role wait.
const SOCKET_LIMIT: Duration = Duration::from_millis(1500);

/// Who comes in by a socket file, and so what may be ordered there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Gateways: connections to replicas.
    Gateways,
    /// The egress role: sockets behind the callers' gateways.
    Egress,
}

/// What makes the sockets.
pub trait SocketSource: Send + Sync + 'static {
    /// A connection to the port of a replica.
    fn replica(&self, replica: ReplicaId) -> impl Future<Output = io::Result<OwnedFd>> + Send;
    /// A socket, not connected, behind the gateway of a replica's zone.
    fn outside(&self, replica: ReplicaId, v6: bool) -> impl Future<Output = io::Result<OwnedFd>> + Send;
}

impl<D: RuntimeDriver> SocketSource for D {
    async fn replica(&self, replica: ReplicaId) -> io::Result<OwnedFd> {
        self.connect(replica).await?.into_std().map(OwnedFd::from)
    }

    async fn outside(&self, replica: ReplicaId, v6: bool) -> io::Result<OwnedFd> {
        RuntimeDriver::outside(self, replica, v6).await
    }
}

/// Opens a door; its directory must be there, for this user only.
pub fn open(path: &Path) -> Result<UnixListener, Error> {
    handover::listen(path).map_err(Error::file(path))
}

/// Serves a door until `stop`.
pub async fn serve<S: SocketSource>(
    listener: UnixListener,
    door: Door,
    source: Arc<S>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(ORDERS_MAX));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: it does not get better by trying at once.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if !handover::same_user(&stream) {
            tracing::warn!(?door, "another user may not order sockets");
            continue;
        }
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                let source = source.clone();
                tasks.spawn(async move {
                    if let Err(error) = exchange(&stream, door, &*source).await {
                        tracing::debug!(?door, %error, "an order was not carried out");
                    }
                    drop(place);
                });
            }
            // A fresh connection takes a line without waiting.
            Err(_) => drop(timeout(TALK_LIMIT, answer(&stream, Err(SocketRefusal::Busy))).await),
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn exchange<S: SocketSource>(stream: &UnixStream, door: Door, source: &S) -> io::Result<()> {
    let (text, _) = timeout(TALK_LIMIT, handover::receive(stream)).await??;
    let order: SocketOrder = serde_json::from_slice(&text)?;
    let made = timeout(SOCKET_LIMIT, make(&order, door, source)).await;
    let made = made.unwrap_or(Err(SocketRefusal::TimedOut));
    timeout(TALK_LIMIT, answer(stream, made)).await?
}

async fn make<S: SocketSource>(
    order: &SocketOrder,
    door: Door,
    source: &S,
) -> Result<OwnedFd, SocketRefusal> {
    let made = match (door, order) {
        (Door::Gateways, SocketOrder::Replica { replica }) => source.replica(*replica).await,
        (Door::Egress, SocketOrder::Outside { replica, v6 }) => source.outside(*replica, *v6).await,
        _ => {
            tracing::warn!(?door, ?order, "this may not be ordered here");
            return Err(SocketRefusal::NotHere);
        }
    };
    made.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SocketRefusal::Unknown,
        io::ErrorKind::ConnectionRefused => SocketRefusal::NotListening,
        io::ErrorKind::TimedOut => SocketRefusal::TimedOut,
        _ => {
            tracing::warn!(?order, error = chain(&error), "no socket");
            SocketRefusal::Failed
        }
    })
}

async fn answer(stream: &UnixStream, made: Result<OwnedFd, SocketRefusal>) -> io::Result<()> {
    let receipt = SocketReceipt { refusal: made.as_ref().err().copied() };
    let descriptors: Vec<_> = made.iter().map(AsFd::as_fd).collect();
    handover::send(stream, &serde_json::to_vec(&receipt)?, &descriptors).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastide_proxy::Broker;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// One replica; ways out for others never come.
    struct One {
        replica: ReplicaId,
        app: std::net::SocketAddr,
    }

    impl SocketSource for One {
        async fn replica(&self, replica: ReplicaId) -> io::Result<OwnedFd> {
            if replica != self.replica {
                return Err(io::ErrorKind::NotFound.into());
            }
            tokio::net::TcpStream::connect(self.app).await?.into_std().map(OwnedFd::from)
        }

        async fn outside(&self, replica: ReplicaId, _: bool) -> io::Result<OwnedFd> {
            if replica != self.replica {
                std::future::pending::<()>().await;
            }
            std::net::TcpListener::bind("127.0.0.1:0").map(OwnedFd::from)
        }
    }

    struct Scene {
        _dir: tempfile::TempDir,
        gateways: Broker,
        egress: Broker,
        replica: ReplicaId,
        stop: CancellationToken,
        app: Option<tokio::net::TcpListener>,
        tasks: TaskTracker,
    }

    async fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replica = ReplicaId::generate();
        let source = Arc::new(One { replica, app: app.local_addr().unwrap() });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let door = |name: &str, door| {
            let path = dir.path().join(name);
            tasks.spawn(serve(open(&path).unwrap(), door, source.clone(), stop.clone()));
            Broker::at(path)
        };
        let gateways = door("gateways.sock", Door::Gateways);
        let egress = door("egress.sock", Door::Egress);
        Scene { _dir: dir, gateways, egress, replica, stop, app: Some(app), tasks }
    }

    #[tokio::test]
    async fn each_door_gives_its_own_sockets_and_none_of_the_others() {
        let mut scene = scene().await;
        let mut stream = scene.gateways.replica(scene.replica).await.unwrap();
        let (mut app, _) = scene.app.as_ref().unwrap().accept().await.unwrap();
        stream.write_all(b"hi").await.unwrap();
        let mut said = [0; 2];
        app.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hi");
        let outside = |replica| SocketOrder::Outside { replica, v6: false };
        scene.egress.order(&outside(scene.replica)).await.unwrap();
        let kind = |outcome: io::Result<OwnedFd>| outcome.unwrap_err().kind();
        assert_eq!(
            kind(scene.gateways.order(&outside(scene.replica)).await),
            io::ErrorKind::PermissionDenied
        );
        let replica = SocketOrder::Replica { replica: scene.replica };
        assert_eq!(kind(scene.egress.order(&replica).await), io::ErrorKind::PermissionDenied);
        let other = scene.gateways.replica(ReplicaId::generate()).await;
        assert_eq!(other.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(kind(scene.egress.order(&outside(ReplicaId::generate())).await), io::ErrorKind::TimedOut);
        scene.app = None;
        let gone = scene.gateways.replica(scene.replica).await;
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        scene.stop.cancel();
        scene.tasks.close();
        scene.tasks.wait().await;
        assert!(scene.gateways.replica(scene.replica).await.is_err());
    }

    #[tokio::test]
    async fn who_sends_nonsense_or_nothing_gets_nothing_and_holds_up_nobody() {
        let scene = scene().await;
        let path = scene._dir.path().join("gateways.sock");
        let silent = handover::connect(&path).await.unwrap();
        let talker = handover::connect(&path).await.unwrap();
        handover::send(&talker, b"{\"replica\":7}", &[]).await.unwrap();
        assert!(handover::receive(&talker).await.is_err());
        scene.gateways.replica(scene.replica).await.unwrap();
        // Nobody waits for the silent one for ever.
        assert!(handover::receive(&silent).await.is_err());
    }
}
