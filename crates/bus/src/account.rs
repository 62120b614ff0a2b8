//! Accounts on the bus: what each may say, hear and lend to others. This file is the whole list.
//!
//! Every account has one signing key with a *scope*: whoever holds it can make users of that scope and
//! nothing wider. The private keys of the accounts themselves are thrown away at once; only the
//! operator's signing key changes what an account may do. Imports name exact subjects, so that even a
//! user with full rights inside a stage's account reaches only what is listed here.

use crate::jwt::{self, Claim};
use crate::{Accounts, Authority, BusError};
use bastide_types::Secret;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Largest message, in bytes; the same in the broker's configuration.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 1024 * 1024;
/// Largest message of a stage, in bytes. Readers of all stages keep some hundred messages waiting: a
/// stage that floods them must not fill their memory.
pub(crate) const STAGE_PAYLOAD_BYTES_MAX: u64 = 256 * 1024;
/// Connections of one stage.
const STAGE_CONNECTIONS_MAX: u64 = 50;
/// Subscriptions of one stage.
const STAGE_SUBSCRIPTIONS_MAX: u64 = 500;
/// Leaf nodes of one stage. They have the rights of the agent whose credential they show, and only brokers that listen for
/// leaf nodes take any: ours does not.
const STAGE_LEAF_NODES_MAX: u64 = 8;
/// The Platform's question to all edges.
pub(crate) const ASK_CACHE: &str = "ask.cache";
/// How long an answer may be sent after its request, in nanoseconds.
const RESPONSE_TTL_NS: u64 = 30_000_000_000;

/// The account of one customer's stage. The platform keeps both parts in SQL, the seed sealed.
#[derive(Debug, Clone)]
pub struct StageAccount {
    /// Public key of the account: how stages are named on the bus.
    pub account: String,
    /// Seed of the key that signs its agents; it can sign nothing else.
    pub signing_seed: Secret,
}

impl StageAccount {
    /// A new account. Its own private key is thrown away: only the operator changes what it may do.
    pub fn generate() -> Result<Self, BusError> {
        let signing_seed = seed_of(&KeyPair::new_account())?;
        Ok(Self { account: KeyPair::new_account().public_key(), signing_seed })
    }

    /// The account JWT to push to the broker ([`crate::PlatformBus::ensure_accounts`]).
    pub fn jwt(&self, authority: &Authority, now_s: u64) -> Result<String, BusError> {
        if !jwt::is_public_key(&self.account, 'A') {
            return Err(BusError::Config("an account's key is malformed".into()));
        }
        let signer = jwt::key_from_seed(self.signing_seed.expose(), 'A')?.public_key();
        let nats = stage(&self.account, &authority.accounts).claims(&signer);
        let operator = jwt::key_from_seed(authority.signing_seed.expose(), 'O')?;
        let claim = Claim { subject: &self.account, name: "stage", issued_at: now_s, expires_at: None, nats };
        jwt::mint(&operator, claim)
    }

    /// The same for a while, with a second key that signs users of full rights: only to be tried.
    pub(crate) fn jwt_with(
        &self,
        authority: &Authority,
        open: &str,
        now_s: u64,
        until_s: u64,
    ) -> Result<String, BusError> {
        let signer = jwt::key_from_seed(self.signing_seed.expose(), 'A')?.public_key();
        let mut nats = stage(&self.account, &authority.accounts).claims(&signer);
        if let Some(keys) = nats["signing_keys"].as_array_mut() {
            keys.push(open.into());
        }
        let operator = jwt::key_from_seed(authority.signing_seed.expose(), 'O')?;
        let expires_at = Some(until_s);
        jwt::mint(
            &operator,
            Claim { subject: &self.account, name: "check", issued_at: now_s, expires_at, nats },
        )
    }

    /// The credential of a node's agent in this stage: its rights come from the account's scope.
    ///
    /// # Errors
    /// [`BusError::Malformed`] when `user_key` (it comes from the node) is not a user's public key.
    pub fn agent_jwt(&self, user_key: &str, now_s: u64, life_s: u64) -> Result<String, BusError> {
        if !jwt::is_public_key(user_key, 'U') {
            return Err(BusError::Malformed("not the public key of a user".into()));
        }
        let life = Some(now_s.saturating_add(life_s));
        // The name is the key: inboxes are named after it, and nobody else's can be asked for.
        user_jwt(&self.signing_seed, &self.account, user_key, user_key, now_s, life)
    }
}

/// Makes a user of the scope of the key with this seed.
pub(crate) fn user_jwt(
    signing_seed: &Secret,
    account: &str,
    user_key: &str,
    name: &str,
    now_s: u64,
    expires_at: Option<u64>,
) -> Result<String, BusError> {
    let signer = jwt::key_from_seed(signing_seed.expose(), 'A')?;
    // No rights of its own: the broker refuses a user of a scope that states any.
    let nats = json!({"pub": {}, "sub": {}, "issuer_account": account, "type": "user", "version": 2});
    jwt::mint(&signer, Claim { subject: user_key, name, issued_at: now_s, expires_at, nats })
}

/// Makes a user of full rights in an account, by a key of it that has no scope.
pub(crate) fn open_user_jwt(
    open_seed: &Secret,
    account: &str,
    user_key: &str,
    now_s: u64,
    until_s: u64,
) -> Result<String, BusError> {
    let signer = jwt::key_from_seed(open_seed.expose(), 'A')?;
    let nats = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
        "issuer_account": account, "type": "user", "version": 2});
    let expires_at = Some(until_s);
    jwt::mint(&signer, Claim { subject: user_key, name: user_key, issued_at: now_s, expires_at, nats })
}

/// What agents may say and hear, besides their own inbox.
pub(crate) fn stage_scope() -> (&'static [&'static str], &'static [&'static str]) {
    (AGENT_SAYS, AGENT_HEARS)
}

pub(crate) fn seed_of(key: &KeyPair) -> Result<Secret, BusError> {
    key.seed().map(Secret::new).map_err(|_| BusError::Config("a key has no seed".into()))
}

/// Whether something is asked for (and may be answered) or only told.
#[derive(Clone, Copy)]
enum Kind {
    Service,
    Stream,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Stream => "stream",
        }
    }
}

/// What an account lends to others. `per_account`: the second token is the borrower's key, written by
/// the broker.
struct Export {
    kind: Kind,
    subject: &'static str,
    per_account: bool,
    /// Several may answer one request.
    many_answer: bool,
}

/// What an account borrows.
struct Import {
    kind: Kind,
    from: String,
    subject: String,
    local: &'static str,
}

/// What users of the account's signing key may do.
struct Scope {
    role: &'static str,
    publish: &'static [&'static str],
    subscribe: &'static [&'static str],
    answers: bool,
    /// How its users may come.
    connections: &'static [&'static str],
}

/// One account.
pub(crate) struct Definition {
    exports: Vec<Export>,
    imports: Vec<Import>,
    scope: Scope,
    payload_bytes_max: u64,
    connections_max: Option<u64>,
    subscriptions_max: Option<u64>,
    leaf_nodes_max: u64,
}

const CLIENTS: &[&str] = &["STANDARD"];
const CLIENTS_AND_LEAF_NODES: &[&str] = &["STANDARD", "LEAFNODE"];
const INBOX: &str = "_INBOX.{{name()}}.>";
const EDGE_SAYS: &[&str] = &["platform.snapshot.head", "platform.blob.get", "platform.session.feed"];
const EDGE_HEARS: &[&str] = &["hint.snapshot", "hint.sessions", "fact.*.replicas", ASK_CACHE, INBOX];
const AGENT_SAYS: &[&str] =
    &["platform.state.get", "platform.blob.get", "platform.evt.replicas", "fact.replicas"];
const AGENT_HEARS: &[&str] = &["cmd.state.changed", INBOX];

/// Platform services: serve `api`, tell stages and the data plane what changed.
pub(crate) fn platform(edge: &str) -> Definition {
    Definition {
        exports: vec![
            Export { kind: Kind::Service, subject: "api.*.>", per_account: true, many_answer: false },
            Export { kind: Kind::Stream, subject: "cmd.*.>", per_account: true, many_answer: false },
            Export { kind: Kind::Stream, subject: "hint.>", per_account: false, many_answer: false },
        ],
        imports: vec![Import {
            kind: Kind::Service,
            from: edge.into(),
            subject: ASK_CACHE.into(),
            local: ASK_CACHE,
        }],
        scope: Scope {
            role: "platform",
            publish: &["cmd.*.state.changed", "hint.snapshot", "hint.sessions", ASK_CACHE],
            subscribe: &[
                "api.*.snapshot.head",
                "api.*.session.feed",
                "api.*.blob.get",
                "api.*.node.stages",
                "api.*.state.get",
                "api.*.evt.replicas",
                INBOX,
            ],
            answers: true,
            connections: CLIENTS,
        },
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        connections_max: None,
        subscriptions_max: None,
        leaf_nodes_max: 0,
    }
}

/// Edges and gateways: pull Snapshots, hear facts of all stages. Edges say what they store.
pub(crate) fn edge(own: &str, platform: &str) -> Definition {
    Definition {
        exports: vec![
            Export { kind: Kind::Service, subject: "fact.*.>", per_account: true, many_answer: false },
            Export { kind: Kind::Service, subject: ASK_CACHE, per_account: false, many_answer: true },
        ],
        imports: vec![
            api(platform, own, "snapshot.head", "platform.snapshot.head"),
            api(platform, own, "blob.get", "platform.blob.get"),
            api(platform, own, "session.feed", "platform.session.feed"),
            hint(platform, "hint.snapshot"),
            hint(platform, "hint.sessions"),
        ],
        scope: Scope {
            role: "edge",
            publish: EDGE_SAYS,
            subscribe: EDGE_HEARS,
            answers: true,
            connections: CLIENTS,
        },
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        connections_max: None,
        subscriptions_max: None,
        leaf_nodes_max: 0,
    }
}

/// Runtime nodes: learn which stages they run, nothing else.
pub(crate) fn node(own: &str, platform: &str) -> Definition {
    Definition {
        exports: Vec::new(),
        imports: vec![api(platform, own, "node.stages", "platform.node.stages")],
        scope: Scope {
            role: "node",
            publish: &["platform.node.stages"],
            subscribe: &[INBOX],
            answers: false,
            connections: CLIENTS,
        },
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        connections_max: None,
        subscriptions_max: None,
        leaf_nodes_max: 0,
    }
}

/// The control plane's hold on the broker: account JWTs, and nothing else of the system account.
pub(crate) fn sys() -> Definition {
    Definition {
        exports: Vec::new(),
        imports: Vec::new(),
        scope: Scope {
            role: "control",
            publish: &["$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP"],
            subscribe: &[INBOX],
            answers: false,
            connections: CLIENTS,
        },
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        connections_max: None,
        subscriptions_max: None,
        leaf_nodes_max: 0,
    }
}

/// One stage: pull its state and blobs, say how its replicas are.
pub(crate) fn stage(own: &str, accounts: &Accounts) -> Definition {
    let platform = &accounts.platform;
    Definition {
        exports: Vec::new(),
        imports: vec![
            api(platform, own, "state.get", "platform.state.get"),
            api(platform, own, "blob.get", "platform.blob.get"),
            api(platform, own, "evt.replicas", "platform.evt.replicas"),
            Import {
                kind: Kind::Stream,
                from: platform.clone(),
                subject: format!("cmd.{own}.state.changed"),
                local: "cmd.state.changed",
            },
            Import {
                kind: Kind::Service,
                from: accounts.edge.clone(),
                subject: format!("fact.{own}.replicas"),
                local: "fact.replicas",
            },
        ],
        scope: Scope {
            role: "agent",
            publish: AGENT_SAYS,
            subscribe: AGENT_HEARS,
            answers: false,
            connections: CLIENTS_AND_LEAF_NODES,
        },
        payload_bytes_max: STAGE_PAYLOAD_BYTES_MAX,
        connections_max: Some(STAGE_CONNECTIONS_MAX),
        subscriptions_max: Some(STAGE_SUBSCRIPTIONS_MAX),
        leaf_nodes_max: STAGE_LEAF_NODES_MAX,
    }
}

/// Every subject that the system uses in any account, without wildcards: what is tried by whoever proves
/// that a stage reaches nothing of others. `stages` are the keys of the stages' accounts.
///
/// A `*` stands for an account and becomes each of them; a `>` becomes a word that means nothing.
pub fn every_subject(accounts: &Accounts, stages: &[&str]) -> BTreeSet<String> {
    let Accounts { sys: system, platform: services, edge: edges, node: nodes } = accounts;
    let keys = [&[system.as_str(), services, edges, nodes], stages].concat();
    let shared = [sys(), platform(edges), edge(edges, services), node(nodes, services)];
    let all = shared.into_iter().chain(stages.iter().map(|own| stage(own, accounts)));
    all.flat_map(|account| account.subjects())
        .flat_map(|pattern| without_wildcards(&pattern, &keys))
        .collect()
}

fn without_wildcards(pattern: &str, keys: &[&str]) -> Vec<String> {
    let plain = pattern.replace("{{name()}}", "name").replace('>', "word");
    if !plain.contains('*') {
        return vec![plain];
    }
    keys.iter().map(|key| plain.replace('*', key)).collect()
}

fn api(platform: &str, own: &str, method: &str, local: &'static str) -> Import {
    Import { kind: Kind::Service, from: platform.into(), subject: format!("api.{own}.{method}"), local }
}

fn hint(platform: &str, subject: &'static str) -> Import {
    Import { kind: Kind::Stream, from: platform.into(), subject: subject.into(), local: subject }
}

impl Definition {
    /// Whatever is lent, borrowed, said or heard.
    fn subjects(&self) -> Vec<String> {
        let lent = self.exports.iter().map(|export| export.subject.to_owned());
        let borrowed = self.imports.iter().flat_map(|import| [import.subject.clone(), import.local.into()]);
        let scope = self.scope.publish.iter().chain(self.scope.subscribe).map(|&subject| subject.into());
        lent.chain(borrowed).chain(scope).collect()
    }

    /// The broker's part of the account's JWT. `signer` is the public key of the scope.
    pub(crate) fn claims(&self, signer: &str) -> Value {
        let limit = |limit: Option<u64>| limit.map_or(json!(-1), |limit| json!(limit));
        json!({
            "imports": self.imports.iter().map(Import::claims).collect::<Vec<_>>(),
            "exports": self.exports.iter().map(Export::claims).collect::<Vec<_>>(),
            "limits": {
                "subs": limit(self.subscriptions_max),
                "conn": limit(self.connections_max),
                "data": -1,
                "payload": self.payload_bytes_max,
                "imports": self.imports.len(),
                "exports": self.exports.len(),
                "wildcards": true,
                "leaf": self.leaf_nodes_max,
                "mem_storage": 0,
                "disk_storage": 0,
            },
            "signing_keys": [self.scope.claims(signer)],
            "default_permissions": {"pub": {}, "sub": {}},
            "type": "account",
            "version": 2,
        })
    }
}

impl Export {
    fn claims(&self) -> Value {
        let mut claims = json!({"name": self.subject, "subject": self.subject, "type": self.kind.word()});
        if self.per_account {
            claims["account_token_position"] = json!(2);
        }
        if matches!(self.kind, Kind::Service) {
            claims["response_type"] = json!(if self.many_answer { "Stream" } else { "Singleton" });
        }
        claims
    }
}

impl Import {
    fn claims(&self) -> Value {
        json!({
            "name": self.local,
            "subject": self.subject,
            "account": self.from,
            "local_subject": self.local,
            "type": self.kind.word(),
        })
    }
}

impl Scope {
    fn claims(&self, signer: &str) -> Value {
        let mut publish = json!({"allow": self.publish});
        if self.publish.is_empty() {
            publish = json!({"deny": [">"]}); // an empty allow-list would mean everything
        }
        let mut template = json!({
            "pub": publish,
            "sub": {"allow": self.subscribe},
            "subs": -1,
            "data": -1,
            "payload": -1,
            "allowed_connection_types": self.connections,
        });
        if self.answers {
            template["resp"] = json!({"max": 1, "ttl": RESPONSE_TTL_NS});
        }
        json!({"kind": "user_scope", "key": signer, "role": self.role, "template": template})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_borrows_only_subjects_that_carry_its_own_key() {
        let accounts =
            Accounts { sys: "AS".into(), platform: "AP".into(), edge: "AE".into(), node: "AN".into() };
        for import in stage("AOWN", &accounts).imports {
            assert_eq!(import.subject.split('.').nth(1), Some("AOWN"), "{}", import.subject);
            assert!(!import.subject.contains(['*', '>']), "{}", import.subject);
        }
    }

    #[test]
    fn what_a_scope_may_say_is_borrowed_or_served_and_never_everything() {
        let accounts =
            Accounts { sys: "AS".into(), platform: "AP".into(), edge: "AE".into(), node: "AN".into() };
        for account in [edge("AE", "AP"), node("AN", "AP"), stage("AOWN", &accounts)] {
            for subject in account.scope.publish {
                assert!(account.imports.iter().any(|import| import.local == *subject), "{subject}");
            }
        }
        for account in [platform("AE"), sys(), edge("AE", "AP"), node("AN", "AP"), stage("AOWN", &accounts)] {
            let both = account.scope.publish.iter().chain(account.scope.subscribe);
            assert!(both.clone().all(|subject| *subject != ">" && !subject.starts_with("$JS")));
            assert!(!account.scope.publish.is_empty() && !account.scope.subscribe.is_empty());
        }
    }

    #[test]
    fn the_list_of_subjects_holds_each_account_and_no_wildcard() {
        let accounts =
            Accounts { sys: "AS".into(), platform: "AP".into(), edge: "AE".into(), node: "AN".into() };
        let subjects = every_subject(&accounts, &["AONE", "ATWO"]);
        assert!(subjects.iter().all(|subject| !subject.contains(['*', '>', '{'])), "{subjects:?}");
        for subject in [
            "api.AONE.state.get",
            "cmd.ATWO.state.changed",
            "fact.AONE.replicas",
            "platform.blob.get",
            "hint.sessions",
            "$SYS.REQ.CLAIMS.UPDATE",
            "$SYS.REQ.ACCOUNT.ATWO.CLAIMS.LOOKUP",
            "_INBOX.name.word",
        ] {
            assert!(subjects.contains(subject), "{subject}");
        }
    }

    #[test]
    fn a_user_key_that_is_none_gets_no_credential() {
        let stage = StageAccount::generate().unwrap();
        for key in ["", "U", ">", "_INBOX.>", &stage.account] {
            assert!(matches!(stage.agent_jwt(key, 0, 60), Err(BusError::Malformed(_))), "{key}");
        }
        assert!(stage.agent_jwt(&KeyPair::new_user().public_key(), 0, 60).is_ok());
    }
}
