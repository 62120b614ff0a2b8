//! What the Platform answers on the bus. Who asks is the account that the broker wrote.

use crate::{ApiError, App, deploy, snapshot};
use bastide_bus::{PlatformHandler, account::StageAccount};
use bastide_store::StageRow;
use bastide_types::{
    Code, Digest, Problem,
    feed::FeedQuery,
    message::{NodeQuery, ReplicaFacts, Signed, SnapshotHead, SnapshotQuery, StageGrant, StateQuery},
};
use bytes::Bytes;

/// Life of an agent's credential, in seconds.
const AGENT_LIFE_S: u64 = 24 * 3600;

/// Answers for one replica.
pub struct BusServices(pub App);

impl PlatformHandler for BusServices {
    async fn snapshot_head(&self, query: SnapshotQuery) -> Result<SnapshotHead, Problem> {
        let schema = query.schema;
        self.0.snapshots.hear(query);
        snapshot::newest(&self.0, schema).await.map_err(|error| error.0)
    }

    async fn session_feed(&self, query: FeedQuery) -> Result<Signed, Problem> {
        let part = async {
            let part = self.0.store.session_feed(query.life, query.after).await?;
            Ok(self.0.snapshots.sign(&part)?)
        };
        part.await.map_err(|error: ApiError| error.0)
    }

    async fn blob(&self, account: &str, digest: &Digest, offset: u64, max: usize) -> Option<(Bytes, u64)> {
        let app = &self.0;
        if account == app.bus.authority().accounts.edge {
            let bytes = snapshot::bytes(app, digest).await?;
            let from = usize::try_from(offset).ok()?.min(bytes.len());
            let to = from.saturating_add(max).min(bytes.len());
            return Some((bytes.slice(from..to), bytes.len() as u64));
        }
        let stage = app.store.stage_of_account(account).await.ok()??;
        if !needed(app, &stage, digest).await? {
            return None;
        }
        app.images.read(digest, offset, max).await
    }

    async fn node_stages(&self, query: NodeQuery) -> Result<Vec<StageGrant>, Problem> {
        let app = &self.0;
        let grants = async {
            // A stage without replicas needs no agent, and no connection: it gets them with its first replica.
            let stages = app.store.stages_with_replicas().await?;
            let accounts: Vec<_> = stages.iter().filter(|stage| !is_shut(stage)).map(account).collect();
            app.bus.ensure_accounts(&accounts).await?;
            // Within an hour the same credential is given, so that a node sees no change where there is none.
            let now = u64::try_from(bastide_store::now_s()).unwrap_or_default();
            let hour = now - now % 3600;
            stages
                .iter()
                .map(|stage| grant(stage, &query.user_key, hour))
                .collect::<Result<Vec<_>, ApiError>>()
        };
        grants.await.map_err(|error: ApiError| error.0)
    }

    async fn stage_state(&self, account: &str, _query: StateQuery) -> Result<Signed, Problem> {
        let state = async {
            let stage = self
                .0
                .store
                .stage_of_account(account)
                .await?
                .ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
            let state = deploy::desired::state(&self.0, &stage).await?;
            let now_s = bastide_store::now_s().unsigned_abs();
            Ok(bastide_bus::state::sign(&self.0.deploy_key, state, now_s)?)
        };
        state.await.map_err(|error: ApiError| error.0)
    }

    async fn replicas(&self, account: &str, facts: ReplicaFacts) -> Result<(), Problem> {
        let recorded = async {
            let stage = self
                .0
                .store
                .stage_of_account(account)
                .await?
                .ok_or_else(|| ApiError::new(Code::ApiUnknown))?;
            if self.0.store.customer(stage.customer).record_facts(&stage.name, &facts).await? {
                self.0.wake.notify_one();
            }
            Ok(())
        };
        recorded.await.map_err(|error: ApiError| error.0)
    }
}

/// A stage may read the blobs of images that it should run, and no others.
async fn needed(app: &App, stage: &StageRow, digest: &Digest) -> Option<bool> {
    let revisions = app.store.customer(stage.customer).revisions_in(&stage.name).await.ok()?;
    Some(revisions.values().any(|revision| revision.blobs.contains(digest)))
}

pub(crate) fn account(stage: &StageRow) -> StageAccount {
    StageAccount { account: stage.account.clone(), signing_seed: stage.seed.clone() }
}

/// Whether the seed of a stage cannot be opened: agents keep the credentials that they have.
fn is_shut(stage: &StageRow) -> bool {
    stage.seed.expose().is_empty()
}

fn grant(stage: &StageRow, user_key: &str, now: u64) -> Result<StageGrant, ApiError> {
    let user_jwt = match is_shut(stage) {
        true => String::new(),
        false => account(stage).agent_jwt(user_key, now, AGENT_LIFE_S)?,
    };
    Ok(StageGrant {
        customer: stage.customer_name.clone(),
        customer_id: stage.customer,
        stage: stage.name.clone(),
        account: stage.account.clone(),
        user_jwt,
    })
}
