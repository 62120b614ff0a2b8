//! What travels on the bus, as JSON unless said otherwise.
//!
//! Subjects as each side sees them (the broker writes the account, nobody chooses it):
//!
//! | from | subject there | arrives as | payload → answer |
//! |---|---|---|---|
//! | edge, gateway | `platform.snapshot.head` | `api.<A>.snapshot.head` | [`SnapshotQuery`] → `Reply<SnapshotHead>` |
//! | edge, gateway, agent | `platform.blob.get` | `api.<A>.blob.get` | [`BlobQuery`] → bytes, status in headers |
//! | node | `platform.node.stages` | `api.<A>.node.stages` | [`NodeQuery`] → `Reply<Vec<StageGrant>>` |
//! | agent | `platform.state.get` | `api.<A>.state.get` | [`StateQuery`] → `Reply<Signed>` of [`StageState`] |
//! | agent | `platform.evt.replicas` | `api.<A>.evt.replicas` | [`ReplicaFacts`] → `Reply<()>` |
//! | agent | `fact.replicas` | `fact.<A>.replicas` at edges and gateways | [`ReplicaFacts`], no answer |
//! | platform | `cmd.<A>.state.changed` | `cmd.state.changed` at agents | [`StateChanged`], no answer |
//! | platform | `hint.snapshot` | `hint.snapshot` at edges and gateways | [`SnapshotHint`], no answer |
//! | edge, gateway | `platform.session.feed` | `api.<A>.session.feed` | [`FeedQuery`](crate::feed::FeedQuery) → `Reply<Signed>` of [`Feed`](crate::feed::Feed) |
//! | platform | `hint.sessions` | `hint.sessions` at gateways | [`Signed`] [`Feed`](crate::feed::Feed), no answer |
//! | platform | `ask.cache` | `ask.cache` at every edge | [`CacheQuestion`](crate::cache::CacheQuestion) → one [`CacheAnswer`](crate::cache::CacheAnswer) of each |

use crate::{
    AppId, AppName, CustomerId, CustomerName, Digest, Manifest, Problem, ReplicaId, StageName, ZoneName,
    network::{POSTGRES, POSTGRES_NAME, StageNetwork, callee, internal_name},
    service::{PostgresServer, Services},
    settings::AppSettings,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

/// Bytes of a blob in one message.
pub const BLOB_CHUNK_BYTES: usize = 256 * 1024;

/// An answer: the value, or the problem.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply<T> {
    /// It worked.
    Ok(T),
    /// It did not.
    Problem(Problem),
}

/// Asks for the newest Snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotQuery {
    /// The newest form that the asker reads.
    #[serde(default = "crate::snapshot::first_schema")]
    pub schema: u32,
    /// What the asker already has, if anything: epoch and revision.
    pub have: Option<(u64, u64)>,
    /// Who asks, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Why it did not take the newest, or not all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

impl Default for SnapshotQuery {
    /// Of this version, and knows nothing yet.
    fn default() -> Self {
        Self { schema: crate::snapshot::SCHEMA, have: None, by: String::new(), troubles: Vec::new() }
    }
}

/// Troubles that are told at once.
pub const TROUBLES_MAX: usize = 16;
/// Longest trouble.
pub const TROUBLE_CHARS_MAX: usize = 400;

/// Names the newest Snapshot; its bytes are the blob of this digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// Epoch.
    pub epoch: u64,
    /// Revision.
    pub revision: u64,
    /// Digest of the serialized [`Signed`] Snapshot.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Says that a newer Snapshot exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SnapshotHint {
    /// Epoch.
    pub epoch: u64,
    /// Revision.
    pub revision: u64,
}

/// Asks for a piece of a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlobQuery {
    /// Which content.
    pub digest: Digest,
    /// From which byte.
    pub offset: u64,
}

/// Content and the Ed25519 signature over exactly these bytes.
///
/// The payload is kept as the text that was signed, so that no re-serialization can differ.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signed {
    /// JSON text of the content.
    pub payload: String,
    /// Signature over the bytes of `payload`, base64url without padding.
    pub signature: String,
}

/// A node asks which stages it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeQuery {
    /// Public nkey made on the node; its seed never leaves it.
    pub user_key: String,
}

/// One stage that a node runs, and the credential for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageGrant {
    /// Customer.
    pub customer: CustomerName,
    /// Its id.
    pub customer_id: CustomerId,
    /// Stage.
    pub stage: StageName,
    /// Account of the stage on the bus.
    pub account: String,
    /// User JWT of the node's key in that account. Empty: the Platform cannot give one now, and the node keeps what it has.
    pub user_jwt: String,
}

/// An agent asks what should run in its stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateQuery {
    /// Generation that it has applied, if any.
    pub applied: Option<u64>,
}

/// What should run in one stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageState {
    /// Account that this state is for: a state of another stage is refused.
    pub account: String,
    /// Counts up with each change; agents ignore what is not newer than what they applied.
    pub generation: u64,
    /// Customer.
    pub customer: CustomerName,
    /// Stage.
    pub stage: StageName,
    /// Replicas that should run.
    pub replicas: Vec<DesiredReplica>,
    /// What its apps may reach.
    #[serde(default)]
    pub network: StageNetwork,
    /// Numbers of the apps that others may call; their addresses inside the callers' namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub callees: BTreeMap<AppName, u8>,
    /// The server that holds the databases of its apps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresServer>,
    /// Settings of its apps, in the versions that its replicas have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<AppSettings>,
}

/// What is signed for a while only: whoever kept it cannot pass it for what holds later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lasting<T> {
    /// Seconds since 1970. What came in time may be kept and obeyed for ever.
    pub until_s: u64,
    /// What is said.
    #[serde(flatten)]
    pub said: T,
}

impl StageState {
    /// Gives each replica the settings of its version. Of what does not come along there is none: an agent that
    /// reads a state calls this first.
    pub fn hand_out_settings(&mut self) {
        for replica in &mut self.replicas {
            let version = replica.services.settings_version;
            let of = |one: &&AppSettings| one.app == replica.app && Some(one.version) == version;
            let found = self.settings.iter().find(of);
            replica.services.settings = found.map(|one| one.values.clone()).unwrap_or_default();
        }
    }

    /// The apps that this replica may call, and where it finds each inside its own namespace.
    pub fn callees(&self, replica: &DesiredReplica) -> BTreeMap<AppName, Ipv4Addr> {
        let numbered = |app: &AppName| Some((app.clone(), callee(*self.callees.get(app)?)));
        self.network.callees(&replica.app_name).filter_map(numbered).collect()
    }

    /// What this replica finds inside its own namespace, by name.
    pub fn names(&self, replica: &DesiredReplica) -> BTreeMap<String, Ipv4Addr> {
        let mut names: BTreeMap<_, _> =
            self.callees(replica).into_iter().map(|(app, at)| (internal_name(&app), at)).collect();
        if replica.services.postgres.is_some() {
            names.insert(POSTGRES_NAME.into(), POSTGRES);
        }
        names
    }
}

/// One replica that should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredReplica {
    /// Which one.
    pub id: ReplicaId,
    /// Of which app.
    pub app: AppId,
    /// Its name.
    pub app_name: AppName,
    /// Of which revision.
    pub revision: Digest,
    /// Revision number for people.
    pub revision_number: u32,
    /// In which zone.
    pub zone: ZoneName,
    /// OCI image manifest; its config and layers are blobs too.
    pub image: Digest,
    /// How to run it.
    pub manifest: Manifest,
    /// True when it should finish what it has and stop.
    pub draining: bool,
    /// Public keys of gateways as a JWK set, so that the app can check assertions.
    pub assertion_keys: String,
    /// True when it belongs to the revision that serves: other apps of the stage call only such replicas.
    #[serde(default)]
    pub serving: bool,
    /// What it has besides.
    #[serde(default, skip_serializing_if = "Services::is_empty")]
    pub services: Services,
}

/// What runs in one stage: always the full list, never a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFacts {
    /// Which life of the agent says this (a random number at its start).
    pub boot: u64,
    /// Counts up within a boot.
    pub sequence: u64,
    /// Generation of [`StageState`] that the agent works on.
    pub generation: u64,
    /// The replicas.
    pub replicas: Vec<ReplicaFact>,
}

/// One replica as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFact {
    /// Which one.
    pub id: ReplicaId,
    /// How it is.
    pub state: ReplicaState,
    /// How gateways reach it.
    #[serde(default)]
    pub reach: Option<Reach>,
    /// Why it is not ready, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often it was started again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// How it ended last, if it ever did; stays when it runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<LastEnd>,
    /// What it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

impl ReplicaFact {
    /// A replica in this state, of which nothing more is known.
    pub fn new(id: ReplicaId, state: ReplicaState) -> Self {
        Self { id, state, reach: None, reason: None, restarts: 0, last_end: None, usage: None }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde wants it so
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// How a replica ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// Seconds since 1970.
    pub at_s: u64,
    /// Exit code, signal, out of memory, or what else ended it; for people.
    pub why: String,
}

/// What a replica uses, over the last [`USAGE_WINDOW_S`] seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Thousandths of a processor, on average.
    pub cpu_millis: u32,
    /// Memory at the end of the window.
    pub memory_bytes: u64,
}

/// Seconds over which use is measured.
pub const USAGE_WINDOW_S: u64 = 15;

/// How gateways reach a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// At an address of the node's own network.
    Address(SocketAddr),
    /// By a socket that the node's broker makes inside the replica's namespace.
    Broker,
}

/// How a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaState {
    /// Fetching its image, or started and not yet healthy.
    Starting,
    /// Answers; new requests may go there.
    Ready,
    /// Finishes what it has.
    Draining,
    /// Ended or cannot start; `reason` says why.
    Failed,
}

/// Says that a stage's desired state changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StateChanged {
    /// The new generation.
    pub generation: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Secret, network::Grant, service::PostgresLogin};

    fn state() -> StageState {
        let app = |name: &str| AppName::new(name).unwrap();
        let grant = |from: &str, to: &str| Grant { from: app(from), to: app(to) };
        let grants = vec![grant("shop", "blog"), grant("shop", "mail"), grant("blog", "shop")];
        StageState {
            account: "A".into(),
            generation: 1,
            customer: CustomerName::new("acme").unwrap(),
            stage: StageName::test(),
            replicas: Vec::new(),
            network: StageNetwork { grants, ..StageNetwork::default() },
            callees: BTreeMap::from([(app("blog"), 2), (app("shop"), 7)]),
            postgres: None,
            settings: Vec::new(),
        }
    }

    fn replica(name: &str) -> DesiredReplica {
        let manifest = serde_json::json!({ "app": { "name": name, "kind": "static" } });
        DesiredReplica {
            id: ReplicaId::generate(),
            app: AppId::generate(),
            app_name: AppName::new(name).unwrap(),
            revision: Digest::from_sha256([0; 32]),
            revision_number: 1,
            zone: ZoneName::new("a").unwrap(),
            image: Digest::from_sha256([0; 32]),
            manifest: serde_json::from_value(manifest).unwrap(),
            draining: false,
            assertion_keys: String::new(),
            serving: true,
            services: Services::default(),
        }
    }

    #[test]
    fn a_replica_finds_what_it_may_call_and_its_database() {
        let (state, mut shop) = (state(), replica("shop"));
        let names = |names: &[(&str, [u8; 4])]| {
            names.iter().map(|(name, at)| ((*name).to_owned(), Ipv4Addr::from(*at))).collect()
        };
        // `mail` has no number yet: it is not found, rather than found somewhere else.
        assert_eq!(state.names(&shop), names(&[("blog.internal", [169, 254, 2, 2])]));
        assert_eq!(state.names(&replica("blog")), names(&[("shop.internal", [169, 254, 2, 7])]));
        assert!(state.names(&replica("mail")).is_empty());
        shop.services.postgres = Some(PostgresLogin {
            user: "u".into(),
            database: "d".into(),
            password: Secret::new("p"),
            connections: 1,
            url_variable: "X".into(),
        });
        let both = names(&[("blog.internal", [169, 254, 2, 2]), ("postgres.internal", [169, 254, 2, 1])]);
        assert_eq!(state.names(&shop), both);
    }

    #[test]
    fn each_replica_gets_the_settings_of_its_app_and_version_and_they_travel_once() {
        let (mut state, mut shop, mut blog) = (state(), replica("shop"), replica("blog"));
        let of = |app: AppId, version: u32, value: &str| AppSettings {
            app,
            version,
            values: BTreeMap::from([("KEY".to_owned(), Secret::new(value))]),
        };
        let mut old = DesiredReplica { id: ReplicaId::generate(), ..shop.clone() };
        (shop.services.settings_version, old.services.settings_version) = (Some(2), Some(1));
        blog.services.settings_version = Some(2);
        state.settings = vec![of(shop.app, 1, "one"), of(shop.app, 2, "two")];
        state.replicas = vec![old, shop.clone(), DesiredReplica { id: ReplicaId::generate(), ..shop }, blog];
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(text.matches("\"two\"").count(), 1, "{text}");
        let mut read: StageState = serde_json::from_str(&text).unwrap();
        read.hand_out_settings();
        let told = read.replicas.iter().map(|replica| replica.services.environment());
        let key = |value: &str| vec![("KEY".to_owned(), value.to_owned())];
        assert_eq!(told.collect::<Vec<_>>(), [key("one"), key("two"), key("two"), vec![]]);
        assert!(!format!("{read:?}").contains("\"two\""), "logs hide them");
    }

    #[test]
    fn a_state_of_an_older_platform_is_read() {
        let mut text = serde_json::to_value(state()).unwrap();
        for key in ["callees", "postgres", "network"] {
            text.as_object_mut().unwrap().remove(key);
        }
        let read: StageState = serde_json::from_value(text).unwrap();
        assert!(read.callees.is_empty() && read.postgres.is_none());
    }
}
