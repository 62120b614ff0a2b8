//! What must not be possible.

use crate::house::*;
use async_nats::ConnectOptions;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bastide_bus::account::StageAccount;
use bastide_bus::{Bus, BusError, facts as bus_facts};
use bastide_types::message::{SnapshotQuery, StateQuery};
use futures_util::StreamExt;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn mint(signer: &KeyPair, mut claims: Value) -> String {
    claims["iss"] = signer.public_key().into();
    let head = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

/// A user that may do everything inside the stage's account: more than any credential we give.
async fn full_rights(house: &House, stage: &StageAccount) -> async_nats::Client {
    let jwt = stage.jwt(&house.material.authority, now_s()).unwrap();
    full_rights_in(house, &stage.account, &jwt).await
}

/// A user that may do everything inside an account, beside those that it has.
pub async fn full_rights_in(house: &House, account: &str, jwt: &str) -> async_nats::Client {
    let operator = KeyPair::from_seed(house.material.authority.signing_seed.expose()).unwrap();
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    let plain = KeyPair::new_account();
    claims["nats"]["signing_keys"].as_array_mut().unwrap().push(plain.public_key().into());
    let sys = raw(house, "platform-sys").await;
    let answer = sys.request("$SYS.REQ.CLAIMS.UPDATE", mint(&operator, claims).into()).await.unwrap();
    assert!(String::from_utf8_lossy(&answer.payload).contains("200"));
    let user = KeyPair::new_user();
    let nats = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
        "issuer_account": account, "type": "user", "version": 2});
    let jwt = mint(&plain, json!({"iat": now_s(), "sub": user.public_key(), "name": "thief", "nats": nats}));
    dial(house, &format!("{jwt}\n{}", user.seed().unwrap())).await
}

/// A plain client with SYS credentials.
async fn raw(house: &House, name: &str) -> async_nats::Client {
    let creds = house.material.issuers.creds(bastide_types::Role::Platform, name, now_s()).unwrap();
    let creds = creds[&format!("{name}.sys.creds")].expose().to_owned();
    let options =
        ConnectOptions::with_credentials(&creds).unwrap().custom_inbox_prefix(format!("_INBOX.{name}"));
    connect(house, options).await
}

async fn dial(house: &House, jwt_and_seed: &str) -> async_nats::Client {
    let (jwt, seed) = jwt_and_seed.split_once('\n').unwrap();
    let (jwt, key) = (jwt.to_owned(), Arc::new(KeyPair::from_seed(seed).unwrap()));
    let sign = move |nonce: Vec<u8>| {
        let key = key.clone();
        async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
    };
    connect(house, ConnectOptions::with_jwt(jwt, sign)).await
}

async fn connect(house: &House, options: ConnectOptions) -> async_nats::Client {
    let options = options.require_tls(true).add_root_certificates(house.path("ca.pem"));
    options.request_timeout(Some(LONG)).connect(format!("tls://127.0.0.1:{}", house.port)).await.unwrap()
}

#[tokio::test]
async fn a_stage_taken_over_hears_nothing_of_others_and_reaches_nothing_of_theirs() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (victim, agent) = house.stage(&platform).await;
    let thief_stage = StageAccount::generate().unwrap();
    platform.bus.ensure_accounts(std::slice::from_ref(&thief_stage)).await.unwrap();
    let thief = full_rights(&house, &thief_stage).await;
    let edge = house.edge("edge").await;
    let mut facts_seen = bus_facts::follow(&edge, house.dir.path(), CancellationToken::new());
    let mut tap = thief.subscribe(">").await.unwrap();
    thief.flush().await.unwrap();

    // Whatever it says on subjects of others and of the broker comes to nobody.
    let (other, own) = (&victim.account, &thief_stage.account);
    let accounts = &house.material.authority.accounts;
    let mut tried = Vec::new();
    for account in [other, &accounts.edge, &accounts.node, &accounts.platform] {
        for subject in
            ["snapshot.head", "session.feed", "blob.get", "node.stages", "state.get", "evt.replicas"]
        {
            tried.push(format!("api.{account}.{subject}"));
        }
        tried.push(format!("cmd.{account}.state.changed"));
        tried.push(format!("fact.{account}.replicas"));
    }
    for subject in [
        "platform.snapshot.head",
        "platform.node.stages",
        "platform.session.feed",
        "hint.snapshot",
        "hint.sessions",
        "cmd.state.changed",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$SYS.REQ.CLAIMS.LIST",
        "$SYS.REQ.SERVER.PING",
        "$JS.API.INFO",
    ] {
        tried.push(subject.to_owned());
    }
    let lie = serde_json::to_vec(&facts(66, 6, 6)).unwrap();
    for subject in &tried {
        thief.publish(subject.clone(), lie.clone().into()).await.unwrap();
    }
    // All of it comes back to the tap of its own account, and a marker after it.
    thief.publish("marker", "".into()).await.unwrap();
    let mut echoed = 0;
    loop {
        let message = tokio::time::timeout(LONG, tap.next()).await.unwrap().unwrap();
        if message.subject.as_str() == "marker" {
            break;
        }
        assert_eq!(message.payload, lie, "{}", message.subject);
        echoed += 1;
    }
    assert!(echoed <= tried.len());

    // Life of the others goes on meanwhile, and the tap hears none of it.
    platform.bus.notify_state(other, 4).await.unwrap();
    platform.bus.hint_snapshot(1, 2).await.unwrap();
    bus_facts::report(&agent, &facts(1, 1, 1), LONG).await.unwrap();
    let victims = |all: &Arc<bus_facts::Facts>| all.contains_key(other.as_str());
    let say = async {
        loop {
            bus_facts::publish(&agent, &facts(1, 2, 2)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! { _ = until(&mut facts_seen, victims) => {}, () = say => {} }
    thief.publish("fact.replicas", serde_json::to_vec(&facts(9, 9, 9)).unwrap().into()).await.unwrap();
    let thiefs = |all: &Arc<bus_facts::Facts>| all.contains_key(own.as_str());
    let all = until(&mut facts_seen, thiefs).await;
    assert_eq!(all.len(), 2, "only the two stages themselves are known: {all:?}");
    assert_eq!(all[other], facts(1, 2, 2), "nobody speaks for another stage");
    thief.flush().await.unwrap();
    let echo = tokio::time::timeout(LONG, tap.next()).await.unwrap().unwrap();
    assert_eq!(echo.subject.as_str(), "fact.replicas");
    let more = tokio::time::timeout(Duration::from_millis(300), tap.next()).await;
    assert!(more.is_err(), "the tap heard {more:?}");

    let heard = fake.facts.lock().unwrap().clone();
    assert_eq!(heard, [(other.clone(), facts(1, 1, 1))], "the platform heard only the victim's own agent");
    assert!(fake.asked.lock().unwrap().is_empty(), "{:?}", fake.asked.lock().unwrap());

    // What it may say arrives, so the silence above is the broker's doing: under its own key only.
    let own_facts = serde_json::to_vec(&facts(5, 5, 5)).unwrap();
    thief.request("platform.evt.replicas", own_facts.into()).await.unwrap();
    assert_eq!(fake.facts.lock().unwrap().last(), Some(&(own.clone(), facts(5, 5, 5))));
}

async fn is_denied(bus: &Bus, subject: &str) {
    let answer = bus.request::<_, ()>(subject, &StateQuery { applied: None }, LONG).await;
    assert!(matches!(answer, Err(BusError::Denied(_))), "{subject}: {answer:?}");
}

#[tokio::test]
async fn each_scope_is_told_at_once_what_it_may_not_say() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (stage, agent) = house.stage(&platform).await;
    let edge = house.edge("edge").await;
    for subject in [
        "platform.snapshot.head",
        "platform.node.stages",
        "$SYS.REQ.CLAIMS.UPDATE",
        "$JS.API.INFO",
        "cmd.x",
        "_INBOX.x.y",
    ] {
        is_denied(&agent, subject).await;
    }
    is_denied(&agent, &format!("fact.{}.replicas", stage.account)).await;
    for subject in [
        "platform.state.get",
        "platform.node.stages",
        "fact.replicas",
        "hint.snapshot",
        "$SYS.REQ.CLAIMS.LIST",
    ] {
        is_denied(&edge, subject).await;
    }
    for subject in ["$SYS.REQ.CLAIMS.UPDATE", "api.x.state.get"] {
        is_denied(platform.bus.bus(), subject).await;
    }
    assert!(agent.counters().violations >= 7);
    assert!(house.log().contains("Publish Violation"), "the broker's log tells the operator");
}

#[tokio::test]
async fn a_new_version_changes_what_accounts_may_do_on_a_broker_that_knew_the_old_one() {
    let mut house = House::silent();
    let fake = Arc::new(Fake::default());
    let edge_account = house.material.authority.accounts.edge.clone();
    let operator = KeyPair::from_seed(house.material.authority.signing_seed.expose()).unwrap();
    let jwt = &house.material.issuers.account_jwts[&edge_account];
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    let mut old: Value = serde_json::from_slice(&claims).unwrap();
    old["iat"] = (now_s() - 100).into();
    old["nats"]["imports"] = json!([]);
    house.material.issuers.account_jwts.insert(edge_account, mint(&operator, old));
    house.start();
    let _platform = house.platform(&fake).await;
    let edge = house.edge("edge").await;
    let asked =
        async || edge.request::<_, ()>("platform.snapshot.head", &SnapshotQuery::default(), LONG).await;
    let answer = asked().await;
    assert!(matches!(answer, Err(BusError::NoResponders(_))), "{answer:?}");
    house.kill();
    let authority = house.material.authority.clone();
    assert!(house.material.issuers.refresh(&authority, now_s()).unwrap());
    house.start();
    let begun = std::time::Instant::now();
    loop {
        let answer = asked().await;
        assert!(begun.elapsed() < LONG, "{answer:?}\n{}", house.log());
        match answer {
            Err(BusError::Problem(_)) => break, // the platform itself: it has no Snapshot yet
            Err(BusError::NoResponders(_) | BusError::Disconnected(_)) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn nobody_answers_is_known_at_once_and_differs_from_being_late() {
    let house = House::new();
    let edge = house.edge("edge").await;
    let query = SnapshotQuery::default();
    let answer = edge.request::<_, ()>("platform.snapshot.head", &query, LONG).await;
    assert!(matches!(answer, Err(BusError::NoResponders(_))), "{answer:?}");
}

#[tokio::test]
async fn a_stolen_stage_key_makes_only_agents_of_that_stage() {
    let house = House::new();
    let fake = Arc::new(Fake::default());
    let platform = house.platform(&fake).await;
    let (stage, _) = house.stage(&platform).await;
    let stolen = KeyPair::from_seed(stage.signing_seed.expose()).unwrap();
    let refused = async |account: &str, permissions: Value| {
        let user = KeyPair::new_user();
        let mut nats = json!({"issuer_account": account, "type": "user", "version": 2});
        nats.as_object_mut().unwrap().append(permissions.clone().as_object_mut().unwrap());
        let jwt = mint(&stolen, json!({"iat": now_s(), "sub": user.public_key(), "name": "x", "nats": nats}));
        let key = Arc::new(user);
        let sign = move |nonce: Vec<u8>| {
            let key = key.clone();
            async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
        };
        ConnectOptions::with_jwt(jwt, sign)
            .require_tls(true)
            .add_root_certificates(house.path("ca.pem"))
            .connect(format!("tls://127.0.0.1:{}", house.port))
            .await
            .is_err()
    };
    let scoped = json!({"pub": {}, "sub": {}});
    assert!(!refused(&stage.account, scoped.clone()).await, "an agent of its own stage");
    let wide =
        json!({"pub": {"allow": [">"]}, "sub": {"allow": [">"]}, "subs": -1, "data": -1, "payload": -1});
    assert!(refused(&stage.account, wide).await, "more than the scope");
    for account in [&house.material.authority.accounts.platform, &house.material.authority.accounts.sys] {
        assert!(refused(account, scoped.clone()).await, "another account");
    }
}
