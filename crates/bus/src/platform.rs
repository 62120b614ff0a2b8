//! The platform's side of the bus: it serves what the data plane and stages pull, and hints.
//!
//! Who asks is the account that the broker wrote into the subject. Which account may call which method
//! is fixed by the account's imports and checked here once more.

use crate::account::StageAccount;
use crate::request::{IN_PROGRESS_MAX, Incoming, Outgoing, decode, serve};
use crate::{Authority, Bus, BusError, Config, blob, claims, jwt, sessions};
use bastide_types::message::{NodeQuery, ReplicaFacts, Signed, SnapshotHead, SnapshotHint};
use bastide_types::message::{SnapshotQuery, StageGrant, StateChanged, StateQuery};
use bastide_types::{Code, Digest, Problem, feed::FeedQuery};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Methods that the platform serves.
const METHODS: usize = 6;
/// Longest wait until what was told is on its way.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);
/// Requests of one stage in progress at one replica, for each method.
const STAGE_SHARE: usize = 64;

/// What the platform answers. The account is written by the broker: authorize by it.
pub trait PlatformHandler: Send + Sync + 'static {
    /// The newest Snapshot (only edges and gateways get here).
    fn snapshot_head(
        &self,
        query: SnapshotQuery,
    ) -> impl Future<Output = Result<SnapshotHead, Problem>> + Send;
    /// The part of the session feed that an edge or gateway asks for, signed.
    fn session_feed(&self, query: FeedQuery) -> impl Future<Output = Result<Signed, Problem>> + Send;
    /// At most `max` bytes of a blob from `offset`, and the blob's whole length; `None` when it does
    /// not exist or `account` may not read it. Give exactly `max` bytes unless the blob ends before.
    fn blob(
        &self,
        account: &str,
        digest: &Digest,
        offset: u64,
        max: usize,
    ) -> impl Future<Output = Option<(Bytes, u64)>> + Send;
    /// Stages of a node (only nodes get here).
    fn node_stages(&self, query: NodeQuery) -> impl Future<Output = Result<Vec<StageGrant>, Problem>> + Send;
    /// Desired state of the stage with this account.
    fn stage_state(
        &self,
        account: &str,
        query: StateQuery,
    ) -> impl Future<Output = Result<Signed, Problem>> + Send;
    /// What the stage with this account says about its replicas.
    fn replicas(
        &self,
        account: &str,
        facts: ReplicaFacts,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
}

/// The two connections of a platform replica: PLATFORM and SYS. Cheap to clone.
#[derive(Clone)]
pub struct PlatformBus {
    bus: Bus,
    sys: Bus,
    authority: Arc<Authority>,
    /// How many of the [`METHODS`] are served.
    serving: Arc<watch::Sender<usize>>,
}

impl PlatformBus {
    /// Starts connecting, as [`Bus::connect`]. `platform` names `<name>.creds`, `sys` `<name>.sys.creds`.
    pub async fn connect(platform: &Config, sys: &Config, authority: Authority) -> Result<Self, BusError> {
        let (bus, sys) = (Bus::connect(platform).await?, Bus::connect(sys).await?);
        Ok(Self { bus, sys, authority: Arc::new(authority), serving: Arc::new(watch::Sender::new(0)) })
    }

    /// Answers until `stop`; replicas of the platform share the work.
    pub async fn serve<H: PlatformHandler>(
        &self,
        handler: Arc<H>,
        stop: CancellationToken,
    ) -> Result<(), BusError> {
        let asker = Askers(self.authority.clone());
        let (bus, stop) = (&self.bus, &stop);
        let share = |account: &str| asker.share(account);
        self.serving.send_replace(0);
        let ready = || self.serving.send_modify(|count| *count += 1);
        tokio::try_join!(
            serve(bus, "api.*.snapshot.head", "snapshot", stop, share, ready, |asked| {
                let (handler, asker) = (handler.clone(), asker.clone());
                async move {
                    answer::<SnapshotQuery, _, _>(
                        asked,
                        |account| asker.is_edge(account),
                        async |_, query| handler.snapshot_head(query).await,
                    )
                    .await
                }
            }),
            serve(bus, "api.*.session.feed", "session", stop, share, ready, |asked| {
                let (handler, asker) = (handler.clone(), asker.clone());
                async move {
                    answer::<FeedQuery, _, _>(
                        asked,
                        |account| asker.is_edge(account),
                        async |_, query| handler.session_feed(query).await,
                    )
                    .await
                }
            }),
            serve(bus, "api.*.blob.get", "blob", stop, share, ready, |asked| {
                let handler = handler.clone();
                async move { blob::answer(&*handler, asked).await }
            }),
            serve(bus, "api.*.node.stages", "node", stop, share, ready, |asked| {
                let (handler, asker) = (handler.clone(), asker.clone());
                async move {
                    answer::<NodeQuery, _, _>(
                        asked,
                        |account| asker.is_node(account),
                        async |_, query| handler.node_stages(query).await,
                    )
                    .await
                }
            }),
            serve(bus, "api.*.state.get", "state", stop, share, ready, |asked| {
                let (handler, asker) = (handler.clone(), asker.clone());
                async move {
                    answer::<StateQuery, _, _>(
                        asked,
                        |account| asker.is_stage(account),
                        async |account, query| handler.stage_state(account, query).await,
                    )
                    .await
                }
            }),
            serve(bus, "api.*.evt.replicas", "evt", stop, share, ready, |asked| {
                let (handler, asker) = (handler.clone(), asker.clone());
                async move {
                    answer::<ReplicaFacts, _, _>(
                        asked,
                        |account| asker.is_stage(account),
                        async |account, facts| handler.replicas(account, facts).await,
                    )
                    .await
                }
            }),
        )
        .map(drop)
    }

    /// Waits until [`Self::serve`], running in another task, serves everything, at most `limit`.
    pub async fn serving(&self, limit: Duration) -> Result<(), BusError> {
        let mut serving = self.serving.subscribe();
        let all = serving.wait_for(|count| *count == METHODS);
        match tokio::time::timeout(limit, all).await {
            Ok(_) => Ok(()), // the sender is ours, so it is not gone
            Err(_) => Err(BusError::TimedOut("the broker".into())),
        }
    }

    /// Pushes the JWTs of accounts that the broker lacks or holds differently; reads each back.
    /// Returns how many were pushed. Idempotent: call it at start and whenever a stage is made. A bad
    /// account does not stop the others; it is the error at the end.
    pub async fn ensure_accounts(&self, accounts: &[StageAccount]) -> Result<usize, BusError> {
        let now_s = crate::request::now_ms() / 1000;
        let (mut pushed, mut first_fault) = (0, None);
        for stage in accounts {
            let mut ensured = self.ensure_account(stage, now_s).await;
            // A broker whose disk lost an account thinks that it has it still, and writes only a JWT that it never saw.
            if let Err(BusError::Claim { .. }) = ensured {
                ensured = self.ensure_account(stage, now_s + 1).await;
            }
            match ensured {
                Ok(changed) => pushed += usize::from(changed),
                // One bad account must not keep the others from the bus; a broker that is away does.
                Err(error @ (BusError::Config(_) | BusError::Claim { .. } | BusError::Malformed(_))) => {
                    tracing::error!(account = stage.account, %error, "a stage has no account on the bus");
                    first_fault.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        first_fault.map_or(Ok(pushed), Err)
    }

    async fn ensure_account(&self, stage: &StageAccount, now_s: u64) -> Result<bool, BusError> {
        let jwt = stage.jwt(&self.authority, now_s)?;
        claims::ensure(&self.sys, &stage.account, &jwt).await
    }

    /// Tells the agents of a stage that its desired state changed. A lost hint only costs time.
    pub async fn notify_state(&self, account: &str, generation: u64) -> Result<(), BusError> {
        if !jwt::is_public_key(account, 'A') {
            return Err(BusError::Config("an account's key is malformed".into()));
        }
        self.bus.publish(&format!("cmd.{account}.state.changed"), &StateChanged { generation }).await
    }

    /// Tells edges and gateways that there is a newer Snapshot. A lost hint only costs time.
    pub async fn hint_snapshot(&self, epoch: u64, revision: u64) -> Result<(), BusError> {
        self.bus.publish("hint.snapshot", &SnapshotHint { epoch, revision }).await
    }

    /// Tells gateways a part of the session feed; returns when it is on its way.
    ///
    /// # Errors
    /// While not connected: then gateways ask for it themselves.
    pub async fn tell_sessions(&self, part: &Signed) -> Result<(), BusError> {
        self.bus.publish(sessions::HINT, part).await?;
        let flushed = tokio::time::timeout(FLUSH_LIMIT, self.bus.client.flush()).await;
        flushed.map_err(|_| BusError::TimedOut(sessions::HINT.into()))?.map_err(|_| BusError::Closed)
    }

    /// The connection to account PLATFORM.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Keys of Bastide's own accounts and of the operator.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Closes both connections.
    pub async fn close(&self) {
        tokio::join!(self.bus.close(), self.sys.close());
    }
}

/// Which account is what.
#[derive(Clone)]
struct Askers(Arc<Authority>);

impl Askers {
    fn is_edge(&self, account: &str) -> bool {
        account == self.0.accounts.edge
    }
    /// Requests of an account that may be in progress at once. All edges share one account.
    fn share(&self, account: &str) -> usize {
        if self.is_stage(account) { STAGE_SHARE } else { IN_PROGRESS_MAX / 2 }
    }
    fn is_node(&self, account: &str) -> bool {
        account == self.0.accounts.node
    }
    fn is_stage(&self, account: &str) -> bool {
        let own = &self.0.accounts;
        ![&own.sys, &own.platform, &own.edge, &own.node].into_iter().any(|known| known == account)
    }
}

/// Reads the query, runs the handler, writes the answer.
async fn answer<Q, A, H>(asked: Incoming, may: impl Fn(&str) -> bool, handle: H) -> Outgoing
where
    Q: DeserializeOwned,
    A: serde::Serialize,
    H: AsyncFnOnce(&str, Q) -> Result<A, Problem>,
{
    if !may(&asked.account) {
        tracing::warn!(account = asked.account, "an account asked for what is not its own");
        return Outgoing::reply::<()>(Err(Code::ApiUnknown.problem()));
    }
    match decode(&asked.payload) {
        Ok(query) => Outgoing::reply(handle(&asked.account, query).await),
        Err(_) => Outgoing::reply::<()>(Err(Code::InputInvalid.because("the message is malformed"))),
    }
}
