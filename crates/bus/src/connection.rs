//! One connection to the broker: who we are on it, how it comes back, and what is counted.
//!
//! Connecting never fails because the broker is absent: it is tried for ever, with jitter between
//! 250 ms and 5 s, and callers wait at most their own deadline. Nothing is queued for later while the
//! connection is down, so no request reaches anybody after its caller gave up.

use crate::{BusError, bootstrap, file, jwt};
use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerError, connection::State};
use bastide_types::Secret;
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// With three unanswered pings a dead peer is noticed after 15 s.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const RECONNECT_MIN: Duration = Duration::from_millis(250);
const RECONNECT_MAX: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that wait for one subscription's reader before the newest are dropped and counted.
const SUBSCRIPTION_CAPACITY: usize = 512;
/// Commands that wait for the connection.
const COMMAND_CAPACITY: usize = 256;
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// How often a waiting caller looks at the connection itself, in case an event was dropped.
const STATE_POLL: Duration = Duration::from_millis(100);

/// How to reach the broker, and as whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address, such as `tls://127.0.0.1:4222`; of a cluster several, with commas between.
    pub url: String,
    /// Certificate of the internal CA, PEM.
    pub ca_file: PathBuf,
    /// Credentials file (JWT and seed). Either this, or `jwt` and `seed_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creds_file: Option<PathBuf>,
    /// User JWT, with `seed_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<String>,
    /// File with the seed that belongs to `jwt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_file: Option<PathBuf>,
    /// Name of this process in the broker's log.
    pub name: String,
}

/// What happened on a connection so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections made.
    pub connects: u64,
    /// Permission violations: any is a fault.
    pub violations: u64,
    /// Times that messages were lost because we were too slow.
    pub slow_consumers: u64,
}

/// A connection. Cheap to clone; ends with [`Bus::close`] or when the last clone and its followers are gone.
#[derive(Clone)]
pub struct Bus {
    pub(crate) client: Client,
    credential: Arc<Credential>,
    watch: Arc<Watch>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Bus {
    /// Starts connecting and returns at once, whether or not the broker is there; it is tried for ever.
    /// The connection and its followers live on the tokio runtime of this call.
    ///
    /// # Errors
    /// [`BusError::Config`] or [`BusError::File`] when address, credential or CA are unusable.
    pub async fn connect(config: &Config) -> Result<Self, BusError> {
        let servers = servers(&config.url)?;
        // Read here to fail at once; the client reads the file again at each connect, so it may change.
        bastide_tls::file::read(&config.ca_file)
            .map_err(|error| BusError::Config(format!("ca_file: {error}")))?;
        let credential = Arc::new(Credential::read(config)?);
        let watch = Arc::new(Watch::new());
        let client = options(config, &credential, &watch)
            .connect(servers)
            .await
            .map_err(|error| BusError::Config(error.to_string()))?;
        Ok(Self { client, credential, watch, tasks: TaskTracker::new(), closing: CancellationToken::new() })
    }

    /// Waits until connected, at most `limit`.
    pub async fn connected(&self, limit: Duration) -> Result<(), BusError> {
        let mut changes = self.watch.connected.subscribe();
        let wait = async {
            while !self.is_connected() {
                if self.closing.is_cancelled() {
                    return Err(BusError::Closed);
                }
                let _ = tokio::time::timeout(STATE_POLL, changes.changed()).await;
            }
            Ok(())
        };
        tokio::time::timeout(limit, wait).await.map_err(|_| BusError::TimedOut("the broker".into()))?
    }

    /// Whether it is connected now.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Changes each time the connection comes or goes.
    pub(crate) fn connection_changes(&self) -> watch::Receiver<u64> {
        self.watch.connected.subscribe()
    }

    /// Changes each time the connection is lost.
    pub(crate) fn losses(&self) -> watch::Receiver<u64> {
        self.watch.lost.subscribe()
    }

    /// Subjects that the broker forbids us, as it says so.
    pub(crate) fn denials(&self) -> broadcast::Receiver<Arc<str>> {
        self.watch.denied.subscribe()
    }

    /// Uses this user JWT from the next connect on. It must be for the same key and name.
    pub fn renew(&self, jwt: String) -> Result<(), BusError> {
        self.credential.renew(jwt)
    }

    /// Name under which the broker knows us.
    pub fn user_name(&self) -> &str {
        &self.credential.name
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters {
            connects: self.watch.connects.load(Relaxed),
            violations: self.watch.violations.load(Relaxed),
            slow_consumers: self.watch.slow_consumers.load(Relaxed),
        }
    }

    /// Runs a follower of this connection; [`Bus::close`] waits for it.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Is cancelled when the connection closes for good.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Ends followers, sends what is queued and closes; at most 10 s.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(CLOSE_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("a follower of the bus did not end in time");
        }
        // A broker that is away takes nothing that is queued.
        if self.is_connected() {
            let drained = async {
                if self.client.drain().await.is_ok() {
                    self.watch.closed.cancelled().await;
                }
            };
            let _ = tokio::time::timeout(CLOSE_LIMIT, drained).await;
        }
    }
}

/// The servers of an address, in any order: whoever connects takes one of them.
pub(crate) fn servers(url: &str) -> Result<Vec<ServerAddr>, BusError> {
    let server = |text: &str| {
        let fault = || BusError::Config(format!("`{text}` is not a tls:// address"));
        if !text.starts_with("tls://") {
            return Err(fault());
        }
        let server: ServerAddr = text.parse().map_err(|_| fault())?;
        if server.host().is_empty() { Err(fault()) } else { Ok(server) }
    };
    url.split(',').map(str::trim).map(server).collect()
}

fn options(config: &Config, credential: &Arc<Credential>, watch: &Arc<Watch>) -> ConnectOptions {
    let credential = credential.clone();
    let inbox = format!("_INBOX.{}", credential.name);
    let events = watch.clone();
    let begun = AtomicBool::new(false);
    ConnectOptions::with_auth_callback(move |nonce| {
        let credential = credential.clone();
        async move { credential.answer(&nonce) }
    })
    .name(&config.name)
    .require_tls(true)
    .add_root_certificates(config.ca_file.clone())
    .custom_inbox_prefix(inbox)
    .ping_interval(PING_INTERVAL)
    .connection_timeout(CONNECT_TIMEOUT)
    .request_timeout(None) // every request carries its own deadline
    .subscription_capacity(SUBSCRIPTION_CAPACITY)
    .client_capacity(COMMAND_CAPACITY)
    .retry_on_initial_connect()
    .ignore_discovered_servers()
    .reconnect_delay_callback(
        move |attempts| {
            if begun.swap(true, Relaxed) { pause(attempts) } else { Duration::ZERO }
        },
    )
    .event_callback(move |event| {
        events.note(&event);
        std::future::ready(())
    })
}

/// A random wait between the floor and a bound that doubles up to the cap.
fn pause(attempts: usize) -> Duration {
    let doublings = attempts.min(8) as u32;
    let bound = RECONNECT_MAX.min(RECONNECT_MIN * 2u32.pow(doublings));
    RECONNECT_MIN + bound.saturating_sub(RECONNECT_MIN).mul_f64(random_fraction())
}

/// A random number from 0 up to 1, to spread what many would otherwise do at once.
pub(crate) fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness everybody waits equally long, which is worse but works.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// Who we are: a key, and a JWT that may be renewed while we run.
struct Credential {
    key: KeyPair,
    jwt: RwLock<String>,
    name: String,
}

impl Credential {
    fn read(config: &Config) -> Result<Self, BusError> {
        const BYTES_MAX: u64 = 64 * 1024;
        let text = |path: &PathBuf| {
            let missing = || BusError::Config(format!("{} does not exist", path.display()));
            let bytes = file::read(path, BYTES_MAX)?.ok_or_else(missing)?;
            String::from_utf8(bytes).map_err(|_| BusError::Config(format!("{} is not text", path.display())))
        };
        let (jwt, seed) = match (&config.creds_file, &config.jwt, &config.seed_file) {
            (Some(creds), None, None) => bootstrap::parse_creds(&text(creds)?)?,
            (None, Some(jwt), Some(seed)) => (jwt.clone(), Secret::new(text(seed)?)),
            _ => return Err(BusError::Config("give `creds_file`, or `jwt` and `seed_file`".into())),
        };
        let key = jwt::key_from_seed(seed.expose(), 'U')?;
        let name = user_name(&jwt, &key.public_key())?;
        Ok(Self { key, jwt: RwLock::new(jwt), name })
    }

    fn renew(&self, jwt: String) -> Result<(), BusError> {
        if user_name(&jwt, &self.key.public_key())? != self.name {
            return Err(BusError::Config("the new user JWT is for another name".into()));
        }
        *self.jwt.write().unwrap_or_else(std::sync::PoisonError::into_inner) = jwt;
        Ok(())
    }

    /// Proves that we hold the key.
    fn answer(&self, nonce: &[u8]) -> Result<async_nats::Auth, async_nats::AuthError> {
        let mut auth = async_nats::Auth::new();
        auth.jwt = Some(self.jwt.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone());
        auth.signature = Some(self.key.sign(nonce).map_err(async_nats::AuthError::new)?);
        Ok(auth)
    }
}

/// The name in a user JWT, which must belong to `key`. Inboxes are named after it.
fn user_name(jwt: &str, key: &str) -> Result<String, BusError> {
    let claims = jwt::claims(jwt)?;
    if claims["sub"].as_str() != Some(key) {
        return Err(BusError::Config("the user JWT belongs to another key".into()));
    }
    let name = claims["name"].as_str().unwrap_or_default();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if name.is_empty() || !plain {
        return Err(BusError::Config("the user JWT states no plain name".into()));
    }
    Ok(name.to_owned())
}

/// What the connection tells about itself.
struct Watch {
    connected: watch::Sender<u64>,
    lost: watch::Sender<u64>,
    closed: CancellationToken,
    denied: broadcast::Sender<Arc<str>>,
    connects: AtomicU64,
    violations: AtomicU64,
    slow_consumers: AtomicU64,
}

impl Watch {
    fn new() -> Self {
        Self {
            connected: watch::Sender::new(0),
            lost: watch::Sender::new(0),
            closed: CancellationToken::new(),
            denied: broadcast::Sender::new(64),
            connects: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            slow_consumers: AtomicU64::new(0),
        }
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connects.fetch_add(1, Relaxed);
                self.connected.send_modify(|count| *count += 1);
            }
            Event::Disconnected => {
                tracing::warn!("the connection to the broker is lost");
                self.lost.send_modify(|count| *count += 1);
                self.connected.send_modify(|count| *count += 1);
            }
            Event::SlowConsumer(_) => {
                self.slow_consumers.fetch_add(1, Relaxed);
                tracing::warn!("messages were dropped: a reader is too slow");
            }
            Event::ServerError(ServerError::Other(text)) => match forbidden_subject(text) {
                Some(subject) => {
                    self.violations.fetch_add(1, Relaxed);
                    tracing::error!(text, "the broker forbids this");
                    // Nobody may be waiting for it.
                    let _ = self.denied.send(subject.into());
                }
                None => tracing::warn!(text, "the broker reports an error"),
            },
            Event::ServerError(error) => tracing::error!(%error, "the broker refuses us"),
            Event::ClientError(error) => tracing::warn!(%error, "the broker is not reached"),
            Event::Closed => self.closed.cancel(),
            Event::LameDuckMode | Event::Draining => tracing::debug!(%event, "broker"),
        }
    }
}

/// The subject in `Permissions Violation for Publish to "<subject>"`.
fn forbidden_subject(text: &str) -> Option<&str> {
    if !text.to_ascii_lowercase().contains("permissions violation") {
        return None;
    }
    text.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lies_between_floor_and_cap() {
        for attempts in [0, 1, 2, 5, 50, usize::MAX] {
            let pause = pause(attempts);
            assert!(pause >= RECONNECT_MIN && pause <= RECONNECT_MAX, "{pause:?}");
        }
    }

    #[test]
    fn an_address_names_one_server_or_several_all_over_tls() {
        let count = |url| servers(url).map(|servers| servers.len()).ok();
        assert_eq!(count("tls://127.0.0.1:4222"), Some(1));
        assert_eq!(count("tls://a.example:4222, tls://b.example:4222,tls://c.example"), Some(3));
        for url in ["", "nats://a", "tls://a,nats://b", "tls://a,,tls://b", "a:4222", "tls://"] {
            assert_eq!(count(url), None, "{url}");
        }
    }

    #[test]
    fn a_violation_names_its_subject() {
        let text = "Permissions Violation for Publish to \"$SYS.REQ.X\"";
        assert_eq!(forbidden_subject(text), Some("$SYS.REQ.X"));
        assert_eq!(forbidden_subject("maximum payload violation"), None);
    }
}
