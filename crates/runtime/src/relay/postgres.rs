//! The way of a connection to the database: what is asked first, for whom, to the server, and the bytes.
//!
//! Which replica calls is known from the listener, so the role and the database are known too; whoever names
//! others is refused here, and again by the server. The app proves its password to the server itself: nothing
//! is added or taken away here.

use super::{
    greeting::Greeting,
    pace::Pace,
    startup::{self, CancelKey, First, PREFIX_BYTES, Refusal, Start},
};
use bastide_proxy::relay::{Counted, PIECE, relay};
use bastide_types::service::{PostgresLogin, PostgresServer};
use rustls_pki_types::ServerName;
use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest wait for the first packet.
const FIRST_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the server, its TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest time until a session is ready; the server's own limit is 60 s.
const READY_LIMIT: Duration = Duration::from_secs(70);
/// Longest wait for the server to act on a cancellation.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for a client to go after it was refused.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);
/// Longest silence of both sides. Pools keep connections for long, and so do we.
const IDLE: Duration = Duration::from_hours(2);
/// Connections besides those of sessions: to be refused with a word, or to cancel.
const SPARE: usize = 16;
const FLOOD_PAUSE: Duration = Duration::from_millis(1);
/// Connections of one replica per second, and at once; more wait. Each costs the server, which all share, a process.
const PACE: (u32, u32) = (50, 100);
/// What the server answers when it has TLS.
const YES: u8 = b'S';
/// What we answer: not on this way, which does not leave the machine.
const NO: u8 = b'N';
/// `SSLRequest`.
const ASK_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Anything that bytes go through.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The server, and how it is reached.
pub(crate) struct Target {
    server: PostgresServer,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// # Errors
    /// In words, when its name or its authorities cannot be used.
    pub(crate) fn new(server: PostgresServer) -> Result<Self, String> {
        let tls = match &server.authorities {
            None => None,
            Some(pem) => {
                let config = bastide_tls::client::trusting(pem).map_err(|error| error.to_string())?;
                let name = ServerName::try_from(server.host.clone()).map_err(|error| error.to_string())?;
                Some((TlsConnector::from(config), name))
            }
        };
        Ok(Self { server, tls })
    }

    pub(crate) fn server(&self) -> &PostgresServer {
        &self.server
    }

    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let mut stream = TcpStream::connect((self.server.host.as_str(), self.server.port)).await?;
        stream.set_nodelay(true)?;
        let Some((connector, name)) = &self.tls else { return Ok(Box::new(stream)) };
        stream.write_all(&ASK_FOR_TLS).await?;
        // Exactly one byte: what a man in the middle puts after it is read as TLS, and fails.
        match stream.read_u8().await? {
            YES => Ok(Box::new(connector.connect(name.clone(), stream).await?)),
            _ => Err(io::Error::other("the server has no TLS")),
        }
    }
}

/// Whether there is a server now; changed by every desired state.
pub(crate) type Current = Arc<Mutex<Option<Arc<Target>>>>;

/// The database of one replica.
pub(crate) struct Database {
    pub(crate) login: PostgresLogin,
    pub(crate) target: Current,
    places: Arc<Semaphore>,
    /// By what the statements of its sessions can be cancelled.
    keys: Mutex<BTreeSet<CancelKey>>,
}

/// How a connection ended that did not become a session, or whose session broke.
enum End {
    /// The client is told.
    Refused(Refusal),
    /// There is nobody to tell.
    Gone(io::Error),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

impl From<tokio::time::error::Elapsed> for End {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Gone(io::ErrorKind::TimedOut.into())
    }
}

/// Serves a listener until `stop`, then cuts what came through it. Connections are tasks of `tasks`.
pub(crate) async fn serve(
    listener: TcpListener,
    database: Arc<Database>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let most = database.login.connections as usize + SPARE;
    let doorway = Arc::new(Semaphore::new(most));
    let pace = Pace::new(PACE.0, PACE.1, Instant::now());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let client = match accepted {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to a database");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        sleep(pace.take(Instant::now())).await;
        let Ok(entered) = doorway.clone().try_acquire_owned() else {
            // The client sees a reset: whoever floods is not worth more.
            let _ = client.set_zero_linger();
            drop(client);
            sleep(FLOOD_PAUSE).await;
            continue;
        };
        let (database, stop) = (database.clone(), stop.clone());
        tasks.spawn(async move {
            let _entered = entered;
            tokio::select! {
                () = database.connection(client) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

impl Database {
    pub(crate) fn new(login: PostgresLogin, target: Current) -> Self {
        let places = Arc::new(Semaphore::new(login.connections as usize));
        Self { login, target, places, keys: Mutex::default() }
    }

    async fn connection(&self, mut client: TcpStream) {
        // Small pieces are not held back. Worth nothing more than speed.
        let _ = client.set_nodelay(true);
        match self.journey(&mut client).await {
            Ok(()) => {}
            Err(End::Refused(refusal)) => {
                tracing::debug!(%refusal, user = self.login.user, "a connection to a database is refused");
                // A client that is gone needs no answer.
                let _ = timeout(GOODBYE_LIMIT, refuse(&mut client, &refusal)).await;
            }
            Err(End::Gone(error)) => {
                tracing::debug!(%error, user = self.login.user, "a connection to a database was cut");
            }
        }
    }

    /// The way of one connection. Read it downwards.
    async fn journey(&self, client: &mut TcpStream) -> Result<(), End> {
        let start = match timeout(FIRST_LIMIT, first(client)).await?? {
            Asked::Cancel(key) => return Ok(timeout(CANCEL_LIMIT, self.cancel(&key)).await??),
            Asked::Start(start) => start.pinned(&self.login.user, &self.login.database)?,
        };
        let _place = self.places.try_acquire().map_err(|_| Refusal::TooMany(self.login.connections))?;
        let mut server = self.reach().await?;
        server.write_all(&start).await?;
        let _key = timeout(READY_LIMIT, self.greet(client, &mut *server)).await??;
        Ok(relay(client, server, &Counted::default(), IDLE).await?)
    }

    async fn reach(&self) -> Result<Box<dyn Stream>, Refusal> {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let target = target.ok_or(Refusal::NoServer)?;
        let outcome = timeout(CONNECT_LIMIT, target.dial()).await;
        outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
            tracing::warn!(%error, host = target.server.host, "the PostgreSQL server is not reached");
            Refusal::Unreachable
        })
    }

    /// Carries bytes both ways until the session is ready, and notes its key for as long as it lasts.
    async fn greet(
        &self,
        client: &mut TcpStream,
        server: &mut dyn Stream,
    ) -> Result<Option<KnownKey<'_>>, End> {
        let mut greeting = Greeting::default();
        let (mut from_client, mut from_server) = (vec![0; PIECE], vec![0; PIECE]);
        let mut out = Vec::new();
        let mut known = None;
        while !greeting.is_ready() {
            tokio::select! {
                read = client.read(&mut from_client) => match read? {
                    0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    read => server.write_all(&from_client[..read]).await?,
                },
                read = server.read(&mut from_server) => {
                    let read = read.unwrap_or_default();
                    if read == 0 {
                        // What it refused for (a wrong password, for one) is with the client already.
                        let told = greeting.is_refused();
                        let gone = io::Error::from(io::ErrorKind::UnexpectedEof);
                        return Err(if told { gone.into() } else { Refusal::Broken.into() });
                    }
                    greeting.feed(&from_server[..read], &mut out).map_err(|error| {
                        tracing::warn!(%error, "what the PostgreSQL server says is not passed on");
                        Refusal::Broken
                    })?;
                    // Before the client can use it.
                    if let (Some(key), None) = (greeting.key(), &known) {
                        known = Some(KnownKey::note(&self.keys, key.clone()));
                    }
                    client.write_all(&out).await?;
                    out.clear();
                }
            }
        }
        Ok(known)
    }

    /// Passes a cancellation on, but only one of this replica's own sessions: keys of others could be guessed.
    async fn cancel(&self, key: &CancelKey) -> io::Result<()> {
        if !self.keys.lock().unwrap_or_else(PoisonError::into_inner).contains(key) {
            tracing::debug!(user = self.login.user, "a cancellation is for no session of this replica");
            return Ok(());
        }
        let Ok(mut server) = self.reach().await else { return Ok(()) };
        server.write_all(&key.to_bytes()).await?;
        // The server closes when it has signalled; until then the client waits, as it would without us.
        let mut rest = [0; 1024];
        while server.read(&mut rest).await? > 0 {}
        Ok(())
    }
}

/// What a connection is for.
enum Asked {
    Start(Start),
    Cancel(CancelKey),
}

/// Reads first packets until one says what the connection is for. Encryption is declined, once of each kind.
async fn first(client: &mut TcpStream) -> Result<Asked, End> {
    let (mut tls, mut gss) = (false, false);
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        client.read_exact(&mut prefix).await?;
        let mut rest = vec![0; startup::length(prefix)?];
        client.read_exact(&mut rest).await?;
        let declined = match startup::read(&rest)? {
            First::Start(start) => return Ok(Asked::Start(start)),
            First::Cancel(key) => return Ok(Asked::Cancel(key)),
            First::Tls => &mut tls,
            First::Gss => &mut gss,
        };
        if std::mem::replace(declined, true) {
            return Err(Refusal::Malformed("it asks for encryption again").into());
        }
        client.write_all(&[NO]).await?;
    }
}

/// Says why, and lets the client go first: a close with unread bytes would take the word away from it.
async fn refuse(client: &mut TcpStream, refusal: &Refusal) -> io::Result<()> {
    client.write_all(&refusal.to_bytes()).await?;
    client.shutdown().await?;
    let mut rest = [0; 1024];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}

/// A key that is known while its session lasts.
struct KnownKey<'k> {
    keys: &'k Mutex<BTreeSet<CancelKey>>,
    key: CancelKey,
}

impl<'k> KnownKey<'k> {
    fn note(keys: &'k Mutex<BTreeSet<CancelKey>>, key: CancelKey) -> Self {
        keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        Self { keys, key }
    }
}

impl Drop for KnownKey<'_> {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
